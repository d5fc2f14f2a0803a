// SPDX-License-Identifier: GPL-2.0
/*
 * One guest: boot it, bring it to a context, trace the path that an event
 * takes there, run the cases and judge them from outside.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inject.h"

/* Kernel image mapping with nokaslr. */
#define KERNEL_MAP	0xffffffff80000000ULL
#define VEC_NMI		2
#define VEC_MCE		18

/* The stacks of the TSS that the table names. */
static const char * const ist_name[] = { NULL, NULL, "real", "db", "mce" };
#define IST_REAL	2

#define BOOT_MS		240000
#define CASE_MS		300
#define PATIENT_MS	2000
#define MAX_PATH	6000
#define MAX_RET		64
#define MAX_RANGES	4
#define MAX_OTHERS	8
#define PT_REGS_SLOTS	21

const char * const verdict_name[V_NR] = {
	[V_OK] = "ok", [V_LOST] = "lost", [V_REGS] = "regs",
	[V_STATE] = "state", [V_CRASH] = "crash", [V_RESET] = "reset",
	[V_HANG] = "hang", [V_UNREACHED] = "unreached",
};

struct range {
	u64 begin, end;
};

struct spot {
	u64 addr;
	int pass;
};

struct path {
	struct spot *spot;
	int nr, max;
};

struct guest {
	const struct options *opt;
	const struct config *cfg;
	const struct machine *machine;
	const char *entry;
	char dir[256];
	struct vm vm;
	struct symtab *ksym, *isym;

	struct range text[MAX_RANGES];
	int nr_text;
	u64 trap[8];
	int nr_trap;
	u64 gate_nmi, gate_mce;
	u64 iretq;
	u64 ist_top[ARRAY_SIZE(ist_name)];
	u64 state_phys;
	u64 percpu_phys;
	u64 nmi_count_phys;
	u64 nmi_state_phys;

	/* The context in force: the interrupted instruction and its state. */
	const struct context *ctx;
	struct regs s0;
	char s0_dr[256];
	u64 s0_rip, s0_rsp;
	bool restored;

	int slot;

	/* Where C functions return to entry text, as traced. */
	u64 ret[MAX_RET];
	int nr_ret;

	const struct patch *patch;
	int nr_patch;

	/* CPU time of QEMU after which a guest hangs. */
	int limit_ms;

	/* The case in progress. */
	u32 runs_before;
	bool nmi_injected;
};

static u64 kernel_phys(u64 virt)
{
	return virt - KERNEL_MAP;
}

static u64 read_u64(struct guest *g, u64 phys)
{
	u64 v;

	vm_read(&g->vm, phys, &v, sizeof(v));
	return v;
}

static u32 read_u32(struct guest *g, u64 phys)
{
	u32 v;

	vm_read(&g->vm, phys, &v, sizeof(v));
	return v;
}

static u64 now_rip(struct guest *g, struct regs *r)
{
	vm_regs(&g->vm, r);
	return reg_get(r, R_RIP);
}

static bool in_asm(struct guest *g, u64 addr)
{
	int i;

	for (i = 0; i < g->nr_text; i++) {
		if (addr >= g->text[i].begin && addr < g->text[i].end)
			return true;
	}
	return false;
}

/* Without the thunks, which C code goes through as well. */
static bool in_entry_text(struct guest *g, u64 addr)
{
	return addr >= g->text[0].begin && addr < g->text[0].end;
}

static bool in_kernel_image(struct guest *g, u64 addr)
{
	return addr >= sym_addr(g->ksym, "_text") && addr < sym_addr(g->ksym, "_end");
}

static bool is_trap(struct guest *g, u64 addr)
{
	int i;

	for (i = 0; i < g->nr_trap; i++) {
		if (g->trap[i] == addr)
			return true;
	}
	return false;
}

/*
 * Let the guest run to a breakpoint. The one at the interrupted instruction is
 * always set, and there is more to it:
 *  - When QEMU polls its APIC it looks at breakpoints before it takes the
 *    interrupt that is pending: a stop there may come too early, once.
 *  - Shared text may get there with another stack, like the IRET of #MC when
 *    an IRET was interrupted. That is not the end, unless @want is just there.
 */
static enum stop guest_cont(struct guest *g, u64 want)
{
	struct regs a, b;
	enum stop stop;
	int others = 0;

