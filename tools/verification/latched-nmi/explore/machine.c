// SPDX-License-Identifier: GPL-2.0
/*
 * The machine around the text: stacks, per-CPU variables, page tables as far as
 * the path uses them, delivery of events, and what C functions do that are not
 * executed instruction by instruction.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

const struct image *image;
bool entry_latched;
bool count_to_two;
bool explored_already;
int violation;
char violation_text[256];

const char * const property_name[NR_PROPERTIES] = {
	"none", "REENTRY", "RETURN", "ARRIVAL", "REST", "CRASH", "HANG", "CLEAN",
};

const char * const event_name[NR_EVENTS] = {
	"step", "fork", "nmi", "mce", "db", "iret", "smi",
};

bool violate(enum property p, const char *fmt, ...)
{
	va_list ap;

	violation = p;
	va_start(ap, fmt);
	vsnprintf(violation_text, sizeof(violation_text), fmt, ap);
	va_end(ap);
	return false;
}

/* ----------------------------------------------------------- layout */

#define PER_CPU_AREA	0xffff88800fc00000ULL
#define USER_GS		0x00007fabcdef0000ULL
#define CEA		0xfffffe0000000000ULL
#define CEA_ESTACKS	(CEA + 0x40000)
#define ENTRY_STACK_TOP	(CEA + 0x4000)
#define THREAD_STACK	0xffffc90000014000ULL
/* What a task_struct holds does not matter here. */
#define CURRENT		0xffff888001000000ULL
#define CANARY		0x5afe5afe5afe5a00ULL
#define ESPFIX_STACK	0xffffff0100000fc0ULL
#define ESPFIX_WADDR	0xffff888001234fc0ULL
#define ESPFIX_WORDS	8
#define KERNEL_CR3	0x0000000001000000ULL
#define USER_CR3	0x0000000001001000ULL
#define ORIG_CR2	0x00000000c2000000ULL
#define FAULT_CR2	0x00000000c2fa0000ULL
#define DR7_ARMED	0x0000000000000402ULL
#define SPEC_IBRS	1

#define STACK_WORDS	112
#define MODULE_TEXT	0xffffffffc0000000ULL
#define USER_TEXT	0x0000000000401000ULL
#define USER_STACK	0x00007ffc5a5a0000ULL

struct stack_info stacks[NR_STACKS] = {
	[DF] = { .name = "df" }, [REAL] = { .name = "real" }, [LATCHED] = { .name = "latched" },
	[DB] = { .name = "db" }, [MCE] = { .name = "mce" },
	[THREAD] = { .name = "thread" }, [ENTRY] = { .name = "entry" },
};

/* Per-CPU variables that are memory; all the others are not looked at. */
static const char * const variable[] = { "nmi_state", "nmi_cr2", "nmi_dr7" };

#define NR_VARIABLES ((int)ARRAY_SIZE(variable))

/* nmi_state, see arch/x86/kernel/nmi.c */
#define NMI_EXECUTING	1
#define NMI_LATCHED	2

static u64 variable_at[NR_VARIABLES];
static int variable_word;
static int espfix_word;

static struct pin {
	u64 addr;
	u64 value;
} pins[16];
static int nr_pins;

/* The per-CPU area, less the link address of its variables. */
static u64 kernel_gs;
static u64 gate_nmi, gate_mce, gate_db;
static u64 run_fn, nmi_fn, nmi_fn_end, fixup_fn, fixup_end, move_fn, move_end, fault_rip, text_begin, text_end;
static u64 may_fault_fn[8];
static int nr_may_fault;
static struct {
	u64 begin, end;
} as_built[16];
static int nr_as_built;

static u64 stub_begin, stub_end;

static u64 ctx[W_MAX];
static u64 state_addr;
static bool pti, ibrs;
static const struct context_desc *context;

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

	/* Counters below the state; to the classic entry that is its "iret" frame. */
	if (entry_latched && addr >= stacks[REAL].top - 72 && addr < stacks[REAL].top - 56)
		return -1;
	for (i = 0; i < NR_STACKS; i++) {
		const struct stack_info *s = &stacks[i];
		u64 word;

		if (addr - s->bottom >= s->top - s->bottom)
			continue;
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

static bool is_persistent(u64 addr)
{
	/* The state, in either entry. */
	return addr >= stacks[REAL].top - 56 && addr < stacks[REAL].top - 48;
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
				set(i, DEAD);
			return;
		}
	}
}

