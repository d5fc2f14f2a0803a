// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of the machine: stacks, a few per-CPU variables, and what is known of
 * the rest.
 */
#include <stdlib.h>
#include <string.h>

#include "memory.h"

struct stack_info stacks[NR_STACKS] = {
	[DF] = { .name = "df" }, [REAL] = { .name = "real" }, [LATCHED] = { .name = "latched" },
	[DB] = { .name = "db" }, [MCE] = { .name = "mce" },
	[THREAD] = { .name = "thread" }, [ENTRY] = { .name = "entry" },
};

static const char * const variable[] = { "nmi_state", "nmi_cr2", "nmi_dr7" };
static u64 variable_at[NR_VARIABLES];

u64 kernel_gs;
int variable_word, espfix_word, to_word;
u64 state_addr;
u64 flush_due;

static struct pin {
	u64 addr;
	u64 value;
} pins[16];
static int nr_pins;

static void pin(u64 addr, u64 value)
{
	if (nr_pins == ARRAY_SIZE(pins))
		die("too many pins");
	pins[nr_pins].addr = addr;
	pins[nr_pins++].value = value;
}

static void pin_sym(const char *name, u64 off, u64 base, u64 value)
{
	u64 addr;

	if (sym_find(image->sym, name, &addr))
		pin(base + addr + off, value);
}

bool pinned(u64 addr, int size, u64 *v)
{
	int i;

	for (i = 0; i < nr_pins; i++) {
		u64 off = addr - pins[i].addr;

		if (off >= 8)
			continue;
		*v = pins[i].value >> (8 * off);
		if (size < 8)
			*v &= (1ULL << (8 * size)) - 1;
		return true;
	}
	return false;
}

/* w[] index of @addr, -1 if it is not memory of the machine, -2 if it crashes. */
int find_word(u64 addr)
{
	int i;

	for (i = 0; i < NR_STACKS; i++) {
		const struct stack_info *s = &stacks[i];
		u64 word;

		if (addr - s->bottom >= s->top - s->bottom)
			continue;
		if (i == MCE && addr - s->bottom < 8 * TO_WORDS)
			return to_word + (addr - s->bottom) / 8;
		word = (s->top - addr + 7) / 8 - 1;
		if (addr & 7)
			word = (s->top - (addr & ~7ULL)) / 8 - 1;
		else
			word = (s->top - addr) / 8 - 1;
		if (word >= (u64)s->words) {
			violate(P_CRASH, "the %s stack is used deeper than %d words",
				s->name, s->words);
			return -2;
		}
		return s->first + s->words - 1 - word;
	}
	if (addr - CEA_ESTACKS < stacks[MCE].top + 0x1000 - CEA_ESTACKS) {
		violate(P_CRASH, "access to 0x%llx, a guard page", (unsigned long long)addr);
		return -2;
	}
	if (addr - PER_CPU_AREA < 0x100000) {
		for (i = 0; i < NR_VARIABLES; i++) {
			if (variable_at[i] && addr - kernel_gs - variable_at[i] < 8)
				return variable_word + i;
		}
		return -1;
	}
	if (addr - ESPFIX_WADDR < 8 * ESPFIX_WORDS)
		return espfix_word + (addr - ESPFIX_WADDR) / 8;
	if (((addr & 0xffffffff0000ffffULL) - ESPFIX_STACK) < 8 * ESPFIX_WORDS)
		return espfix_word + ((addr & 0xffffffff0000ffffULL) - ESPFIX_STACK) / 8;
	if (addr >= 0xffff800000000000ULL)
		return -1;
	violate(P_CRASH, "access to 0x%llx", (unsigned long long)addr);
	return -2;
}

/*
 * What within_cpu_entry() of arch/x86/kernel/hw_breakpoint.c refuses, with the fixes
 * in front of the series.
 */
static const struct {
	const char *symbol;
	bool percpu;
	u64 off, size;
} refused[] = {
	{ "cpu_tss_rw", true, 0, 0x3000 }, { "cpu_tlbstate", true, 0, 0x100 },
	{ "cpu_dr7", true, 0, 8 }, { "cea_exception_stacks", true, 0, 8 },
	{ "__per_cpu_offset", false, 0, 0x10000 },
	{ "x86_spec_ctrl_current", true, 0, 8 }, { "x86_pred_cmd", false, 0, 8 },
	/* call_depth and top_of_stack, together or as variables of their own */
	{ "pcpu_hot", true, 16, 16 },
	{ "__x86_call_depth", true, 0, 8 }, { "cpu_current_top_of_stack", true, 0, 8 },
};

