// SPDX-License-Identifier: GPL-2.0
/*
 * Latched NMI entry: #MC fix-up, set-up, self-check, counters.
 *
 * The protocol and its facts L1 ... L14 are in the header of
 * arch/x86/entry/entry_64_latched_nmi.S; only the numbers are cited here.
 */
#define pr_fmt(fmt) "x86/nmi: " fmt

#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/panic_notifier.h>
#include <linux/percpu.h>
#include <linux/ptrace.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#include <asm/apic.h>
#include <asm/cpu_entry_area.h>
#include <asm/cpufeature.h>
#include <asm/latched_nmi.h>
#include <asm/mce.h>
#include <asm/nmi.h>
#include <asm/nospec-branch.h>
#include <asm/proto.h>
#include <asm/sync_core.h>

#define CREATE_TRACE_POINTS
#include <trace/events/latched_nmi.h>

/* A hardware frame with RDX below it: the user's, or the register itself. */
struct latched_nmi_context {
	unsigned long dx;
	unsigned long ip;
	unsigned long cs;
	unsigned long flags;
	unsigned long sp;
	unsigned long ss;
};

/*
 * What is below the hardware frame on the REAL stack. The state is the quadword
 * below RDX (L2), the counters are below that.
 */
struct latched_nmi_state {
	u32	fixed_up;
	u32	pad;
	u32	nested;
	u32	restarted;
	u32	nest_count;
	u32	latch;
};

/* The REAL stack, and the top of each exception stack: only REAL has a state. */
struct latched_nmi_top {
	struct latched_nmi_state	state;
	struct latched_nmi_context	frame;
};

#define LATCHED_NMI_OFFSET(member) \
	((int)offsetof(struct latched_nmi_top, member) - \
	 (int)offsetof(struct latched_nmi_top, frame.ip))

static_assert(LATCHED_NMI_OFFSET(frame.dx) == LATCHED_NMI_DX);
static_assert(LATCHED_NMI_OFFSET(state.nest_count) == LATCHED_NMI_NEST_COUNT);
static_assert(LATCHED_NMI_OFFSET(state.latch) == LATCHED_NMI_LATCH);
static_assert(LATCHED_NMI_OFFSET(state.nested) == LATCHED_NMI_NESTED);
static_assert(LATCHED_NMI_OFFSET(state.restarted) == LATCHED_NMI_RESTARTED);
/* The REAL stack is large enough. */
static_assert(sizeof(struct latched_nmi_top) <= LATCHED_NMI_DISTANCE);

static_assert(CEA_ESTACK_OFFS(NMI) - CEA_ESTACK_OFFS(DF) == LATCHED_NMI_ESTACK);
static_assert(CEA_ESTACK_OFFS(DB) - CEA_ESTACK_OFFS(NMI) == LATCHED_NMI_ESTACK);
static_assert(CEA_ESTACK_OFFS(MCE) - CEA_ESTACK_OFFS(DB) == LATCHED_NMI_ESTACK);

/* Text of entry_64_latched_nmi.S. Ranges are half-open. */
extern char latched_nmi_handler[], latched_nmi_repeat[];
extern char __nmi_prologue_begin[], __nmi_prologue_end[];
extern char __nmi_prologue_decided[], __nmi_nested_iret[];
extern char __nmi_epilogue_begin[], __nmi_epilogue_end[];
extern char __nmi_user_prologue_begin[], __nmi_user_prologue_rdx[];
extern char __nmi_user_prologue_end[];
extern char __debug_latched_end[];

static __always_inline bool latched_nmi_between(unsigned long ip, const void *begin,
						const void *end)
{
	return ip >= (unsigned long)begin && ip < (unsigned long)end;
}

/* Of this CPU. Only a pointer is read that within_cpu_entry() protects. */
#define latched_nmi_top_of(stack) \
	((struct latched_nmi_top *)CEA_ESTACK_TOP(raw_cpu_read(cea_exception_stacks), stack) - 1)

/*
 * What #MC returns to in the end is kept in the lowest words of its stack. It is not
 * a variable of the #MC handler, since the compiler would guard that with a canary,
 * and the canary can be watched (C.5 of latched-nmi.rst). Nor is it beside what is
 * parked: an NMI from kernel mode may have interrupted #DF (L12).
 */
static __always_inline struct latched_nmi_context *latched_nmi_to(void)
{
	return (void *)CEA_ESTACK_BOT(raw_cpu_read(cea_exception_stacks), MCE);
}

