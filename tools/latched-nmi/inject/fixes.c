// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the fixes of stock Linux: what happens without each of them.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "case.h"
#include "context.h"
#include "options.h"

/* CPU time of the emulator, of which a vCPU that spins may take most. */
#define RUN_MS		16000
#define EFLAGS_IF	0x200ULL
#define MAX_SPOTS	400
#define MAX_WHY		300

struct options {
	struct guest_config guest;
	const char *cases;
	const char *machines;
	const char *entry;
	const char *test;
	const char *gap;
};

#define MEMBER(m)	offsetof(struct options, m)

static const struct option_def options[] = {
	{ "kernel", "BZIMAGE", OPT_TEXT, MEMBER(guest.kernel), "what is booted; needed" },
	{ "vmlinux", "FILE", OPT_TEXT, MEMBER(guest.vmlinux), "its symbols; needed" },
	{ "initrd", "FILE", OPT_TEXT, MEMBER(guest.initrd),
	  "an initramfs with inject-init as /init and a directory /sys; needed" },
	{ "init", "FILE", OPT_TEXT, MEMBER(guest.init), "symbols of /init (inject-init beside this program)" },
	{ "machines", "FILE", OPT_TEXT, MEMBER(machines), "the table of machines (machines beside this program)" },
	{ "cases", "FILE", OPT_TEXT, MEMBER(cases), "the case table (cases.cfg beside this program)" },
	{ "entry", "LIST", OPT_TEXT, MEMBER(entry), "with this entry, classic or latched (both)" },
	{ "gap", "PROGRAM", OPT_TEXT, MEMBER(gap),
	  "asks the kernel's headers about addresses; the test \"gap\" needs it" },
	{ "test", "LIST", OPT_TEXT, MEMBER(test), "only these tests: saferet, regs, offline, gap, watch, kgdb (all)" },
	{ "qemu", "PROGRAM", OPT_TEXT, MEMBER(guest.qemu), "QEMU (what the machine's table says)" },
	{ "serial", "FILE", OPT_TEXT, MEMBER(guest.serial), "write the guest's console there" },
	{ "verbose", NULL, OPT_FLAG, MEMBER(guest.verbose), "tell each step on standard error" },
};

static const char doc[] =
	"Try what the fixes of stock Linux are for. An NMI hits each instruction of the "
	"safe-return sequence, and must not return into it; with the latched entry, that NMI "
	"nests, and a machine check hits each instruction of it. An NMI handler changes where "
	"the NMI returns to, and a nested NMI hits each instruction of the way back. An "
	"offline CPU is restarted at each instruction of an NMI, and has to handle NMIs "
	"afterwards. Where entry code has the user's RSP, ip_within_syscall_gap() has to say "
	"so. Neither perf nor kgdb may take a watchpoint on what the entries access with "
	"breakpoints armed. KTAP goes to standard output.";

static int tests, bad;
/* How the command that repeats a result begins, and its test. */
static const char *again, *test;

static void result(const struct guest *g, const char *name, const char *why)
{
	if (why[0])
		printf("# %s\n# to see it again: %s --test %s --entry %s\n", why, again,
		       test, g->entry);
	printf("%sok %d %s/%s/%s\n", why[0] ? "not " : "", ++tests, g->entry,
	       g->machine->name, name);
	fflush(stdout);
	bad += !!why[0];
}

/* Where the guest stands, for a message. */
static void stands(struct guest *g, const char *what, char *why)
{
	char label[160];
	struct regs r;

	label_of(g, guest_rip(g, &r), label, sizeof(label));
	snprintf(why, MAX_WHY, "%s: the guest stands at %s", what, label);
}

static bool run_to(struct guest *g, u64 addr)
{
	struct regs r;
	bool there;

	gdb_bp_set(&g->vm.gdb, addr);
	there = vm_cont(&g->vm, RUN_MS) == STOP_TRAP && guest_rip(g, &r) == addr;
	gdb_bp_clear(&g->vm.gdb, addr);
	return there;
}

static bool run_to_sym(struct guest *g, const char *name)
{
	u64 addr;

	if (!guest_find(g, name, &addr))
		die("there is no %s", name);
	return run_to(g, addr);
}

/* Behind the last C function of an NMI. */
static const char *exit_of(const struct guest *g)
{
	return strcmp(g->entry, "classic") ? "__nmi_epilogue_begin" : "nmi_restore";
}

