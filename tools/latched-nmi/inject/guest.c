// SPDX-License-Identifier: GPL-2.0
/*
 * One guest: boot it, learn from the CPU's own tables where its NMI path is, and
 * let it run.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define VEC_DB		1
#define VEC_NMI		2
#define VEC_MCE		18

/* The state of the latched entry and of the classic one, from the stack's top. */
#define NMI_STATE	56
/* What only the latched one has: how many NMIs nested, and how many restarted it. */
#define NMI_COUNTS	64

/* struct perf_event_attr */
#define ATTR_BP_TYPE	52
#define ATTR_BP_ADDR	56

#define BOOT_MS		240000
#define WATCH_MS	800
#define MAX_OTHERS	8
#define EFLAGS_RF	0x10000ULL

u64 kernel_phys(u64 virt)
{
	return virt - KERNEL_MAP;
}

u64 guest_u64(struct guest *g, u64 phys)
{
	u64 v;

	gdb_read(&g->vm.gdb, phys, &v, sizeof(v));
	return v;
}

u32 guest_u32(struct guest *g, u64 phys)
{
	u32 v;

	gdb_read(&g->vm.gdb, phys, &v, sizeof(v));
	return v;
}

u64 guest_rip(struct guest *g, struct regs *r)
{
	gdb_regs(&g->vm.gdb, r);
	return reg_get(r, R_RIP);
}

bool in_asm(const struct guest *g, u64 addr)
{
	int i;

	for (i = 0; i < g->nr_text; i++) {
		if (addr >= g->text[i].begin && addr < g->text[i].end)
			return true;
	}
	return false;
}

bool in_entry_text(const struct guest *g, u64 addr)
{
	return addr >= g->text[0].begin && addr < g->text[0].end;
}

bool in_kernel_image(const struct guest *g, u64 addr)
{
	return addr >= sym_addr(g->ksym, "_text") && addr < sym_addr(g->ksym, "_end");
}

bool is_trap(const struct guest *g, u64 addr)
{
	int i;

	for (i = 0; i < g->nr_trap; i++) {
		if (g->trap[i] == addr)
			return true;
	}
	return false;
}

bool guest_find(const struct guest *g, const char *name, u64 *addr)
{
	return sym_find(g->isym, name, addr) || sym_find(g->ksym, name, addr);
}

void label_of(const struct guest *g, u64 addr, char *buf, size_t len)
{
	sym_label(addr >> 63 ? g->ksym : g->isym, addr, buf, len);
}

void note(const struct guest *g, const char *fmt, ...)
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

/*
 * Let the guest run to a breakpoint. The one at the interrupted instruction is
 * always set, and there is more to it:
 *  - When QEMU polls its APIC it looks at breakpoints before it takes the
 *    interrupt that is pending: a stop there may come too early, once.
 *  - Shared text may get there with another stack, like the IRET of #MC when
 *    an IRET was interrupted. That is not the end, unless @want is just there.
 */
enum stop guest_cont(struct guest *g, u64 want)
{
	struct regs a, b;
	enum stop stop;
	int others = 0;

	gdb_regs(&g->vm.gdb, &a);
	for (;;) {
		stop = vm_cont(&g->vm, g->limit_ms);
		if (stop != STOP_TRAP || !g->ctx ||
		    guest_rip(g, &b) != g->s0_rip || want == g->s0_rip)
			return stop;
		if (reg_get(&b, R_RSP) != g->s0_rsp) {
			if (others++ == MAX_OTHERS)
				return stop;
			gdb_step(&g->vm.gdb);
			continue;
		}
		if (reg_get(&a, R_RIP) != g->s0_rip)
			return stop;
		memset(&a, 0, sizeof(a));
	}
}

bool guest_run_to(struct guest *g, u64 addr)
{
	bool there;
	struct regs r;

	gdb_bp_set(&g->vm.gdb, addr);
	there = guest_cont(g, addr) == STOP_TRAP && guest_rip(g, &r) == addr;
	gdb_bp_clear(&g->vm.gdb, addr);
	return there;
}

int guest_watch(struct guest *g, u64 addr, u32 type)
{
	u64 attr, ready = sym_addr(g->isym, "watch_ready");
	struct regs r;
	bool there;

	vm_loadvm(&g->vm, "boot");
	attr = vm_translate(&g->vm, sym_addr(g->isym, "watch_attr"));
	gdb_write(&g->vm.gdb, attr + ATTR_BP_TYPE, &type, sizeof(type));
	gdb_write(&g->vm.gdb, attr + ATTR_BP_ADDR, &addr, sizeof(addr));
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, "load_watch"));
	gdb_bp_set(&g->vm.gdb, ready);
	there = vm_cont(&g->vm, WATCH_MS) == STOP_TRAP && guest_rip(g, &r) == ready;
	gdb_bp_clear(&g->vm.gdb, ready);
	if (!there)
		return -EIO;
	return reg_get(&r, R_RAX) > -4096ULL ? (int)reg_get(&r, R_RAX) : 0;
}

