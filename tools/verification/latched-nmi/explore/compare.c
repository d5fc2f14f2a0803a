// SPDX-License-Identifier: GPL-2.0
/*
 * Is this machine the one that the injector has? Its results, boundary by
 * boundary, and the text of its guests, byte by byte.
 */
#include <stdlib.h>
#include <string.h>

#include "explore.h"

static const struct context_desc *find_context(const struct explore_config *cfg, const char *name)
{
	int i;

	for (i = 0; i < cfg->nr_context; i++) {
		if (!strcmp(cfg->context[i].name, name))
			return &cfg->context[i];
	}
	return NULL;
}

static const struct machine_desc *find_machine(const struct explore_config *cfg, const char *name)
{
	int i;

	for (i = 0; i < cfg->nr_machine; i++) {
		if (!strcmp(cfg->machine[i].name, name))
			return &cfg->machine[i];
	}
	return NULL;
}

static const struct event *find_event(const struct config *cases, const char *name)
{
	int i;

	for (i = 0; i < cases->nr_event; i++) {
		if (!strcmp(cases->event[i].name, name))
			return &cases->event[i];
	}
	return NULL;
}

static void take_machine(const char *vmlinux, const char *features,
			 const struct machine_desc *m, const char *entry)
{
	struct features *f = features_load(features);
	struct image *im = image_load(vmlinux);

	features_set(f, m->features);
	image_patch(im, f);
	machine_init(im, f, entry);
}

struct verdicts {
	char **label;
	bool *ok;
	int nr, max;
};

static void add_verdict(struct verdicts *v, const char *label, bool ok)
{
	if (v->nr == v->max) {
		v->max = v->max ? 2 * v->max : 1024;
		v->label = xrealloc(v->label, v->max * sizeof(*v->label));
		v->ok = xrealloc(v->ok, v->max * sizeof(*v->ok));
	}
	v->label[v->nr] = xstrdup(label);
	v->ok[v->nr++] = ok;
}

static int find_verdict(const struct verdicts *v, const char *label, int hint)
{
	int i;

	for (i = 0; i < v->nr; i++) {
		int k = (hint + i) % v->nr;

		if (!strcmp(v->label[k], label))
			return k;
	}
	return -1;
}

/* The lines "point" of a case. */
static struct verdicts read_verdicts(FILE *in)
{
	struct verdicts v = { 0 };
	char line[2048], label[1024], verdict[64];
	long at = ftell(in);

	while (fgets(line, sizeof(line), in) &&
	       sscanf(line, "point %1023s %63s", label, verdict) == 2) {
		add_verdict(&v, label, !strcmp(verdict, "ok"));
		at = ftell(in);
	}
	fseek(in, at, SEEK_SET);
	return v;
}

/* The same script here; returns the number of boundaries that differ. */
static int compare_case(const struct config *cases, const struct event *ev,
			const struct context_desc *ctx, const char *entry, const char *what,
			const struct verdicts *theirs, bool verbose, int *alone)
{
	struct sweep_result res;
	struct verdicts ours;
	int i, differ = 0, lost[2] = { 0 }, missing = 0;
	FILE *f = tmpfile();

	if (!f)
		die("no temporary file");
	script_sweep(cases, ev, ctx, 0, entry, f, &res);
	rewind(f);
	ours = read_verdicts(f);
	fclose(f);
	for (i = 0; i < theirs->nr; i++) {
		int k = find_verdict(&ours, theirs->label[i], i);

		lost[0] += !theirs->ok[i];
		if (k < 0) {
			missing++;
			if (verbose)
				printf("    %s: only in the injector's\n", theirs->label[i]);
			continue;
		}
		lost[1] += !ours.ok[k];
		if (ours.ok[k] != theirs->ok[i]) {
			differ++;
			printf("    %s: %s there, %s here\n", theirs->label[i],
			       theirs->ok[i] ? "ok" : "lost", ours.ok[k] ? "ok" : "lost");
		}
	}
	printf("%-44s %6d %6d %6d %6d   %s", what, theirs->nr, lost[0], lost[1], differ,
	       differ ? "DIFFERENT" : "equal");
	if (missing)
		printf(" (%d in C functions that are one step here)", missing);
	printf("\n");
	*alone += missing;
	return differ;
}