static void kill_stack(enum stack st, u64 below, int words)
{
	u64 a;

	for (a = stacks[st].top - 8 * words; a < below; a += 8)
		kill_word(a);
}

void label(u64 addr, char *buf, size_t len)
{
	if (addr == MODULE_TEXT)
		snprintf(buf, len, "module");
	else if (addr == USER_TEXT)
		snprintf(buf, len, "user");
	else
		sym_label(image->more && in_asm(addr) && addr >= text_end ? image->more : image->sym,
			  addr, buf, len);
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
	if (n > W_MAX)
		die("W_MAX is too small");
	nr_w = n;
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

static void run_as_built(const char *name)
{
	u64 addr;

	if (!sym_find(image->sym, name, &addr))
		return;
	if (nr_as_built == ARRAY_SIZE(as_built))
		die("too many functions");
	as_built[nr_as_built].begin = addr;
	as_built[nr_as_built++].end = addr + sym_size(image->sym, name);
}

static void may_fault(const char *name)
{
	u64 addr;

	if (sym_find(image->sym, name, &addr))
		may_fault_fn[nr_may_fault++] = addr;
}

/* The text of the NMI entry in use, where an NMI is not like any other. */
static void find_stub(const struct image *im)
{
	const struct symtab *t = im->more ? im->more : im->sym;

	if (im->more) {
		stub_begin = sym_addr(t, "rfc_text_begin");
		stub_end = sym_addr(t, "rfc_text_end");
		return;
	}
	if (entry_latched) {
		/* That from user mode is at the end, and compared with nothing. */
		if (!sym_find(t, "latched_nmi_repeat", &stub_begin))
			stub_begin = sym_addr(t, "__nmi_prologue_begin");
		stub_end = sym_addr(t, "__nmi_user_prologue_begin");
		return;
	}
	stub_begin = sym_addr(t, "asm_exc_nmi");
	stub_end = stub_begin + sym_size(t, "asm_exc_nmi");
}

void machine_init(const struct image *im, const struct features *f, const char *entry)
{
	int i;

	image = im;
	nr_pins = nr_as_built = nr_may_fault = 0;
	decode_init(im);
	layout();
	entry_latched = !strcmp(entry, "latched");
	pti = features_has(f, "PTI");
	ibrs = features_has(f, "KERNEL_IBRS");

	if (im->more) {
		gate_nmi = sym_addr(im->more, "real_nmi_handler");
		gate_mce = sym_addr(im->sym, "asm_exc_machine_check");
	} else if (entry_latched) {
		gate_nmi = sym_addr(im->sym, "asm_exc_nmi_latched");
		if (!sym_find(im->sym, "asm_exc_machine_check_latched", &gate_mce))
			gate_mce = sym_addr(im->sym, "asm_exc_machine_check");
	} else {
		gate_nmi = sym_addr(im->sym, "asm_exc_nmi");
		gate_mce = sym_addr(im->sym, "asm_exc_machine_check");
	}
	if (!entry_latched || !sym_find(im->sym, "asm_exc_debug_latched", &gate_db))
		gate_db = sym_addr(im->sym, "asm_exc_debug");
	find_stub(im);
	fault_rip = sym_addr(im->sym, "asm_exc_int3");
	run_fn = sym_addr(im->sym, "default_do_nmi");
	nmi_fn = sym_addr(im->sym, "exc_nmi");
	nmi_fn_end = nmi_fn + sym_size(im->sym, "exc_nmi");
	fixup_fn = fixup_end = move_fn = move_end = 0;
	if (sym_find(im->sym, "latched_nmi_move", &move_fn))
		move_end = move_fn + sym_size(im->sym, "latched_nmi_move");
	if (entry_latched && sym_find(im->sym, "latched_nmi_fixup", &fixup_fn))
		fixup_end = fixup_fn + sym_size(im->sym, "latched_nmi_fixup");
	text_begin = sym_addr(im->sym, "_text");
	text_end = sym_addr(im->sym, "_etext");

	kernel_gs = PER_CPU_AREA - sym_addr(im->sym, "__per_cpu_start");
	for (i = 0; i < NR_VARIABLES; i++) {
		if (!sym_find(im->sym, variable[i], &variable_at[i]))
			variable_at[i] = 0;
	}

	pin_stack_top();
	pin_sym("cpu_tss_rw", 4, kernel_gs, ENTRY_STACK_TOP);
	pin_sym("cea_exception_stacks", 0, kernel_gs, CEA_ESTACKS);
	pin_sym("this_cpu_off", 0, kernel_gs, kernel_gs);
	pin_sym("espfix_waddr", 0, kernel_gs, ESPFIX_WADDR);
	pin_sym("espfix_stack", 0, kernel_gs, ESPFIX_STACK);
	pin_sym("x86_spec_ctrl_current", 0, kernel_gs, SPEC_IBRS);
	pin_sym("cpu_dr7", 0, kernel_gs, 0);
	/* The canary of the stack protector: at a fixed place, later a variable. */
	pin_sym("fixed_percpu_data", 0x28, kernel_gs, CANARY);
	pin_sym("__stack_chk_guard", 0, kernel_gs, CANARY);
	/* pcpu_hot: current_task, preempt_count, cpu_number */
	pin_sym("pcpu_hot", 0, kernel_gs, CURRENT);
	pin_sym("pcpu_hot", 8, kernel_gs, 0);
	pin_sym("current_task", 0, kernel_gs, CURRENT);
	pin_sym("cpu_number", 0, kernel_gs, 0);
	pin_sym("__per_cpu_offset", 0, 0, kernel_gs);
	pin_sym("__cpu_online_mask", 0, 0, ~0ULL);
	pin_sym("ignore_nmis", 0, 0, 0);

	run_as_built("exc_nmi");
	run_as_built("exc_nmi_latched");
	run_as_built("latched_nmi_fixup");
	run_as_built("latched_nmi_move");
	run_as_built("exc_machine_check");
	run_as_built("exc_machine_check_nmi");
	run_as_built("exc_machine_check_kernel");
	run_as_built("exc_debug");
	run_as_built("noist_exc_machine_check");
	run_as_built("sync_regs");
	run_as_built("handle_interrupted_saferet");

	may_fault("default_do_nmi");
	may_fault("do_machine_check");
	may_fault("exc_debug_kernel");
}

u64 gate(enum ev ev)
{
	return ev == EV_NMI ? gate_nmi : ev == EV_MC ? gate_mce : gate_db;
}

/* --------------------------------------------------------- contexts */

static bool find_at(const char *name, u64 *at)
{
	static const char *last;
	static u64 addr;

	*at = USER_TEXT;
	if (!strcmp(name, "user"))
		return true;
	*at = MODULE_TEXT;
	if (!strcmp(name, "module"))
		return true;
	if (last != name && !sym_find(image->sym, name, &addr))
		return false;
	last = name;
	*at = addr;
	return true;
}

static bool owns(enum stack st)
{
	return context->own && list_has(context->own, stacks[st].name);
}

/* So much of it: of the #DF stack, the frame that may be parked there. */
static int words_owned(enum stack st)
{
	return st == DF ? 6 : stacks[st].words;
}

static bool same_stack(enum stack st)
{
	int i = stacks[st].first + stacks[st].words - words_owned(st);

	return !memcmp(&w[i], &ctx[i], 8 * words_owned(st));
}

/* The context is a handler run for an NMI from user mode. */
static bool in_run(void)
{
	return context->in && !strcmp(context->in, "run");
}

/* What the context has on its own stack, and the frame at its top. */
static void fill_stacks(void)
{
	u64 user[5] = { USER_TEXT, USER_CS, 0x246, USER_STACK, USER_SS };
	u64 kernel[5] = { text_begin + 0x1000, KERNEL_CS, 0x46, THREAD_STACK - 0x800, KERNEL_SS };
	int s, i;

	if (context->frame && !strcmp(context->frame, "kernel"))
		memcpy(user, kernel, sizeof(user));
	if (context->frame && !strcmp(context->frame, "espfix"))
		user[4] = 7;
	for (s = 0; s < NR_STACKS; s++) {
		if (!owns(s))
			continue;
		for (i = stacks[s].words - words_owned(s); i < stacks[s].words; i++)
			w[stacks[s].first + i] = TOKEN(0x1000 * (s + 1) + i);
		if (!context->frame || !context->rsp_stack || strcmp(context->rsp_stack, stacks[s].name))
			continue;
		for (i = 0; i < 5; i++)
			w[stacks[s].first + stacks[s].words - 5 + i] = user[i];
	}
}

static void take_context(void)
{
	memcpy(ctx, w, sizeof(ctx));
	rehash();
}

bool machine_start(const struct context_desc *c, int n)
{
	u64 end = 0;
	u64 at;
	int i;

	memset(w, 0, sizeof(w));
	context = c;
	violation = P_NONE;
	for (i = 0; i < 16; i++)
		w[W_GPR + i] = TOKEN(i);
	for (i = W_MEM; i < variable_word; i++)
		w[i] = DEAD;
	w[find_word(state_addr)] = 0;
	for (i = 0; i < ESPFIX_WORDS; i++)
		w[espfix_word + i] = DEAD;
	w[variable_word + 1] = DEAD;
	w[variable_word + 2] = DEAD;

	fill_stacks();
	if (!find_at(c->at, &at) || (c->until && !sym_find(image->sym, c->until, &end)))
		return false;
	RIP = at;
	w[W_CS] = c->cs;
	w[W_SS] = c->ss;
	w[W_FLAGS] = c->flags | 2;
	w[W_GS] = c->user_gs ? USER_GS : kernel_gs;
	w[W_KGS] = c->user_gs ? kernel_gs : USER_GS;
	w[W_CR3] = c->user_cr3 && pti ? USER_CR3 : KERNEL_CR3;
	w[W_CR2] = ORIG_CR2;
	w[W_DR7] = DR7_ARMED;
	w[W_MC] = c->in && !strcmp(c->in, "mc");
	w[W_DB] = c->in && !strcmp(c->in, "db");
	if (in_run()) {
		w[W_RUNNING] = 1;
		w[variable_word] = NMI_EXECUTING;
		w[variable_word + 1] = TOKEN(0x100);
		w[variable_word + 2] = TOKEN(0x101);
	}
	w[W_BUDGET] = UNLIMITED;
	w[W_SPEC] = ibrs && !c->user_gs ? SPEC_IBRS : 0;
	GPR(SP) = c->rsp;
	if (c->rsp_stack) {
		for (i = 0; i < NR_STACKS; i++) {
			if (!strcmp(stacks[i].name, c->rsp_stack))
				GPR(SP) = stacks[i].top + c->rsp;
		}
	}
	rehash();
	for (; n; n--) {
		/* Only instructions of entry text: a window of it is the context. */
		if (!cpu_step(0))
			return false;
		if (RIP == end || !in_asm(RIP))
			return false;
	}
	set(W_TOUCHED, 0);
	take_context();
	return true;
}

bool at_rest(void)
{
	return RIP == ctx[W_RIP] && w[W_CS] == ctx[W_CS] && GPR(SP) == ctx[W_GPR + SP] &&
	       w[W_AWAY];
}

bool judge(void)
{
	static const char * const gpr_name[] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
	};
	static const struct {
		int i;
		const char *name;
	} others[] = {
		{ W_FLAGS, "rflags" }, { W_SS, "ss" }, { W_GS, "gsbase" },
		{ W_KGS, "kernel_gsbase" }, { W_CR2, "cr2" }, { W_CR3, "cr3" },
		{ W_DR7, "dr7" }, { W_SPEC, "spec_ctrl" },
	};
	size_t i;

	for (i = 0; i < 16; i++) {
		if (GPR(i) != ctx[W_GPR + i])
			return violate(P_RETURN, "%s is not the interrupted context's",
				       gpr_name[i]);
	}
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		if (w[others[i].i] != ctx[others[i].i])
			return violate(P_RETURN, "%s is not the interrupted context's",
				       others[i].name);
	}
	for (i = 0; i < NR_STACKS; i++) {
		if (owns(i) && !same_stack(i))
			return violate(P_RETURN, "the %s stack is not as it was", stacks[i].name);
	}
	if (w[W_RUNNING] != ctx[W_RUNNING])
		return violate(P_RETURN, "a handler run was left unfinished");
	if (w[W_MC] != ctx[W_MC] || w[W_DB] != ctx[W_DB])
		return violate(P_RETURN, "a handler of %s was left unfinished",
			       w[W_MC] != ctx[W_MC] ? "#MC" : "#DB");
	if (w[W_MASKED])
		return violate(P_REST, "NMIs stay masked");
	if (w[find_word(state_addr)])
		return violate(P_REST, "the state is 0x%llx",
			       (unsigned long long)w[find_word(state_addr)]);
	if (in_run()) {
		/* What is owed is noted; the run that is in progress will see it. */
		if ((u32)w[variable_word] != (w[W_OWED] ? NMI_LATCHED : NMI_EXECUTING))
			return violate(P_ARRIVAL, "nmi_state is %u", (u32)w[variable_word]);
		if (w[variable_word + 1] != TOKEN(0x100) || w[variable_word + 2] != TOKEN(0x101))
			return violate(P_RETURN, "what exc_nmi() saved is not as it was");
		return true;
	}
	if (w[variable_word] & 0xffffffff)
		return violate(P_REST, "nmi_state is %u", (u32)w[variable_word]);
	if (w[W_OWED] && !w[W_PENDING])
		return violate(P_ARRIVAL, "no handler run has begun after the last NMI");
	return true;
}

