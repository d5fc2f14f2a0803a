// SPDX-License-Identifier: GPL-2.0
/*
 * The machine around the text: contexts, delivery of events, and what C functions do
 * that are not executed instruction by instruction.
 */
#include <capstone/capstone.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

const struct image *image;
bool entry_latched;
bool count_to_two;
bool explored_already;
int violation;
char violation_text[256];

const char * const property_name[NR_PROPERTIES] = {
	"none", "REENTRY", "RETURN", "ARRIVAL", "REST", "CRASH", "HANG", "CLEAN",
	"COUNT",
};

const char * const event_name[NR_EVENTS] = {
	"step", "fork", "nmi", "mce", "db", "watch", "iret", "smi",
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

static u64 gate_nmi, gate_mce, gate_db;
static u64 run_fn, fault_rip, text_begin, text_end;
static u64 nmi_fn, nmi_fn_end, fixup_fn, fixup_end, move_fn, move_end;
static u64 may_fault_fn[8];
static int nr_may_fault;
static struct {
	u64 begin, end;
} as_built[16];
static int nr_as_built;

static u64 stub_begin, stub_end;
/* The entry check of #DB. */
static u64 debug_begin, debug_size;

static u64 ctx[W_MAX];
static bool smap;
/* The safe-RET sequence of a machine with SRSO. */
static u64 safe_ret;
bool has_pcid, has_ibrs, has_ibt, pti;
u64 kernel_cr3;
static const struct context_desc *context;

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
	static const char * const part[] = {
		"asm_exc_nmi_latched", "__nmi_prologue_begin", "latched_nmi_repeat",
		"asm_exc_machine_check_latched", "asm_exc_debug_latched",
	};
	const struct symtab *t = im->more ? im->more : im->sym;
	u64 begin, end;
	size_t i;

	if (im->more) {
		stub_begin = sym_addr(t, "rfc_text_begin");
		stub_end = sym_addr(t, "rfc_text_end");
		return;
	}
	if (entry_latched) {
		/* All but the part from user mode, which is at one of its ends. */
		stub_begin = ~0ULL;
		stub_end = 0;
		for (i = 0; i < ARRAY_SIZE(part); i++) {
			if (!sym_find(t, part[i], &begin))
				continue;
			end = begin + sym_size(t, part[i]);
			stub_begin = begin < stub_begin ? begin : stub_begin;
			stub_end = end > stub_end ? end : stub_end;
		}
		return;
	}
	stub_begin = sym_addr(t, "asm_exc_nmi");
	stub_end = stub_begin + sym_size(t, "asm_exc_nmi");
}

void machine_init(const struct image *im, const struct features *f, const char *entry)
{
	image = im;
	nr_as_built = nr_may_fault = 0;
	decode_init(im);
	memory_init(im);
	entry_latched = !strcmp(entry, "latched");
	pti = features_has(f, "PTI");
	has_pcid = features_has(f, "PCID");
	kernel_cr3 = (pti ? KERNEL_CR3 : UNPAIRED_CR3) | (has_pcid ? KERNEL_PCID : 0);
	smap = features_has(f, "SMAP");
	has_ibt = features_has(f, "IBT");
	has_ibrs = features_has(f, "KERNEL_IBRS");
	if (pti && has_pcid && !flush_due)
		die("%s: nobody clears a bit of user_pcid_flush_mask", im->path);
	safe_ret = 0;
	if (features_has(f, "SRSO"))
		sym_find(im->sym, "srso_safe_ret", &safe_ret);
	else if (features_has(f, "SRSO_ALIAS"))
		sym_find(im->sym, "srso_alias_safe_ret", &safe_ret);

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
	count_init(im);
	debug_begin = debug_size = 0;
	if (entry_latched && sym_find(im->sym, "asm_exc_debug_latched", &debug_begin))
		debug_size = sym_size(im->sym, "asm_exc_debug_latched");
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

	run_as_built("exc_nmi");
	run_as_built("exc_nmi_latched");
	run_as_built("latched_nmi_fixup");
	run_as_built("latched_nmi_move");
	run_as_built("exc_machine_check");
	run_as_built("exc_machine_check_nmi");
	run_as_built("exc_machine_check_kernel");
	run_as_built("exc_debug");
	/* On the thread stack it is like any other C, but for the injector's scripts. */
	if (explored_already)
		may_fault("noist_exc_machine_check");
	else
		run_as_built("noist_exc_machine_check");
	run_as_built("sync_regs");
	run_as_built("handle_interrupted_saferet");
	/* What calls it on Linux 6.1. */
	run_as_built("__handle_intr_saferet");
	run_as_built("__handle_intr_saferet_alias");

	may_fault("default_do_nmi");
	may_fault("do_machine_check");
	may_fault("exc_debug_kernel");
}