static int compare_results(const char *vmlinux, const char *features,
			   const struct explore_config *cfg, const char *results,
			   const char *case_table, const char *guests, const char *machines,
			   bool verbose)
{
	char line[1024], entry[32], machine[64], name[256], last[128] = "", key[128];
	int boundaries = 0, differ = 0, nr = 0, alone = 0;
	FILE *in = fopen(results, "r");
	struct config cases = { 0 };

	if (!in)
		die("%s: cannot open", results);
	if (!case_table || !guests)
		die("--compare goes with --cases and --guests");
	cfg_load(&cases, guests, case_table, NULL);
	printf("%-44s %6s %6s %6s %6s\n", "entry machine context/event", "points", "lost",
	       "here", "differ");
	while (fgets(line, sizeof(line), in)) {
		const struct context_desc *ctx;
		const struct machine_desc *m;
		const struct event *ev;
		struct verdicts v;
		char *slash, what[512];

		if (sscanf(line, "case %31s %63s %255s", entry, machine, name) != 3)
			continue;
		v = read_verdicts(in);
		snprintf(what, sizeof(what), "%s %s %s", entry, machine, name);
		slash = strrchr(name, '/');
		if (!slash)
			continue;
		*slash++ = 0;
		m = find_machine(cfg, machine);
		ctx = find_context(cfg, name);
		ev = find_event(&cases, slash);
		if (!m || !ctx || ctx->until || !ev || !list_has(machines, machine))
			continue;
		snprintf(key, sizeof(key), "%s %s", machine, entry);
		if (strcmp(key, last))
			take_machine(vmlinux, features, m, entry);
		snprintf(last, sizeof(last), "%s", key);
		differ += compare_case(&cases, ev, ctx, entry, what, &v, verbose, &alone);
		boundaries += v.nr - alone;
		alone = 0;
		nr++;
	}
	fclose(in);
	printf("%d cases, %d boundaries, %d with another verdict\n", nr, boundaries, differ);
	return differ || !boundaries;
}

/*
 * @text is the guest's memory from __entry_text_start on. Nothing may differ but
 * what the kernel patches for other reasons than the CPU.
 */
static int compare_text(const char *vmlinux, const char *features,
			const struct explore_config *cfg, const char *text, const char *machines)
{
	const struct machine_desc *m = find_machine(cfg, machines);
	u64 a, begin, end;
	int differ = 0;
	FILE *in = fopen(text, "rb");
	char where[160];
	u8 ours;
	int c;

	if (!m)
		die("--text goes with one --machine");
	if (!in)
		die("%s: cannot open", text);
	take_machine(vmlinux, features, m, "classic");
	begin = sym_addr(image->sym, "__entry_text_start");
	end = sym_addr(image->sym, "__entry_text_end");
	for (a = begin; a < end; a++) {
		c = fgetc(in);
		if (c == EOF)
			die("%s: ends %llu bytes too early", text, (unsigned long long)(end - a));
		image_read(image, a, &ours, 1);
		if (ours == c)
			continue;
		label(a, where, sizeof(where));
		printf("    %s: %02x there, %02x here\n", where, c, ours);
		differ++;
	}
	fclose(in);
	printf("%s: %llu bytes of entry text, %d differ\n", m->name,
	       (unsigned long long)(end - begin), differ);
	return differ != 0;
}

int compare(const char *vmlinux, const char *features, const struct explore_config *cfg,
	    const char *results, const char *cases, const char *guests, const char *machines,
	    const char *text, bool verbose)
{
	if (text)
		return compare_text(vmlinux, features, cfg, text, machines);
	return compare_results(vmlinux, features, cfg, results, cases, guests, machines, verbose);
}