/*
 * Back at rest: what frames and saved registers have left behind is as good as
 * anything, and none of it may matter.
 */
static void settle(void)
{
	int i;

	for (i = 0; i < NR_STACKS; i++) {
		u64 below = stacks[i].top;

		if (owns(i))
			below -= 8 * words_owned(i);
		kill_stack(i, below, stacks[i].words);
	}
	for (i = 0; i < ESPFIX_WORDS; i++)
		set(espfix_word + i, DEAD);
	if (!in_run()) {
		set(variable_word + 1, DEAD);
		set(variable_word + 2, DEAD);
	}
	set(W_AWAY, 0);
}

/* ----------------------------------------------------------- events */

/* What W_MC and W_DB say. */
#define FROM_KERNEL	1
#define FROM_USER	2

static bool deliver(u64 top, u64 rip)
{
	u64 frame[5] = { RIP, w[W_CS], w[W_FLAGS] | FL_RF, GPR(SP), w[W_SS] };
	int i;

	/* RF in the frame is the CPU's business: IRET restores what was there. */
	frame[2] = w[W_FLAGS];
	set(W_TOUCHED, 0);
	set(W_AWAY, 1);
	for (i = 0; i < 5; i++)
		set(find_word(top - 40 + 8 * i), frame[i]);
	set(W_GPR + SP, top - 40);
	set(W_RIP, rip);
	if (w[W_CS] & 3)
		set(W_SS, 0);
	set(W_CS, KERNEL_CS);
	set(W_FLAGS, w[W_FLAGS] & ~(FL_IF | FL_TF | FL_NT | FL_RF));
	return true;
}

