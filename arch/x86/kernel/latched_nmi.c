// SPDX-License-Identifier: GPL-2.0
/*
 * Latched NMI handler: dispatcher, #MC and #DB fix-up, set-up, counters.
 *
 * The protocol and its facts L1 ... L12 are in the header of
 * arch/x86/entry/entry_64_latched_nmi.S; only the numbers are cited here.
 */
#define pr_fmt(fmt) "x86/nmi: " fmt

#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/percpu.h>
#include <linux/ptrace.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#include <asm/apic.h>
#include <asm/cpu_entry_area.h>
#include <asm/cpufeature.h>
#include <asm/idtentry.h>
#include <asm/latched_nmi.h>
#include <asm/nmi.h>
#include <asm/proto.h>
#include <asm/sync_core.h>

#define CREATE_TRACE_POINTS
#include <trace/events/latched_nmi.h>

/* A hardware frame, with the RDX that an NMI from user mode stashes below. */
struct latched_nmi_frame {
	unsigned long dx;
	unsigned long ip;
	unsigned long cs;
	unsigned long flags;
	unsigned long sp;
	unsigned long ss;
};

static_assert(CEA_ESTACK_OFFS(LATCHED_NMI) - CEA_ESTACK_OFFS(NMI) ==
	      LATCHED_NMI_DISTANCE);
static_assert(CEA_ESTACK_OFFS(MCE) - CEA_ESTACK_OFFS(NMI) ==
	      LATCHED_NMI_MCE_DISTANCE);
static_assert(LATCHED_NMI_STATE + offsetof(struct latched_nmi_state, nest_count) ==
	      LATCHED_NMI_NEST_COUNT);
static_assert(LATCHED_NMI_STATE + offsetof(struct latched_nmi_state, restart) ==
	      LATCHED_NMI_RESTART);
static_assert(LATCHED_NMI_STATE + offsetof(struct latched_nmi_state, latch) ==
	      LATCHED_NMI_LATCH);
/* The state is the quadword below the stashed RDX (L2). */
static_assert(sizeof(struct latched_nmi_state) == 8 && LATCHED_NMI_STATE == -16);

DEFINE_PER_CPU(struct latched_nmi_cause, latched_nmi_cause);
static DEFINE_PER_CPU(struct latched_nmi_cause, latched_nmi_total);

static bool latched_nmi_wanted __ro_after_init = true;

/*
 * The stacks of this CPU. Breakpoints are armed: of per-CPU variables only what
 * within_cpu_entry() protects is used, and no preemption check reads more.
 */
#define latched_nmi_stack_bottom(name) \
	CEA_ESTACK_BOT(raw_cpu_read(cea_exception_stacks), name)
#define latched_nmi_stack_top(name) \
	CEA_ESTACK_TOP(raw_cpu_read(cea_exception_stacks), name)

/* The top frame of the stack @name of this CPU. */
#define latched_nmi_frame_of(name) \
	((struct latched_nmi_frame *)latched_nmi_stack_top(name) - 1)

static __always_inline struct latched_nmi_state *latched_nmi_state(void)
{
	return (void *)latched_nmi_stack_top(NMI) -
	       (sizeof(struct latched_nmi_frame) + sizeof(struct latched_nmi_state));
}

/*
 * Take the latch before the handlers run (L7), and note the cause for
 * latched_nmi_report(): breakpoints are armed here, too. Return: was anything latched?
 */
static __always_inline bool latched_nmi_take(struct latched_nmi_state *state)
{
	unsigned int nested, restarted;

	if (likely(!READ_ONCE(state->latch) && !READ_ONCE(state->restart)))
		return false;

	/* A nested NMI may come in between: read and clear in one go. */
	nested = arch_xchg(&state->latch, 0);
	restarted = arch_xchg(&state->restart, 0);

	raw_cpu_add(latched_nmi_cause.nested, nested);
	raw_cpu_add(latched_nmi_cause.restarted, restarted);
	return true;
}

/**
 * exc_nmi_latched - run the NMI handlers
 * @regs:	the interrupted context, on the LATCHED stack if it was kernel
 *		mode, on the thread stack if it was user mode
 *
 * Called by the entry stub. The duties of an NMI entry in C and the handlers
 * of register_nmi_handler() are exc_nmi()'s. From kernel mode the epilogue of
 * the stub tests the latch, from user mode it is tested here (L12).
 *
 * Context: NMI, NMIs masked or not, interrupts off.
 */
__visible noinstr void exc_nmi_latched(struct pt_regs *regs)
{
	struct latched_nmi_state *state = latched_nmi_state();
	bool run = true;

	if (!user_mode(regs)) {
		latched_nmi_take(state);
		exc_nmi(regs);
		return;
	}

	/*
	 * A first NMI between the clear and the next round takes the latch and
	 * runs the handlers for it.
	 */
	do {
		WRITE_ONCE(state->nest_count, 1);
		run |= latched_nmi_take(state);
		if (run)
			exc_nmi(regs);
		run = false;
		WRITE_ONCE(state->nest_count, 0);
	} while (unlikely(READ_ONCE(state->latch)));
}

