// SPDX-License-Identifier: GPL-2.0
/*
 * Sweeps: a case at each boundary that an event asks for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "path.h"
#include "progress.h"
#include "result.h"
#include "sweep.h"

struct outcome {
	char *label;
	struct spot spot[MAX_SWEEPS];
	enum verdict v;
	char detail[400];
};

struct sweep {
	const struct event *ev;
	const char *at;
	struct outcome *out;
	int nr, max;
	bool confirm;
	/* End at the first failure: enough for a mutant. */
	bool first;
	bool done;
	/* Note what the cases are, and run none. */
	bool plan;
};

static struct outcome *new_outcome(struct sweep *sw, const char *label,
				   const struct spot *spot)
{
	struct outcome *o;

	if (sw->nr == sw->max) {
		sw->max = sw->max ? 2 * sw->max : 256;
		sw->out = xrealloc(sw->out, sw->max * sizeof(*sw->out));
	}
	o = &sw->out[sw->nr++];
	memset(o, 0, sizeof(*o));
	o->label = xstrdup(label);
	memcpy(o->spot, spot, sizeof(o->spot));
	return o;
}

/* Is one of the boundaries of this case outside entry text? */
static bool leads_to_c(struct guest *g, const struct event *ev, const struct spot *spot)
{
	int i, n = 0;

	for (i = 0; i < ev->nr; i++) {
		if (ev->step[i].kind == STEP_SWEEP && !in_asm(g, spot[n++].addr))
			return true;
	}
	return false;
}

/*
 * @o failed on a guest that was not fresh. Is it this case, or the one before,
 * which passed but left the guest damaged (NMIs masked, say)?
 */
static void confirm(struct guest *g, struct sweep *sw, struct outcome *o)
{
	char detail[400];

	if (case_run(g, sw->ev, o->spot, detail, sizeof(detail)) != V_OK)
		return;
	/* C need not take the same path twice, but from a fresh guest it does. */
	if (o->v == V_UNREACHED && leads_to_c(g, sw->ev, o->spot)) {
		o->v = V_OK;
		o->detail[0] = 0;
		return;
	}
	if (sw->nr > 1) {
		struct outcome *b = o - 1;

		guest_restore(g);
		case_run(g, sw->ev, b->spot, detail, sizeof(detail));
		if (case_run(g, sw->ev, o->spot, detail, sizeof(detail)) != V_OK) {
			b->v = V_STATE;
			snprintf(b->detail, sizeof(b->detail),
				 "the next case fails after it: %.300s", o->detail);
			o->v = V_OK;
			o->detail[0] = 0;
			return;
		}
	}
	snprintf(detail, sizeof(detail), "passed when repeated, first: %s %.300s",
		 verdict_name[o->v], o->detail);
	strcpy(o->detail, detail);
	o->v = V_OK;
	guest_restore(g);
}

static void one_case(struct guest *g, struct sweep *sw, const char *label,
		     const struct spot *spot)
{
	struct outcome *o = new_outcome(sw, label, spot);
	bool fresh = g->restored;

	note(g, "%s/%s at %s", g->ctx->name, sw->ev->name, label);
	o->v = case_run(g, sw->ev, spot, o->detail, sizeof(o->detail));
	if (o->v != V_OK && sw->first)
		sw->done = true;
	if (o->v == V_OK || !sw->confirm || (fresh && o->v != V_HANG))
		return;
	g->limit_ms = PATIENT_MS;
	confirm(g, sw, o);
	g->limit_ms = CASE_MS;
}

/* Fix sweep number @depth, which is step @at of the script. */
static void explore(struct guest *g, struct sweep *sw, int at, int depth,
		    const char *head, struct spot *spot)
{
	const struct event *ev = sw->ev;
	struct path p = { 0 };
	char detail[400], label[512], one[200];
	enum step_kind before;
	bool traced;
	int i, next;

	while (at < ev->nr && ev->step[at].kind != STEP_SWEEP)
		at++;
	if (at == ev->nr) {
		if (!*head)
			head = "once";
		if (sw->plan)
			new_outcome(sw, head, spot);
		else if (!sw->at || !strcmp(sw->at, head))
			one_case(g, sw, head, spot);
		return;
	}

	/* As a case that fails is repeated: #MC switches lockdep off, say. */
	if (!g->restored)
		guest_restore(g);
	before = at ? ev->step[at - 1].kind : STEP_RUN;
	traced = case_steps(g, ev, 0, at, spot, detail, sizeof(detail)) == V_OK &&
		 path_trace(g, &ev->step[at], before, &p);
	guest_restore(g);
	if (!traced) {
		struct outcome *o = new_outcome(sw, *head ? head : "trace", spot);

		o->v = V_UNREACHED;
		snprintf(o->detail, sizeof(o->detail), "the path does not end");
	}

	next = at + 1;
	for (i = 0; i < p.nr && !sw->done; i++) {
		label_of(g, p.spot[i].addr, one, sizeof(one));
		if (p.spot[i].pass > 1)
			snprintf(one + strlen(one), sizeof(one) - strlen(one),
				 "#%d", p.spot[i].pass);
		snprintf(label, sizeof(label), "%s%s%s", head, *head ? "," : "", one);
		if (sw->at && strncmp(sw->at, label, strlen(label)))
			continue;
		spot[depth] = p.spot[i];
		explore(g, sw, next, depth + 1, label, spot);
	}
	path_free(&p);
}