static u64 refused_at[ARRAY_SIZE(refused)];

bool watchable(u64 addr)
{
	size_t i;

	if (addr < 0xffff800000000000ULL || (addr >> 39) == (CEA >> 39))
		return false;
	for (i = 0; i < ARRAY_SIZE(refused); i++) {
		if (refused_at[i] && addr - refused_at[i] < refused[i].size)
			return false;
	}
	return true;
}

static bool is_persistent(u64 addr)
{
	/* The state; below it counters, or the "iret" frame of the classic entry. */
	return addr >= stacks[REAL].top - (entry_latched ? 72 : 56) && addr < stacks[REAL].top - 48;
}

void kill_word(u64 addr)
{
	int i = find_word(addr), j;

	if (i < 0) {
		violation = P_NONE;
		return;
	}
	for (j = 0; j < NR_STACKS; j++) {
		if (addr - stacks[j].bottom < stacks[j].top - stacks[j].bottom) {
			if (!is_persistent(addr))
				set_word(i, DEAD);
			return;
		}
	}
}

void kill_stack(enum stack st, u64 below, int words)
{
	u64 a;

	for (a = stacks[st].top - 8 * words; a < below; a += 8)
		kill_word(a);
}

void kill_to(void)
{
	int i;

	for (i = 0; i < TO_WORDS; i++)
		set_word(to_word + i, DEAD);
}

static void layout(void)
{
	/* What estack_pages[] says: offset, size and type of each page's stack. */
	static const enum stack order[] = { DF, REAL, LATCHED, DB, MCE };
	u64 at = sym_addr(image->sym, "estack_pages");
	u64 size = sym_size(image->sym, "estack_pages"), i;
	u64 seen[16], offs[16] = { 0 }, len[16] = { 0 };
	int n = 0, k, s;

	for (i = 0; i + 8 <= size; i += 8) {
		u64 e = image_u64(image, at + i);
		int type = e >> 48;

		if (!(e >> 32 & 0xffff))
			continue;
		for (k = 0; k < n && seen[k] != (u64)type; k++)
			;
		if (k == n && n < 16)
			seen[n++] = type;
		offs[k] = e & 0xffffffff;
		len[k] = e >> 32 & 0xffff;
	}
	/* Behind them there are those of #VC. The LATCHED stack may be part of REAL. */
	if (n != 6 && n != 7)
		die("%s: estack_pages names %d stacks", image->path, n);
	memset(&stacks[LATCHED].bottom, 0, 2 * sizeof(u64));
	stacks[LATCHED].words = 0;
	for (k = 0, s = 0; s < 5; s++) {
		if (order[s] == LATCHED && n == 6)
			continue;
		stacks[order[s]].bottom = CEA_ESTACKS + offs[k];
		stacks[order[s]].top = stacks[order[s]].bottom + len[k];
		stacks[order[s]].words = STACK_WORDS;
		k++;
	}
	stacks[THREAD].top = THREAD_STACK;
	stacks[THREAD].bottom = THREAD_STACK - 0x4000;
	stacks[THREAD].words = STACK_WORDS;
	stacks[ENTRY].top = ENTRY_STACK_TOP;
	stacks[ENTRY].bottom = ENTRY_STACK_TOP - 0x1000;
	stacks[ENTRY].words = 48;
	for (n = W_MEM, s = 0; s < NR_STACKS; s++) {
		stacks[s].first = n;
		n += stacks[s].words;
	}
	variable_word = n;
	n += NR_VARIABLES;
	espfix_word = n;
	n += ESPFIX_WORDS;
	to_word = n;
	n += TO_WORDS;
	if (n > W_PART)
		die("W_PART is too small");
	state_addr = stacks[REAL].top - 56;
}

/*
 * Where the top of the thread stack is kept: what entry text loads RSP from
 * apart from the TSS, whose name has changed over the years.
 */