/*
 * Copy the frame off the REAL stack, and let what comes now nest. If nest_count
 * is 1 that was done, and the REAL frame possibly gone.
 *
 * #MC may come in the middle of #DB's copy, and copy as well. So all loads come
 * before the test, and the stores after it repeat the same values.
 */
static __always_inline void latched_nmi_copy_frame(struct latched_nmi_state *state)
{
	const struct latched_nmi_frame *real = latched_nmi_frame_of(NMI);
	struct latched_nmi_frame *latched = latched_nmi_frame_of(LATCHED_NMI);
	unsigned long dx	= READ_ONCE(real->dx);
	unsigned long ip	= READ_ONCE(real->ip);
	unsigned long cs	= READ_ONCE(real->cs);
	unsigned long flags	= READ_ONCE(real->flags);
	unsigned long sp	= READ_ONCE(real->sp);
	unsigned long ss	= READ_ONCE(real->ss);

	if (READ_ONCE(state->nest_count))
		return;

	WRITE_ONCE(latched->dx, dx);
	WRITE_ONCE(latched->ip, ip);
	WRITE_ONCE(latched->cs, cs);
	WRITE_ONCE(latched->flags, flags);
	WRITE_ONCE(latched->sp, sp);
	WRITE_ONCE(latched->ss, ss);
	WRITE_ONCE(state->nest_count, 1);
}

/*
 * In the part of the prologue that uses the REAL frame only (H1, H2): take the
 * decision again from its start (L5), and return to where it leads. Never back
 * into this part: the REAL frame may be gone by then.
 */
static __always_inline void latched_nmi_fixup_prologue(struct pt_regs *regs,
						       struct latched_nmi_state *state)
{
	struct latched_nmi_frame *real = latched_nmi_frame_of(NMI);

	regs->sp	= (unsigned long)&latched_nmi_frame_of(LATCHED_NMI)->ip;
	regs->ip	= (unsigned long)latched_nmi_handler;

	if (real->cs & 3) {
		latched_nmi_copy_frame(state);
		regs->ip	= (unsigned long)__nmi_user_prologue_begin;
	} else if (latched_nmi_in_epilogue(real->ip)) {
		state->restart++;
		WRITE_ONCE(state->nest_count, 1);
	} else if (state->nest_count) {
		state->latch++;
		regs->ip	= real->ip;
		regs->cs	= real->cs;
		regs->flags	= real->flags;
		regs->sp	= real->sp;
		regs->ss	= real->ss;
	} else {
		latched_nmi_copy_frame(state);
	}
}

/*
 * On the way to the thread stack (H1, H6): go on with the copy. The pointer to
 * the frame is RSP, later RDX, in between both.
 */
static __always_inline void latched_nmi_fixup_user(struct pt_regs *regs,
						   struct latched_nmi_state *state)
{
	struct latched_nmi_frame *real = latched_nmi_frame_of(NMI);

	latched_nmi_copy_frame(state);

	if (regs->sp == (unsigned long)&real->dx ||
	    regs->sp == (unsigned long)&real->ip)
		regs->sp += LATCHED_NMI_DISTANCE;

	/* Before, RDX is the user's, and after the last use it is 0. */
	if (regs->ip >= (unsigned long)__nmi_user_prologue_rdx &&
	    regs->dx == (unsigned long)&real->dx)
		regs->dx += LATCHED_NMI_DISTANCE;
}

/**
 * latched_nmi_fixup - make an NMI whose prologue was hit safe from the next one
 * @regs:	context interrupted by #MC or #DB, in kernel mode
 *
 * In its prologue an NMI needs the frame on the REAL stack, and is about to
 * lose it when the IRET of #MC or #DB unmasks NMIs (H1, H2, H6). So finish
 * what the prologue does: an NMI that comes now is a nested one.
 *
 * Context: the first thing in the #MC and #DB handlers. If the prologue was
 * hit, NMIs are masked and the REAL frame is whole (L1, L11).
 */
noinstr void latched_nmi_fixup(struct pt_regs *regs)
{
	struct latched_nmi_state *state = latched_nmi_state();
	struct latched_nmi_frame *debug = latched_nmi_frame_of(DB);

	if (latched_nmi_in_prologue(regs->ip)) {
		latched_nmi_fixup_prologue(regs, state);
	} else if (latched_nmi_in_user_prologue(regs->ip)) {
		latched_nmi_fixup_user(regs, state);
	} else if (regs->sp >= latched_nmi_stack_bottom(DB) &&
		   regs->sp < latched_nmi_stack_top(DB) &&
		   !ip_within_syscall_gap(regs) && !(debug->cs & 3) &&
		   latched_nmi_in_user_prologue(debug->ip)) {
		/*
		 * #MC hit the #DB that hit the prologue before #DB's own fix-up,
		 * which finds the frame copied and moves RSP and RDX. In the
		 * SYSCALL gap RSP says nothing (L4).
		 */
		latched_nmi_copy_frame(state);
	}
}

