// SPDX-License-Identifier: GPL-2.0
/*
 * One case: run the steps of an event and judge the outcome from outside.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "case.h"

/* More instructions than an entry has before C. */
#define MAX_ENTRY	300
/* In struct pt_regs. */
#define ORIG_AX		120

const char * const verdict_name[V_NR] = {
	[V_OK] = "ok", [V_LOST] = "lost", [V_REGS] = "regs",
	[V_STATE] = "state", [V_CRASH] = "crash", [V_RESET] = "reset",
	[V_HANG] = "hang", [V_UNREACHED] = "unreached",
};

/* Run an IRET in place: the same instruction comes next, NMIs unmasked. */
static bool iret_in_place(struct guest *g)
{
	struct regs r, s;
	u64 frame[5], at, phys;

	gdb_regs(&g->vm.gdb, &r);
	frame[0] = reg_get(&r, R_RIP);
	frame[1] = reg_get(&r, R_CS);
	frame[2] = reg_get(&r, R_EFLAGS);
	frame[3] = reg_get(&r, R_RSP);
	frame[4] = reg_get(&r, R_SS);
	at = (frame[3] - 512) & ~15ULL;
	phys = vm_translate(&g->vm, at);
	if (phys == ~0ULL)
		return false;
	gdb_write(&g->vm.gdb, phys, frame, sizeof(frame));
	gdb_reg_set(&g->vm.gdb, R_RSP, at);
	gdb_reg_set(&g->vm.gdb, R_RIP, g->iretq);
	gdb_step(&g->vm.gdb);
	gdb_regs(&g->vm.gdb, &s);
	return !memcmp(r.raw, s.raw, r.len);
}

/*
 * Deliver what comes through @gate on the stack @top, as the CPU does it in kernel
 * mode. Whether NMIs are masked stays as it is.
 */
static void deliver(struct guest *g, u64 gate, u64 top)
{
	struct regs r;
	u64 frame[5];

	gdb_regs(&g->vm.gdb, &r);
	if (reg_get(&r, R_CS) & 3)
		die("a step that delivers an exception is for kernel mode");
	frame[0] = reg_get(&r, R_RIP);
	frame[1] = reg_get(&r, R_CS);
	frame[2] = reg_get(&r, R_EFLAGS);
	frame[3] = reg_get(&r, R_RSP);
	frame[4] = reg_get(&r, R_SS);
	gdb_write(&g->vm.gdb, vm_translate(&g->vm, top - sizeof(frame)), frame,
		  sizeof(frame));
	gdb_reg_set(&g->vm.gdb, R_RSP, top - sizeof(frame));
	gdb_reg_set(&g->vm.gdb, R_RIP, gate);
	/* TF, IF, NT, RF */
	gdb_reg_set(&g->vm.gdb, R_EFLAGS, frame[2] & ~0x14300ULL);
}

static enum verdict bad_stop(struct guest *g, enum stop why, const char *where,
			     char *detail, size_t len)
{
	char label[160], head[200] = "";
	struct regs r;
	u64 rip;

	if (where)
		snprintf(head, sizeof(head), "before %s: ", where);
	if (why == STOP_RESET) {
		snprintf(detail, len, "%striple fault", head);
		return V_RESET;
	}
	rip = guest_rip(g, &r);
	label_of(g, rip, label, sizeof(label));
	if (why == STOP_HANG) {
		snprintf(detail, len, "%shang at %s", head, label);
		return V_HANG;
	}
	if (is_trap(g, rip)) {
		char text[64] = "";
		u64 fmt = reg_get(&r, R_RDI);

		if (!strncmp(label, "panic+0x0", 10) && fmt > KERNEL_MAP) {
			gdb_read(&g->vm.gdb, kernel_phys(fmt), text, sizeof(text) - 1);
			text[strcspn(text, "\n#\"")] = 0;
		}
		snprintf(detail, len, "%s%.*s %s", head, (int)strcspn(label, "+"),
			 label, text);
		return V_CRASH;
	}
	if (rip == g->s0_rip)
		snprintf(detail, len, "%sback at the interrupted instruction", head);
	else
		snprintf(detail, len, "%sstopped at %s", head, label);
	return V_UNREACHED;
}