/*
 * To the safe-return sequence, of a function that the system call getppid() returns
 * from: 0 is behind its CALL, 1 behind its LEA.
 */
static bool to_saferet(struct guest *g, int insn)
{
	static const char * const name[] = { "srso_safe_ret", "srso_alias_safe_ret" };
	u64 addr[ARRAY_SIZE(name)], rip;
	struct regs r;
	bool there;
	size_t i;

	vm_loadvm(&g->vm, "boot");
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, "load_syscall"));
	if (!run_to_sym(g, "__x64_sys_getppid"))
		return false;
	for (i = 0; i < ARRAY_SIZE(name); i++) {
		addr[i] = sym_addr(g->ksym, name[i]);
		gdb_bp_set(&g->vm.gdb, addr[i]);
	}
	there = vm_cont(&g->vm, RUN_MS) == STOP_TRAP;
	rip = guest_rip(g, &r);
	for (i = 0; i < ARRAY_SIZE(name); i++)
		gdb_bp_clear(&g->vm.gdb, addr[i]);
	if (!there || (rip != addr[0] && rip != addr[1]))
		return false;
	while (insn--)
		gdb_step(&g->vm.gdb);
	return true;
}

/* An NMI that hits the sequence has to return behind it. */
static void saferet(struct guest *g, int insn, char *why)
{
	u64 rip, rsp, target;
	enum stop stop;
	struct regs r;

	if (!to_saferet(g, insn)) {
		snprintf(why, MAX_WHY, "no safe return is executed");
		return;
	}
	gdb_regs(&g->vm.gdb, &r);
	rip = reg_get(&r, R_RIP);
	rsp = reg_get(&r, R_RSP);
	target = guest_u64(g, vm_translate(&g->vm, rsp + (insn ? 0 : 8)));
	/* The handler of an interrupt would go through the sequence as well. */
	gdb_reg_set(&g->vm.gdb, R_EFLAGS, reg_get(&r, R_EFLAGS) & ~EFLAGS_IF);
	vm_inject_nmi(&g->vm);
	if (!run_to_sym(g, "default_do_nmi") || !run_to_sym(g, exit_of(g))) {
		stands(g, "the NMI is not handled", why);
		return;
	}
	gdb_bp_set(&g->vm.gdb, target);
	gdb_bp_set(&g->vm.gdb, rip);
	stop = vm_cont(&g->vm, RUN_MS);
	gdb_bp_clear(&g->vm.gdb, rip);
	gdb_bp_clear(&g->vm.gdb, target);
	if (stop != STOP_TRAP)
		stands(g, "no return", why);
	else if (guest_rip(g, &r) == rip)
		stands(g, "the NMI returns into the sequence", why);
	else if (reg_get(&r, R_RIP) != target || reg_get(&r, R_RSP) != rsp + (insn ? 8 : 16))
		stands(g, "the NMI does not return behind the sequence", why);
}


static const struct step to_handler[] = {
	{ .kind = STEP_NMI },
	{ .kind = STEP_RUN, .sym = "default_do_nmi", .pass = 1 },
	{ .kind = STEP_IRET },
};

/*
 * The same in the handler of an NMI, where NMIs are unmasked. The snapshot "nested" has
 * another one pending there.
 */
static bool to_nested_saferet(struct guest *g, int insn, u64 *rip, u64 *rsp, u64 *target)
{
	static const char * const name[] = { "srso_safe_ret", "srso_alias_safe_ret" };
	struct event ev = { .nr = ARRAY_SIZE(to_handler) };
	char detail[MAX_WHY];
	struct regs r;
	bool there;
	size_t i;

	memcpy(ev.step, to_handler, sizeof(to_handler));
	vm_loadvm(&g->vm, "boot");
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, "load_syscall"));
	if (!run_to_sym(g, "__x64_sys_getppid") ||
	    case_steps(g, &ev, 0, ev.nr, NULL, detail, sizeof(detail)) != V_OK)
		return false;
	for (i = 0; i < ARRAY_SIZE(name); i++)
		gdb_bp_set(&g->vm.gdb, sym_addr(g->ksym, name[i]));
	there = vm_cont(&g->vm, RUN_MS) == STOP_TRAP;
	for (i = 0; i < ARRAY_SIZE(name); i++)
		gdb_bp_clear(&g->vm.gdb, sym_addr(g->ksym, name[i]));
	guest_rip(g, &r);
	if (!there || is_trap(g, reg_get(&r, R_RIP)))
		return false;
	for (i = 0; i < (size_t)insn; i++)
		gdb_step(&g->vm.gdb);
	gdb_regs(&g->vm.gdb, &r);
	*rip = reg_get(&r, R_RIP);
	*rsp = reg_get(&r, R_RSP);
	*target = guest_u64(g, vm_translate(&g->vm, *rsp + (insn ? 0 : 8)));
	vm_inject_nmi(&g->vm);
	vm_savevm(&g->vm, "nested");
	return true;
}