static void run_event(struct guest *g, struct sweep *sw)
{
	struct spot spot[MAX_SWEEPS] = { 0 };

	sw->nr = 0;
	sw->done = false;
	explore(g, sw, 0, 0, "", spot);
}

static void drop_outcomes(struct sweep *sw)
{
	int i;

	for (i = 0; i < sw->nr; i++)
		free(sw->out[i].label);
	sw->nr = 0;
}

/* The outcomes of @sw as result lines. */
static void write_outcomes(struct guest *g, struct sweep *sw, const char *context,
			   int n, FILE *out)
{
	int i, lost = 0, unreached = 0;
	char name[300];

	snprintf(name, sizeof(name), "%s/%s", context, sw->ev->name);
	write_case(out, g, name);
	for (i = 0; i < sw->nr; i++) {
		const struct outcome *o = &sw->out[i];

		write_point(out, o->label, o->v, o->detail);
		unreached += o->v == V_UNREACHED;
		lost += o->v != V_OK && o->v != V_UNREACHED;
	}
	fflush(out);
	progress(n, "%s/%s/%s: %d of %d lost%s", g->entry, g->machine->name, name, lost,
		 sw->nr, unreached ? ", some not reached" : "");
	drop_outcomes(sw);
}

/* A symbol that @ev names and that this kernel, being of another version, lacks. */
static const char *lacks_symbol(const struct guest *g, const struct event *ev)
{
	u64 addr;
	int i;

	for (i = 0; i < ev->nr; i++) {
		const struct step *st = &ev->step[i];

		if ((st->kind == STEP_RUN || st->sweep == SWEEP_TO) && st->sym &&
		    !guest_find(g, st->sym, &addr))
			return st->sym;
	}
	return NULL;
}

static bool wants(const struct sweep_wish *wish, const struct event *ev, const char *entry)
{
	return !wish->trace && list_has(wish->events, ev->name) &&
	       (!ev->only || !strcmp(ev->only, entry));
}

int sweep_count(const struct config *cfg, const char *entry, const struct sweep_wish *wish)
{
	int i, n = 0;

	for (i = 0; i < cfg->nr_event; i++)
		n += wants(wish, &cfg->event[i], entry);
	return n;
}

/* @n: how many cases of the progress line this is, see progress(). */
static void one_event(struct guest *g, const struct event *ev, const char *at,
		      bool learnt, int n, FILE *out)
{
	const char *symbol = lacks_symbol(g, ev);
	char context[200];
	struct sweep sw = {
		.ev = ev, .at = at,
		.confirm = strcmp(g->entry, "classic") || !ev->classic_lossy,
	};

	context_name(g, context, sizeof(context));
	if (symbol) {
		char name[300], why[160];

		snprintf(name, sizeof(name), "%s/%s", context, ev->name);
		snprintf(why, sizeof(why), "this kernel has no symbol %s", symbol);
		write_skip(out, g, name, why);
		progress(n, "%s/%s/%s: skipped, %s", g->entry, g->machine->name, name, why);
		return;
	}
	if (learnt) {
		run_event(g, &sw);
	} else {
		const struct spot none[MAX_SWEEPS] = { 0 };
		struct outcome *o = new_outcome(&sw, "trace", none);

		o->v = V_UNREACHED;
		snprintf(o->detail, sizeof(o->detail), "a plain NMI does not return");
	}
	write_outcomes(g, &sw, context, n, out);
	free(sw.out);
}

/* The path of a plain NMI as result lines. */
static void write_plain_path(struct guest *g, const struct path *p, const char *context,
			     FILE *out)
{
	enum phase *phase = xalloc((p->nr + 1) * sizeof(*phase));
	char label[160];
	int i;

	path_phases(g, p, phase);
	write_path(out, g, context, p->nr);
	for (i = 0; i < p->nr; i++) {
		label_of(g, p->spot[i].addr, label, sizeof(label));
		write_step(out, label, phase[i]);
	}
	free(phase);
}

/* All events at the one instruction that the guest stands at. */
static void run_events(struct guest *g, const struct sweep_wish *wish, int n,
		       FILE *out)
{
	struct path p = { 0 };
	char name[200];
	bool learnt;
	int i;

	context_name(g, name, sizeof(name));
	learnt = path_learn(g, &p);
	write_plain_path(g, &p, name, out);
	path_free(&p);
	for (i = 0; i < g->cfg->nr_event; i++) {
		if (wants(wish, &g->cfg->event[i], g->entry))
			one_event(g, &g->cfg->event[i], wish->at, learnt, n, out);
	}
}

/* False, and a line that says so, if the guest does not get there. */
static bool enter(struct guest *g, const struct context *ctx, int n, FILE *out)
{
	char why[160];

	g->slot = 0;
	if (context_enter(g, ctx, why, sizeof(why)))
		return true;
	write_skip(out, g, ctx->name, why);
	progress(n, "%s/%s/%s: skipped, %s", g->entry, g->machine->name, ctx->name, why);
	return false;
}