/* The LATCHED frame that belongs to the REAL one of @top. */
static __always_inline struct latched_nmi_context *
latched_nmi_latched_frame(struct latched_nmi_top *top)
{
	return (void *)&top->frame - LATCHED_NMI_DISTANCE;
}

/* The hardware frame: all but RDX, which on the LATCHED stack is not there. */
static __always_inline void latched_nmi_copy(struct latched_nmi_context *to,
					     const struct latched_nmi_context *from)
{
	to->ip		= from->ip;
	to->cs		= from->cs;
	to->flags	= from->flags;
	to->sp		= from->sp;
	to->ss		= from->ss;
}

/* Secure the frame of an NMI from user mode (L12). Return: where it is now. */
static __always_inline struct latched_nmi_context *
latched_nmi_park(const struct latched_nmi_context *real)
{
	struct latched_nmi_context *parked = &latched_nmi_top_of(DF)->frame;

	latched_nmi_copy(parked, real);
	parked->dx = real->dx;
	return parked;
}

/*
 * In the prologue at @ip, up to where the LATCHED frame is complete: take the decision
 * again from its start (L5), and go on where it leads. Never back into this
 * part, since the REAL frame may be gone by then.
 */
static __always_inline void latched_nmi_fixup_prologue(const struct pt_regs *regs,
						       unsigned long ip,
						       struct latched_nmi_context *to)
{
	struct latched_nmi_top *top = latched_nmi_top_of(NMI);
	struct latched_nmi_context *real = &top->frame;
	struct latched_nmi_context *latched = latched_nmi_latched_frame(top);
	struct latched_nmi_state *state = &top->state;
	bool first = latched_nmi_between(ip, __nmi_prologue_decided, latched_nmi_handler) &&
		     !(regs->flags & X86_EFLAGS_CF);

	to->ip = (unsigned long)latched_nmi_handler;
	to->sp = (unsigned long)&latched->ip;

	if (real->cs & 3) {
		to->ip = (unsigned long)__nmi_user_prologue_begin;
		to->sp = (unsigned long)&latched_nmi_park(real)->ip;
	} else if (latched_nmi_between(real->ip, __nmi_epilogue_begin, __nmi_epilogue_end)) {
		to->ip = (unsigned long)latched_nmi_repeat;
		state->restarted++;
		state->nest_count = 1;
	} else if (state->nest_count && !first) {
		if (ip != (unsigned long)__nmi_nested_iret)
			state->latch++;
		latched_nmi_copy(to, real);
	} else {
		latched_nmi_copy(latched, real);
		state->nest_count = 1;
	}
}

/*
 * On the way to the thread stack, at @ip: secure the frame, and move the pointer
 * to it, which is RSP, later RDX, in between both (L12). If neither points to
 * the REAL frame, that was done, and the REAL frame is possibly gone.
 */
static __always_inline void latched_nmi_fixup_user(const struct pt_regs *regs, unsigned long ip,
						   struct latched_nmi_context *to)
{
	const struct latched_nmi_context *real = &latched_nmi_top_of(NMI)->frame;
	const struct latched_nmi_context *parked;
	bool in_sp = regs->sp == (unsigned long)&real->ip || regs->sp == (unsigned long)&real->dx;
	bool in_dx = ip >= (unsigned long)__nmi_user_prologue_rdx &&
		     regs->dx == (unsigned long)&real->dx;

	if (!in_sp && !in_dx)
		return;

	parked = latched_nmi_park(real);
	if (in_sp)
		to->sp -= (unsigned long)real - (unsigned long)parked;
	if (in_dx)
		to->dx = (unsigned long)&parked->dx;
}

/**
 * latched_nmi_fixup - make an NMI whose entry #MC hit safe from the next one
 * @regs:	context that #MC hit, in kernel mode
 *
 * In its prologue an NMI needs the frame on the REAL stack, and is about to
 * lose it when the IRET of #MC unmasks NMIs (H1, H2). So finish what the prologue
 * does: an NMI that comes now is a nested one, or does not touch the frame. In
 * the epilogue the #MC entry check has done so (L9).
 *
 * @regs is not changed: the #MC handler judges what was hit.
 *
 * Context: the first thing in the #MC handler. If the prologue was hit and the
 * frame was not moved before, NMIs are masked and the REAL frame is whole (L1, L11).
 * Return: true if the entry was hit; then latched_nmi_move() has to be called in
 * the end.
 */