/*
 * The nested NMI is hit by #MC at @at: where #MC returns to is not what paranoid_entry
 * looked at, and has to be behind the sequence.
 */
static void saferet_mce(struct guest *g, u64 at, int insn, u64 rip, u64 rsp, u64 target,
			char *why)
{
	struct regs r;
	bool over;

	vm_loadvm(&g->vm, "nested");
	if (!run_to(g, at)) {
		stands(g, "on the way to the #MC", why);
		return;
	}
	free(vm_hmp(&g->vm, g->machine->mce));
	if (!run_to_sym(g, "do_machine_check") || !run_to_sym(g, "latched_nmi_move")) {
		stands(g, "the #MC is not fixed up", why);
		return;
	}
	/* On its way back #MC goes through the sequence as well, on its own stack. */
	do {
		gdb_bp_set(&g->vm.gdb, target);
		gdb_bp_set(&g->vm.gdb, rip);
		over = vm_cont(&g->vm, RUN_MS) != STOP_TRAP;
		gdb_bp_clear(&g->vm.gdb, rip);
		gdb_bp_clear(&g->vm.gdb, target);
		gdb_regs(&g->vm.gdb, &r);
		if (over || (reg_get(&r, R_RIP) != rip && reg_get(&r, R_RIP) != target))
			stands(g, "no return", why);
		else if (reg_get(&r, R_RSP) == rsp)
			snprintf(why, MAX_WHY, "the #MC returns into the sequence");
		else if (reg_get(&r, R_RSP) == rsp + (insn ? 8 : 16) && reg_get(&r, R_RIP) == target)
			over = true;
		else
			gdb_step(&g->vm.gdb);
	} while (!over && !why[0]);
}

static void saferet_nested(struct guest *g, int insn, const char *insn_name)
{
	u64 spot[MAX_SPOTS], rip = 0, rsp = 0, target = 0;
	char why[MAX_WHY] = "", label[160], name[200];
	struct regs r;
	int i, nr = 0;

	if (!to_nested_saferet(g, insn, &rip, &rsp, &target))
		stands(g, "no safe return is executed in an NMI handler", why);
	else if (!run_to(g, g->gate_nmi))
		stands(g, "the nested NMI is not delivered", why);
	/* It executes no return, and may go back into the sequence. */
	while (!why[0] && guest_rip(g, &r) != rip) {
		if (nr == MAX_SPOTS || !in_entry_text(g, reg_get(&r, R_RIP))) {
			stands(g, "the nested NMI does not return", why);
			break;
		}
		spot[nr++] = reg_get(&r, R_RIP);
		gdb_step(&g->vm.gdb);
	}
	snprintf(name, sizeof(name), "saferet-nested/%s", insn_name);
	result(g, name, why);
	for (i = 0; i < nr; i++) {
		label_of(g, spot[i], label, sizeof(label));
		snprintf(name, sizeof(name), "saferet-nested-mce/%s/%s", insn_name, label);
		why[0] = 0;
		saferet_mce(g, spot[i], insn, rip, rsp, target, why);
		result(g, name, why);
	}
}

static void test_saferet(struct guest *g)
{
	static const char * const name[] = { "call", "lea" };
	char why[MAX_WHY], full[40];
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(full, sizeof(full), "saferet-nmi/%s", name[i]);
		why[0] = 0;
		saferet(g, i, why);
		result(g, full, why);
	}
	/* Nothing but the latched entry copes with an #MC there. */
	for (i = 0; i < 2 && !strcmp(g->entry, "latched"); i++)
		saferet_nested(g, i, name[i]);
}

/*
 * To an NMI handler that changes regs->ip to an endless loop, and regs->sp; NMIs are
 * unmasked. Returns the loop, or 0.
 */