void guest_patch(struct guest *g)
{
	int i;

	for (i = 0; i < g->nr_patch; i++)
		gdb_write(&g->vm.gdb, kernel_phys(g->patch[i].addr), g->patch[i].new,
			  g->patch[i].len);
}

void guest_restore(struct guest *g)
{
	vm_loadvm(&g->vm, g->snap);
	guest_patch(g);
	g->restored = true;
}

void guest_dr(struct guest *g, char *buf, size_t len)
{
	char *all = vm_hmp(&g->vm, "info registers"), *p, *e;

	p = strstr(all, "DR0=");
	e = p ? strstr(p, "DR7=") : NULL;
	if (!e)
		die("info registers shows no debug registers");
	e[strcspn(e, "\n")] = 0;
	/* One line, since it may become a part of a result. */
	while ((e = strpbrk(p, "\r\n")))
		*e = ' ';
	snprintf(buf, len, "%s", p);
	free(all);
}

static u64 idt_gate(struct guest *g, u64 idt, int vec)
{
	u8 d[16];
	u16 lo, mid;
	u32 hi;

	gdb_read(&g->vm.gdb, vm_translate(&g->vm, idt + 16 * vec), d, sizeof(d));
	memcpy(&lo, d, 2);
	memcpy(&mid, d + 6, 2);
	memcpy(&hi, d + 8, 4);
	return (u64)hi << 32 | (u32)mid << 16 | lo;
}

/* The base of a table that "info registers" shows after @name and @format. */
static u64 table_base(struct guest *g, const char *name, const char *format)
{
	char *all = vm_hmp(&g->vm, "info registers"), *p;
	unsigned long long base;

	p = strstr(all, name);
	if (!p || sscanf(p + strlen(name), format, &base) != 1)
		die("info registers shows no %s", name);
	free(all);
	return base;
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
	gdb_bp_set(&g->vm.gdb, addr);
}

/* "Linux version 6.12.1 (...": the third word. */
static void read_version(struct guest *g)
{
	char banner[64] = "";

	gdb_read(&g->vm.gdb, kernel_phys(sym_addr(g->ksym, "linux_banner")), banner,
		 sizeof(banner) - 1);
	if (sscanf(banner, "Linux version %63s", g->version) != 1)
		die("%s: linux_banner is no banner", g->opt->vmlinux);
}

/*
 * Send a plain NMI. Which word of irq_stat does it count in, between the gate and
 * the handlers: that is __nmi_count. And does this QEMU push RF = 1, although RF is
 * 0? A CPU pushes RF as it is for an NMI (SDM, volume 3, "Masking Instruction
 * Breakpoints"), but newer QEMUs do as for a fault.
 */
static bool learn_from_nmi(struct guest *g)
{
	u64 count = g->percpu_phys + sym_addr(g->ksym, "irq_stat"), frame;
	u32 before[2], after[2];
	struct regs r;
	size_t i;

	/* It may be 1 here, if a fault has just returned. */
	gdb_regs(&g->vm.gdb, &r);
	gdb_reg_set(&g->vm.gdb, R_EFLAGS, reg_get(&r, R_EFLAGS) & ~EFLAGS_RF);
	vm_inject_nmi(&g->vm);
	if (!guest_run_to(g, g->gate_nmi))
		return false;
	gdb_regs(&g->vm.gdb, &r);
	frame = vm_translate(&g->vm, reg_get(&r, R_RSP) + 16);
	g->rf_pushed = guest_u64(g, frame) & EFLAGS_RF;
	gdb_read(&g->vm.gdb, count, before, sizeof(before));
	if (!guest_run_to(g, sym_addr(g->ksym, "default_do_nmi")))
		return false;
	gdb_read(&g->vm.gdb, count, after, sizeof(after));
	if (!guest_run_to(g, sym_addr(g->isym, "ready")))
		return false;
	for (i = 0; i < ARRAY_SIZE(before); i++) {
		if (after[i] - before[i] == 1)
			g->nmi_count_phys = count + sizeof(u32) * i;
	}
	return g->nmi_count_phys;
}