noinstr bool latched_nmi_fixup(const struct pt_regs *regs)
{
	struct latched_nmi_context *to = latched_nmi_to();
	const struct latched_nmi_context *debug = &latched_nmi_top_of(DB)->frame;
	unsigned long ip = regs->ip;

	to->dx		= regs->dx;
	to->ip		= regs->ip;
	to->cs		= regs->cs;
	to->flags	= regs->flags;
	to->sp		= regs->sp;
	to->ss		= regs->ss;

	/* In the #DB entry check, what #DB hit counts (L13, L14). */
	if (latched_nmi_between(ip, asm_exc_debug_latched, __debug_latched_end) &&
	    !(debug->cs & 3))
		ip = debug->ip;

	if (latched_nmi_between(ip, asm_exc_nmi_latched, latched_nmi_handler) ||
	    latched_nmi_between(ip, __nmi_prologue_begin, __nmi_prologue_end))
		latched_nmi_fixup_prologue(regs, ip, to);
	else if (latched_nmi_between(ip, __nmi_epilogue_begin, __nmi_epilogue_end))
		to->ip = (unsigned long)__nmi_epilogue_begin;
	else if (latched_nmi_between(ip, __nmi_user_prologue_begin, __nmi_user_prologue_end))
		latched_nmi_fixup_user(regs, ip, to);
	else
		return false;

	latched_nmi_top_of(NMI)->state.fixed_up++;
	return true;
}

/**
 * latched_nmi_move - have #MC return to where the fix-up decided
 * @regs:	context that #MC hit, the same as in latched_nmi_fixup()
 *
 * Context: the last thing in the #MC handler.
 */
noinstr void latched_nmi_move(struct pt_regs *regs)
{
	const struct latched_nmi_context *to = latched_nmi_to();

	regs->dx	= to->dx;
	regs->ip	= to->ip;
	regs->cs	= to->cs;
	regs->flags	= to->flags;
	regs->sp	= to->sp;
	regs->ss	= to->ss;

#ifdef CONFIG_MITIGATION_SRSO
	/*
	 * A nested NMI returns to what it interrupted, and paranoid_entry has
	 * looked for the safe-RET sequence in the NMI's prologue only.
	 */
	if ((cpu_feature_enabled(X86_FEATURE_SRSO) &&
	     to->ip - (unsigned long)srso_safe_ret <= 5) ||
	    (cpu_feature_enabled(X86_FEATURE_SRSO_ALIAS) &&
	     to->ip - (unsigned long)srso_alias_safe_ret <= 5))
		handle_interrupted_saferet(regs);
#endif
}

static bool latched_nmi_in_use __ro_after_init;

/* The state of @cpu, which may change while it is read. */
static struct latched_nmi_state *latched_nmi_state_of(int cpu)
{
	struct latched_nmi_top *end =
		(void *)CEA_ESTACK_TOP(per_cpu(cea_exception_stacks, cpu), NMI);

	return &end[-1].state;
}