static u64 change_regs(struct guest *g, u64 *rsp, char *why)
{
	static const u8 spin[2] = { 0xeb, 0xfe };
	u64 loop = sym_addr(g->ksym, "__x64_sys_getpid"), ip;
	struct event ev = { .nr = ARRAY_SIZE(to_handler) };
	char detail[MAX_WHY] = "";
	struct regs r;

	memcpy(ev.step, to_handler, sizeof(to_handler));
	guest_restore(g);
	if (case_steps(g, &ev, 0, ev.nr, NULL, detail, sizeof(detail)) != V_OK) {
		snprintf(why, MAX_WHY, "no handler is reached: %.200s", detail);
		return 0;
	}
	gdb_write(&g->vm.gdb, kernel_phys(loop), spin, sizeof(spin));
	gdb_regs(&g->vm.gdb, &r);
	/* struct pt_regs: 16 registers and orig_ax... ip is word 16, sp word 19. */
	ip = vm_translate(&g->vm, reg_get(&r, R_RDI) + 16 * 8);
	*rsp = guest_u64(g, ip + 24) - 64;
	gdb_write(&g->vm.gdb, ip, &loop, sizeof(loop));
	gdb_write(&g->vm.gdb, ip + 24, rsp, sizeof(*rsp));
	return loop;
}

/* At @at, if it is not 0, comes a nested NMI. */
static void regs(struct guest *g, u64 at, char *why)
{
	u64 rsp, loop = change_regs(g, &rsp, why);
	u32 runs = 0;
	struct regs r;
	int stops = 0;

	if (!loop)
		return;
	if (at) {
		if (!run_to(g, at)) {
			stands(g, "on the way to the nested NMI", why);
			return;
		}
		runs = guest_u32(g, g->nmi_count_phys);
		vm_inject_nmi(&g->vm);
	}
	gdb_bp_set(&g->vm.gdb, loop);
	do {
		/* The stop may come before the pending NMI. */
		if (vm_cont(&g->vm, RUN_MS) != STOP_TRAP || guest_rip(g, &r) != loop)
			stands(g, "the change is lost", why);
		else if (reg_get(&r, R_RSP) != rsp)
			snprintf(why, MAX_WHY, "RSP is 0x%llx, not 0x%llx",
				 (unsigned long long)reg_get(&r, R_RSP),
				 (unsigned long long)rsp);
	} while (!why[0] && at && guest_u32(g, g->nmi_count_phys) == runs && stops++ < 3);
	gdb_bp_clear(&g->vm.gdb, loop);
	if (!why[0] && at && guest_u32(g, g->nmi_count_phys) == runs)
		snprintf(why, MAX_WHY, "the nested NMI is lost");
	if (!why[0] && guest_u64(g, g->state_phys))
		snprintf(why, MAX_WHY, "the entry's state is 0x%llx",
			 (unsigned long long)guest_u64(g, g->state_phys));
}

static void test_regs(struct guest *g)
{
	u64 spot[MAX_SPOTS], rsp, loop;
	char why[MAX_WHY] = "", label[160], name[200];
	struct regs r;
	int i, nr = 0;

	if (!context_enter(g, cfg_context(g->cfg, "kernel"), why, sizeof(why))) {
		result(g, "regs-ip", why);
		return;
	}
	why[0] = 0;
	regs(g, 0, why);
	result(g, "regs-ip", why);

	/* The way back, traced. */
	why[0] = 0;
	loop = change_regs(g, &rsp, why);
	if (loop && !run_to_sym(g, exit_of(g)))
		stands(g, "the way back", why);
	while (!why[0] && guest_rip(g, &r) != loop && reg_get(&r, R_RIP) != g->s0_rip) {
		if (nr == MAX_SPOTS) {
			stands(g, "the way back does not end", why);
			break;
		}
		spot[nr++] = reg_get(&r, R_RIP);
		gdb_step(&g->vm.gdb);
	}
	for (i = 0; i < nr; i++) {
		fprintf(stderr, "# case %d of %d\n", i + 1, nr);
		label_of(g, spot[i], label, sizeof(label));
		snprintf(name, sizeof(name), "regs-ip-nested/%s", label);
		why[0] = 0;
		regs(g, spot[i], why);
		result(g, name, why);
	}
	if (!nr)
		result(g, "regs-ip-nested", why[0] ? why : "no instruction was tried");
	context_leave(g);
}

#define ICR_NMI		0x400
#define CPU1_APIC_ID	1

