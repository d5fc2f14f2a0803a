// SPDX-License-Identifier: GPL-2.0
/*
 * The injector's case table on this machine: the same scripts at the same
 * boundaries. That the verdicts are the same is what tells that this machine is
 * the one that the injector has.
 */
#include <stdlib.h>
#include <string.h>

#include "explore.h"

#define MAX_PATH	6000
#define MAX_RUN		20000

struct spot {
	u64 addr;
	int pass;
};

struct path {
	struct spot *spot;
	int nr, max;
};

struct run {
	const struct config *cfg;
	const struct event *ev;
	const struct context_desc *ctx;
	int behind;
	const char *entry;
	FILE *out;
	struct sweep_result *res;
};

/* By the address of the name, which is the same for each run of a script. */
static u64 addr_of(const char *name)
{
	static const char *known[64];
	static u64 addr[64];
	int i;

	for (i = 0; i < 64 && known[i]; i++) {
		if (known[i] == name)
			return addr[i];
	}
	if (i == 64)
		return sym_addr(image->sym, name);
	known[i] = name;
	return addr[i] = sym_addr(image->sym, name);
}

/* One instruction further; an NMI that pends is delivered as soon as it can. */
static bool advance(void)
{
	if (w[W_PENDING] && !w[W_MASKED])
		return machine_event(EV_NMI);
	return machine_step(0);
}

/* Nothing is in progress. */
static bool over(void)
{
	return !w[W_AWAY] && !w[W_PENDING];
}

static void path_add(struct path *p, u64 addr, bool passes)
{
	int i, pass = 1;

	for (i = 0; i < p->nr; i++)
		pass += p->spot[i].addr == addr;
	if (pass > 1 && !passes)
		return;
	if (p->nr == p->max) {
		p->max = p->max ? 2 * p->max : 256;
		p->spot = xrealloc(p->spot, p->max * sizeof(*p->spot));
	}
	p->spot[p->nr++] = (struct spot) { addr, pass };
}

/* Steps [0, @to) of the script. False: a violation, or not reached. */
static bool do_steps(const struct run *r, int to, const struct spot *spot)
{
	int i, n;

	if (!machine_start(r->ctx, r->behind))
		return violate(P_HANG, "the context is not reached");
	for (i = 0; i < to; i++) {
		const struct step *st = &r->ev->step[i];
		int pass = 1;
		u64 at;

		switch (st->kind) {
		case STEP_NMI:
			set(W_PENDING, 1);
			set(W_OWED, 1);
			set(W_AWAY, 1);
			if (!w[W_MASKED] && !machine_event(EV_NMI))
				return false;
			continue;
		case STEP_MCE:
			if (!machine_event(EV_MC))
				return false;
			continue;
		case STEP_IRET:
			set(W_MASKED, 0);
			continue;
		case STEP_RUN:
			at = addr_of(st->sym);
			pass = st->pass > 1 ? st->pass : 1;
			break;
		case STEP_C_STATE:
			/* What C relies on is looked at in each handler run. */
			while (in_asm(RIP) || (w[W_PENDING] && !w[W_MASKED])) {
				if (!advance())
					return false;
			}
			continue;
		default:
			at = spot->addr;
			pass = spot->pass;
			spot++;
			if (st->sweep == SWEEP_AFTER && !advance())
				return false;
			break;
		}
		for (n = 0;; n++) {
			if (RIP == at && !(w[W_PENDING] && !w[W_MASKED]) && !--pass)
				break;
			if (over())
				return violate(P_HANG, "back at the interrupted instruction before");
			if (n == MAX_RUN)
				return violate(P_HANG, "no end");
			if (!advance())
				return false;
		}
	}
	return true;
}

static bool do_end(void)
{
	int n;

	for (n = 0; !over(); n++) {
		if (n == MAX_RUN)
			return violate(P_HANG, "no end");
		if (!advance())
			return false;
	}
	return true;
}

static const struct zone *find_zone(const struct run *r, const char *name)
{
	int i;

	for (i = 0; i < r->cfg->nr_zone; i++) {
		const struct zone *z = &r->cfg->zone[i];

		if (!strcmp(z->name, name) && !strcmp(z->entry, r->entry))
			return z;
	}
	return NULL;
}

