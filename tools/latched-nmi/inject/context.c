// SPDX-License-Identifier: GPL-2.0
/*
 * The interrupted instruction: bring the guest there and remember its state.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"

/* Slots of the pt_regs that entries from user mode push. */
#define PT_REGS_SLOTS	21

/* The stacks of the TSS that the table names. */
static const char * const ist_name[NR_IST] = { NULL, NULL, "real", "db", "mce" };

/* The guest stands at the interrupted instruction, without patches. */
static void take_s0(struct guest *g, const char *snap)
{
	gdb_regs(&g->vm.gdb, &g->s0);
	guest_dr(g, g->s0_dr, sizeof(g->s0_dr));
	g->s0_rip = reg_get(&g->s0, R_RIP);
	g->s0_rsp = reg_get(&g->s0, R_RSP);
	snprintf(g->snap, sizeof(g->snap), "%s", snap);
	vm_savevm(&g->vm, snap);
	gdb_bp_set(&g->vm.gdb, g->s0_rip);
	guest_patch(g);
	g->restored = true;
}

void context_leave(struct guest *g)
{
	if (g->ctx)
		gdb_bp_clear(&g->vm.gdb, g->s0_rip);
	g->ctx = NULL;
}

static bool reach(struct guest *g, u64 at, struct regs *r)
{
	bool there;

	gdb_bp_set(&g->vm.gdb, at);
	there = vm_cont(&g->vm, 10 * CASE_MS) == STOP_TRAP && guest_rip(g, r) == at;
	gdb_bp_clear(&g->vm.gdb, at);
	if (!there) {
		char label[160];

		label_of(g, guest_rip(g, r), label, sizeof(label));
		note(g, "  not reached: stopped at %s", label);
	}
	return there;
}

/* Run @code in place of what is at RIP, with @rax. */
static void run_insn(struct guest *g, const u8 *code, size_t len, u64 rax)
{
	struct regs r;
	u8 old[16];
	u64 rip, phys;

	rip = guest_rip(g, &r);
	phys = vm_translate(&g->vm, rip);
	gdb_read(&g->vm.gdb, phys, old, len);
	gdb_write(&g->vm.gdb, phys, code, len);
	gdb_reg_set(&g->vm.gdb, R_RAX, rax);
	gdb_step(&g->vm.gdb);
	gdb_write(&g->vm.gdb, phys, old, len);
	gdb_reg_set(&g->vm.gdb, R_RIP, rip);
	gdb_reg_set(&g->vm.gdb, R_RAX, reg_get(&r, R_RAX));
}

/*
 * On the way to user mode, in the second arch_prctl() of the load: watch
 * writes to slot g->slot of the pt_regs that entries from user mode push.
 */
static bool arm_watchpoint(struct guest *g)
{
	static const u8 to_dr0[] = { 0x0f, 0x23, 0xc0 };
	static const u8 to_dr7[] = { 0x0f, 0x23, 0xf8 };
	/* Globally enabled, write, eight bytes. */
	const u64 dr7 = 0xd0402, enabled = dr7 & ~0x400ULL;
	u64 at = sym_addr(g->ksym, "__x64_sys_arch_prctl");
	struct regs r;

	if (!reach(g, at, &r))
		return false;
	gdb_step(&g->vm.gdb);
	if (!reach(g, at, &r))
		return false;
	run_insn(g, to_dr0, sizeof(to_dr0), reg_get(&r, R_RDI) + 8 * g->slot);
	run_insn(g, to_dr7, sizeof(to_dr7), dr7);
	gdb_write(&g->vm.gdb, g->percpu_phys + sym_addr(g->ksym, "cpu_dr7"), &enabled,
		 sizeof(enabled));
	return true;
}

