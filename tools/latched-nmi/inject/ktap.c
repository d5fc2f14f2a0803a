// SPDX-License-Identifier: GPL-2.0
/*
 * Results as KTAP. What stock is declared to lose and lost is an expected failure:
 * "ok N ... # XFAIL", counted apart.
 */
#include <stdlib.h>
#include <string.h>

#include "ktap.h"

struct tally {
	int cases, passed, xfailed, failed, skipped;
	/* Changes that nothing can find. */
	int equivalent;
	/* Changes that the kernel's self-check notices. */
	int self_check;
	/* Passed only when the case was repeated on a fresh guest. */
	int repeated;
	int lost[2], unreached[2], total[2];
};

/*
 * What stock is declared to lose, it must lose in one of the contexts, or this
 * tool sees no losses. Where only one was run, nothing is said. Returns -1 then,
 * else the number of losses.
 */
static int stock_losses(const struct results *all, const struct config *cfg,
			const struct event *ev)
{
	int i, contexts = 0, lost = 0;

	for (i = 0; i < all->nr; i++) {
		const struct result *r = &all->res[i];

		if (r->skip || strcmp(r->entry, "classic") || result_event(r, cfg) != ev)
			continue;
		contexts++;
		lost += r->lost;
	}
	return ev->classic_lossy && contexts > 1 ? lost : -1;
}

static void write_again(const struct result *r, const char *at, const char *indent,
			FILE *out)
{
	char *again = result_again(r, at);

	fprintf(out, "%s# to see it again: %s\n", indent, again);
	free(again);
}

static void write_points(const struct result *r, bool lossy, struct tally *t, FILE *out)
{
	int k;

	fprintf(out, "  KTAP version 1\n  # Subtest: %s/%s/%s\n  1..%d\n",
		r->entry, r->machine, r->name, r->nr);
	for (k = 0; k < r->nr; k++) {
		const struct point *pt = &r->pt[k];

		if (pt->v == V_OK) {
			fprintf(out, "  ok %d %s%s%s\n", k + 1, pt->label,
				pt->detail[0] ? " # " : "", pt->detail);
			t->repeated += !!pt->detail[0];
			t->passed++;
			continue;
		}
		write_again(r, pt->label, "  ", out);
		fprintf(out, "  %s %d %s # %s%s: %s\n", lossy ? "ok" : "not ok", k + 1,
			pt->label, lossy ? "XFAIL " : "", verdict_name[pt->v], pt->detail);
		t->xfailed += lossy;
		t->failed += !lossy;
	}
	t->cases += r->nr;
}

/* A change that nothing can find, by the table, is an expected failure. */
static void write_mutant_result(const struct result *r, bool ok, int n, struct tally *t,
				FILE *out)
{
	const char *what = r->insn ? "mutate" : "mutant";
	bool found = r->first[0] || r->self_check;

	if (!ok)
		write_again(r, NULL, "", out);
	fprintf(out, "%s %d %s/%s/%s # %s%s%s", ok ? "ok" : "not ok", n, what, r->machine,
		r->name, ok && !found ? "XFAIL equivalent: " : "", r->insn ?: "",
		r->insn ? ": " : "");
	if (found)
		fprintf(out, "found: %s%s%s\n", r->self_check ? "self-check" : "",
			r->self_check && r->first[0] ? ", " : "", r->first);
	else if (ok)
		fprintf(out, "%s\n", r->why);
	else if (r->nr)
		fprintf(out, "not found in any of %d cases\n", r->nr);
	else
		fprintf(out, "executed in none of the cases\n");
	t->passed += found;
	t->equivalent += ok && !found;
	t->self_check += r->self_check;
	t->failed += !ok;
}

static void write_result(const struct result *r, const struct config *cfg, int n,
			 struct tally *t, FILE *out)
{
	bool lossy = result_lossy(r, cfg), ok = result_ok(r, cfg);
	bool latched = strcmp(r->entry, "classic");

	if (r->skip) {
		t->skipped++;
		fprintf(out, "ok %d %s/%s/%s # SKIP %s\n", n, r->entry, r->machine,
			r->name, r->skip);
		return;
	}
	if (r->mutant) {
		write_mutant_result(r, ok, n, t, out);
		return;
	}
	write_points(r, lossy, t, out);
	t->total[latched] += r->nr;
	t->lost[latched] += r->lost;
	t->unreached[latched] += r->unreached;
	fprintf(out, "%s %d %s/%s/%s # %d of %d lost", ok ? "ok" : "not ok", n, r->entry,
		r->machine, r->name, r->lost, r->nr);
	if (r->unreached)
		fprintf(out, ", %d not reached", r->unreached);
	fprintf(out, "\n");
}

void ktap_paths(const struct results *all, FILE *out)
{
	int i, k;

	for (i = 0; i < all->nr_path; i++) {
		const struct result_path *p = &all->path[i];

		fprintf(out, "# path %s/%s/%s\n", p->entry, p->machine, p->context);
		for (k = 0; k < p->steps; k++)
			fprintf(out, "# %-8s %s\n", phase_name[p->step[k].phase],
				p->step[k].label);
	}
}

int ktap_write(const struct results *all, const struct config *cfg, FILE *out)
{
	struct tally t = { 0 };
	int i, n = all->nr, bad = 0;

	for (i = 0; i < cfg->nr_event; i++)
		n += stock_losses(all, cfg, &cfg->event[i]) >= 0;
	fprintf(out, "KTAP version 1\n1..%d\n", n);
	for (i = 0; i < all->nr_path; i++)
		fprintf(out, "# path %s/%s/%s: %d instructions in entry text\n",
			all->path[i].entry, all->path[i].machine,
			all->path[i].context, all->path[i].nr);
	for (i = 0; i < all->nr; i++) {
		write_result(&all->res[i], cfg, i + 1, &t, out);
		bad += !result_ok(&all->res[i], cfg);
	}
	for (i = 0, n = all->nr; i < cfg->nr_event; i++) {
		int losses = stock_losses(all, cfg, &cfg->event[i]);

		if (losses < 0)
			continue;
		fprintf(out, "%s %d classic/loses/%s # %d\n", losses ? "ok" : "not ok",
			++n, cfg->event[i].name, losses);
		bad += !losses;
		t.passed += losses > 0;
		t.failed += !losses;
	}
	fprintf(out, "# inject: %d cases; classic: %d of %d lost, %d not reached; latched: %d of %d lost, %d not reached\n",
		t.cases, t.lost[0], t.total[0], t.unreached[0],
		t.lost[1], t.total[1], t.unreached[1]);
	fprintf(out, "# inject: %d passed (%d only when repeated), %d expected failures of classic, %d failed, %d skipped",
		t.passed, t.repeated, t.xfailed, t.failed, t.skipped);
	if (t.equivalent)
		fprintf(out, ", %d changes that nothing can find", t.equivalent);
	if (t.self_check)
		fprintf(out, ", %d changes that the kernel's self-check finds", t.self_check);
	fprintf(out, "\n");
	return bad;
}