/* From the system call that CPU 0 comes to next: an NMI for CPU 1. */
static bool nmi_to_cpu1(struct guest *g)
{
	u64 rip, rsp;
	struct regs r;

	if (!run_to_sym(g, "__x64_sys_getppid"))
		return false;
	gdb_regs(&g->vm.gdb, &r);
	rip = reg_get(&r, R_RIP);
	rsp = reg_get(&r, R_RSP) - 8;
	/* It shall call native_apic_icr_write(), and be called when that returns. */
	gdb_write(&g->vm.gdb, vm_translate(&g->vm, rsp), &rip, sizeof(rip));
	gdb_reg_set(&g->vm.gdb, R_RSP, rsp);
	gdb_reg_set(&g->vm.gdb, R_RDI, ICR_NMI);
	gdb_reg_set(&g->vm.gdb, R_RSI, CPU1_APIC_ID);
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->ksym, "native_apic_icr_write"));
	return true;
}

static bool go_offline(struct guest *g, char *why)
{
	struct regs r;

	vm_loadvm(&g->vm, "boot");
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, "load_offline"));
	if (!run_to_sym(g, "offline_done")) {
		stands(g, "going offline", why);
		return false;
	}
	gdb_regs(&g->vm.gdb, &r);
	if (reg_get(&r, R_RAX) != 1) {
		snprintf(why, MAX_WHY, "going offline fails with %d", (int)reg_get(&r, R_RAX));
		return false;
	}
	vm_savevm(&g->vm, "offline");
	return true;
}

/*
 * Run CPU 1 to @at, which is the instruction @nr of its NMI. To stop it there by a
 * breakpoint would not do: an NMI calls what CPU 0 calls as well, and all the time if it
 * is a thunk.
 */
static bool run_cpu1_to(struct guest *g, u64 at, int nr)
{
	struct regs r;

	if (!run_to(g, g->gate_nmi))
		return false;
	while (nr--)
		gdb_step(&g->vm.gdb);
	return guest_rip(g, &r) == at;
}

/*
 * Hold CPU 1 at @at, the instruction @nr of its NMI, start it anew, and send it an NMI.
 * INIT does not mind which instruction it hits: what is left of the NMI is what is in
 * memory. So have it halt, with IRQs off, where no other CPU comes to. If it were to
 * spin, CPU 0 would have to wait for its turn each time that it has slept.
 */
static void offline(struct guest *g, u64 at, int nr, u64 go, char *why)
{
	/* HLT, and a JMP back to it */
	static const u8 halt[3] = { 0xf4, 0xeb, 0xfd }, set = 1;
	u64 hold = sym_addr(g->ksym, "machine_restart");
	struct regs r;

	vm_loadvm(&g->vm, "offline");
	if (!nmi_to_cpu1(g) || !run_cpu1_to(g, at, nr)) {
		stands(g, "the NMI of the offline CPU", why);
		return;
	}
	gdb_write(&g->vm.gdb, kernel_phys(hold), halt, sizeof(halt));
	gdb_reg_set(&g->vm.gdb, R_RIP, hold);
	gdb_write(&g->vm.gdb, go, &set, sizeof(set));
	if (!run_to_sym(g, "start_secondary")) {
		stands(g, "the start of the CPU", why);
		return;
	}
	if (!run_to_sym(g, "online_done")) {
		stands(g, "going online", why);
		return;
	}
	gdb_regs(&g->vm.gdb, &r);
	if (reg_get(&r, R_RAX) != 1)
		snprintf(why, MAX_WHY, "going online fails with %d", (int)reg_get(&r, R_RAX));
	else if (!nmi_to_cpu1(g) || !run_to_sym(g, "default_do_nmi"))
		stands(g, "the NMI is lost", why);
}

static void test_offline(struct guest *g)
{
	u64 spot[MAX_SPOTS], go, back, rsp;
	char why[MAX_WHY] = "", label[160], name[200];
	struct regs r;
	int i, nr = 0;

	if (!go_offline(g, why))
		goto bad;
	go = vm_translate(&g->vm, sym_addr(g->isym, "go"));
	if (!nmi_to_cpu1(g) || !run_to(g, g->gate_nmi)) {
		stands(g, "the NMI of the offline CPU", why);
		goto bad;
	}
	gdb_regs(&g->vm.gdb, &r);
	rsp = vm_translate(&g->vm, reg_get(&r, R_RSP));
	back = guest_u64(g, rsp);
	while (guest_rip(g, &r) != back) {
		if (nr == MAX_SPOTS) {
			stands(g, "the NMI does not end", why);
			goto bad;
		}
		spot[nr++] = reg_get(&r, R_RIP);
		gdb_step(&g->vm.gdb);
	}
	for (i = 0; i < nr; i++) {
		fprintf(stderr, "# case %d of %d\n", i + 1, nr);
		label_of(g, spot[i], label, sizeof(label));
		snprintf(name, sizeof(name), "offline-init/%s", label);
		why[0] = 0;
		offline(g, spot[i], i, go, why);
		result(g, name, why);
	}
	return;
bad:
	result(g, "offline-init", why);
}