/*
 * What the registers must be. RF has to be that of the frame that was pushed when the
 * context was interrupted, and no other; unless an NMI has hit the IRET to the context,
 * and QEMU pushes RF = 1. That IRET then begins with RF = 1, and QEMU clears RF at the
 * end of each such instruction, where a CPU leaves what IRET has loaded. If an interrupt
 * comes next, RF is 1 again.
 */
static void expected_regs(struct guest *g, struct regs *want, const struct regs *got)
{
	u64 rf = g->nmi_first ? g->rf_pushed : 0;

	if (g->nmi_at_iret && g->rf_pushed)
		rf = reg_get(got, R_EFLAGS) & g->rf_pushed;
	*want = g->s0;
	reg_put(want, R_EFLAGS, reg_get(want, R_EFLAGS) | rf);
}

/*
 * What the event is declared to count has been counted. In an NMI from user mode it is
 * C that has to do with nested ones.
 */
static bool counts_ok(struct guest *g, char *detail, size_t len)
{
	u64 now = guest_u64(g, g->counts_phys);
	u32 nested = (u32)now - (u32)g->counts_before;
	u32 restarted = (now >> 32) - (g->counts_before >> 32);

	snprintf(detail, len, "%u nested NMIs and %u restarts were counted", nested, restarted);
	if ((g->ev->counts_nested && !nested) || (g->ev->counts_restart && !restarted))
		return false;
	detail[0] = 0;
	return true;
}

static enum verdict judge(struct guest *g, char *detail, size_t len)
{
	struct regs r, want;
	char dr[256];
	u64 state;
	u32 runs;

	gdb_regs(&g->vm.gdb, &r);
	expected_regs(g, &want, &r);
	if (reg_diff(&want, &r, detail, len))
		return V_REGS;
	guest_dr(g, dr, sizeof(dr));
	/* DR6 collects what the CPU saw; it is not the interrupted context's. */
	if (strcmp(strstr(dr, "DR7="), strstr(g->s0_dr, "DR7=")) ||
	    strncmp(dr, g->s0_dr, strstr(dr, "DR6=") - dr)) {
		snprintf(detail, len, "debug registers %.150s", dr);
		return V_REGS;
	}
	state = guest_u64(g, g->state_phys);
	if (state) {
		snprintf(detail, len, "nmi_nest_count %u nmi_latch %u", (u32)state,
			 (u32)(state >> 32));
		return V_STATE;
	}
	if (guest_u32(g, g->nmi_state_phys)) {
		snprintf(detail, len, "nmi_state %u", guest_u32(g, g->nmi_state_phys));
		return V_STATE;
	}
	if (!strcmp(g->entry, "latched") && !(reg_get(&g->s0, R_CS) & 3) &&
	    !counts_ok(g, detail, len))
		return V_STATE;
	runs = guest_u32(g, g->nmi_count_phys) - g->runs_before;
	if (g->nmi_injected && !runs) {
		snprintf(detail, len, "no handler run after the last NMI");
		return V_LOST;
	}
	if (g->ev->one_run && runs > 1) {
		snprintf(detail, len, "%u handler runs after the last NMI", runs);
		return V_STATE;
	}
	return V_OK;
}

/*
 * Step through entry text to C. There the direction flag, AC and IF have to be clear,
 * GS and the page tables the kernel's, and of what user mode may have left in registers
 * nothing may be seen.
 */
