// SPDX-License-Identifier: GPL-2.0
/*
 * Is this machine the one that the injector has? Its results, boundary by
 * boundary, and the text of its guests, instruction by instruction.
 */
#include <capstone/capstone.h>
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
	int boundaries = 0, differ = 0, nr = 0, alone = 0, left_out = 0;
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
		if (!script_can(ev)) {
			printf("%-44s left out: it has an event that is not one here\n", what);
			left_out++;
			continue;
		}
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
	printf("%d cases, %d boundaries, %d with another verdict; %d cases left out\n",
	       nr, boundaries, differ, left_out);
	return differ || !boundaries;
}

/* An instruction of one of two texts, and where the next one is. */
struct side {
	u8 *text;
	u64 begin, size, next;
	cs_insn *insn;
};

/* NOPs, and what pads: the kernel writes a NOP in many ways. */
static bool does_nothing(const struct side *s)
{
	const cs_insn *i = s->insn;
	u64 a;

	if (i->id == X86_INS_NOP || i->id == X86_INS_INT3)
		return true;
	if (i->bytes[0] != 0xeb || i->bytes[1] > 0x7f)
		return false;
	/* A jump over INT3s. */
	for (a = s->next; a < s->next + i->bytes[1]; a++) {
		if (a >= s->begin + s->size || s->text[a - s->begin] != 0xcc)
			return false;
	}
	return true;
}

/* On to the next instruction that does something; false at the end. */
static bool next_insn(csh cs, struct side *s)
{
	const u8 *p;
	size_t left;
	u64 at;

	do {
		at = s->next;
		left = s->begin + s->size - at;
		p = s->text + (at - s->begin);
		if (!left)
			return false;
		if (!cs_disasm_iter(cs, &p, &left, &at, s->insn))
			die("0x%llx: no instruction", (unsigned long long)s->next);
		s->next = at;
	} while (does_nothing(s));
	return true;
}

static void tell(const struct side *s, const char *whose)
{
	char where[160];

	label(s->insn->address, where, sizeof(where));
	printf("    %s: %s %s %s\n", where, whose, s->insn->mnemonic, s->insn->op_str);
}

/*
 * @text is the guest's memory from __entry_text_start on: the same instructions in the
 * same places, NOPs apart.
 */
static int compare_text(const char *vmlinux, const char *features,
			const struct explore_config *cfg, const char *text, const char *machines)
{
	const struct machine_desc *m = find_machine(cfg, machines);
	struct side ours = { 0 }, theirs;
	bool more_ours, more_theirs;
	int differ = 0, same = 0;
	FILE *in = fopen(text, "rb");
	csh cs;

	if (!m)
		die("--text goes with one --machine");
	if (!in)
		die("%s: cannot open", text);
	take_machine(vmlinux, features, m, "classic");
	ours.begin = ours.next = sym_addr(image->sym, "__entry_text_start");
	ours.size = sym_addr(image->sym, "__entry_text_end") - ours.begin;
	ours.text = xalloc(ours.size);
	image_read(image, ours.begin, ours.text, ours.size);
	theirs = ours;
	theirs.text = xalloc(theirs.size);
	if (fread(theirs.text, 1, theirs.size, in) != theirs.size)
		die("%s: has less than %llu bytes", text, (unsigned long long)theirs.size);
	fclose(in);
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &cs) != CS_ERR_OK)
		die("capstone does not start");
	ours.insn = cs_malloc(cs);
	theirs.insn = cs_malloc(cs);

	more_ours = next_insn(cs, &ours);
	more_theirs = next_insn(cs, &theirs);
	while (more_ours || more_theirs) {
		u64 a = more_ours ? ours.insn->address : ~0ULL;
		u64 b = more_theirs ? theirs.insn->address : ~0ULL;
		bool equal = a == b && ours.insn->size == theirs.insn->size &&
			     !memcmp(ours.insn->bytes, theirs.insn->bytes, ours.insn->size);

		same += equal;
		differ += !equal;
		if (!equal && b <= a)
			tell(&theirs, "there");
		if (!equal && a <= b)
			tell(&ours, "here ");
		if (a <= b)
			more_ours = next_insn(cs, &ours);
		if (b <= a)
			more_theirs = next_insn(cs, &theirs);
	}
	printf("%s: %d instructions of entry text are the same, %d differ\n", m->name, same, differ);
	return differ || !same;
}

int compare(const char *vmlinux, const char *features, const struct explore_config *cfg,
	    const char *results, const char *cases, const char *guests, const char *machines,
	    const char *text, bool verbose)
{
	if (text)
		return compare_text(vmlinux, features, cfg, text, machines);
	return compare_results(vmlinux, features, cfg, results, cases, guests, machines, verbose);
}