#define MAX_SYSCALL	2000

/* One address to the program and its answer. */
static bool in_gap(FILE *to, FILE *from, u64 rip)
{
	int answer;

	fprintf(to, "%llx\n", (unsigned long long)rip);
	fflush(to);
	if (fscanf(from, "%d", &answer) != 1)
		die("the program of --gap does not answer");
	return answer;
}

/* In C: on to where entry text goes on. */
static bool leave_c(struct guest *g, const struct regs *r)
{
	return in_asm(g, reg_get(r, R_RIP)) ||
	       run_to(g, guest_u64(g, vm_translate(&g->vm, reg_get(r, R_RSP))));
}

/*
 * From the system call at @from of @load back to user mode: wherever the kernel has
 * the user's RSP, it has to know.
 */
static void gap(struct guest *g, const char *load, const char *from, FILE *to, FILE *answers)
{
	char why[MAX_WHY] = "", label[160], name[200];
	int n, tried = 0;
	struct regs r;

	vm_loadvm(&g->vm, "boot");
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, load));
	if (!run_to_sym(g, from))
		stands(g, "on the way to the system call", why);
	gdb_step(&g->vm.gdb);
	for (n = 0; !why[0]; n++) {
		gdb_regs(&g->vm.gdb, &r);
		if (reg_get(&r, R_CS) & 3)
			break;
		if (n == MAX_SYSCALL || !leave_c(g, &r)) {
			stands(g, "the system call does not end", why);
			break;
		}
		gdb_regs(&g->vm.gdb, &r);
		if (!(reg_get(&r, R_RSP) >> 63)) {
			tried++;
			label_of(g, reg_get(&r, R_RIP), label, sizeof(label));
			snprintf(name, sizeof(name), "gap/%s/%s", from, label);
			result(g, name, in_gap(to, answers, reg_get(&r, R_RIP)) ? "" :
			       "the kernel takes the user's RSP for its own here");
		}
		gdb_step(&g->vm.gdb);
	}
	snprintf(name, sizeof(name), "gap/%s", from);
	if (!why[0] && !tried)
		snprintf(why, sizeof(why), "the kernel never had the user's RSP");
	result(g, name, why);
}

static const char *gap_program;