/* A fault in C: a frame on the stack in use, a handler that returns. */
bool fault(void)
{
	u64 sp = GPR(SP), aligned = sp & ~15ULL;
	u64 frame[5] = { RIP, w[W_CS], w[W_FLAGS], sp, w[W_SS] };
	int i;

	for (i = 4; i >= 0; i--) {
		if (!write_mem(aligned - 40 + 8 * i, 8, frame[i]))
			return false;
	}
	set(W_GPR + SP, aligned - 40);
	set(W_RIP, fault_rip);
	set(W_TOUCHED, 0);
	return true;
}

bool is_fault(u64 addr)
{
	return addr == fault_rip;
}

static bool in_as_built(u64 addr)
{
	int i;

	for (i = 0; i < nr_as_built; i++) {
		if (addr >= as_built[i].begin && addr < as_built[i].end)
			return true;
	}
	return false;
}

/* A C function that is one step: it may do anything a C function may. */
bool is_summary(u64 addr)
{
	return !in_asm(addr) && !in_as_built(addr) && addr != fault_rip;
}

static bool faults_here(void)
{
	int i;

	for (i = 0; i < nr_may_fault; i++) {
		if (RIP == may_fault_fn[i])
			return true;
	}
	return false;
}

bool machine_may(enum ev ev)
{
	if (!w[W_BUDGET])
		return false;
	if (context->only_nmi && !w[W_AWAY] && ev != EV_NMI)
		return false;
	switch (ev) {
	case EV_NMI:
		return !w[W_MASKED];
	case EV_MC:
		return !w[W_MC];
	case EV_DB:
		return w[W_TOUCHED] && !w[W_DB] && in_asm(RIP) && w[W_CS] == KERNEL_CS &&
		       w[W_DR7] == DR7_ARMED;
	case EV_FAULT:
		return w[W_AWAY] && w[W_MASKED] && faults_here();
	case EV_SMI:
		return w[W_MASKED];
	default:
		return false;
	}
}