static enum verdict c_state(struct guest *g, char *detail, size_t len)
{
	static const struct {
		u64 bit;
		const char *name;
	} flags[] = { { 0x400, "DF" }, { 0x40000, "AC" }, { 0x200, "IF" } };
	static const struct {
		enum reg reg;
		/* The entry from kernel mode keeps there what it has saved. */
		bool only_from_user;
	} cleared[] = {
		{ R_RSI, false }, { R_RBP, false }, { R_R8, false }, { R_R9, false },
		{ R_R10, false }, { R_R11, false }, { R_R12, false }, { R_R13, false },
		{ R_RBX, true }, { R_R14, true }, { R_R15, true },
	};
	const bool from_user = reg_get(&g->s0, R_CS) & 3;
	u64 irq_stat = sym_addr(g->ksym, "irq_stat"), orig_ax;
	struct regs r;
	size_t i;
	int n;

	for (n = 0; in_asm(g, guest_rip(g, &r)); n++) {
		if (n == MAX_ENTRY) {
			snprintf(detail, len, "no C function is reached");
			return V_UNREACHED;
		}
		gdb_step(&g->vm.gdb);
	}
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		if (reg_get(&r, R_EFLAGS) & flags[i].bit) {
			snprintf(detail, len, "C is entered with %s set", flags[i].name);
			return V_STATE;
		}
	}
	for (i = 0; i < ARRAY_SIZE(cleared); i++) {
		if (cleared[i].only_from_user && !from_user)
			continue;
		if (reg_get(&r, cleared[i].reg)) {
			snprintf(detail, len, "C is entered with register %d not cleared",
				 cleared[i].reg);
			return V_STATE;
		}
	}
	/* The entry may use RCX. */
	if (reg_get(&r, R_RCX) && reg_get(&r, R_RCX) == reg_get(&g->s0, R_RCX)) {
		snprintf(detail, len, "C is entered with RCX of the interrupted context");
		return V_STATE;
	}
	/* The first argument is pt_regs, in its place: no system call that could be restarted. */
	if (reg_get(&r, R_RDI) != g->nmi_regs) {
		snprintf(detail, len, "C is entered with pt_regs at 0x%llx, not 0x%llx",
			 (unsigned long long)reg_get(&r, R_RDI), (unsigned long long)g->nmi_regs);
		return V_STATE;
	}
	orig_ax = guest_u64(g, vm_translate(&g->vm, reg_get(&r, R_RDI) + ORIG_AX));
	if (orig_ax != ~0ULL) {
		snprintf(detail, len, "C is entered with orig_ax 0x%llx",
			 (unsigned long long)orig_ax);
		return V_STATE;
	}
	/* The user's page tables do not have the per-CPU area, if they are others at all. */
	if (reg_get(&r, R_GS_BASE) != g->percpu ||
	    vm_translate(&g->vm, g->percpu + irq_stat) != g->percpu_phys + irq_stat) {
		snprintf(detail, len, "C is entered with gs_base 0x%llx, cr3 0x%llx",
			 (unsigned long long)reg_get(&r, R_GS_BASE),
			 (unsigned long long)reg_get(&r, R_CR3));
		return V_STATE;
	}
	return V_OK;
}

/*
 * At the beginning of do_machine_check(): it has to judge what #MC hit, and not what
 * it will return to.
 */
static enum verdict judged(struct guest *g, u64 hit, char *detail, size_t len)
{
	const int pt_regs_ip = 0x80;
	char is[160], want[160];
	struct regs r;
	u64 ip;

	guest_rip(g, &r);
	ip = guest_u64(g, vm_translate(&g->vm, reg_get(&r, R_RDI) + pt_regs_ip));
	if (ip == hit)
		return V_OK;
	label_of(g, ip, is, sizeof(is));
	label_of(g, hit, want, sizeof(want));
	snprintf(detail, len, "#MC that hit %s is judged as if at %s", want, is);
	return V_STATE;
}