static void test_gap(struct guest *g)
{
	static const char * const load[][2] = {
		{ "load_gap", "gap_insn" }, { "load_syscall32", "syscall32_insn" },
	};
	int in[2], out[2], pid;
	FILE *to, *from;
	size_t i;

	if (!gap_program)
		die("the test gap needs --gap");
	if (pipe(in) || pipe(out))
		die("pipe: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		execl(gap_program, gap_program, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	to = fdopen(in[1], "w");
	from = fdopen(out[0], "r");
	for (i = 0; i < ARRAY_SIZE(load); i++)
		gap(g, load[i][0], load[i][1], to, from);
	fclose(to);
	fclose(from);
	waitpid(pid, NULL, 0);
}

/* What the entries of #DB, #MC and NMI access while breakpoints are armed. */
static const struct word {
	const char *name;
	enum { GLOBAL, PER_CPU, STACK } where;
	int ist;
} words[] = {
	{ "the #DB stack", STACK, IST_DB },
	{ "the NMI stack", STACK, IST_REAL },
	{ "__per_cpu_offset", GLOBAL, 0 },
	{ "x86_pred_cmd", GLOBAL, 0 },
	{ "x86_spec_ctrl_current", PER_CPU, 0 },
	{ "cea_exception_stacks", PER_CPU, 0 },
	{ "cpu_tlbstate", PER_CPU, 0 },
	{ "cpu_dr7", PER_CPU, 0 },
};

static u64 word_addr(const struct guest *g, const struct word *w)
{
	switch (w->where) {
	case STACK:	return g->ist_top[w->ist] - 8;
	case PER_CPU:	return g->percpu + sym_addr(g->ksym, w->name);
	default:	return sym_addr(g->ksym, w->name);
	}
}

/* Nothing of the entries. */
#define ORDINARY	"loops_per_jiffy"

static void test_watch(struct guest *g)
{
	char why[MAX_WHY] = "", name[100];
	size_t i;
	int err;

	err = guest_watch(g, sym_addr(g->ksym, ORDINARY), BP_W);
	if (err)
		snprintf(why, sizeof(why), "perf_event_open() fails with %d", err);
	result(g, "watch-taken/" ORDINARY, why);
	for (i = 0; i < ARRAY_SIZE(words); i++) {
		why[0] = 0;
		err = guest_watch(g, word_addr(g, &words[i]), BP_RW);
		if (err != -EINVAL)
			snprintf(why, sizeof(why), "perf_event_open() returns %d, not %d",
				 err, -EINVAL);
		snprintf(name, sizeof(name), "watch-refused/%s", words[i].name);
		result(g, name, why);
	}
}

/* enum kgdb_bptype */
static const struct {
	const char *name;
	int type;
} kgdb_types[] = { { "exec", 1 }, { "write", 2 }, { "access", 4 } };

/* Have the guest call @func(@a, @b, @c) from where it stands, a function's beginning. */
static bool call(struct guest *g, const char *func, u64 a, u64 b, u64 c, u64 *ret)
{
	struct regs before, r;
	u64 rip, rsp, addr;
	int n;

	if (!sym_find(g->ksym, func, &addr))
		die("there is no %s", func);
	gdb_regs(&g->vm.gdb, &before);
	rip = reg_get(&before, R_RIP);
	rsp = reg_get(&before, R_RSP) - 8;
	gdb_write(&g->vm.gdb, vm_translate(&g->vm, rsp), &rip, sizeof(rip));
	gdb_reg_set(&g->vm.gdb, R_RSP, rsp);
	gdb_reg_set(&g->vm.gdb, R_RDI, a);
	gdb_reg_set(&g->vm.gdb, R_RSI, b);
	gdb_reg_set(&g->vm.gdb, R_RDX, c);
	gdb_reg_set(&g->vm.gdb, R_RIP, addr);
	if (!run_to(g, rip))
		return false;
	gdb_regs(&g->vm.gdb, &r);
	*ret = reg_get(&r, R_RAX);
	for (n = R_RAX; n <= R_R15; n++)
		gdb_reg_set(&g->vm.gdb, n, reg_get(&before, n));
	return reg_get(&r, R_RSP) == rsp + 8;
}

/* kgdb's breakpoints are allocated, and it may set one: interrupts are off. */
static bool to_kgdb(struct guest *g)
{
	u64 ret;

	vm_loadvm(&g->vm, "boot");
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, "load_syscall"));
	return run_to_sym(g, "__x64_sys_getppid") &&
	       call(g, "kgdb_arch_late", 0, 0, 0, &ret) && run_to_sym(g, "hrtimer_interrupt");
}

/* The breakpoint that was set gets into the CPU. Does an NMI survive it? */
static void kgdb_arm(struct guest *g, u64 addr, bool nmi, char *why)
{
	char dr[256], want[32];
	u64 ret;

	if (!call(g, "kgdb_correct_hw_break", 0, 0, 0, &ret)) {
		stands(g, "the breakpoint is not armed", why);
		return;
	}
	guest_dr(g, dr, sizeof(dr));
	snprintf(want, sizeof(want), "%016llx", (unsigned long long)addr);
	if (!strstr(dr, want)) {
		snprintf(why, MAX_WHY, "it is not armed: %.200s", dr);
		return;
	}
	if (!nmi)
		return;
	vm_inject_nmi(&g->vm);
	if (!run_to_sym(g, "default_do_nmi") || !run_to_sym(g, "__x64_sys_getppid"))
		stands(g, "kgdb takes it, and an NMI does not survive it", why);
	else
		snprintf(why, MAX_WHY, "kgdb takes it");
}

/* Does kgdb take a breakpoint, the @type-th of kgdb_types, as it has to? */
static void kgdb(struct guest *g, const char *what, u64 addr, int len, int type, bool take)
{
	char why[MAX_WHY] = "", name[200];
	u64 ret;

	vm_loadvm(&g->vm, "kgdb");
	if (!call(g, "kgdb_set_hw_break", addr, len, kgdb_types[type].type, &ret))
		stands(g, "kgdb does not return", why);
	else if ((int)ret && take)
		snprintf(why, sizeof(why), "kgdb refuses it: %d", (int)ret);
	else if (!(int)ret)
		kgdb_arm(g, addr, !take, why);
	snprintf(name, sizeof(name), "kgdb-%s/%s/%s/%d", take ? "taken" : "refused", what,
		 kgdb_types[type].name, len);
	result(g, name, why);
}