/* The gates from the IDT, the stacks from the TSS, per-CPU data of CPU 0. */
static void guest_layout(struct guest *g)
{
	u64 tss = table_base(g, "TR =", "%*x %llx");
	u64 idt = table_base(g, "IDT=", "%llx");
	int i;

	g->gate_nmi = idt_gate(g, idt, VEC_NMI);
	g->gate_mce = idt_gate(g, idt, VEC_MCE);
	g->gate_db = idt_gate(g, idt, VEC_DB);
	for (i = 1; i < NR_IST; i++)
		g->ist_top[i] = guest_u64(g, vm_translate(&g->vm, tss + 0x24 + 8 * (i - 1)));
	g->state_phys = vm_translate(&g->vm, g->ist_top[IST_REAL] - NMI_STATE);
	g->counts_phys = vm_translate(&g->vm, g->ist_top[IST_REAL] - NMI_COUNTS);

	g->percpu = guest_u64(g, kernel_phys(sym_addr(g->ksym, "__per_cpu_offset")));
	g->percpu_phys = g->percpu -
			 guest_u64(g, kernel_phys(sym_addr(g->ksym, "page_offset_base")));
	g->nmi_state_phys = g->percpu_phys + sym_addr(g->ksym, "nmi_state");
	if (!learn_from_nmi(g))
		die("%s/%s: a plain NMI is not handled, or not counted in irq_stat",
		    g->entry, g->machine->name);
}

/* Let the guest boot on to @addr. */
static void boot_to(struct guest *g, u64 addr)
{
	char label[128];
	struct regs r;

	gdb_bp_set(&g->vm.gdb, addr);
	if (vm_cont(&g->vm, BOOT_MS) != STOP_TRAP)
		die("%s/%s: the kernel does not boot", g->entry, g->machine->name);
	if (guest_rip(g, &r) != addr) {
		label_of(g, reg_get(&r, R_RIP), label, sizeof(label));
		die("%s/%s: the kernel does not boot: %s", g->entry, g->machine->name, label);
	}
	gdb_bp_clear(&g->vm.gdb, addr);
}

struct guest *guest_boot(const struct guest_config *opt, const struct config *cfg,
			 const struct machine *m, const char *entry)
{
	struct guest *g = xalloc(sizeof(*g));
	char append[1024], label[128];
	char text[64];
	struct vm_config vc;
	u64 begin;

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
	snprintf(append, sizeof(append),
		 "nokaslr rdinit=/init nmi_entry=%s oops=panic panic=0 quiet loglevel=1 "
		 "nosoftlockup nmi_watchdog=0 rcupdate.rcu_cpu_stall_suppress=1 "
		 "tsc=reliable no_timer_check kunit.enable=0 %s %s", entry,
		 opt->serial ? "console=ttyS0 ignore_loglevel" : "", m->append);

	vc = (struct vm_config) {
		.qemu = opt->qemu ?: m->program ?: "qemu-system-x86_64",
		.options = m->options, .kernel = opt->kernel, .initrd = opt->initrd,
		.cpu = m->cpu, .append = append, .dir = g->dir, .serial = opt->serial,
	};
	if (opt->changes) {
		begin = sym_addr(g->ksym, "__entry_text_start");
		snprintf(text, sizeof(text), "%#llx+%#llx", (unsigned long long)begin,
			 (unsigned long long)(sym_addr(g->ksym, "__entry_text_end") - begin));
		vc.log_text = text;
	}
	vm_start(&g->vm, &vc);

	add_range(g, "__entry_text_start", "__entry_text_end");
	add_range(g, "__indirect_thunk_start", "__indirect_thunk_end");
	add_range(g, "srso_untrain_ret", "__x86_return_thunk");
	add_trap(g, "panic");
	add_trap(g, "oops_begin");
	add_trap(g, "exc_double_fault");
	g->iretq = sym_addr(g->ksym, "native_irq_return_iret");

	if (opt->changes) {
		boot_to(g, sym_addr(g->ksym, "latched_nmi_init"));
		vm_savevm(&g->vm, "self-check");
	}
	boot_to(g, sym_addr(g->isym, "ready"));
	read_version(g);
	guest_layout(g);
	vm_savevm(&g->vm, "boot");
	label_of(g, g->gate_nmi, label, sizeof(label));
	note(g, "%s/%s: NMI gate %s, real stack top 0x%llx%s", entry, m->name,
	     label, (unsigned long long)g->ist_top[IST_REAL],
	     g->rf_pushed ? ", QEMU pushes RF = 1" : "");
	return g;
}

void guest_end(struct guest *g)
{
	vm_kill(&g->vm);
	remove_tree(g->dir);
	free(g);
}