void sweep_context(struct guest *g, const struct context *ctx,
		   const struct sweep_wish *wish, FILE *out)
{
	int n = 1;

	if (!enter(g, ctx, sweep_count(g->cfg, g->entry, wish), out))
		return;
	do {
		char name[200];

		context_name(g, name, sizeof(name));
		if (wish->instance && strcmp(wish->instance, name))
			continue;
		run_events(g, wish, n, out);
		n = 0;
	} while (context_next(g));
}

void sweep_event(struct guest *g, const struct context *ctx, const char *instance,
		 const struct event *ev, FILE *out)
{
	struct path p = { 0 };
	char name[200];
	bool learnt;

	if (!enter(g, ctx, 1, out))
		return;
	while (instance) {
		context_name(g, name, sizeof(name));
		if (!strcmp(instance, name))
			break;
		if (!context_next(g))
			die("context %s has no instruction %s", ctx->name, instance);
	}
	learnt = path_learn(g, &p);
	path_free(&p);
	one_event(g, ev, NULL, learnt, 1, out);
}

/*
 * Enter a context for a mutant; what there is to learn of it is learnt once, before
 * the mutation.
 */
static bool enter_mutated(struct guest *g, const struct context *ctx)
{
	int nr_patch = g->nr_patch;
	struct path p = { 0 };
	bool known;

	g->nr_patch = 0;
	if (!context_reenter(g, ctx, &known))
		return false;
	if (!known) {
		path_learn(g, &p);
		context_keep_returns(g);
		path_free(&p);
	}
	g->nr_patch = nr_patch;
	guest_restore(g);
	return true;
}

static bool is_many(const struct context *ctx)
{
	return ctx->until || ctx->watch;
}

/* The last outcome of @sw as a sentence, if it is a failure. */
static bool describe_failure(struct guest *g, const struct sweep *sw, char *first, size_t len)
{
	const struct outcome *last = sw->nr ? &sw->out[sw->nr - 1] : NULL;
	char name[200];

	if (!last || last->v == V_OK)
		return false;
	context_name(g, name, sizeof(name));
	snprintf(first, len, "%s/%s at %s: %s %s", name, sw->ev->name, last->label,
		 verdict_name[last->v], last->detail);
	return true;
}

struct plan {
	struct sweep sw;
};

/* The first instruction of a context, for the cases of a mutant. */
static void enter_first(struct guest *g, const struct context *ctx)
{
	struct path p = { 0 };
	char why[160];

	g->slot = 0;
	if (!(is_many(ctx) ? context_enter(g, ctx, why, sizeof(why)) : enter_mutated(g, ctx)))
		die("context %s is not reached", ctx->name);
	if (is_many(ctx)) {
		path_learn(g, &p);
		path_free(&p);
	}
}

struct plan *sweep_plan(struct guest *g, const struct context *ctx, const struct event *ev)
{
	struct plan *plan = xalloc(sizeof(*plan));

	plan->sw = (struct sweep){ .ev = ev, .plan = true };
	enter_first(g, ctx);
	run_event(g, &plan->sw);
	return plan;
}

/* Some cases of a plan, and those in which @begin to @end is hit. */
static bool is_telling(const struct plan *plan, int i, u64 begin, u64 end)
{
	int k;

	if (!(i % (plan->sw.nr / 6 + 1)) || i == plan->sw.nr - 1)
		return true;
	for (k = 0; k < MAX_SWEEPS; k++) {
		const u64 addr = plan->sw.out[i].spot[k].addr;

		if (addr >= begin && addr <= end)
			return true;
	}
	return false;
}

int sweep_telling(struct guest *g, const struct context *ctx, const struct plan *plan,
		  u64 begin, u64 end, char *first, size_t len)
{
	struct sweep sw = { .ev = plan->sw.ev, .first = true };
	int i;

	enter_first(g, ctx);
	for (i = 0; i < plan->sw.nr && !sw.done; i++) {
		if (is_telling(plan, i, begin, end))
			one_case(g, &sw, plan->sw.out[i].label, plan->sw.out[i].spot);
		/* With the change the entry may take another way. */
		if (sw.done && sw.out[sw.nr - 1].v == V_UNREACHED)
			sw.done = false;
	}
	if (sw.done)
		describe_failure(g, &sw, first, len);
	i = sw.nr;
	drop_outcomes(&sw);
	free(sw.out);
	return i;
}

int sweep_first(struct guest *g, const struct context *ctx, const struct event *ev,
		char *first, size_t len)
{
	const bool many = is_many(ctx);
	struct sweep sw = { .ev = ev, .first = true };
	int tried = 0;

	enter_first(g, ctx);
	do {
		if (tried) {
			struct path p = { 0 };

			path_learn(g, &p);
			path_free(&p);
		}
		run_event(g, &sw);
		tried += sw.nr;
		sw.done = describe_failure(g, &sw, first, len);
		drop_outcomes(&sw);
	} while (!sw.done && many && context_next(g));
	free(sw.out);
	return tried;
}
