// SPDX-License-Identifier: GPL-2.0
/*
 * The path that an event takes through entry text, found by stepping.
 */
#include <stdlib.h>
#include <string.h>

#include "path.h"

#define MAX_PATH	6000

const char * const phase_name[NR_PHASE] = {
	"entry", "save", "handlers", "restore", "return",
};

static void path_add(struct path *p, u64 addr, bool passes)
{
	int i, pass = 1;

	for (i = 0; i < p->nr; i++) {
		if (p->spot[i].addr == addr)
			pass++;
	}
	if (pass > 1 && !passes)
		return;
	if (p->nr == p->max) {
		p->max = p->max ? 2 * p->max : 256;
		p->spot = xrealloc(p->spot, p->max * sizeof(*p->spot));
	}
	p->spot[p->nr++] = (struct spot) { addr, pass };
}

const struct zone *path_zone(const struct guest *g, const char *name)
{
	int i;

	for (i = 0; i < g->cfg->nr_zone; i++) {
		const struct zone *z = &g->cfg->zone[i];

		if (!strcmp(z->name, name) && !strcmp(z->entry, g->entry))
			return z;
	}
	return NULL;
}

static void remember_return(struct guest *g, u64 addr)
{
	int i;

	for (i = 0; i < g->nr_ret; i++) {
		if (g->ret[i] == addr)
			return;
	}
	if (g->nr_ret < MAX_RET)
		g->ret[g->nr_ret++] = addr;
}

/*
 * In C: run to where entry text goes on. That is the return address on the
 * stack if entry text has just called or jumped here, else one seen before.
 */
static bool run_over_c(struct guest *g, const struct regs *r)
{
	u64 phys = vm_translate(&g->vm, reg_get(r, R_RSP));
	u64 ret = phys == ~0ULL ? 0 : guest_u64(g, phys);
	bool ok;
	int i;

	if (in_asm(g, ret))
		remember_return(g, ret);
	for (i = 0; i < g->nr_ret; i++)
		gdb_bp_set(&g->vm.gdb, g->ret[i]);
	ok = guest_cont(g, 0) == STOP_TRAP;
	for (i = 0; i < g->nr_ret; i++)
		gdb_bp_clear(&g->vm.gdb, g->ret[i]);
	return ok;
}

bool path_trace(struct guest *g, const struct step *st, enum step_kind before,
		struct path *p)
{
	u64 begin = 0, end = ~0ULL, rip;
	const struct zone *z;
	struct regs r;
	int n;

	if (st->sweep == SWEEP_TO)
		end = sym_addr(g->ksym, st->sym);
	if (st->sweep == SWEEP_ZONE) {
		z = path_zone(g, st->sym);
		if (!z)
			return false;
		begin = sym_addr(g->ksym, z->begin);
		end = sym_addr(g->ksym, z->end);
	}

	if (before == STEP_NMI || before == STEP_MCE) {
		u64 gate = before == STEP_NMI ? g->gate_nmi : g->gate_mce;

		if (!guest_run_to(g, gate))
			return false;
	}

	for (n = 0; n < MAX_PATH; n++) {
		rip = guest_rip(g, &r);
		if (is_trap(g, rip))
			return false;
		if (rip == g->s0_rip && reg_get(&r, R_RSP) == g->s0_rsp)
			return true;
		if (st->sweep == SWEEP_TO || st->sweep == SWEEP_C) {
			if (rip == end || (st->sweep == SWEEP_C && in_entry_text(g, rip)))
				return true;
			path_add(p, rip, false);
			gdb_step(&g->vm.gdb);
			continue;
		}
		if (in_asm(g, rip)) {
			if (rip >= begin && rip < end &&
			    (n || st->sweep != SWEEP_AFTER))
				path_add(p, rip, st->sweep == SWEEP_PASSES);
			gdb_step(&g->vm.gdb);
			continue;
		}
		if (st->sweep == SWEEP_STUB)
			return true;
		if (before == STEP_NMI && !g->nmi_regs)
			g->nmi_regs = reg_get(&r, R_RDI);
		if (!run_over_c(g, &r))
			return false;
	}
	return false;
}

bool path_learn(struct guest *g, struct path *p)
{
	static const struct step all = { .kind = STEP_SWEEP, .sweep = SWEEP_ALL };
	static const struct event mce = {
		.nr = 3,
		.step = {
			{ .kind = STEP_NMI },
			{ .kind = STEP_RUN, .sym = "default_do_nmi" },
			{ .kind = STEP_MCE },
		},
	};
	struct path q = { 0 };
	char detail[400];
	bool ok;

	g->nr_ret = 0;
	g->nmi_regs = 0;
	vm_inject_nmi(&g->vm);
	ok = path_trace(g, &all, STEP_NMI, p);
	guest_restore(g);
	if (!ok)
		return false;
	/* Not inside #MC: there a second one shuts the CPU down. */
	if (g->ctx->needs_mce)
		return true;
	if (case_steps(g, &mce, 0, mce.nr, NULL, detail, sizeof(detail)) == V_OK)
		path_trace(g, &all, STEP_MCE, &q);
	guest_restore(g);
	if (case_steps(g, &mce, 2, mce.nr, NULL, detail, sizeof(detail)) == V_OK)
		path_trace(g, &all, STEP_MCE, &q);
	path_free(&q);
	guest_restore(g);
	return true;
}

void path_free(struct path *p)
{
	free(p->spot);
	memset(p, 0, sizeof(*p));
}

static bool is_return(const struct guest *g, u64 addr)
{
	int i;

	for (i = 0; i < g->nr_ret; i++) {
		if (g->ret[i] == addr)
			return true;
	}
	return false;
}

void path_phases(struct guest *g, const struct path *p, enum phase *phase)
{
	/* push $-1 for ORIG_RAX comes before the registers, pop %rsi near their end. */
	static const u8 push_orig_rax[] = { 0x6a, 0xff };
	const u8 pop_rsi = 0x5e;
	enum phase now = PHASE_ENTRY;
	u8 code[2];
	int i;

	for (i = 0; i < p->nr; i++) {
		gdb_read(&g->vm.gdb, kernel_phys(p->spot[i].addr), code, sizeof(code));
		if (now == PHASE_ENTRY && !memcmp(code, push_orig_rax, sizeof(code)))
			now = PHASE_SAVE;
		else if (now == PHASE_SAVE && is_return(g, p->spot[i].addr))
			now = PHASE_RESTORE;
		phase[i] = now;
		if (now == PHASE_RESTORE && code[0] == pop_rsi)
			now = PHASE_RETURN;
	}
}