/*
 * An NMI that interrupts kernel mode outside of the NMI entry's own text, and to
 * which the entry's state is that at rest: what comes until it returns has been
 * explored, with the contexts of kernel mode. It returns here, and has used its
 * stacks. Either the handlers have run, or, in a handler run for an NMI from user
 * mode, exc_nmi() has left a note that they have to run once more.
 */
static bool is_explored_already(void)
{
	return explored_already && w[W_AWAY] && w[W_CS] == KERNEL_CS &&
	       !w[find_word(state_addr)] &&
	       (RIP < stub_begin || RIP >= stub_end) &&
	       GPR(SP) - stacks[REAL].bottom >= stacks[REAL].top - stacks[REAL].bottom;
}

static bool whole_nmi(void)
{
	kill_stack(REAL, stacks[REAL].top, stacks[REAL].words);
	kill_stack(LATCHED, stacks[LATCHED].top, stacks[LATCHED].words);
	set(W_TOUCHED, 0);
	if (w[variable_word] & 0xffffffff) {
		set(variable_word, NMI_LATCHED);
		set(W_OWED, 1);
		return true;
	}
	set(variable_word + 1, DEAD);
	set(variable_word + 2, DEAD);
	set(W_OWED, 0);
	return true;
}

bool machine_event(enum ev ev)
{
	bool from_user;

	if (w[W_BUDGET] != UNLIMITED)
		set(W_BUDGET, w[W_BUDGET] - 1);
	switch (ev) {
	case EV_NMI:
		if (is_explored_already())
			return whole_nmi();
		/* A pending one has arrived before. */
		if (!w[W_PENDING])
			set(W_OWED, 1);
		set(W_PENDING, 0);
		set(W_MASKED, 1);
		from_user = w[W_CS] & 3;
		if (!deliver(stacks[REAL].top, gate_nmi))
			return false;
		/* MOV SS in user mode: a #DB may have been held back. */
		set(W_TOUCHED, from_user);
		return true;
	case EV_MC:
		set(W_MC, w[W_CS] & 3 ? FROM_USER : FROM_KERNEL);
		return deliver(stacks[MCE].top, gate_mce);
	case EV_DB:
		set(W_DB, FROM_KERNEL);
		return deliver(stacks[DB].top, gate_db);
	case EV_FAULT:
		/* A page fault, which exc_nmi() cares about, and #MC does not. */
		if (RIP == run_fn)
			set(W_CR2, FAULT_CR2);
		return fault();
	case EV_SMI:
		set(W_MASKED, 0);
		return true;
	default:
		return true;
	}
}