static const char * const gpr_name[] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};

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
	/* An #MC that has hit the entry goes on with what it noted before. */
	for (i = 0; owns(MCE) && i < TO_WORDS; i++)
		w[to_word + i] = TOKEN(0x1000 * (NR_STACKS + 1) + i);
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
	count_start();
	for (i = 0; i < ESPFIX_WORDS; i++)
		w[espfix_word + i] = DEAD;
	for (i = 0; i < TO_WORDS; i++)
		w[to_word + i] = DEAD;
	w[variable_word + NMI_CR2] = DEAD;
	w[variable_word + NMI_DR7] = DEAD;

	fill_stacks();
	if (!find_at(c->at, &at) || (c->until && !sym_find(image->sym, c->until, &end)))
		return false;
	RIP = at;
	w[W_CS] = c->cs;
	w[W_SS] = c->ss;
	w[W_FLAGS] = c->flags | 2;
	w[W_GS] = c->user_gs ? USER_GS : kernel_gs;
	w[W_KGS] = c->user_gs ? kernel_gs : USER_GS;
	w[W_CR3] = kernel_cr3;
	if (c->user_cr3 && pti)
		w[W_CR3] |= USER_CR3_BIT | (has_pcid ? USER_PCID_BIT : 0);
	if (pti && has_pcid) {
		w[W_STALE] = 1;
		w[variable_word + FLUSH_MASK] = flush_due;
	}
	w[W_CR2] = ORIG_CR2;
	w[W_DR7] = DR7_ARMED;
	w[W_MC] = c->in && !strcmp(c->in, "mc");
	w[W_DB] = c->in && !strcmp(c->in, "db");
	if (in_run()) {
		w[W_RUNNING] = 1;
		w[variable_word] = NMI_EXECUTING;
		w[variable_word + NMI_CR2] = TOKEN(0x100);
		w[variable_word + NMI_DR7] = TOKEN(0x101);
	}
	w[W_BUDGET] = UNLIMITED;
	w[W_SPEC] = !has_ibrs ? 0 : c->user_gs ? SPEC_USER : SPEC_KERNEL;
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
	const int flush_word = variable_word + FLUSH_MASK;
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
	if (owns(MCE) && memcmp(&w[to_word], &ctx[to_word], 8 * TO_WORDS))
		return violate(P_RETURN, "what #MC returns to is not as it was");
	/* A flush that was due has been done on the way to the user's page table. */
	if (w[W_STALE] != (user_cr3() ? 0 : ctx[W_STALE]) ||
	    w[flush_word] != (user_cr3() ? 0 : ctx[flush_word]))
		return violate(P_RETURN, "user_pcid_flush_mask does not tell what is due");
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
	if (!count_rest())
		return false;
	if (in_run()) {
		/* What is owed is noted; the run that is in progress will see it. */
		if ((u32)w[variable_word] != (w[W_OWED] ? NMI_LATCHED : NMI_EXECUTING))
			return violate(P_ARRIVAL, "nmi_state is %u", (u32)w[variable_word]);
		if (w[variable_word + NMI_CR2] != TOKEN(0x100) || w[variable_word + NMI_DR7] != TOKEN(0x101))
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
		set_word(espfix_word + i, DEAD);
	if (!owns(MCE))
		kill_to();
	if (!in_run()) {
		set_word(variable_word + NMI_CR2, DEAD);
		set_word(variable_word + NMI_DR7, DEAD);
	}
	set(W_AWAY, 0);
}

/* ----------------------------------------------------------- events */

/* In pt_regs. */
#define ORIG_AX		(15 * 8)