/* The address of "at": symbol[+offset], symbol:HEX or module-init. */
static bool find_at(struct guest *g, const char *at, u64 *addr)
{
	const char *colon = strchr(at, ':');
	char base[128];
	struct regs r;
	u8 text[256];
	size_t i;
	u64 begin;

	if (!strcmp(at, "module-init")) {
		do {
			if (!reach(g, sym_addr(g->ksym, "do_one_initcall"), &r))
				return false;
			*addr = reg_get(&r, R_RDI);
		} while (in_kernel_image(g, *addr));
		return true;
	}
	if (!colon)
		return guest_find(g, at, addr);
	/* Behind the one-byte instruction HEX. */
	snprintf(base, sizeof(base), "%.*s", (int)(colon - at), at);
	if (!sym_find(g->ksym, base, &begin))
		return false;
	gdb_read(&g->vm.gdb, kernel_phys(begin), text, sizeof(text));
	for (i = 0; i < sizeof(text); i++) {
		if (text[i] == strtoul(colon + 1, NULL, 16)) {
			*addr = begin + i + 1;
			return true;
		}
	}
	return false;
}

/* STACK-0xN is N below the top of an IST stack, a number is itself. */
static u64 rsp_of(struct guest *g, const char *rsp)
{
	size_t len = strcspn(rsp, "-"), i;

	for (i = 0; i < ARRAY_SIZE(ist_name); i++) {
		if (ist_name[i] && strlen(ist_name[i]) == len &&
		    !strncmp(rsp, ist_name[i], len))
			return g->ist_top[i] + strtoll(rsp + len, NULL, 0);
	}
	return strtoull(rsp, NULL, 0);
}

/* A kernel of another version may lack a symbol: that is no failure of the entry. */
static bool has_symbols(struct guest *g, const struct context *ctx, char *why, size_t len)
{
	const char * const name[] = {
		strcmp(ctx->at, "module-init") ? ctx->at : "do_one_initcall", ctx->until,
	};
	size_t i;
	u64 addr;

	for (i = 0; i < ARRAY_SIZE(name); i++) {
		char sym[128];

		if (!name[i])
			continue;
		snprintf(sym, sizeof(sym), "%.*s", (int)strcspn(name[i], ":"), name[i]);
		if (guest_find(g, strncmp(name[i], "end:", 4) ? sym : name[i], &addr))
			continue;
		snprintf(why, len, "this kernel has no symbol %s", sym);
		return false;
	}
	return true;
}

/* Make "at" a jump to itself, with registers that are known. */
static void make_spin(struct guest *g, u64 at)
{
	static const enum reg fill[] = {
		R_RAX, R_RBX, R_RCX, R_RDX, R_RSI, R_RDI, R_RBP,
		R_R8, R_R9, R_R10, R_R11, R_R12, R_R13, R_R14, R_R15,
	};
	static const u8 spin[2] = { 0xeb, 0xfe };
	size_t i;

	gdb_write(&g->vm.gdb, vm_translate(&g->vm, at), spin, sizeof(spin));
	for (i = 0; i < ARRAY_SIZE(fill); i++)
		gdb_reg_set(&g->vm.gdb, fill[i],
			    0x0101010101010101ULL * (0x11 * (i + 1)));
}

static bool enter(struct guest *g, const struct context *ctx, const char *snap,
		  char *why, size_t len)
{
	struct regs r;
	u64 at, flags;

	context_leave(g);
	if (!has_symbols(g, ctx, why, len))
		return false;
	snprintf(why, len, "%s is not reached", ctx->at);
	vm_loadvm(&g->vm, "boot");
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, ctx->load));
	if (ctx->watch && !arm_watchpoint(g))
		return false;
	if (!find_at(g, ctx->at, &at))
		return false;
	if (ctx->needs_mce) {
		if (!reach(g, sym_addr(g->isym, "user_spin"), &r))
			return false;
		free(vm_hmp(&g->vm, g->machine->mce));
	}
	if (!reach(g, at, &r))
		return false;

	if (ctx->spin)
		make_spin(g, at);
	flags = reg_get(&r, R_EFLAGS);
	if (ctx->irqs_off)
		flags &= ~0x200ULL;
	if (ctx->flags)
		flags |= strtoull(ctx->flags, NULL, 0);
	gdb_reg_set(&g->vm.gdb, R_EFLAGS, flags);
	if (ctx->rip)
		gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->ksym, ctx->rip));
	if (ctx->rax)
		gdb_reg_set(&g->vm.gdb, R_RAX, sym_addr(g->ksym, ctx->rax));
	if (ctx->rsp)
		gdb_reg_set(&g->vm.gdb, R_RSP, rsp_of(g, ctx->rsp));
	g->ctx = ctx;
	take_s0(g, snap);
	return true;
}