static void pin_stack_top(void)
{
	u64 a = sym_addr(image->sym, "__entry_text_start");
	u64 end = sym_addr(image->sym, "__entry_text_end");
	u64 tss = sym_addr(image->sym, "cpu_tss_rw");
	const struct insn *i;

	for (; a < end; a++) {
		u64 var;
		u8 b[5];

		/* mov %gs:(rip or absolute), %rsp */
		image_read(image, a, b, 5);
		if (b[0] != 0x65 || b[1] != 0x48 || b[2] != 0x8b ||
		    (b[3] != 0x25 && b[3] != 0x24))
			continue;
		i = decode(a);
		if (!i || i->nr != 2 || i->op[0].kind != O_REG || i->op[0].reg != SP ||
		    !i->op[1].gs)
			continue;
		var = i->op[1].val + (i->op[1].base == REG_IP ? i->addr + i->len : 0);
		if (var - tss < 0x100)
			continue;
		pin(kernel_gs + var, THREAD_STACK);
		return;
	}
	die("%s: nobody loads the thread stack", image->path);
}

/*
 * user_pcid_flush_mask, a member of cpu_tlbstate: of which entry text tests and clears
 * the bit of a PCID. The word that it is in is memory of the machine.
 */
static void find_flush_mask(void)
{
	u64 a = sym_addr(image->sym, "__entry_text_start");
	u64 end = sym_addr(image->sym, "__entry_text_end");

	variable_at[FLUSH_MASK] = flush_due = 0;
	for (; a < end; a++) {
		const struct insn *i;
		u64 var;
		u8 b[4];

		/* btr %REG, %gs:MEMORY */
		image_read(image, a, b, 4);
		if (b[0] != 0x65 || (b[1] & 0xfb) != 0x48 || b[2] != 0x0f || b[3] != 0xb3)
			continue;
		i = decode(a);
		if (!i || !i->op[0].gs)
			continue;
		var = i->op[0].val + (i->op[0].base == REG_IP ? i->addr + i->len : 0);
		variable_at[FLUSH_MASK] = var & ~7ULL;
		flush_due = 1ULL << (8 * (var & 7) + KERNEL_PCID);
		return;
	}
}

void memory_init(const struct image *im)
{
	int i;

	nr_pins = 0;
	layout();
	kernel_gs = PER_CPU_AREA - sym_addr(im->sym, "__per_cpu_start");
	for (i = 0; i < (int)ARRAY_SIZE(variable); i++) {
		if (!sym_find(im->sym, variable[i], &variable_at[i]))
			variable_at[i] = 0;
	}
	find_flush_mask();

	for (i = 0; i < (int)ARRAY_SIZE(refused); i++) {
		refused_at[i] = 0;
		if (!sym_find(im->sym, refused[i].symbol, &refused_at[i]))
			continue;
		refused_at[i] += refused[i].off;
		if (refused[i].percpu)
			refused_at[i] += kernel_gs;
	}
	pin_stack_top();
	pin_sym("cpu_tss_rw", 4, kernel_gs, ENTRY_STACK_TOP);
	pin_sym("cea_exception_stacks", 0, kernel_gs, CEA_ESTACKS);
	pin_sym("this_cpu_off", 0, kernel_gs, kernel_gs);
	pin_sym("espfix_waddr", 0, kernel_gs, ESPFIX_WADDR);
	pin_sym("espfix_stack", 0, kernel_gs, ESPFIX_STACK);
	pin_sym("x86_spec_ctrl_current", 0, kernel_gs, SPEC_KERNEL);
	pin_sym("cpu_dr7", 0, kernel_gs, DR7_ARMED & ~0x400);
	/* The canary of the stack protector: at a fixed place, later a variable. */
	pin_sym("fixed_percpu_data", 0x28, kernel_gs, CANARY);
	pin_sym("__stack_chk_guard", 0, kernel_gs, CANARY);
	/* pcpu_hot: current_task, preempt_count, cpu_number */
	pin_sym("pcpu_hot", 0, kernel_gs, CURRENT);
	pin_sym("pcpu_hot", 8, kernel_gs, 0);
	pin_sym("current_task", 0, kernel_gs, CURRENT);
	/* Call depth tracking does not stuff the return stack buffer here. */
	pin_sym("pcpu_hot", 16, kernel_gs, 1);
	pin_sym("__x86_call_depth", 0, kernel_gs, 1);
	pin_sym("cpu_number", 0, kernel_gs, 0);
	pin_sym("__per_cpu_offset", 0, 0, kernel_gs);
	pin_sym("__cpu_online_mask", 0, 0, ~0ULL);
	pin_sym("ignore_nmis", 0, 0, 0);
}