/* --------------------------------------------------------- stepping */

static bool entered(u64 fn)
{
	if (fn == run_fn) {
		if (w[W_RUNNING])
			return violate(P_REENTRY, "a handler run begins in another one");
		if (w[W_FLAGS] & FL_DF)
			return violate(P_CLEAN, "the handlers begin with DF set");
		if (w[W_GS] != kernel_gs || w[W_CR3] != KERNEL_CR3)
			return violate(P_CLEAN, "the handlers begin with the user's %s",
				       w[W_GS] != kernel_gs ? "GSBASE" : "page table");
		set(W_RUNNING, 1);
		set(W_OWED, 0);
		return true;
	}
	/* The handler proper: the REAL frame is not needed any more. */
	if (fn == nmi_fn) {
		kill_stack(REAL, stacks[REAL].top, 6);
		/* Nor is that of an NMI from user mode, which may have been moved. */
		if (GPR(SP) - stacks[THREAD].bottom < stacks[THREAD].top - stacks[THREAD].bottom)
			kill_stack(DF, stacks[DF].top, 6);
	}
	return true;
}

/*
 * Back from C by RET. What is dead is up to us: if it were not, its use would be
 * seen, as DEAD is no value.
 */
static void left(u64 rip)
{
	/* exc_nmi() saved these for itself. */
	if (rip >= nmi_fn && rip < nmi_fn_end && !(w[variable_word] & 0xffffffff)) {
		set(variable_word + 1, DEAD);
		set(variable_word + 2, DEAD);
	}
	/* Whoever needed the REAL frame has a copy of it now. */
	if (rip >= fixup_fn && rip < fixup_end)
		kill_stack(REAL, stacks[REAL].top, 6);
	/* What the fix-up noted is used, or not going to be. */
	if ((rip >= move_fn && rip < move_end) ||
	    (rip >= fixup_fn && rip < fixup_end && !(GPR(AX) & 0xff)))
		kill_stack(DF, stacks[DF].top - 48, 12);
}