	vm_regs(&g->vm, &a);
	for (;;) {
		stop = vm_cont(&g->vm, g->limit_ms);
		if (stop != STOP_TRAP || !g->ctx ||
		    now_rip(g, &b) != g->s0_rip || want == g->s0_rip)
			return stop;
		if (reg_get(&b, R_RSP) != g->s0_rsp) {
			if (others++ == MAX_OTHERS)
				return stop;
			vm_step(&g->vm);
			continue;
		}
		if (reg_get(&a, R_RIP) != g->s0_rip)
			return stop;
		memset(&a, 0, sizeof(a));
	}
}

static void label_of(struct guest *g, u64 addr, char *buf, size_t len)
{
	sym_label(addr >> 63 ? g->ksym : g->isym, addr, buf, len);
}

static void note(struct guest *g, const char *fmt, ...)
{
	va_list ap;

	if (!g->opt->verbose)
		return;
	va_start(ap, fmt);
	fprintf(stderr, "# ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
}

/* The debug registers, as the monitor prints them. */
static void read_dr(struct guest *g, char *buf, size_t len)
{
	char all[8192], *p, *e;

	vm_hmp(&g->vm, "info registers", all, sizeof(all));
	p = strstr(all, "DR0=");
	e = p ? strstr(p, "DR7=") : NULL;
	if (!e)
		die("info registers shows no debug registers");
	e[strcspn(e, "\n")] = 0;
	snprintf(buf, len, "%s", p);
}

static u64 idt_gate(struct guest *g, u64 idt, int vec)
{
	u8 d[16];
	u16 lo, mid;
	u32 hi;

	vm_read(&g->vm, vm_translate(&g->vm, idt + 16 * vec), d, sizeof(d));
	memcpy(&lo, d, 2);
	memcpy(&mid, d + 6, 2);
	memcpy(&hi, d + 8, 4);
	return (u64)hi << 32 | (u32)mid << 16 | lo;
}

static void add_range(struct guest *g, const char *begin, const char *end)
{
	u64 b, e;

	if (!sym_find(g->ksym, begin, &b) || !sym_find(g->ksym, end, &e))
		return;
	g->text[g->nr_text].begin = b;
	g->text[g->nr_text++].end = e;
}

static void add_trap(struct guest *g, const char *name)
{
	u64 addr;

	if (!sym_find(g->ksym, name, &addr))
		return;
	g->trap[g->nr_trap++] = addr;
	vm_bp_set(&g->vm, addr);
}

static bool run_to(struct guest *g, u64 addr)
{
	bool there;
	struct regs r;

	vm_bp_set(&g->vm, addr);
	there = guest_cont(g, addr) == STOP_TRAP && now_rip(g, &r) == addr;
	vm_bp_clear(&g->vm, addr);
	return there;
}

/*
 * Find the interesting memory from the CPU's own tables: the gates from the
 * IDT, the real NMI stack from the TSS.
 */
static void guest_layout(struct guest *g)
{
	char all[8192], *p;
	u64 idt, tss, base, direct, count;
	u32 before[2], after[2];
	size_t i;

	vm_hmp(&g->vm, "info registers", all, sizeof(all));
	p = strstr(all, "TR =");
	if (!p || sscanf(p + 4, "%*x %llx", (unsigned long long *)&tss) != 1)
		die("info registers shows no TR");
	p = strstr(all, "IDT=");
	if (!p || sscanf(p + 4, "%llx", (unsigned long long *)&idt) != 1)
		die("info registers shows no IDT");
	g->gate_nmi = idt_gate(g, idt, VEC_NMI);
	g->gate_mce = idt_gate(g, idt, VEC_MCE);
	for (i = 1; i < ARRAY_SIZE(ist_name); i++)
		g->ist_top[i] = read_u64(g, vm_translate(&g->vm, tss + 0x24 + 8 * (i - 1)));
	g->state_phys = vm_translate(&g->vm, g->ist_top[IST_REAL] - 56);

	base = read_u64(g, kernel_phys(sym_addr(g->ksym, "__per_cpu_offset")));
	direct = read_u64(g, kernel_phys(sym_addr(g->ksym, "page_offset_base")));
	g->percpu_phys = base - direct;
	g->nmi_state_phys = g->percpu_phys + sym_addr(g->ksym, "nmi_state");

	/* __nmi_count is what counts between the gate and the handlers. */
	count = g->percpu_phys + sym_addr(g->ksym, "irq_stat");
	vm_inject_nmi(&g->vm);
	if (!run_to(g, g->gate_nmi))
		goto bad;
	vm_read(&g->vm, count, before, sizeof(before));
	if (!run_to(g, sym_addr(g->ksym, "default_do_nmi")))
		goto bad;
	vm_read(&g->vm, count, after, sizeof(after));
	if (!run_to(g, sym_addr(g->isym, "ready")))
		goto bad;
	for (i = 0; i < ARRAY_SIZE(before); i++) {
		if (after[i] - before[i] == 1)
			g->nmi_count_phys = count + sizeof(u32) * i;
	}
	if (g->nmi_count_phys)
		return;
bad:
	die("%s/%s: a plain NMI is not handled, or not counted in irq_stat",
	    g->entry, g->machine->name);
}

struct guest *guest_boot(const struct options *opt, const struct config *cfg,
			 const struct machine *m, const char *entry)
{
	struct guest *g = xalloc(sizeof(*g));
	char append[1024], initrd[300], label[128];
	struct vm_config vc;
	struct regs r;
	u64 ready;

	g->opt = opt;
	g->cfg = cfg;
	g->machine = m;
	g->entry = entry;
	g->limit_ms = CASE_MS;
	g->ksym = sym_load(opt->vmlinux);
	g->isym = sym_load(opt->init);
	snprintf(g->dir, sizeof(g->dir), "%s/%s-%s-%d", opt->workdir, entry,
		 m->name, getpid());
	if (mkdir(g->dir, 0700))
		die("%s: cannot create", g->dir);
	snprintf(initrd, sizeof(initrd), "%s/initrd", g->dir);
	cpio_write(initrd, opt->init, opt->module);
	snprintf(append, sizeof(append),
		 "nokaslr rdinit=/init nmi_entry=%s oops=panic panic=0 quiet loglevel=1 "
		 "nosoftlockup nmi_watchdog=0 rcupdate.rcu_cpu_stall_suppress=1 "
		 "tsc=reliable no_timer_check kunit.enable=0 %s %s", entry,
		 opt->serial ? "console=ttyS0 ignore_loglevel" : "", m->append);

	vc = (struct vm_config) {
		.qemu = opt->qemu, .kernel = opt->kernel, .initrd = initrd,
		.cpu = m->cpu, .append = append, .memory = "256M",
		.dir = g->dir, .serial = opt->serial,
	};
	vm_start(&g->vm, &vc);

	add_range(g, "__entry_text_start", "__entry_text_end");
	add_range(g, "__indirect_thunk_start", "__indirect_thunk_end");
	add_range(g, "srso_untrain_ret", "__x86_return_thunk");
	add_trap(g, "panic");
	add_trap(g, "oops_begin");
	add_trap(g, "exc_double_fault");
	g->iretq = sym_addr(g->ksym, "native_irq_return_iret");

	ready = sym_addr(g->isym, "ready");
	vm_bp_set(&g->vm, ready);
	if (vm_cont(&g->vm, BOOT_MS) != STOP_TRAP)
		die("%s/%s: the kernel does not boot", entry, m->name);
	if (now_rip(g, &r) != ready) {
		label_of(g, reg_get(&r, R_RIP), label, sizeof(label));
		die("%s/%s: the kernel does not boot: %s", entry, m->name, label);
	}
	vm_bp_clear(&g->vm, ready);
	guest_layout(g);
	vm_savevm(&g->vm, "boot");
	label_of(g, g->gate_nmi, label, sizeof(label));
	note(g, "%s/%s: NMI gate %s, real stack top 0x%llx", entry, m->name,
	     label, (unsigned long long)g->ist_top[IST_REAL]);
	return g;
}

void guest_end(struct guest *g)
{
	static const char * const file[] = {
		"initrd", "gdb", "qmp", "snap.qcow2", "qemu.log",
	};
	char path[300];
	size_t i;

	vm_kill(&g->vm);
	for (i = 0; i < ARRAY_SIZE(file); i++) {
		snprintf(path, sizeof(path), "%s/%s", g->dir, file[i]);
		unlink(path);
	}
	rmdir(g->dir);
	free(g);
}

static void apply_patches(struct guest *g)
{
	int i;

	for (i = 0; i < g->nr_patch; i++)
		vm_write(&g->vm, kernel_phys(g->patch[i].addr), g->patch[i].new,
			 g->patch[i].len);
}

static void restore(struct guest *g, const char *snap)
{
	vm_loadvm(&g->vm, snap);
	apply_patches(g);
	g->restored = true;
}

static u64 any_addr(struct guest *g, const char *name)
{
	u64 addr;
	char base[128];

	snprintf(base, sizeof(base), "%.*s", (int)strcspn(name, "+"), name);
	if (sym_find(g->isym, base, &addr))
		return sym_addr(g->isym, name);
	return sym_addr(g->ksym, name);
}

static void take_s0(struct guest *g)
{
	vm_regs(&g->vm, &g->s0);
	read_dr(g, g->s0_dr, sizeof(g->s0_dr));
	g->s0_rip = reg_get(&g->s0, R_RIP);
	g->s0_rsp = reg_get(&g->s0, R_RSP);
	vm_savevm(&g->vm, "ctx");
	vm_bp_set(&g->vm, g->s0_rip);
	g->restored = true;
}

static void leave_context(struct guest *g)
{
	if (g->ctx)
		vm_bp_clear(&g->vm, g->s0_rip);
	g->ctx = NULL;
}

static bool reach(struct guest *g, u64 at, struct regs *r)
{
	bool there;

	vm_bp_set(&g->vm, at);
	there = vm_cont(&g->vm, 10 * CASE_MS) == STOP_TRAP && now_rip(g, r) == at;
	vm_bp_clear(&g->vm, at);
	if (!there) {
		char label[160];

		label_of(g, now_rip(g, r), label, sizeof(label));
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

	rip = now_rip(g, &r);
	phys = vm_translate(&g->vm, rip);
	vm_read(&g->vm, phys, old, len);
	vm_write(&g->vm, phys, code, len);
	vm_reg_set(&g->vm, R_RAX, rax);
	vm_step(&g->vm);
	vm_write(&g->vm, phys, old, len);
	vm_reg_set(&g->vm, R_RIP, rip);
	vm_reg_set(&g->vm, R_RAX, reg_get(&r, R_RAX));
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
	vm_step(&g->vm);
	if (!reach(g, at, &r))
		return false;
	run_insn(g, to_dr0, sizeof(to_dr0), reg_get(&r, R_RDI) + 8 * g->slot);
	run_insn(g, to_dr7, sizeof(to_dr7), dr7);
	vm_write(&g->vm, g->percpu_phys + sym_addr(g->ksym, "cpu_dr7"), &enabled,
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
			if (!g->opt->module ||
			    !reach(g, sym_addr(g->ksym, "do_one_initcall"), &r))
				return false;
			*addr = reg_get(&r, R_RDI);
		} while (in_kernel_image(g, *addr));
		return true;
	}
	if (!colon) {
		*addr = any_addr(g, at);
		return true;
	}
	/* Behind the one-byte instruction HEX. */
	snprintf(base, sizeof(base), "%.*s", (int)(colon - at), at);
	begin = sym_addr(g->ksym, base);
	vm_read(&g->vm, kernel_phys(begin), text, sizeof(text));
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

static bool enter_context(struct guest *g, const struct context *ctx)
{
	static const enum reg fill[] = {
		R_RAX, R_RBX, R_RCX, R_RDX, R_RSI, R_RDI, R_RBP,
		R_R8, R_R9, R_R10, R_R11, R_R12, R_R13, R_R14, R_R15,
	};
	static const u8 spin[2] = { 0xeb, 0xfe };
	struct regs r;
	u64 at;
	size_t i;

	leave_context(g);
	vm_loadvm(&g->vm, "boot");
	vm_reg_set(&g->vm, R_RIP, sym_addr(g->isym, ctx->load));
	if (ctx->watch && !arm_watchpoint(g))
		return false;
	if (!find_at(g, ctx->at, &at))
		return false;
	if (ctx->needs_mce) {
		char ans[256];

		if (!reach(g, sym_addr(g->isym, "user_spin"), &r))
			return false;
		vm_hmp(&g->vm, g->machine->mce, ans, sizeof(ans));
	}
	if (!reach(g, at, &r))
		return false;

	if (ctx->spin) {
		vm_write(&g->vm, vm_translate(&g->vm, at), spin, sizeof(spin));
		for (i = 0; i < ARRAY_SIZE(fill); i++)
			vm_reg_set(&g->vm, fill[i],
				   0x0101010101010101ULL * (0x11 * (i + 1)));
	}
	if (ctx->irqs_off)
		vm_reg_set(&g->vm, R_EFLAGS, reg_get(&r, R_EFLAGS) & ~0x200ULL);
	if (ctx->rsp)
		vm_reg_set(&g->vm, R_RSP, rsp_of(g, ctx->rsp));
	apply_patches(g);
	g->ctx = ctx;
	take_s0(g);
	return true;
}

/* One instruction further within a window context; false at its end. */
static bool next_in_window(struct guest *g)
{
	u64 end = sym_addr(g->ksym, g->ctx->until), rip;
	struct regs r;

	restore(g, "ctx");
	vm_bp_clear(&g->vm, g->s0_rip);
	vm_step(&g->vm);
	rip = now_rip(g, &r);
	if (rip == end || !in_asm(g, rip)) {
		vm_bp_set(&g->vm, g->s0_rip);
		return false;
	}
	take_s0(g);
	return true;
}

/* The next slot of a watchpoint context; false behind the last. */
static bool next_slot(struct guest *g)
{
	const struct context *ctx = g->ctx;

	if (++g->slot == PT_REGS_SLOTS)
		return false;
	return enter_context(g, ctx);
}

/* Pieces of a case. */

/* Run an IRET in place: the same instruction comes next, NMIs unmasked. */
static bool iret_in_place(struct guest *g)
{
	struct regs r, s;
	u64 frame[5], at, phys;

	vm_regs(&g->vm, &r);
	frame[0] = reg_get(&r, R_RIP);
	frame[1] = reg_get(&r, R_CS);
	frame[2] = reg_get(&r, R_EFLAGS);
	frame[3] = reg_get(&r, R_RSP);
	frame[4] = reg_get(&r, R_SS);
	at = (frame[3] - 512) & ~15ULL;
	phys = vm_translate(&g->vm, at);
	if (phys == ~0ULL)
		return false;
	vm_write(&g->vm, phys, frame, sizeof(frame));
	vm_reg_set(&g->vm, R_RSP, at);
	vm_reg_set(&g->vm, R_RIP, g->iretq);
	vm_step(&g->vm);
	vm_regs(&g->vm, &s);
	return !memcmp(r.raw, s.raw, r.len);
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
	rip = now_rip(g, &r);
	label_of(g, rip, label, sizeof(label));
	if (why == STOP_HANG) {
		snprintf(detail, len, "%shang at %s", head, label);
		return V_HANG;
	}
	if (is_trap(g, rip)) {
		char text[64] = "";
		u64 fmt = reg_get(&r, R_RDI);

		if (!strncmp(label, "panic+0x0", 10) && fmt > KERNEL_MAP) {
			vm_read(&g->vm, kernel_phys(fmt), text, sizeof(text) - 1);
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

static enum verdict judge(struct guest *g, char *detail, size_t len)
{
	char dr[256];
	struct regs r;
	u64 state;
	u32 runs;

	vm_regs(&g->vm, &r);
	if (reg_diff(&g->s0, &r, detail, len))
		return V_REGS;
	read_dr(g, dr, sizeof(dr));
	/* DR6 collects what the CPU saw; it is not the interrupted context's. */
	if (strcmp(strstr(dr, "DR7="), strstr(g->s0_dr, "DR7=")) ||
	    strncmp(dr, g->s0_dr, strstr(dr, "DR6=") - dr)) {
		snprintf(detail, len, "debug registers %.150s", dr);
		return V_REGS;
	}
	state = read_u64(g, g->state_phys);
	if (state) {
		snprintf(detail, len, "nmi_nest_count %u restarts %u nmi_latch %u",
			 (u16)state, (u16)(state >> 16), (u32)(state >> 32));
		return V_STATE;
	}
	if (read_u32(g, g->nmi_state_phys)) {
		snprintf(detail, len, "nmi_state %u", read_u32(g, g->nmi_state_phys));
		return V_STATE;
	}
	runs = read_u32(g, g->nmi_count_phys) - g->runs_before;
	if (g->nmi_injected && !runs) {
		snprintf(detail, len, "no handler run after the last NMI");
		return V_LOST;
	}
	return V_OK;
}

/*
 * Do steps [@from, @to) of @ev; sweeps stop at @spot[].  V_OK means that the
 * guest stands right after step @to - 1.
 */
static enum verdict do_steps(struct guest *g, const struct event *ev, int from,
			     int to, const struct spot *spot, char *detail,
			     size_t len)
{
	char ans[256], label[160];
	struct regs r;
	int i;

	for (i = from; i < to; i++) {
		const struct step *st = &ev->step[i];
		int pass = 1;
		enum stop stop;
		u64 at;

		switch (st->kind) {
		case STEP_NMI:
			g->runs_before = read_u32(g, g->nmi_count_phys);
			g->nmi_injected = true;
			vm_inject_nmi(&g->vm);
			note(g, "  inject NMI");
			continue;
		case STEP_MCE:
			vm_hmp(&g->vm, g->machine->mce, ans, sizeof(ans));
			note(g, "  inject #MC");
			continue;
		case STEP_IRET:
			note(g, "  run an IRET in place");
			if (!iret_in_place(g)) {
				snprintf(detail, len, "IRET in place failed");
				return V_UNREACHED;
			}
			continue;
		case STEP_RUN:
			at = sym_addr(g->ksym, st->sym);
			break;
		default:
			at = spot->addr;
			pass = spot->pass;
			spot++;
			if (st->sweep == SWEEP_AFTER)
				vm_step(&g->vm);
			break;
		}

		label_of(g, at, label, sizeof(label));
		vm_bp_set(&g->vm, at);
		do {
			stop = guest_cont(g, at);
			if (stop != STOP_TRAP || now_rip(g, &r) != at) {
				vm_bp_clear(&g->vm, at);
				return bad_stop(g, stop, label, detail, len);
			}
			if (pass > 1)
				vm_step(&g->vm);
		} while (--pass);
		vm_bp_clear(&g->vm, at);
		note(g, "  at %s", label);
	}
	return V_OK;
}

/* To the interrupted instruction. */
static enum verdict do_end(struct guest *g, char *detail, size_t len)
{
	enum stop stop = guest_cont(g, 0);
	enum verdict v;
	struct regs r;

	if (stop != STOP_TRAP || now_rip(g, &r) != g->s0_rip)
		return bad_stop(g, stop, NULL, detail, len);
	v = judge(g, detail, len);
	if (v != V_LOST)
		return v;
	/* Not handled yet, or never? */
	stop = guest_cont(g, 0);
	if (stop != STOP_TRAP || now_rip(g, &r) != g->s0_rip)
		return bad_stop(g, stop, NULL, detail, len);
	return judge(g, detail, len);
}

static enum verdict run_case(struct guest *g, const struct event *ev,
			     const struct spot *spot, char *detail, size_t len)
{
	enum verdict v;

	detail[0] = 0;
	g->nmi_injected = false;
	v = do_steps(g, ev, 0, ev->nr, spot, detail, len);
	if (v == V_OK)
		v = do_end(g, detail, len);
	note(g, "  %s %s", verdict_name[v], detail);
	if (v != V_OK)
		restore(g, "ctx");
	else
		g->restored = false;
	return v;
}

/* Tracing. */

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

static const struct zone *find_zone(struct guest *g, const char *name)
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
	u64 ret = phys == ~0ULL ? 0 : read_u64(g, phys);
	bool ok;
	int i;

	if (in_asm(g, ret))
		remember_return(g, ret);
	for (i = 0; i < g->nr_ret; i++)
		vm_bp_set(&g->vm, g->ret[i]);
	ok = guest_cont(g, 0) == STOP_TRAP;
	for (i = 0; i < g->nr_ret; i++)
		vm_bp_clear(&g->vm, g->ret[i]);
	return ok;
}

/*
 * Step from where the guest stands (or, after an event, from its gate) and
 * record the boundaries that @st asks for.
 */
static bool trace(struct guest *g, const struct step *st,
		  enum step_kind before, struct path *p)
{
	u64 begin = 0, end = ~0ULL, rip;
	const struct zone *z;
	struct regs r;
	int n;

	if (st->sweep == SWEEP_TO)
		end = sym_addr(g->ksym, st->sym);
	if (st->sweep == SWEEP_ZONE) {
		z = find_zone(g, st->sym);
		if (!z)
			return false;
		begin = sym_addr(g->ksym, z->begin);
		end = sym_addr(g->ksym, z->end);
	}

	if (before == STEP_NMI || before == STEP_MCE) {
		u64 gate = before == STEP_NMI ? g->gate_nmi : g->gate_mce;
		bool there;

		vm_bp_set(&g->vm, gate);
		there = guest_cont(g, gate) == STOP_TRAP &&
			now_rip(g, &r) == gate;
		vm_bp_clear(&g->vm, gate);
		if (!there)
			return false;
	}

	for (n = 0; n < MAX_PATH; n++) {
		rip = now_rip(g, &r);
		if (is_trap(g, rip))
			return false;
		if (rip == g->s0_rip && reg_get(&r, R_RSP) == g->s0_rsp)
			return true;
		if (st->sweep == SWEEP_TO || st->sweep == SWEEP_C) {
			if (rip == end || (st->sweep == SWEEP_C && in_entry_text(g, rip)))
				return true;
			path_add(p, rip, false);
			vm_step(&g->vm);
			continue;
		}
		if (in_asm(g, rip)) {
			if (rip >= begin && rip < end &&
			    (n || st->sweep != SWEEP_AFTER))
				path_add(p, rip, st->sweep == SWEEP_PASSES);
			vm_step(&g->vm);
			continue;
		}
		if (st->sweep == SWEEP_STUB)
			return true;
		if (!run_over_c(g, &r))
			return false;
	}
	return false;
}

/* Cases. */

struct outcome {
	char *label;
	struct spot spot[MAX_SWEEPS];
	enum verdict v;
	char detail[400];
};

struct sweep {
	const struct event *ev;
	struct outcome *out;
	int nr, max;
	bool confirm;
	/* End at the first failure: enough for a mutant. */
	bool first;
	bool done;
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

	if (run_case(g, sw->ev, o->spot, detail, sizeof(detail)) != V_OK)
		return;
	/* C need not take the same path twice, but from a fresh guest it does. */
	if (o->v == V_UNREACHED && leads_to_c(g, sw->ev, o->spot)) {
		o->v = V_OK;
		o->detail[0] = 0;
		return;
	}
	if (sw->nr > 1) {
		struct outcome *b = o - 1;

		restore(g, "ctx");
		run_case(g, sw->ev, b->spot, detail, sizeof(detail));
		if (run_case(g, sw->ev, o->spot, detail, sizeof(detail)) != V_OK) {
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
	restore(g, "ctx");
}

static void one_case(struct guest *g, struct sweep *sw, const char *label,
		     const struct spot *spot)
{
	struct outcome *o = new_outcome(sw, label, spot);
	bool fresh = g->restored;

	note(g, "%s/%s at %s", g->ctx->name, sw->ev->name, label);
	o->v = run_case(g, sw->ev, spot, o->detail, sizeof(o->detail));
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
	bool traced;
	int i, next;

	while (at < ev->nr && ev->step[at].kind != STEP_SWEEP)
		at++;
	if (at == ev->nr) {
		if (!g->opt->at || !strcmp(g->opt->at, *head ? head : "once"))
			one_case(g, sw, *head ? head : "once", spot);
		return;
	}

	/* As a case that fails is repeated: #MC switches lockdep off, say. */
	if (!g->restored)
		restore(g, "ctx");
	traced = do_steps(g, ev, 0, at, spot, detail, sizeof(detail)) == V_OK &&
		 trace(g, &ev->step[at], at ? ev->step[at - 1].kind : STEP_RUN, &p);
	restore(g, "ctx");
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
		if (g->opt->at && strncmp(g->opt->at, label, strlen(label)))
			continue;
		spot[depth] = p.spot[i];
		explore(g, sw, next, depth + 1, label, spot);
	}
	free(p.spot);
}

/*
 * The return points of C must be known before a script leaves C by anything
 * but a call: trace the plain NMI into @p, #MC in a handler, and plain #MC.
 */
static bool learn_returns(struct guest *g, struct path *p)
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
	vm_inject_nmi(&g->vm);
	ok = trace(g, &all, STEP_NMI, p);
	restore(g, "ctx");
	if (!ok)
		return false;
	/* Not inside #MC: there a second one shuts the CPU down. */
	if (g->ctx->needs_mce)
		return true;
	if (do_steps(g, &mce, 0, mce.nr, NULL, detail, sizeof(detail)) == V_OK)
		trace(g, &all, STEP_MCE, &q);
	restore(g, "ctx");
	if (do_steps(g, &mce, 2, mce.nr, NULL, detail, sizeof(detail)) == V_OK)
		trace(g, &all, STEP_MCE, &q);
	free(q.spot);
	restore(g, "ctx");
	return true;
}

static void sweep_context(struct guest *g, struct sweep *sw)
{
	struct spot spot[MAX_SWEEPS] = { 0 };

	sw->nr = 0;
	sw->done = false;
	explore(g, sw, 0, 0, "", spot);
}

/* To @out for the report, and a line of progress. */
static void emit(struct guest *g, struct sweep *sw, const char *name, FILE *out)
{
	int i, bad = 0;

	fprintf(out, "case %s %s %s/%s\n", g->entry, g->machine->name, name,
		sw->ev->name);
	for (i = 0; i < sw->nr; i++) {
		fprintf(out, "point %s %s %s\n", sw->out[i].label,
			verdict_name[sw->out[i].v], sw->out[i].detail);
		free(sw->out[i].label);
		bad += sw->out[i].v != V_OK;
	}
	fprintf(out, "end\n");
	fflush(out);
	fprintf(stderr, "# %s/%s/%s/%s: %d of %d lost\n", g->entry, g->machine->name,
		name, sw->ev->name, bad, sw->nr);
	sw->nr = 0;
}

/* "name" or, in a window, "name@symbol+offset", or "name@slot". */
static void context_name(struct guest *g, char *buf, size_t len)
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

static bool event_applies(struct guest *g, const struct event *ev,
			  const char *events)
{
	return list_has(events, ev->name) &&
	       (!ev->only || !strcmp(ev->only, g->entry));
}

/* All of @events at the one instruction that the guest stands at. */
static void run_events(struct guest *g, const char *events, FILE *out)
{
	char name[200];
	struct path p = { 0 };
	struct sweep sw = { 0 };
	bool learnt;
	int i;

	context_name(g, name, sizeof(name));
	learnt = learn_returns(g, &p);
	fprintf(out, "path %s %s %s %d\n", g->entry, g->machine->name, name, p.nr);
	if (g->opt->trace) {
		char label[160];

		for (i = 0; i < p.nr; i++) {
			label_of(g, p.spot[i].addr, label, sizeof(label));
			fprintf(out, "step %s\n", label);
		}
		goto done;
	}
	for (i = 0; i < g->cfg->nr_event; i++) {
		const struct event *ev = &g->cfg->event[i];

		if (!event_applies(g, ev, events))
			continue;
		sw.ev = ev;
		sw.confirm = strcmp(g->entry, "classic") || !ev->classic_lossy;
		if (learnt) {
			sweep_context(g, &sw);
		} else {
			struct spot none[MAX_SWEEPS] = { 0 };
			struct outcome *o = new_outcome(&sw, "trace", none);

			o->v = V_UNREACHED;
			snprintf(o->detail, sizeof(o->detail),
				 "a plain NMI does not return");
		}
		emit(g, &sw, name, out);
	}
done:
	free(sw.out);
	free(p.spot);
}

void guest_context(struct guest *g, const struct context *ctx,
		   const char *events, FILE *out)
{
	g->slot = 0;
	if (!enter_context(g, ctx)) {
		fprintf(out, "skip %s %s %s %s is not reached\n", g->entry,
			g->machine->name, ctx->name, ctx->at);
		return;
	}
	do {
		char name[200];

		context_name(g, name, sizeof(name));
		if (!g->opt->instance || !strcmp(g->opt->instance, name))
			run_events(g, events, out);
	} while ((ctx->until && next_in_window(g)) ||
		 (ctx->watch && next_slot(g)));
}

static void read_text(void *arg, u64 addr, void *buf, size_t len)
{
	struct guest *g = arg;

	while (len) {
		size_t n = len > 1024 ? 1024 : len;

		vm_read(&g->vm, kernel_phys(addr), buf, n);
		addr += n;
		buf = (u8 *)buf + n;
		len -= n;
	}
}

/* One case of a mutant, to its first failure; returns the boundaries tried. */
static int mutant_case(struct guest *g, const struct context *ctx,
		       struct sweep *sw, char *first, size_t len)
{
	char name[200];
	int tried = 0;

	g->slot = 0;
	if (!enter_context(g, ctx))
		die("context %s is not reached", ctx->name);
	do {
		struct path p = { 0 };
		struct outcome *last;

		context_name(g, name, sizeof(name));
		learn_returns(g, &p);
		free(p.spot);
		sweep_context(g, sw);
		tried += sw->nr;
		last = sw->nr ? &sw->out[sw->nr - 1] : NULL;
		if (!last || last->v == V_OK)
			continue;
		sw->done = true;
		snprintf(first, len, "%s/%s at %s: %s %s", name, sw->ev->name,
			 last->label, verdict_name[last->v], last->detail);
	} while (!sw->done && ctx->watch && next_slot(g));
	return tried;
}

/*
 * Apply @mu and run its cases to the first failure.  Lines as for a case,
 * under the entry "mutant".
 */
void guest_mutant(struct guest *g, const struct mutant *mu, FILE *out)
{
	struct patch patch[32];
	struct sweep sw = { .first = true };
	char first[600] = "";
	int i, cases = 0;

	leave_context(g);
	vm_loadvm(&g->vm, "boot");
	g->nr_patch = mutant_patches(g->ksym, mu, read_text, g, patch,
				     ARRAY_SIZE(patch));
	g->patch = patch;

	for (i = 0; i < g->cfg->nr_context && !sw.done; i++) {
		const struct context *ctx = &g->cfg->context[i];
		int e;

		for (e = 0; e < g->cfg->nr_event && !sw.done; e++) {
			char name[200];

			snprintf(name, sizeof(name), "%s/%s", ctx->name,
				 g->cfg->event[e].name);
			if (!list_has(mu->cases, name))
				continue;
			sw.ev = &g->cfg->event[e];
			cases += mutant_case(g, ctx, &sw, first, sizeof(first));
		}
	}
	fprintf(out, "mutant %s %s %d %s\n", g->machine->name, mu->name, cases, first);
	fflush(out);

	g->nr_patch = 0;
	leave_context(g);
	vm_loadvm(&g->vm, "boot");
	free(sw.out);
}