#ifdef CONFIG_DEBUG_FS
static int latched_nmi_show(struct seq_file *m, void *unused)
{
	int cpu;

	seq_printf(m, "entry: %s\n", latched_nmi_in_use ? "latched" : "classic");
	if (!latched_nmi_in_use)
		return 0;

	seq_puts(m, "cpu     nested  restarted   fixed-up\n");
	for_each_possible_cpu(cpu) {
		const struct latched_nmi_state *state = latched_nmi_state_of(cpu);

		seq_printf(m, "%-3d %10u %10u %10u\n", cpu, READ_ONCE(state->nested),
			   READ_ONCE(state->restarted), READ_ONCE(state->fixed_up));
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(latched_nmi);

static int __init latched_nmi_debugfs(void)
{
	debugfs_create_file("latched_nmi", 0400, arch_debugfs_dir, NULL, &latched_nmi_fops);
	return 0;
}
late_initcall(latched_nmi_debugfs);
#endif

/*
 * While the tracepoint is in use, an NMI handler looks whether the counters have
 * moved since the previous run.
 */
struct latched_nmi_seen {
	u32	nested;
	u32	restarted;
};

static DEFINE_PER_CPU(struct latched_nmi_seen, latched_nmi_seen);

static int latched_nmi_trace_handler(unsigned int type, struct pt_regs *regs)
{
	const struct latched_nmi_state *state = &latched_nmi_top_of(NMI)->state;
	struct latched_nmi_seen *seen = this_cpu_ptr(&latched_nmi_seen);
	u32 nested = READ_ONCE(state->nested) - seen->nested;
	u32 restarted = READ_ONCE(state->restarted) - seen->restarted;

	if (nested || restarted)
		trace_latched_nmi_run(instruction_pointer(regs), nested, restarted);
	seen->nested += nested;
	seen->restarted += restarted;
	return NMI_DONE;
}

int latched_nmi_trace_reg(void)
{
	int cpu;

	if (!latched_nmi_in_use)
		return 0;

	for_each_possible_cpu(cpu) {
		const struct latched_nmi_state *state = latched_nmi_state_of(cpu);
		struct latched_nmi_seen *seen = per_cpu_ptr(&latched_nmi_seen, cpu);

		seen->nested = READ_ONCE(state->nested);
		seen->restarted = READ_ONCE(state->restarted);
	}
	return register_nmi_handler(NMI_LOCAL, latched_nmi_trace_handler, NMI_FLAG_FIRST,
				    "latched_nmi_trace");
}

void latched_nmi_trace_unreg(void)
{
	if (latched_nmi_in_use)
		unregister_nmi_handler(NMI_LOCAL, "latched_nmi_trace");
}

static int latched_nmi_panic(struct notifier_block *nb, unsigned long event, void *unused)
{
	const struct latched_nmi_state *state = &latched_nmi_top_of(NMI)->state;

	pr_emerg("NMI entry: latched; CPU %d: %u nested, %u restarted, %u fixed up\n",
		 raw_smp_processor_id(), state->nested, state->restarted, state->fixed_up);
	return NOTIFY_DONE;
}

static struct notifier_block latched_nmi_panic_nb = {
	.notifier_call = latched_nmi_panic,
};

#ifdef CONFIG_X86_MCE
/* Called for each logged machine check, in a context that may print. */
static int latched_nmi_mce(struct notifier_block *nb, unsigned long event, void *unused)
{
	u32 fixed_up = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		fixed_up += READ_ONCE(latched_nmi_state_of(cpu)->fixed_up);
	if (fixed_up)
		pr_info_once("a machine check hit the entry or the exit of an NMI, which goes on\n");
	return NOTIFY_DONE;
}

static struct notifier_block latched_nmi_mce_nb = {
	.notifier_call	= latched_nmi_mce,
	.priority	= MCE_PRIO_LOWEST,
};

static void __init latched_nmi_watch_mce(void)
{
	mce_register_decode_chain(&latched_nmi_mce_nb);
}
#else
static void __init latched_nmi_watch_mce(void) { }
#endif

static bool latched_nmi_wanted __initdata = true;

static int __init latched_nmi_param(char *arg)
{
	if (arg && !strcmp(arg, "latched"))
		latched_nmi_wanted = true;
	else if (arg && !strcmp(arg, "classic"))
		latched_nmi_wanted = false;
	else
		pr_warn("nmi_entry=%s: unknown, want latched or classic; using latched\n",
			arg ?: "");
	return 0;
}
early_param("nmi_entry", latched_nmi_param);

/* Return: what NMIs come through instead of the IDT, or NULL. */
static const char * __init latched_nmi_bypass(void)
{
#ifdef CONFIG_X86_FRED
	if (cpu_feature_enabled(X86_FEATURE_FRED))
		return "FRED";
#endif
	if (cpu_feature_enabled(X86_FEATURE_XENPV))
		return "Xen PV";
	return NULL;
}

/**
 * latched_nmi_enabled - does the latched entry serve the NMIs of this boot?
 *
 * Return: true if it was not switched off and the NMIs come through the IDT.
 */
bool __init latched_nmi_enabled(void)
{
	return latched_nmi_wanted && !latched_nmi_bypass();
}

/*
 * The self-check sends this CPU an NMI, unmasks NMIs in its handler as a fault
 * would, sends a second one there, and wants it latched and served afterwards. If
 * the second one overwrites the frame of the first, the frame is put back. Whether
 * an NMI has arrived the REAL frame tells, whose RIP is cleared before.
 */
static struct {
	unsigned int	runs;
	bool		on_stack;
	bool		arrived;
	bool		latched;
	bool		overwritten;
} latched_nmi_check __initdata;

static void __init latched_nmi_send(struct latched_nmi_top *top)
{
	WRITE_ONCE(top->frame.ip, 0);
	apic->send_IPI_mask(cpumask_of(smp_processor_id()), NMI_VECTOR);
}

static int __init latched_nmi_check_handler(unsigned int type, struct pt_regs *regs)
{
	struct latched_nmi_top *top = latched_nmi_top_of(NMI);
	struct latched_nmi_context *latched = latched_nmi_latched_frame(top);
	struct latched_nmi_context frame;
	unsigned int timeout_us = USEC_PER_SEC;

	if (latched_nmi_check.runs++)
		return NMI_HANDLED;

	latched_nmi_check.on_stack = &regs->ip == &latched->ip;
	if (!latched_nmi_check.on_stack)
		return NMI_HANDLED;

	latched_nmi_copy(&frame, latched);
	iret_to_self();
	latched_nmi_send(top);
	do {
		udelay(1);
		latched_nmi_check.arrived = READ_ONCE(top->frame.ip);
	} while (!latched_nmi_check.arrived && --timeout_us);
	latched_nmi_check.latched = READ_ONCE(top->state.latch);
	latched_nmi_check.overwritten = READ_ONCE(latched->ip) != frame.ip ||
					READ_ONCE(latched->sp) != frame.sp;
	latched_nmi_copy(latched, &frame);

	return NMI_HANDLED;
}

/*
 * Return: NULL if nothing is wrong with the entry, else what is. @note says what
 * the check has seen; that an NMI does not arrive, or late, is the APIC's or the
 * hypervisor's fault, and no reason to use another entry.
 */
static const char * __init latched_nmi_self_check(const char **note)
{
	struct latched_nmi_top *top = latched_nmi_top_of(NMI);
	unsigned int runs, timeout_us = USEC_PER_SEC;
	bool arrived;

	latched_nmi_send(top);
	while (READ_ONCE(latched_nmi_check.runs) < 2 && --timeout_us)
		udelay(1);
	/* In this order: of an NMI that arrives in between, runs tells. */
	arrived = READ_ONCE(top->frame.ip);
	runs = READ_ONCE(latched_nmi_check.runs);

	if (arrived && !runs)
		return "an NMI did not reach its handlers";
	if (runs && !latched_nmi_check.on_stack)
		return "an NMI did not run on the latched stack";
	if (latched_nmi_check.overwritten)
		return "a nested NMI was not latched";
	if (latched_nmi_check.arrived && !latched_nmi_check.latched)
		return "a nested NMI was lost";
	if (latched_nmi_check.latched && runs < 2)
		return "a latched NMI was not served";
	if (top->state.nest_count || top->state.latch)
		return "the state at rest is not 0";

	if (!runs)
		*note = "not checked: an NMI that was sent did not arrive";
	else if (latched_nmi_check.latched)
		*note = "self-check passed: 2 handler runs, one for a nested NMI";
	else if (runs < 2)
		*note = "not checked: an NMI that was sent in a handler did not arrive";
	else
		*note = "not checked: an NMI that was sent in a handler arrived after it";
	return NULL;
}

static int __init latched_nmi_init(void)
{
	const char *bypass = latched_nmi_bypass();
	const char *failure = NULL, *note;

	if (bypass) {
		pr_info("NMI entry: %s; the latched entry is not in use\n", bypass);
		return 0;
	}
	if (!latched_nmi_wanted) {
		pr_info("NMI entry: classic, by nmi_entry=classic\n");
		return 0;
	}

	if (!boot_cpu_has(X86_FEATURE_APIC)) {
		note = "not checked: no local APIC";
	} else if (register_nmi_handler(NMI_LOCAL, latched_nmi_check_handler, NMI_FLAG_FIRST,
					"latched_nmi_check", __initdata)) {
		note = "not checked: no handler could be registered";
	} else {
		failure = latched_nmi_self_check(&note);
		unregister_nmi_handler(NMI_LOCAL, "latched_nmi_check");
	}

	if (failure) {
		/* First what the classic entry expects at rest (L2). */
		latched_nmi_top_of(NMI)->state = (struct latched_nmi_state){ };
		idt_setup_nmi_entry(false);
		pr_err("NMI entry: classic; the latched entry failed its self-check: %s\n",
		       failure);
		return 0;
	}

	latched_nmi_in_use = true;
	atomic_notifier_chain_register(&panic_notifier_list, &latched_nmi_panic_nb);
	latched_nmi_watch_mce();
	pr_info("NMI entry: latched; %s\n", note);
	return 0;
}
early_initcall(latched_nmi_init);

#ifdef CONFIG_X86_LATCHED_NMI_KUNIT_TEST
#include "latched_nmi_kunit.c"
#endif