bool context_enter(struct guest *g, const struct context *ctx, char *why, size_t len)
{
	return enter(g, ctx, "ctx", why, len);
}

/* One instruction further within a window context; false at its end. */
static bool next_in_window(struct guest *g)
{
	u64 end = sym_addr(g->ksym, g->ctx->until), rip;
	struct regs r;

	guest_restore(g);
	gdb_bp_clear(&g->vm.gdb, g->s0_rip);
	gdb_step(&g->vm.gdb);
	rip = guest_rip(g, &r);
	if (rip == end || !in_asm(g, rip)) {
		gdb_bp_set(&g->vm.gdb, g->s0_rip);
		return false;
	}
	take_s0(g, "ctx");
	return true;
}

/* The next slot of a watchpoint context; false behind the last. */
static bool next_slot(struct guest *g)
{
	const struct context *ctx = g->ctx;
	char why[160];

	if (++g->slot < PT_REGS_SLOTS && context_enter(g, ctx, why, sizeof(why)))
		return true;
	g->slot = 0;
	return false;
}

bool context_reenter(struct guest *g, const struct context *ctx, bool *known)
{
	char snap[sizeof(g->snap)], why[160];
	struct kept *k;

	for (k = g->kept; k < g->kept + g->nr_kept && k->ctx != ctx; k++)
		;
	*known = k < g->kept + g->nr_kept;
	snprintf(snap, sizeof(snap), "ctx-%s", ctx->name);
	if (!*known) {
		if (g->nr_kept == MAX_KEPT)
			die("more than %d contexts to keep", MAX_KEPT);
		if (!enter(g, ctx, snap, why, sizeof(why)))
			return false;
		k->ctx = ctx;
		k->s0 = g->s0;
		memcpy(k->s0_dr, g->s0_dr, sizeof(k->s0_dr));
		k->nr_ret = 0;
		k->nmi_regs = 0;
		g->nr_kept++;
		return true;
	}
	context_leave(g);
	g->ctx = ctx;
	g->s0 = k->s0;
	memcpy(g->s0_dr, k->s0_dr, sizeof(k->s0_dr));
	g->s0_rip = reg_get(&g->s0, R_RIP);
	g->s0_rsp = reg_get(&g->s0, R_RSP);
	memcpy(g->ret, k->ret, sizeof(g->ret));
	g->nr_ret = k->nr_ret;
	g->nmi_regs = k->nmi_regs;
	memcpy(g->snap, snap, sizeof(snap));
	gdb_bp_set(&g->vm.gdb, g->s0_rip);
	guest_restore(g);
	return true;
}

void context_keep_returns(struct guest *g)
{
	struct kept *k;

	for (k = g->kept; k < g->kept + g->nr_kept; k++) {
		if (k->ctx != g->ctx)
			continue;
		memcpy(k->ret, g->ret, sizeof(k->ret));
		k->nr_ret = g->nr_ret;
		k->nmi_regs = g->nmi_regs;
	}
}

bool context_next(struct guest *g)
{
	if (g->ctx->until)
		return next_in_window(g);
	return g->ctx->watch && next_slot(g);
}

void context_name(const struct guest *g, char *buf, size_t len)
{
	char label[160];

	if (g->ctx->watch) {
		snprintf(buf, len, "%s@%d", g->ctx->name, g->slot);
	} else if (g->ctx->until) {
		label_of(g, g->s0_rip, label, sizeof(label));
		snprintf(buf, len, "%s@%s", g->ctx->name, label);
	} else {
		snprintf(buf, len, "%s", g->ctx->name);
	}
}