static bool summary(void)
{
	static const u8 clobbered[] = { AX, CX, DX, SI, DI, R8, R9, R10, R11 };
	u64 ret, sp = GPR(SP);
	size_t i;

	if (w[W_CS] & 3)
		return violate(P_RETURN, "goes on in user mode, not at the interrupted instruction");
	if (RIP < text_begin || RIP >= text_end)
		return violate(P_CRASH, "no kernel text");
	if (RIP == run_fn)
		set(W_RUNNING, 0);
	if (!read_mem(sp, 8, &ret))
		return false;
	if (IS_SYM(ret))
		return violate(P_CRASH, "RET to an address that is not known");
	for (i = 0; i < ARRAY_SIZE(clobbered); i++)
		set(W_GPR + clobbered[i], CLOB);
	set(W_FLAGS, (w[W_FLAGS] & ~FL_ARITH) | FL_UNKNOWN);
	kill_word(sp);
	set(W_GPR + SP, sp + 8);
	set(W_RIP, ret);
	set(W_TOUCHED, 0);
	return true;
}

int machine_outcomes(void)
{
	if (is_fault(RIP) || is_summary(RIP))
		return 1;
	return cpu_outcomes();
}

bool machine_step(int outcome)
{
	u64 rip = RIP, sp = GPR(SP);
	u8 op[2] = { 0 };

	if (w[W_CS] & 3)
		return violate(P_RETURN, "goes on in user mode, not at the interrupted instruction");
	if (is_fault(rip)) {
		set(W_TOUCHED, 0);
		return iret();
	}
	if (is_summary(rip))
		return summary();

	image_read(image, rip, op, 2);
	if (!cpu_step(outcome))
		return false;
	if (op[0] == 0x48 && op[1] == 0xcf) {
		/* Whose IRET was it? The one of the stack that it was on. */
		if (w[W_MC] == FROM_USER && w[W_CS] & 3)
			set(W_MC, 0);
		if (sp >= stacks[MCE].bottom && sp < stacks[MCE].top)
			set(W_MC, 0);
		if (sp >= stacks[DB].bottom && sp < stacks[DB].top)
			set(W_DB, 0);
	}
	/* A #DB that was dropped: there is no IRET. */
	if (w[W_DB] != ctx[W_DB] && RIP == gate_nmi)
		set(W_DB, ctx[W_DB]);
	if (at_rest()) {
		if (!judge())
			return false;
		settle();
		return true;
	}
	if (op[0] == 0xc3)
		left(rip);
	/* By a call or a jump; IRET and RET go back into a function. */
	if (RIP != rip && !in_asm(RIP) && op[0] != 0xc3 && !(op[0] == 0x48 && op[1] == 0xcf))
		return entered(RIP);
	return true;
}
