// SPDX-License-Identifier: GPL-2.0
/*
 * Result lines: written by the workers, read for the report.
 */
#include <stdlib.h>
#include <string.h>

#include "result.h"

void write_kernel(FILE *out, const struct guest *g)
{
	fprintf(out, "kernel %s\n", g->version);
}

void write_path(FILE *out, const struct guest *g, const char *context, int nr)
{
	fprintf(out, "path %s %s %s %d\n", g->entry, g->machine->name, context, nr);
}

void write_step(FILE *out, const char *label, enum phase phase)
{
	fprintf(out, "step %s %s\n", label, phase_name[phase]);
}

void write_case(FILE *out, const struct guest *g, const char *name)
{
	fprintf(out, "case %s %s %s\n", g->entry, g->machine->name, name);
}

void write_point(FILE *out, const char *label, enum verdict v, const char *detail)
{
	fprintf(out, "point %s %s %s\n", label, verdict_name[v], detail);
}

void write_skip(FILE *out, const struct guest *g, const char *name, const char *why)
{
	fprintf(out, "skip %s %s %s %s\n", g->entry, g->machine->name, name, why);
}

void write_mutant(FILE *out, const struct guest *g, const char *name, int cases,
		  const char *first)
{
	fprintf(out, "mutant %s %s %d %s\n", g->machine->name, name, cases, first);
}

void write_change(FILE *out, const struct guest *g, const char *name, int cases,
		  const char *insn, const char *why, bool self_check, const char *first)
{
	fprintf(out, "change %s %s %d\t%s\t%s\t%s\t%s\n", g->machine->name, name, cases,
		insn, why, self_check ? "self-check" : "", first);
}

static enum verdict verdict_of(const char *s)
{
	int v;

	for (v = 0; v < V_NR; v++) {
		if (!strcmp(s, verdict_name[v]))
			return v;
	}
	die("unknown verdict %s", s);
}

static struct result *add_result(struct results *all)
{
	struct result *r;

	all->res = xrealloc(all->res, (all->nr + 1) * sizeof(*all->res));
	r = &all->res[all->nr++];
	memset(r, 0, sizeof(*r));
	return r;
}

static char *rest(char **save)
{
	return xstrdup(strtok_r(NULL, "", save));
}

static char *word(char **save)
{
	return xstrdup(strtok_r(NULL, " ", save));
}

static int number(char **save)
{
	const char *s = strtok_r(NULL, " ", save);

	return s ? atoi(s) : 0;
}

static void read_point(struct result *r, char **save)
{
	struct point *pt;

	if (r->nr == r->max) {
		r->max = r->max ? 2 * r->max : 128;
		r->pt = xrealloc(r->pt, r->max * sizeof(*r->pt));
	}
	pt = &r->pt[r->nr++];
	pt->label = word(save);
	pt->v = verdict_of(strtok_r(NULL, " ", save) ?: "");
	pt->detail = rest(save);
	r->unreached += pt->v == V_UNREACHED;
	r->lost += pt->v != V_OK && pt->v != V_UNREACHED;
}

static void read_path(struct results *all, char **save)
{
	struct result_path *p;

	all->path = xrealloc(all->path, (all->nr_path + 1) * sizeof(*all->path));
	p = &all->path[all->nr_path++];
	p->entry = word(save);
	p->machine = word(save);
	p->context = word(save);
	p->nr = number(save);
	p->step = xalloc((p->nr + 1) * sizeof(*p->step));
	p->steps = 0;
}

static void read_step(struct results *all, char **save)
{
	struct result_path *p = all->nr_path ? &all->path[all->nr_path - 1] : NULL;
	const char *name;
	int phase;

	if (!p || p->steps == p->nr)
		die("a step that belongs to no path");
	p->step[p->steps].label = word(save);
	name = strtok_r(NULL, " ", save) ?: "";
	for (phase = 0; phase < NR_PHASE && strcmp(phase_name[phase], name); phase++)
		;
	if (phase == NR_PHASE)
		die("unknown phase %s", name);
	p->step[p->steps++].phase = phase;
}

static void read_mutant(struct results *all, char **save)
{
	struct result *r = add_result(all);

	r->mutant = true;
	r->entry = xstrdup("latched");
	r->machine = word(save);
	r->name = word(save);
	r->nr = number(save);
	r->first = rest(save);
}