/* The RET of a safe-RET sequence, from the LEA. */
#define SAFE_RET_LAST	5

/* What W_MC and W_DB say. */
#define FROM_KERNEL	1
#define FROM_USER	2
#define FROM_DB		3

static bool on_stack(enum stack st, u64 sp)
{
	return sp >= stacks[st].bottom && sp < stacks[st].top;
}

static bool deliver(u64 top, u64 rip)
{
	u64 frame[5] = { RIP, w[W_CS], w[W_FLAGS] | FL_RF, GPR(SP), w[W_SS] };
	const struct insn *first = decode(rip);
	int i;

	if (has_ibt && (!first || first->id != X86_INS_ENDBR64))
		return violate(P_CRASH, "#CP: the gate does not lead to ENDBR64");
	/* RF in the frame is the CPU's business: IRET restores what was there. */
	frame[2] = w[W_FLAGS];
	set(W_TOUCHED, 0);
	set(W_AWAY, 1);
	for (i = 0; i < 5; i++)
		set_word(find_word(top - 40 + 8 * i), frame[i]);
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

bool follows_pointers(u64 addr)
{
	return in_as_built(addr) && !(addr >= fixup_fn && addr < fixup_end) &&
	       !(addr >= move_fn && addr < move_end);
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
		/* A single step of user mode may lead anywhere. */
		if (!w[W_AWAY] && w[W_CS] & 3)
			return !w[W_DB];
		return w[W_TOUCHED] == TOUCHED_STACK && !w[W_DB] && in_asm(RIP) &&
		       w[W_CS] == KERNEL_CS && w[W_DR7] == DR7_ARMED;
	case EV_WATCH:
		return w[W_TOUCHED] == TOUCHED_DATA && !w[W_DB] && w[W_CS] == KERNEL_CS &&
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
	/*
	 * And those of a machine check in it, if there could be one. What the fix-up
	 * notes is read only by that machine check, and all of it is written first.
	 */
	if (!w[W_MC]) {
		kill_stack(MCE, stacks[MCE].top, stacks[MCE].words);
		kill_to();
	}
	if (user_cr3()) {
		set(W_STALE, 0);
		set_word(variable_word + FLUSH_MASK, 0);
	}
	set(W_TOUCHED, 0);
	if (w[variable_word] & 0xffffffff) {
		set_word(variable_word, NMI_LATCHED);
		set(W_OWED, 1);
		return true;
	}
	set_word(variable_word + NMI_CR2, DEAD);
	set_word(variable_word + NMI_DR7, DEAD);
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
		count_nmi();
		from_user = w[W_CS] & 3;
		if (!deliver(stacks[REAL].top, gate_nmi))
			return false;
		/* MOV SS in user mode: a #DB may have been held back. */
		set(W_TOUCHED, from_user ? TOUCHED_STACK : TOUCHED_NOTHING);
		return true;
	case EV_MC:
		set(W_MC, w[W_CS] & 3 ? FROM_USER :
			  RIP - debug_begin < debug_size ? FROM_DB : FROM_KERNEL);
		return deliver(stacks[MCE].top, gate_mce);
	case EV_DB:
	case EV_WATCH:
		set(W_DB, w[W_CS] & 3 ? FROM_USER : FROM_KERNEL);
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

/* GSBASE, the page table and SPEC_CTRL are the kernel's once C begins. */
static bool kernel_state(const char *who)
{
	const char *what = w[W_GS] != kernel_gs ? "GSBASE" :
			   w[W_CR3] != kernel_cr3 ? "page table" :
			   has_ibrs && w[W_SPEC] != SPEC_KERNEL ? "SPEC_CTRL" : NULL;

	return !what || violate(P_CLEAN, "%s without the kernel's %s", who, what);
}

/* What exc_nmi() relies on: its argument is pt_regs, and no value of the context is left. */
static bool c_state(void)
{
	static const u8 cleared[] = { CX, DX, BX, BP, SI, R8, R9, R10, R11, R12, R13, R14, R15 };
	u64 orig_ax;
	size_t i;

	if (GPR(DI) != GPR(SP) + 8)
		return violate(P_CLEAN, "exc_nmi() begins without pt_regs");
	if (!read_mem(GPR(DI) + ORIG_AX, 8, &orig_ax))
		return false;
	if (orig_ax != ~0ULL)
		return violate(P_CLEAN, "exc_nmi() begins with orig_ax 0x%llx",
			       (unsigned long long)orig_ax);
	if (w[W_FLAGS] & FL_IF)
		return violate(P_CLEAN, "exc_nmi() begins with IF set");
	if (!kernel_state("exc_nmi() begins"))
		return false;
	for (i = 0; i < ARRAY_SIZE(cleared); i++) {
		u64 v = GPR(cleared[i]);

		if (v >= TOKEN(0) && v <= TOKEN(15))
			return violate(P_CLEAN, "exc_nmi() begins with %s not cleared",
				       gpr_name[cleared[i]]);
	}
	return true;
}

static bool entered(u64 fn)
{
	if (fn == run_fn) {
		if (w[W_RUNNING])
			return violate(P_REENTRY, "a handler run begins in another one");
		if (w[W_FLAGS] & (FL_DF | (smap ? FL_AC : 0)))
			return violate(P_CLEAN, "the handlers begin with %s set",
				       w[W_FLAGS] & FL_DF ? "DF" : "AC");
		if (!kernel_state("the handlers begin"))
			return false;
		set(W_RUNNING, 1);
		set(W_OWED, 0);
		return true;
	}
	/* The handler proper: the REAL frame is not needed any more. */
	if (fn == nmi_fn) {
		if (in_asm(executing) && (!c_state() || !count_run()))
			return false;
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
static bool left(u64 rip)
{
	/* exc_nmi() saved these for itself. */
	if (rip >= nmi_fn && rip < nmi_fn_end && !(w[variable_word] & 0xffffffff)) {
		set_word(variable_word + NMI_CR2, DEAD);
		set_word(variable_word + NMI_DR7, DEAD);
	}
	/* Whoever needed the REAL frame has a copy of it now. */
	if (rip >= fixup_fn && rip < fixup_end) {
		if (!count_fixup())
			return false;
		kill_stack(REAL, stacks[REAL].top, 6);
	}
	/*
	 * What the fix-up noted is used, or, if it returns false, not going to be: it is
	 * for one latched_nmi_move(), and the next fix-up writes all of it before.
	 */
	if ((rip >= move_fn && rip < move_end) ||
	    (rip >= fixup_fn && rip < fixup_end && !(GPR(AX) & 0xff)))
		kill_to();
	return true;
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
	set(W_FLAGS, (w[W_FLAGS] & ~(FL_ARITH | FL_DEAD)) | FL_UNKNOWN);
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
	if (!in_asm(rip) && is_summary(RIP) && RIP == rip + decode(rip)->len)
		return violate(P_CRASH, "goes on behind the end of a function");
	if (op[0] == 0x48 && op[1] == 0xcf) {
		/* Whose IRET was it? The one of the stack that it was on. */
		if (w[W_MC] == FROM_USER && w[W_CS] & 3)
			set(W_MC, 0);
		if (w[W_DB] == FROM_USER && w[W_CS] & 3)
			set(W_DB, 0);
		if (on_stack(MCE, sp)) {
			/* A #DB whose entry it has hit, and which the fix-up has dropped. */
			if (w[W_MC] == FROM_DB && !on_stack(DB, GPR(SP)))
				set(W_DB, ctx[W_DB]);
			set(W_MC, 0);
		}
		if (on_stack(DB, sp))
			set(W_DB, 0);
		/* A nested NMI has executed nothing that could train a return. */
		if (safe_ret && RIP - safe_ret <= SAFE_RET_LAST && w[W_CS] == KERNEL_CS &&
		    !on_stack(REAL, sp))
			return violate(P_RETURN, "IRET to the midst of a safe RET");
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
	/* RET, or a jump to a return thunk. */
	if ((op[0] == 0xc3 || (op[0] == 0xe9 && !in_asm(rip) && in_asm(RIP))) && !left(rip))
		return false;
	/* By a call or a jump; IRET and RET go back into a function. */
	if (RIP != rip && !in_asm(RIP) && op[0] != 0xc3 && !(op[0] == 0x48 && op[1] == 0xcf))
		return entered(RIP);
	return true;
}