enum verdict case_steps(struct guest *g, const struct event *ev, int from, int to,
			const struct spot *spot, char *detail, size_t len)
{
	char label[160];
	enum verdict v;
	struct regs r;
	u64 hit = 0;
	int i;

	for (i = from; i < to; i++) {
		const struct step *st = &ev->step[i];
		int pass = 1;
		enum stop stop;
		u64 at;

		switch (st->kind) {
		case STEP_NMI:
			g->runs_before = guest_u32(g, g->nmi_count_phys);
			g->nmi_injected = true;
			g->nmi_at_iret |= guest_rip(g, &r) == g->iretq;
			vm_inject_nmi(&g->vm);
			note(g, "  inject NMI");
			continue;
		case STEP_MCE:
			hit = guest_rip(g, &r);
			free(vm_hmp(&g->vm, g->machine->mce));
			note(g, "  inject #MC");
			continue;
		case STEP_IRET:
			note(g, "  run an IRET in place");
			if (!iret_in_place(g)) {
				snprintf(detail, len, "IRET in place failed");
				return V_UNREACHED;
			}
			continue;
		case STEP_DB:
			note(g, "  deliver #DB");
			deliver(g, g->gate_db, g->ist_top[IST_DB]);
			continue;
		case STEP_INT2:
			note(g, "  deliver INT 2");
			deliver(g, g->gate_nmi, g->ist_top[IST_REAL]);
			continue;
		case STEP_STEP:
			gdb_step(&g->vm.gdb);
			continue;
		case STEP_C_STATE:
			/* The gate first: an injected event is only pending. */
			if (ev->step[i - 1].kind == STEP_NMI &&
			    !guest_run_to(g, g->gate_nmi)) {
				snprintf(detail, len, "the NMI is not delivered");
				return V_UNREACHED;
			}
			v = c_state(g, detail, len);
			if (v != V_OK)
				return v;
			continue;
		case STEP_RUN:
			if (!guest_find(g, st->sym, &at))
				die("%s: this kernel has no symbol %s", ev->name, st->sym);
			pass = st->pass ?: 1;
			break;
		default:
			at = spot->addr;
			pass = spot->pass;
			spot++;
			if (st->sweep == SWEEP_AFTER)
				gdb_step(&g->vm.gdb);
			break;
		}

		label_of(g, at, label, sizeof(label));
		gdb_bp_set(&g->vm.gdb, at);
		do {
			stop = guest_cont(g, at);
			if (stop != STOP_TRAP || guest_rip(g, &r) != at) {
				gdb_bp_clear(&g->vm.gdb, at);
				return bad_stop(g, stop, label, detail, len);
			}
			if (pass > 1)
				gdb_step(&g->vm.gdb);
		} while (--pass);
		gdb_bp_clear(&g->vm.gdb, at);
		note(g, "  at %s", label);

		if (hit && st->kind == STEP_RUN && !strcmp(st->sym, "do_machine_check")) {
			v = judged(g, hit, detail, len);
			if (v != V_OK)
				return v;
			hit = 0;
		}
	}
	return V_OK;
}

/* To the interrupted instruction. */
static enum verdict do_end(struct guest *g, char *detail, size_t len)
{
	enum stop stop = guest_cont(g, 0);
	enum verdict v;
	struct regs r;

	if (stop != STOP_TRAP || guest_rip(g, &r) != g->s0_rip)
		return bad_stop(g, stop, NULL, detail, len);
	v = judge(g, detail, len);
	if (v != V_LOST)
		return v;
	/* Not handled yet, or never? */
	stop = guest_cont(g, 0);
	if (stop != STOP_TRAP || guest_rip(g, &r) != g->s0_rip)
		return bad_stop(g, stop, NULL, detail, len);
	return judge(g, detail, len);
}

enum verdict case_run(struct guest *g, const struct event *ev,
		      const struct spot *spot, char *detail, size_t len)
{
	enum verdict v;

	detail[0] = 0;
	g->ev = ev;
	g->counts_before = guest_u64(g, g->counts_phys);
	g->nmi_injected = false;
	g->nmi_at_iret = false;
	g->nmi_first = ev->step[0].kind == STEP_NMI;
	v = case_steps(g, ev, 0, ev->nr, spot, detail, len);
	if (v == V_OK)
		v = do_end(g, detail, len);
	note(g, "  %s %s", verdict_name[v], detail);
	if (v != V_OK)
		guest_restore(g);
	else
		g->restored = false;
	return v;
}