/* Any of the four texts behind the number may be empty: tabs separate them. */
static void read_change(struct results *all, char *save)
{
	struct result *r = add_result(all);
	char *text = strchr(save, '\t');

	if (!text)
		die("a change without its instruction");
	*text++ = 0;
	r->mutant = true;
	r->entry = xstrdup("latched");
	r->machine = word(&save);
	r->name = word(&save);
	r->nr = number(&save);
	r->insn = xstrdup(strsep(&text, "\t"));
	r->why = xstrdup(strsep(&text, "\t"));
	r->self_check = *strsep(&text, "\t");
	r->first = xstrdup(text);
}

void results_read(struct results *all, FILE *in)
{
	struct result *r = NULL;
	char line[2048], *kind, *save;

	/* A worker that was stopped may have left half a line. */
	while (fgets(line, sizeof(line), in) && strchr(line, '\n')) {
		line[strcspn(line, "\n")] = 0;
		kind = strtok_r(line, " ", &save);
		if (!kind)
			continue;
		if (!strcmp(kind, "case")) {
			r = add_result(all);
			r->entry = word(&save);
			r->machine = word(&save);
			r->name = rest(&save);
		} else if (!strcmp(kind, "point") && r) {
			read_point(r, &save);
		} else if (!strcmp(kind, "skip")) {
			r = add_result(all);
			r->entry = word(&save);
			r->machine = word(&save);
			r->name = word(&save);
			r->skip = rest(&save);
		} else if (!strcmp(kind, "mutant")) {
			read_mutant(all, &save);
		} else if (!strcmp(kind, "change")) {
			read_change(all, save);
		} else if (!strcmp(kind, "path")) {
			read_path(all, &save);
		} else if (!strcmp(kind, "step")) {
			read_step(all, &save);
		} else if (!strcmp(kind, "kernel")) {
			all->kernel = rest(&save);
		} else {
			die("no result line: %s", kind);
		}
	}
}

static struct result *find_change(const struct results *all, const char *name,
				  const char *insn)
{
	int i;

	for (i = 0; all && i < all->nr; i++) {
		struct result *r = &all->res[i];

		if (r->insn && !strcmp(r->name, name) && !strcmp(r->insn, insn))
			return r;
	}
	return NULL;
}

const struct result *results_change(const struct results *all, const char *name,
				    const char *insn)
{
	return find_change(all, name, insn);
}

void results_merge(struct results *all, const struct results *more)
{
	int i;

	for (i = 0; i < more->nr; i++) {
		const struct result *r = &more->res[i];
		struct result *old = r->insn ? find_change(all, r->name, r->insn) : NULL;

		*(old ?: add_result(all)) = *r;
	}
}

const struct event *result_event(const struct result *r, const struct config *cfg)
{
	const char *base = strrchr(r->name, '/');

	return base && !r->mutant ? cfg_event(cfg, base + 1) : NULL;
}

bool result_lossy(const struct result *r, const struct config *cfg)
{
	const struct event *ev = result_event(r, cfg);

	return !strcmp(r->entry, "classic") && ev && ev->classic_lossy;
}

bool result_ok(const struct result *r, const struct config *cfg)
{
	if (r->skip)
		return true;
	if (r->mutant)
		return r->first[0] || r->self_check || (r->why && r->why[0]);
	/*
	 * What stock is declared to lose, it may lose at any boundary, and be lost
	 * itself on the way to another.
	 */
	if (result_lossy(r, cfg))
		return r->nr;
	return r->nr && !r->lost && !r->unreached;
}

char *result_again(const struct result *r, const char *at)
{
	const char *inject = getenv("AGAIN_INJECT") ?: "make inject";
	const char *mutate = getenv("AGAIN_MUTATE") ?: "make mutate";

	if (r->mutant)
		return xasprintf("%s MUTANT=%s MACHINE=%s", r->insn ? mutate : inject, r->name,
				 r->machine);
	return xasprintf("%s CASE=%s%s%s MACHINE=%s ENTRY=%s", inject, r->name,
			 at ? " AT=" : "", at ?: "", r->machine, r->entry);
}