/* What the injector's trace() records. */
static bool trace(const struct run *r, const struct step *st, struct path *p)
{
	u64 begin = 0, end = ~0ULL;
	int n;

	if (st->sweep == SWEEP_TO)
		end = sym_addr(image->sym, st->sym);
	if (st->sweep == SWEEP_ZONE) {
		const struct zone *z = find_zone(r, st->sym);

		if (!z)
			return false;
		begin = sym_addr(image->sym, z->begin);
		end = sym_addr(image->sym, z->end);
	}
	for (n = 0; n < MAX_PATH; n++) {
		if (over())
			return true;
		if (w[W_PENDING] && !w[W_MASKED]) {
			if (!advance())
				return false;
			continue;
		}
		if (st->sweep == SWEEP_TO || st->sweep == SWEEP_C) {
			if (RIP == end || (st->sweep == SWEEP_C && in_swept_text(RIP)))
				return true;
			path_add(p, RIP, false);
		} else if (in_swept_text(RIP)) {
			if (RIP >= begin && RIP < end && (n || st->sweep != SWEEP_AFTER))
				path_add(p, RIP, st->sweep == SWEEP_PASSES);
		} else if (st->sweep == SWEEP_STUB && !in_asm(RIP)) {
			return true;
		}
		if (!advance())
			return false;
	}
	return false;
}

static void one_case(const struct run *r, const char *name, const struct spot *spot)
{
	bool ok;

	violation = P_NONE;
	ok = do_steps(r, r->ev->nr, spot) && do_end();
	r->res->points++;
	if (!ok)
		r->res->lost++;
	if (r->out)
		fprintf(r->out, "point %s %s %s\n", name, ok ? "ok" : property_name[violation],
			ok ? "" : violation_text);
}

static void sweep(const struct run *r, int at, int depth, const char *head, struct spot *spot)
{
	const struct event *ev = r->ev;
	struct path p = { 0 };
	char name[512], one[200];
	int i;

	while (at < ev->nr && ev->step[at].kind != STEP_SWEEP)
		at++;
	if (at == ev->nr) {
		one_case(r, *head ? head : "once", spot);
		return;
	}
	violation = P_NONE;
	if (!do_steps(r, at, spot) || !trace(r, &ev->step[at], &p)) {
		r->res->points++;
		r->res->lost++;
		if (r->out)
			fprintf(r->out, "point %s unreached the path does not end: %s\n",
				*head ? head : "trace", violation_text);
	}
	for (i = 0; i < p.nr; i++) {
		label(p.spot[i].addr, one, sizeof(one));
		if (p.spot[i].pass > 1)
			snprintf(one + strlen(one), sizeof(one) - strlen(one), "#%d", p.spot[i].pass);
		snprintf(name, sizeof(name), "%s%s%s", head, *head ? "," : "", one);
		spot[depth] = p.spot[i];
		sweep(r, at + 1, depth + 1, name, spot);
	}
	free(p.spot);
}

/* Is each step of @ev something that can happen here? */
bool script_can(const struct event *ev)
{
	int i;

	for (i = 0; i < ev->nr; i++) {
		switch (ev->step[i].kind) {
		case STEP_NMI:
		case STEP_MCE:
		case STEP_IRET:
		case STEP_RUN:
		case STEP_C_STATE:
		case STEP_SWEEP:
			break;
		default:
			return false;
		}
	}
	return true;
}

bool script_sweep(const struct config *cfg, const struct event *ev,
		  const struct context_desc *ctx, int behind, const char *entry,
		  FILE *out, struct sweep_result *res)
{
	struct spot spot[MAX_SWEEPS] = { 0 };
	struct run r = {
		.cfg = cfg, .ev = ev, .ctx = ctx, .behind = behind, .entry = entry,
		.out = out, .res = res,
	};

	res->points = res->lost = 0;
	if (ev->only && strcmp(ev->only, entry))
		return false;
	sweep(&r, 0, 0, "", spot);
	return true;
}