static void test_kgdb(struct guest *g)
{
	u64 ordinary = sym_addr(g->ksym, ORDINARY);
	char why[MAX_WHY] = "";
	size_t i;
	int type, len;

	if (!to_kgdb(g)) {
		stands(g, "on the way to kgdb", why);
		result(g, "kgdb", why);
		return;
	}
	vm_savevm(&g->vm, "kgdb");
	kgdb(g, "__x64_sys_getppid", sym_addr(g->ksym, "__x64_sys_getppid"), 1, 0, true);
	kgdb(g, "entry of #DB", g->gate_db, 1, 0, false);
	kgdb(g, "entry of NMI", g->gate_nmi, 1, 0, false);
	for (type = 1; type <= 2; type++) {
		for (len = 1; len <= 8; len *= 2) {
			kgdb(g, ORDINARY, ordinary, len, type, true);
			if (len > 1)
				kgdb(g, ORDINARY "+1", ordinary + 1, len, type, false);
		}
		for (i = 0; i < ARRAY_SIZE(words); i++)
			kgdb(g, words[i].name, word_addr(g, &words[i]), 8, type, false);
	}
}

static const struct {
	const char *test;
	void (*run)(struct guest *g);
	struct machine_variant machine;
} runs[] = {
	/* Zen 3 needs safe returns, Zen 1 with SMT. */
	{ "saferet", test_saferet, { "zen3", "epyc", .cpu = "EPYC-Milan" } },
	{ "saferet", test_saferet,
	  { "zen1-smt", "epyc", .options = "-smp 2,sockets=1,cores=1,threads=2",
	    .append = "maxcpus=1" } },
	{ "regs", test_regs, { .name = "skylake", .base = "skylake" } },
	{ "regs", test_regs, { .name = "max-nofsgsbase", .base = "max-nofsgsbase" } },
	{ "offline", test_offline,
	  { "skylake-smp", "skylake", .options = "-smp 2",
	    .append = "lpj=1000000 rcupdate.rcu_expedited=1" } },
	{ "gap", test_gap, { .name = "epyc", .base = "epyc" } },
	{ "gap", test_gap, { "epyc-no-ia32", "epyc", .append = "ia32_emulation=off" } },
	{ "watch", test_watch, { .name = "skylake", .base = "skylake" } },
	{ "kgdb", test_kgdb, { .name = "skylake", .base = "skylake" } },
};

int main(int argc, char **argv)
{
	struct options opt = { 0 };
	struct config cfg;
	char dir[200];
	size_t v, e;

	options_parse(options, ARRAY_SIZE(options), doc, &opt, argc, argv);
	need_file("--kernel", opt.guest.kernel);
	need_file("--vmlinux", opt.guest.vmlinux);
	need_file("--initrd", opt.guest.initrd);
	if (!opt.guest.init)
		opt.guest.init = beside("inject-init");
	again = getenv("AGAIN_FIXES") ?: argv[0];
	signal(SIGPIPE, SIG_IGN);
	cfg_load(&cfg, opt.machines ?: beside("machines"), opt.cases ?: beside("cases.cfg"),
		 NULL);
	cfg_check_list(&cfg, "entry", opt.entry, "--entry");
	snprintf(dir, sizeof(dir), "%s/fixes.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(dir))
		die("%s: %s", dir, strerror(errno));
	opt.guest.workdir = dir;
	gap_program = opt.gap;
	puts("KTAP version 1");
	for (v = 0; v < ARRAY_SIZE(runs); v++) {
		struct machine m = cfg_variant(&cfg, &runs[v].machine);

		for (e = 0; e < ARRAY_SIZE(entries); e++) {
			struct guest *g;

			if (!list_has(opt.test, runs[v].test) ||
			    !list_has(opt.entry, entries[e]))
				continue;
			g = guest_boot(&opt.guest, &cfg, &m, entries[e]);
			test = runs[v].test;
			runs[v].run(g);
			guest_end(g);
		}
	}
	printf("1..%d\n", tests);
	remove(dir);
	if (!tests)
		die("nothing was tried: the tests are saferet, regs, offline, gap, watch and kgdb");
	return !!bad;
}