void __latched_nmi_report(struct pt_regs *regs)
{
	struct latched_nmi_cause cause;

	cause.nested = this_cpu_xchg(latched_nmi_cause.nested, 0);
	cause.restarted = this_cpu_xchg(latched_nmi_cause.restarted, 0);
	this_cpu_add(latched_nmi_total.nested, cause.nested);
	this_cpu_add(latched_nmi_total.restarted, cause.restarted);
	trace_latched_nmi_run(instruction_pointer(regs), cause.nested, cause.restarted);
}

/**
 * latched_nmi_show_interrupts - the latched NMI rows of /proc/interrupts
 * @p:		where to
 * @prec:	width of the first column, in characters
 */
void latched_nmi_show_interrupts(struct seq_file *p, int prec)
{
	int cpu;

	seq_printf(p, "%*s: ", prec, "NMN");
	for_each_online_cpu(cpu)
		seq_printf(p, "%10u ", per_cpu(latched_nmi_total, cpu).nested);
	seq_puts(p, "  Nested NMIs, latched\n");

	seq_printf(p, "%*s: ", prec, "NMR");
	for_each_online_cpu(cpu)
		seq_printf(p, "%10u ", per_cpu(latched_nmi_total, cpu).restarted);
	seq_puts(p, "  NMIs restarted in the epilogue\n");
}

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

/**
 * latched_nmi_enabled - does the latched entry serve the NMIs of this boot?
 *
 * Return: true if it was not switched off and the NMIs come through the IDT.
 */
bool __init latched_nmi_enabled(void)
{
	return latched_nmi_wanted && !cpu_feature_enabled(X86_FEATURE_FRED) &&
	       !cpu_feature_enabled(X86_FEATURE_XENPV);
}

/*
 * The self-check sends this CPU an NMI, unmasks NMIs in its handler as a fault
 * would, sends a second one there, and wants it latched and served afterwards.
 */
static struct {
	unsigned int runs;
	bool on_stack;
	bool nested;
} latched_nmi_check __initdata;

static void __init latched_nmi_send(void)
{
	__apic_send_IPI_mask(cpumask_of(smp_processor_id()), NMI_VECTOR);
}

static int __init latched_nmi_check_handler(unsigned int type, struct pt_regs *regs)
{
	unsigned int timeout_us = USEC_PER_SEC;

	if (latched_nmi_check.runs++)
		return NMI_HANDLED;

	latched_nmi_check.on_stack =
		(unsigned long)(regs + 1) == latched_nmi_stack_top(LATCHED_NMI);

	iret_to_self();
	latched_nmi_send();
	while (!READ_ONCE(latched_nmi_state()->latch) && --timeout_us)
		udelay(1);
	latched_nmi_check.nested = timeout_us && latched_nmi_check.runs == 1;

	return NMI_HANDLED;
}

/* Return: NULL if all is well, else what is not. */
static const char * __init latched_nmi_self_check(void)
{
	const struct latched_nmi_state *state = latched_nmi_state();
	unsigned int timeout_us = USEC_PER_SEC;

	latched_nmi_send();
	while (READ_ONCE(latched_nmi_check.runs) < 2 && --timeout_us)
		udelay(1);

	if (!latched_nmi_check.runs)
		return "an NMI was not delivered";
	if (!latched_nmi_check.on_stack)
		return "an NMI did not run on the latched stack";
	if (!latched_nmi_check.nested)
		return "a nested NMI was not latched";
	if (!timeout_us)
		return "a latched NMI was not served";
	if (state->nest_count || state->latch || state->restart)
		return "the state at rest is not 0";
	return NULL;
}

static int __init latched_nmi_init(void)
{
	const char *failure;

	if (cpu_feature_enabled(X86_FEATURE_FRED) ||
	    cpu_feature_enabled(X86_FEATURE_XENPV)) {
		pr_info("NMI entry: %s; the latched entry is not in use\n",
			cpu_feature_enabled(X86_FEATURE_FRED) ? "FRED" : "Xen PV");
		return 0;
	}

	if (!latched_nmi_enabled()) {
		pr_info("NMI entry: classic, by nmi_entry=classic\n");
		return 0;
	}

	if (!boot_cpu_has(X86_FEATURE_APIC) || apic_is_disabled) {
		pr_info("NMI entry: latched, not checked: no local APIC\n");
		return 0;
	}

	if (register_nmi_handler(NMI_LOCAL, latched_nmi_check_handler, NMI_FLAG_FIRST,
				 "latched_nmi_check", __initdata)) {
		pr_warn("NMI entry: latched, not checked: no handler could be registered\n");
		return 0;
	}
	failure = latched_nmi_self_check();
	unregister_nmi_handler(NMI_LOCAL, "latched_nmi_check");

	if (failure) {
		idt_setup_nmi_entry(false);
		/* What the classic entry expects at rest (L2). */
		*latched_nmi_state() = (struct latched_nmi_state){ };
		pr_err("NMI entry: classic; the latched entry failed its self-check: %s\n",
		       failure);
		return 0;
	}

	pr_info("NMI entry: latched; self-check passed: %u handler runs, one for a nested NMI\n",
		latched_nmi_check.runs);
	return 0;
}
early_initcall(latched_nmi_init);
