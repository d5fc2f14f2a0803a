// SPDX-License-Identifier: GPL-2.0
/*
 * Test PMU and fault triggers for the x86-64 NMI entry
 *
 * The module sends real NMIs, runs a handler in them, makes that handler fault
 * on request, and accounts for every NMI that it has sent. It needs neither a
 * hardware PMU nor CONFIG_X86_LATCHED_NMI: on the classic NMI entry it works the
 * same.
 *
 * Perf events (/sys/bus/event_source/devices/latched_nmi_test/)
 *
 *   latched_nmi_test/ipi/	another CPU sends an NMI IPI each period
 *   latched_nmi_test/self/	the sampled CPU sends it to itself, from its timer
 *				interrupt
 *
 *   Both count the nanoseconds for which the event has been enabled, as cpu-clock
 *   does: "-c 1000000" and "-F 1000" are both one NMI per millisecond. A period
 *   below 20000 ns is rejected. The sample is taken in the NMI handler. Only
 *   sampling events exist; per-CPU and per-task events both work, as do the
 *   modifiers :u and :k. With a single CPU online "ipi" falls back to "self".
 *
 *     perf record -e latched_nmi_test/ipi/ -F 1000 -a -g -- sleep 5
 *
 * Files (/sys/kernel/debug/latched_nmi_test/)
 *
 *   faults	(rw) Kinds of faults that every handler run takes, in that order,
 *		separated by blanks; "none" (the default) or an empty line for
 *		none. The kinds are:
 *
 *		  int3     a kprobe, not optimized, on a function of this module
 *		  page     load from a user address that nothing maps (#PF)
 *		  vmalloc  load from a vmalloc guard page (#PF)
 *		  user     copy_from_user_nmi() from user_addr (#PF unless resident)
 *		  gp       load from a non-canonical address (#GP)
 *		  db       data breakpoint, DR7 armed by the handler (#DB)
 *		  iret     iret_to_self(), no exception: unmasks NMIs, nothing else
 *
 *   user_addr	(rw) Address for the kind "user", in the task that the NMI hits.
 *		0, the default, stands for that task's user stack pointer.
 *   hold_ns	(rw) Time that each handler run spins after its faults; at most
 *		1000000 ns.
 *   storm	(rw) Write "<nmis> [<burst> [<gap_ns> [<cpu>]]]": sends that many
 *		NMIs from the CPU that writes to <cpu> (by default another one,
 *		never the writer's as long as there are two), in bursts of <burst>
 *		(default 1) with <gap_ns> (default 0) in between, and waits after
 *		each burst until a handler run has begun after the burst's last
 *		NMI was sent. Returns when done. Reading shows the last result.
 *   chase	(rw) Write "<rounds> [<max_delay_ns> [<cpu>]]": each round sends an
 *		NMI, waits until its handler begins, and sends another after a delay
 *		that sweeps 0 ... <max_delay_ns> (default 20000): over the handler and
 *		the exit path of the entry code, where NMIs are unmasked if "iret" is in
 *		faults. The writer must not run on <cpu>: see taskset(1). Reading shows
 *		the last result.
 *   nested	(rw) Write "<kind> [<rounds> [<cpu>]]", <kind> as in faults or
 *		"none": each round sends an NMI to <cpu>; its handler takes the
 *		fault, then sends an NMI to its own CPU, which arrives nested
 *		(with "none", where NMIs are still masked, after the run). It must not
 *		run the handler inside the handler, and a handler run must begin
 *		afterwards. Reading shows the last result.
 *   backtrace	(wo) Write "<cpu>": sends an NMI to <cpu>, whose handler prints its
 *		stack with dump_stack().
 *   pt_regs	(ro) Address of the user registers on the kernel stack of the task
 *		that reads: what the entry code writes on the way in from user mode.
 *   per_cpu_offset (ro) From the address of a per-CPU variable to CPU 0's instance.
 *   stats	(ro) One counter a line: its name, its total, its value for each
 *		possible CPU.
 *
 *		  sent        NMIs sent, by events, operations and the handler itself
 *		  runs        handler runs with NMIs of this module pending
 *		  runs_user   of these, runs that interrupted user mode
 *		  late        runs whose NMI an earlier run had already accounted for
 *		  foreign     runs for NMIs of others
 *		  unseen      NMIs sent since the last handler run began: 0 at rest
 *		  lost        NMIs that no handler run followed within 2 seconds
 *		  reentered   runs that began inside another run on that CPU
 *		  nested      NMIs that the handler has sent to its own CPU
 *		  samples     overflows handed to perf
 *		  throttled   overflows upon which perf has throttled the event
 *		  int3 page vmalloc user gp db iret
 *		              faults taken, counted where the fault was handled: in the
 *		              kprobe's or the breakpoint's handler, or by the result
 *		              of the fixed-up access
 *		  user_copied copies of kind "user" that did not fault
 *
 *   reset	(wo) Any write sets all counters to zero.
 *
 * A result is one line of name=value pairs that ends in result=pass or
 * result=fail:
 *
 *   storm	sent= runs= lost= reentered= ns= result=
 *   chase	sent= runs= lost= reentered= result=
 *   nested	kind= rounds= faults= user= begun_after= lost= reentered= result=
 *
 * where runs= are handler runs on the target CPU, user= is the number of rounds
 * that interrupted user mode, and begun_after= the number of rounds in which the
 * next handler run began after the nested NMI was sent.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/hw_breakpoint.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/perf_event.h>
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <asm/apic.h>
#include <asm/asm.h>
#include <asm/debugreg.h>
#include <asm/nmi.h>
#include <asm/sync_core.h>

#define LATCHED_NMI_TEST_NAME		"latched_nmi_test"

/* Events that one CPU can run at a time. */
#define LATCHED_NMI_TEST_SLOTS		8

#define LATCHED_NMI_TEST_MIN_PERIOD_NS	20000
#define LATCHED_NMI_TEST_MAX_HOLD_NS	NSEC_PER_MSEC
#define LATCHED_NMI_TEST_MAX_GAP_NS	NSEC_PER_MSEC
#define LATCHED_NMI_TEST_MAX_BURST	1000
#define LATCHED_NMI_TEST_LOST_NS	(2 * NSEC_PER_SEC)

enum latched_nmi_test_fault {
	FAULT_INT3,
	FAULT_PAGE,
	FAULT_VMALLOC,
	FAULT_USER,
	FAULT_GP,
	FAULT_DB,
	FAULT_IRET,
	NR_FAULTS,
	FAULT_NONE = NR_FAULTS,
};

/*
 * The faults come first: counters of faults are indexed by their kind. What comes
 * after NR_COUNTERS is not counted but computed.
 */
enum latched_nmi_test_stat {
	STAT_USER_COPIED = NR_FAULTS,
	STAT_RUNS,
	STAT_RUNS_USER,
	STAT_LATE,
	STAT_FOREIGN,
	STAT_LOST,
	STAT_REENTERED,
	STAT_NESTED,
	STAT_SAMPLES,
	STAT_THROTTLED,
	NR_COUNTERS,
	STAT_SENT = NR_COUNTERS,
	STAT_UNSEEN,
	NR_ALL_STATS,
};

static const char * const latched_nmi_test_names[NR_ALL_STATS] = {
	[FAULT_INT3]		= "int3",
	[FAULT_PAGE]		= "page",
	[FAULT_VMALLOC]		= "vmalloc",
	[FAULT_USER]		= "user",
	[FAULT_GP]		= "gp",
	[FAULT_DB]		= "db",
	[FAULT_IRET]		= "iret",
	[STAT_USER_COPIED]	= "user_copied",
	[STAT_RUNS]		= "runs",
	[STAT_RUNS_USER]	= "runs_user",
	[STAT_LATE]		= "late",
	[STAT_FOREIGN]		= "foreign",
	[STAT_LOST]		= "lost",
	[STAT_REENTERED]	= "reentered",
	[STAT_NESTED]		= "nested",
	[STAT_SAMPLES]		= "samples",
	[STAT_THROTTLED]	= "throttled",
	[STAT_SENT]		= "sent",
	[STAT_UNSEEN]		= "unseen",
};

/**
 * struct latched_nmi_test_cpu - NMIs of one CPU
 * @sent: sequence number of the last NMI sent to this CPU
 * @seen: @sent as it was when the last handler run began
 * @done: @seen of the last handler run that has ended
 * @late: NMIs that @seen covers but that may still arrive on their own
 * @running: a handler run is in progress
 * @stat: counters, written by this CPU (%STAT_LOST by the operations)
 * @stat_base: @stat at the last reset
 * @sent_base: @sent at the last reset
 * @slot: events that run on this CPU
 * @nested_kind: fault that the next handler run takes before it nests an NMI,
 *		 or -1 if it shall not
 * @nested_seq: sequence number of the nested NMI, 0 if none is awaited
 * @nested_user: rounds of the operation "nested" that interrupted user mode
 * @nested_faults: rounds of it that took their fault
 * @nested_after: rounds of it where the next run began after the nested NMI
 * @dump: the next handler run prints its stack
 */
struct latched_nmi_test_cpu {
	atomic_long_t		sent;
	unsigned long		seen;
	unsigned long		done;
	unsigned int		late;
	bool			running;
	unsigned long		stat[NR_COUNTERS];
	unsigned long		stat_base[NR_COUNTERS];
	unsigned long		sent_base;
	struct perf_event	*slot[LATCHED_NMI_TEST_SLOTS];
	int			nested_kind;
	unsigned long		nested_seq;
	unsigned int		nested_user;
	unsigned int		nested_faults;
	unsigned int		nested_after;
	bool			dump;
};

static DEFINE_PER_CPU(struct latched_nmi_test_cpu, latched_nmi_test_cpu) = {
	.nested_kind = -1,
};

/* Serializes the operations and the changes to what the handler does. */
static DEFINE_MUTEX(latched_nmi_test_mutex);

static unsigned long latched_nmi_test_faults;
static u64 latched_nmi_test_user_addr;
static u64 latched_nmi_test_hold_ns;

static inline void latched_nmi_test_inc(int stat)
{
	this_cpu_inc(latched_nmi_test_cpu.stat[stat]);
}

/* Sending */

/**
 * latched_nmi_test_send() - Send an NMI to a CPU
 * @cpu: an online CPU
 *
 * The sequence number is taken before the IPI is sent: a handler run that has
 * seen it might begin before the NMI arrives, but a lost NMI leaves it unseen
 * unless a run began in between.
 *
 * Return: the NMI's sequence number.
 */
static unsigned long latched_nmi_test_send(unsigned int cpu)
{
	struct latched_nmi_test_cpu *c = per_cpu_ptr(&latched_nmi_test_cpu, cpu);
	unsigned long seq = atomic_long_inc_return(&c->sent);

	apic->send_IPI_mask(cpumask_of(cpu), NMI_VECTOR);
	return seq;
}

/*
 * In NMI context: the interrupted code may be about to send an IPI, between its
 * writes to the two halves of the ICR of an xAPIC. The self shorthand would leave
 * the upper half alone, but is not defined for NMIs.
 */
static unsigned long latched_nmi_test_send_self(void)
{
	unsigned long seq;
	u32 icr2 = 0;

	if (!x2apic_mode) {
		apic->safe_wait_icr_idle();
		icr2 = apic->read(APIC_ICR2);
	}

	seq = latched_nmi_test_send(smp_processor_id());

	if (!x2apic_mode) {
		apic->safe_wait_icr_idle();
		apic->write(APIC_ICR2, icr2);
	}
	return seq;
}

static bool latched_nmi_test_reached(const unsigned long *counter,
				     unsigned long seq)
{
	return (long)(READ_ONCE(*counter) - seq) >= 0;
}

/* Faults */

static noinline notrace unsigned long latched_nmi_test_probed(unsigned long arg)
{
	barrier();
	return arg + 1;
}

static int latched_nmi_test_kprobe_pre(struct kprobe *p, struct pt_regs *regs)
{
	latched_nmi_test_inc(FAULT_INT3);
	return 0;
}

NOKPROBE_SYMBOL(latched_nmi_test_kprobe_pre);

/* A kprobe with a post handler is never optimized into a jump. */
static void latched_nmi_test_kprobe_post(struct kprobe *p, struct pt_regs *regs,
					 unsigned long flags)
{
}

NOKPROBE_SYMBOL(latched_nmi_test_kprobe_post);

static struct kprobe latched_nmi_test_kprobe = {
	.addr		= (kprobe_opcode_t *)latched_nmi_test_probed,
	.pre_handler	= latched_nmi_test_kprobe_pre,
	.post_handler	= latched_nmi_test_kprobe_post,
};

static void *latched_nmi_test_vmalloc;

/* Nothing but the handler writes here, and only there DR7 is armed. */
static u64 latched_nmi_test_watched __aligned(8);
static struct perf_event * __percpu *latched_nmi_test_bp;

static void latched_nmi_test_bp_handler(struct perf_event *bp,
					struct perf_sample_data *data,
					struct pt_regs *regs)
{
	latched_nmi_test_inc(FAULT_DB);
}

static int latched_nmi_test_bp_register(void)
{
	struct perf_event_attr attr;

	hw_breakpoint_init(&attr);
	attr.bp_addr = (unsigned long)&latched_nmi_test_watched;
	attr.bp_len = HW_BREAKPOINT_LEN_8;
	attr.bp_type = HW_BREAKPOINT_W;

	latched_nmi_test_bp = register_wide_hw_breakpoint(&attr,
							  latched_nmi_test_bp_handler,
							  NULL);
	return PTR_ERR_OR_ZERO((void __force *)latched_nmi_test_bp);
}

/* Claims the debug registers, or gives them up. */
static int latched_nmi_test_want_bp(bool want)
{
	int ret;

	lockdep_assert_held(&latched_nmi_test_mutex);

	if (want == !!latched_nmi_test_bp)
		return 0;

	if (want) {
		ret = latched_nmi_test_bp_register();
		if (ret)
			latched_nmi_test_bp = NULL;
		return ret;
	}

	/* A handler run may still be about to take the fault. */
	synchronize_rcu();
	unregister_wide_hw_breakpoint(latched_nmi_test_bp);
	latched_nmi_test_bp = NULL;
	return 0;
}

static int latched_nmi_test_set_faults(unsigned long faults)
{
	bool db = test_bit(FAULT_DB, &faults);
	int ret = 0;

	if (db)
		ret = latched_nmi_test_want_bp(true);
	if (!ret)
		WRITE_ONCE(latched_nmi_test_faults, faults);
	if (!db)
		latched_nmi_test_want_bp(false);
	return ret;
}

static void latched_nmi_test_fault_user(void)
{
	u64 addr = READ_ONCE(latched_nmi_test_user_addr);
	u64 buf[4];

	if (!current->mm || current->flags & PF_KTHREAD)
		return;

	if (!addr)
		addr = task_pt_regs(current)->sp;

	if (copy_from_user_nmi(buf, (void __user *)addr, sizeof(buf)))
		latched_nmi_test_inc(FAULT_USER);
	else
		latched_nmi_test_inc(STAT_USER_COPIED);
}

static void latched_nmi_test_fault_gp(void)
{
	unsigned long val;
	int faulted = 1;

	/* The fix-up skips the second instruction. */
	asm volatile("1: mov (%[addr]), %[val]\n"
		     "   xor %[faulted], %[faulted]\n"
		     "2:\n"
		     _ASM_EXTABLE(1b, 2b)
		     : [val] "=&r" (val), [faulted] "+r" (faulted)
		     : [addr] "r" (0x8000000000000000ul)
		     : "cc");
	if (faulted)
		latched_nmi_test_inc(FAULT_GP);
}

/*
 * exc_nmi() has cleared DR7. What it has saved is what belongs there, so there is
 * nothing to put back: the handler only must leave DR7 cleared as it found it.
 */
static void latched_nmi_test_fault_db(void)
{
	local_db_restore(this_cpu_read(cpu_dr7));
	WRITE_ONCE(latched_nmi_test_watched, local_clock());
	local_db_save();
}

static void latched_nmi_test_fault(enum latched_nmi_test_fault kind)
{
	u64 val;

	switch (kind) {
	case FAULT_INT3:
		latched_nmi_test_probed(0);
		break;
	case FAULT_PAGE:
		/* In NMI context page faults are not handled, only fixed up. */
		if (__copy_from_user_inatomic(&val, (void __user *)8, sizeof(val)))
			latched_nmi_test_inc(FAULT_PAGE);
		break;
	case FAULT_VMALLOC:
		if (copy_from_kernel_nofault(&val, latched_nmi_test_vmalloc + PAGE_SIZE,
					     sizeof(val)))
			latched_nmi_test_inc(FAULT_VMALLOC);
		break;
	case FAULT_USER:
		latched_nmi_test_fault_user();
		break;
	case FAULT_GP:
		latched_nmi_test_fault_gp();
		break;
	case FAULT_DB:
		latched_nmi_test_fault_db();
		break;
	case FAULT_IRET:
		iret_to_self();
		latched_nmi_test_inc(FAULT_IRET);
		break;
	case FAULT_NONE:
		break;
	}
}

/* The PMU */

enum latched_nmi_test_source {
	SOURCE_IPI = 1,
	SOURCE_SELF,
};

/**
 * struct latched_nmi_test_event - Sender of one perf event's NMIs
 * @timer: sends the NMIs, on the CPU that latched_nmi_test_sender() tells
 * @kick: starts @timer on that CPU
 * @lock: protects @armed
 * @armed: @timer is queued or its callback running
 * @running: the event has been started
 * @due: an NMI was sent for an overflow that the handler has not seen yet
 * @source: who sends
 * @cpu: CPU on which the event runs
 * @event: the perf event
 */
struct latched_nmi_test_event {
	struct hrtimer			timer;
	call_single_data_t		kick;
	raw_spinlock_t			lock;
	bool				armed;
	bool				running;
	bool				due;
	enum latched_nmi_test_source	source;
	unsigned int			cpu;
	struct perf_event		*event;
};

static struct pmu latched_nmi_test_pmu;

static unsigned int latched_nmi_test_other_cpu(unsigned int cpu)
{
	unsigned int other = cpumask_any_but(cpu_online_mask, cpu);

	return other < nr_cpu_ids ? other : cpu;
}

/* Interrupts are off: the CPU stays online until it has been sent the kick. */
static unsigned int latched_nmi_test_sender(struct latched_nmi_test_event *te)
{
	unsigned int cpu = READ_ONCE(te->cpu);

	if (te->source == SOURCE_SELF)
		return cpu;
	if (cpu != smp_processor_id())
		return smp_processor_id();
	return latched_nmi_test_other_cpu(cpu);
}

static void latched_nmi_test_kick(void *info)
{
	struct latched_nmi_test_event *te = info;

	raw_spin_lock(&te->lock);
	if (READ_ONCE(te->running) && !te->armed) {
		te->armed = true;
		hrtimer_start(&te->timer, ns_to_ktime(te->event->hw.sample_period),
			      HRTIMER_MODE_REL_PINNED_HARD);
	}
	raw_spin_unlock(&te->lock);
}

static enum hrtimer_restart latched_nmi_test_timer(struct hrtimer *timer)
{
	struct latched_nmi_test_event *te =
		container_of(timer, struct latched_nmi_test_event, timer);
	unsigned int sender;

	raw_spin_lock(&te->lock);
	if (!READ_ONCE(te->running)) {
		te->armed = false;
		raw_spin_unlock(&te->lock);
		return HRTIMER_NORESTART;
	}

	/* The event may have moved to this CPU, or the timer by hotplug. */
	sender = latched_nmi_test_sender(te);
	if (sender != smp_processor_id())
		te->armed = false;
	raw_spin_unlock(&te->lock);

	WRITE_ONCE(te->due, true);
	latched_nmi_test_send(READ_ONCE(te->cpu));

	if (sender != smp_processor_id()) {
		smp_call_function_single_async(sender, &te->kick);
		return HRTIMER_NORESTART;
	}

	hrtimer_forward_now(timer, ns_to_ktime(te->event->hw.sample_period));
	return HRTIMER_RESTART;
}

static void latched_nmi_test_update(struct perf_event *event)
{
	u64 now = local_clock();

	local64_add(now - local64_xchg(&event->hw.prev_count, now), &event->count);
}

static void latched_nmi_test_start(struct perf_event *event, int flags)
{
	struct latched_nmi_test_event *te = event->pmu_private;

	event->hw.state = 0;
	local64_set(&event->hw.prev_count, local_clock());

	WRITE_ONCE(te->due, false);
	WRITE_ONCE(te->cpu, smp_processor_id());
	WRITE_ONCE(te->running, true);

	/* If it is still pending from the last time, it will see the new state. */
	smp_call_function_single_async(latched_nmi_test_sender(te), &te->kick);
}

/* In NMI context if perf has throttled the event. */
static void latched_nmi_test_stop(struct perf_event *event, int flags)
{
	struct latched_nmi_test_event *te = event->pmu_private;

	if (event->hw.state & PERF_HES_STOPPED)
		return;

	WRITE_ONCE(te->running, false);
	latched_nmi_test_update(event);
	event->hw.state |= PERF_HES_STOPPED | PERF_HES_UPTODATE;
}

static int latched_nmi_test_add(struct perf_event *event, int flags)
{
	struct latched_nmi_test_cpu *c = this_cpu_ptr(&latched_nmi_test_cpu);
	int i;

	for (i = 0; i < LATCHED_NMI_TEST_SLOTS; i++) {
		if (!c->slot[i])
			break;
	}
	if (i == LATCHED_NMI_TEST_SLOTS)
		return -EAGAIN;

	event->hw.idx = i;
	event->hw.state = PERF_HES_STOPPED | PERF_HES_UPTODATE;
	WRITE_ONCE(c->slot[i], event);

	if (flags & PERF_EF_START)
		latched_nmi_test_start(event, flags);
	perf_event_update_userpage(event);
	return 0;
}

/* Runs on the event's CPU: no NMI handler uses the event any more afterwards. */
static void latched_nmi_test_del(struct perf_event *event, int flags)
{
	struct latched_nmi_test_cpu *c = this_cpu_ptr(&latched_nmi_test_cpu);

	latched_nmi_test_stop(event, flags);
	WRITE_ONCE(c->slot[event->hw.idx], NULL);
	perf_event_update_userpage(event);
}

static void latched_nmi_test_read(struct perf_event *event)
{
	if (!(event->hw.state & PERF_HES_UPTODATE))
		latched_nmi_test_update(event);
}

static int latched_nmi_test_check_period(struct perf_event *event, u64 value)
{
	return value < LATCHED_NMI_TEST_MIN_PERIOD_NS ? -EINVAL : 0;
}

static void latched_nmi_test_destroy(struct perf_event *event)
{
	struct latched_nmi_test_event *te = event->pmu_private;

	/* Neither the timer nor the kick start the other if not running. */
	WRITE_ONCE(te->running, false);
	kick_all_cpus_sync();
	hrtimer_cancel(&te->timer);
	kick_all_cpus_sync();
	kfree(te);
}

static int latched_nmi_test_event_init(struct perf_event *event)
{
	struct hw_perf_event *hwc = &event->hw;
	struct latched_nmi_test_event *te;

	if (event->attr.type != latched_nmi_test_pmu.type)
		return -ENOENT;
	if (has_branch_stack(event))
		return -EOPNOTSUPP;
	if (!is_sampling_event(event))
		return -EINVAL;
	if (event->attr.config != SOURCE_IPI && event->attr.config != SOURCE_SELF)
		return -EINVAL;

	/* The rate is fixed: map the frequency to a period once. */
	if (event->attr.freq) {
		hwc->sample_period = div64_u64(NSEC_PER_SEC, event->attr.sample_freq);
		hwc->last_period = hwc->sample_period;
		local64_set(&hwc->period_left, hwc->sample_period);
		event->attr.sample_period = hwc->sample_period;
		event->attr.freq = 0;
	}
	if (latched_nmi_test_check_period(event, hwc->sample_period))
		return -EINVAL;

	te = kzalloc(sizeof(*te), GFP_KERNEL);
	if (!te)
		return -ENOMEM;

	te->event = event;
	te->source = event->attr.config;
	INIT_CSD(&te->kick, latched_nmi_test_kick, te);
	raw_spin_lock_init(&te->lock);
	hrtimer_setup(&te->timer, latched_nmi_test_timer, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL_PINNED_HARD);

	event->pmu_private = te;
	event->destroy = latched_nmi_test_destroy;
	return 0;
}

PMU_FORMAT_ATTR(event, "config:0-7");
PMU_EVENT_ATTR_STRING(ipi, latched_nmi_test_attr_ipi, "event=0x1");
PMU_EVENT_ATTR_STRING(self, latched_nmi_test_attr_self, "event=0x2");

static struct attribute *latched_nmi_test_format_attrs[] = {
	&format_attr_event.attr,
	NULL,
};

static const struct attribute_group latched_nmi_test_format_group = {
	.name	= "format",
	.attrs	= latched_nmi_test_format_attrs,
};

static struct attribute *latched_nmi_test_event_attrs[] = {
	&latched_nmi_test_attr_ipi.attr.attr,
	&latched_nmi_test_attr_self.attr.attr,
	NULL,
};

static const struct attribute_group latched_nmi_test_event_group = {
	.name	= "events",
	.attrs	= latched_nmi_test_event_attrs,
};

static const struct attribute_group *latched_nmi_test_attr_groups[] = {
	&latched_nmi_test_format_group,
	&latched_nmi_test_event_group,
	NULL,
};

static struct pmu latched_nmi_test_pmu = {
	.module		= THIS_MODULE,
	.task_ctx_nr	= perf_sw_context,
	.attr_groups	= latched_nmi_test_attr_groups,
	.event_init	= latched_nmi_test_event_init,
	.add		= latched_nmi_test_add,
	.del		= latched_nmi_test_del,
	.start		= latched_nmi_test_start,
	.stop		= latched_nmi_test_stop,
	.read		= latched_nmi_test_read,
	.check_period	= latched_nmi_test_check_period,
};

/*
 * perf_event_overflow() would also throttle the event, but 6.12 does not export it.
 */
static int latched_nmi_test_perf_overflow(struct perf_event *event,
					  struct perf_sample_data *data,
					  struct pt_regs *regs)
{
	event->overflow_handler(event, data, regs);
	return 0;
}

static void latched_nmi_test_overflow(struct perf_event *event,
				      struct pt_regs *regs)
{
	struct latched_nmi_test_event *te = event->pmu_private;
	struct perf_sample_data data;

	if (event->hw.state & PERF_HES_STOPPED || !READ_ONCE(te->due))
		return;

	WRITE_ONCE(te->due, false);
	latched_nmi_test_update(event);

	if (user_mode(regs) ? event->attr.exclude_user : event->attr.exclude_kernel)
		return;

	latched_nmi_test_inc(STAT_SAMPLES);
	perf_sample_data_init(&data, 0, event->hw.last_period);
	if (latched_nmi_test_perf_overflow(event, &data, regs)) {
		latched_nmi_test_inc(STAT_THROTTLED);
		latched_nmi_test_stop(event, 0);
	}
}

/* The handler */

/*
 * An NMI that a run has accounted for before it arrived causes another run. That
 * is as many as the run took in addition to its own, but most of them have been
 * merged into one by then: the local APIC and the CPU hold one each.
 */
static bool latched_nmi_test_take(struct latched_nmi_test_cpu *c)
{
	unsigned long sent = atomic_long_read(&c->sent);
	unsigned long taken = sent - c->seen;

	if (taken) {
		WRITE_ONCE(c->seen, sent);
		c->late = min(c->late + taken - 1, 1ul + nr_cpu_ids);
		return true;
	}
	return false;
}

static void latched_nmi_test_nest(struct latched_nmi_test_cpu *c,
				  struct pt_regs *regs)
{
	int kind = c->nested_kind;
	unsigned long before;

	/* Tried again: there is no user memory that this could copy from. */
	if (kind == FAULT_USER && !current->mm)
		return;

	c->nested_kind = -1;
	if (user_mode(regs))
		c->nested_user++;

	before = kind < NR_FAULTS ? c->stat[kind] : 0;
	latched_nmi_test_fault(kind);
	if (kind < NR_FAULTS)
		c->nested_faults += READ_ONCE(c->stat[kind]) - before;

	latched_nmi_test_inc(STAT_NESTED);
	c->nested_seq = latched_nmi_test_send_self();

	/* Long enough for the NMI to arrive, if it is not masked. */
	ndelay(5000);
}

static int latched_nmi_test_handler(unsigned int type, struct pt_regs *regs)
{
	struct latched_nmi_test_cpu *c = this_cpu_ptr(&latched_nmi_test_cpu);
	unsigned long faults = READ_ONCE(latched_nmi_test_faults);
	u64 hold_ns = READ_ONCE(latched_nmi_test_hold_ns);
	unsigned int i;

	if (c->running) {
		latched_nmi_test_inc(STAT_REENTERED);
		return NMI_HANDLED;
	}

	if (!latched_nmi_test_take(c)) {
		if (!c->late) {
			latched_nmi_test_inc(STAT_FOREIGN);
			return NMI_DONE;
		}
		c->late--;
		latched_nmi_test_inc(STAT_LATE);
		return NMI_HANDLED;
	}

	WRITE_ONCE(c->running, true);
	latched_nmi_test_inc(STAT_RUNS);
	if (user_mode(regs))
		latched_nmi_test_inc(STAT_RUNS_USER);

	if (c->nested_seq) {
		if (latched_nmi_test_reached(&c->seen, c->nested_seq))
			c->nested_after++;
		WRITE_ONCE(c->nested_seq, 0);
	}

	for (i = 0; i < LATCHED_NMI_TEST_SLOTS; i++) {
		struct perf_event *event = READ_ONCE(c->slot[i]);

		if (event)
			latched_nmi_test_overflow(event, regs);
	}

	for_each_set_bit(i, &faults, NR_FAULTS)
		latched_nmi_test_fault(i);

	if (c->nested_kind >= 0)
		latched_nmi_test_nest(c, regs);

	if (c->dump) {
		c->dump = false;
		dump_stack();
	}

	if (hold_ns)
		ndelay(hold_ns);

	WRITE_ONCE(c->running, false);
	WRITE_ONCE(c->done, c->seen);
	return NMI_HANDLED;
}

/* The operations */

struct latched_nmi_test_result {
	char line[160];
};

static struct latched_nmi_test_result latched_nmi_test_storm_result;
static struct latched_nmi_test_result latched_nmi_test_chase_result;
static struct latched_nmi_test_result latched_nmi_test_nested_result;

/**
 * struct latched_nmi_test_target - What happens on a CPU during an operation
 * @cpu: the CPU
 * @c: its state
 * @runs: its handler runs
 * @lost: its lost NMIs
 * @reentered: its re-entered handler runs
 *
 * The counters hold their values at the start of the operation. The target CPU stays
 * online from latched_nmi_test_begin() to latched_nmi_test_end().
 */
struct latched_nmi_test_target {
	unsigned int			cpu;
	struct latched_nmi_test_cpu	*c;
	unsigned long			runs;
	unsigned long			lost;
	unsigned long			reentered;
};

static int latched_nmi_test_begin(struct latched_nmi_test_target *t, int cpu)
{
	cpus_read_lock();
	if (cpu < 0)
		cpu = latched_nmi_test_other_cpu(raw_smp_processor_id());
	if (cpu >= nr_cpu_ids || !cpu_online(cpu)) {
		cpus_read_unlock();
		return -ENODEV;
	}

	t->cpu = cpu;
	t->c = per_cpu_ptr(&latched_nmi_test_cpu, cpu);
	t->runs = READ_ONCE(t->c->stat[STAT_RUNS]);
	t->lost = READ_ONCE(t->c->stat[STAT_LOST]);
	t->reentered = READ_ONCE(t->c->stat[STAT_REENTERED]);
	return 0;
}

static void latched_nmi_test_end(struct latched_nmi_test_target *t)
{
	t->runs = READ_ONCE(t->c->stat[STAT_RUNS]) - t->runs;
	t->lost = READ_ONCE(t->c->stat[STAT_LOST]) - t->lost;
	t->reentered = READ_ONCE(t->c->stat[STAT_REENTERED]) - t->reentered;
	cpus_read_unlock();
}

/**
 * latched_nmi_test_wait() - Wait for a handler run
 * @t: target of the operation
 * @counter: &latched_nmi_test_cpu.seen for one that has begun,
 *	     &latched_nmi_test_cpu.done for one that has ended
 * @seq: sequence number of the NMI that the run has to cover
 *
 * Return: true if there was one, false if the NMI is lost.
 */
static bool latched_nmi_test_wait(struct latched_nmi_test_target *t,
				  const unsigned long *counter, unsigned long seq)
{
	u64 start = ktime_get_ns();

	while (!latched_nmi_test_reached(counter, seq)) {
		u64 waited = ktime_get_ns() - start;

		if (waited > LATCHED_NMI_TEST_LOST_NS) {
			t->c->stat[STAT_LOST]++;
			return false;
		}
		if (waited > 2 * NSEC_PER_MSEC && preemptible())
			usleep_range(50, 100);
		else
			cpu_relax();
	}
	return true;
}

/* Return: 0, or -EINTR if the test has to end. */
static int latched_nmi_test_between_rounds(void)
{
	cond_resched();
	return signal_pending(current) ? -EINTR : 0;
}

static int latched_nmi_test_storm(unsigned int nmis, unsigned int burst,
				  unsigned int gap_ns, int cpu)
{
	struct latched_nmi_test_target t;
	u64 start = ktime_get_ns();
	unsigned int sent = 0;
	int ret;

	ret = latched_nmi_test_begin(&t, cpu);
	if (ret)
		return ret;

	while (sent < nmis) {
		unsigned int n = min(burst, nmis - sent);
		unsigned long seq = 0;

		sent += n;
		preempt_disable();
		while (n--) {
			seq = latched_nmi_test_send(t.cpu);
			ndelay(gap_ns);
		}
		preempt_enable();

		if (!latched_nmi_test_wait(&t, &t.c->seen, seq))
			break;
		ret = latched_nmi_test_between_rounds();
		if (ret)
			break;
	}

	latched_nmi_test_end(&t);
	snprintf(latched_nmi_test_storm_result.line,
		 sizeof(latched_nmi_test_storm_result.line),
		 "sent=%u runs=%lu lost=%lu reentered=%lu ns=%llu result=%s\n",
		 sent, t.runs, t.lost, t.reentered, ktime_get_ns() - start,
		 t.lost || t.reentered ? "fail" : "pass");
	return ret;
}

static int latched_nmi_test_chase(unsigned int rounds, unsigned int max_delay_ns,
				  int cpu)
{
	struct latched_nmi_test_target t;
	unsigned int i;
	int ret;

	ret = latched_nmi_test_begin(&t, cpu);
	if (ret)
		return ret;

	for (i = 0; i < rounds; i++) {
		unsigned long seq;
		bool ok;

		preempt_disable();
		if (smp_processor_id() == t.cpu) {
			preempt_enable();
			ret = -EBUSY;
			break;
		}
		seq = latched_nmi_test_send(t.cpu);
		ok = latched_nmi_test_wait(&t, &t.c->seen, seq);
		/* A prime stride visits all delays in any number of rounds. */
		ndelay((u64)i * 7919 % (max_delay_ns + 1));
		seq = latched_nmi_test_send(t.cpu);
		preempt_enable();

		if (!ok || !latched_nmi_test_wait(&t, &t.c->done, seq))
			break;
		ret = latched_nmi_test_between_rounds();
		if (ret)
			break;
	}

	latched_nmi_test_end(&t);
	snprintf(latched_nmi_test_chase_result.line,
		 sizeof(latched_nmi_test_chase_result.line),
		 "sent=%u runs=%lu lost=%lu reentered=%lu result=%s\n",
		 2 * i, t.runs, t.lost, t.reentered,
		 t.lost || t.reentered ? "fail" : "pass");
	return ret;
}

static int latched_nmi_test_nested(enum latched_nmi_test_fault kind,
				   unsigned int rounds, int cpu)
{
	struct latched_nmi_test_target t;
	unsigned int i, faults, tries = 0;
	int ret;

	ret = latched_nmi_test_begin(&t, cpu);
	if (ret)
		return ret;

	t.c->nested_user = 0;
	t.c->nested_faults = 0;
	t.c->nested_after = 0;
	WRITE_ONCE(t.c->nested_seq, 0);

	for (i = 0; i < rounds; i++) {
		unsigned long seq;
		bool ok;

		WRITE_ONCE(t.c->nested_kind, kind);
		do {
			seq = latched_nmi_test_send(t.cpu);
			/* At the end of that run the nested NMI has been sent ... */
			ok = latched_nmi_test_wait(&t, &t.c->done, seq);
			cond_resched();
		} while (ok && READ_ONCE(t.c->nested_kind) >= 0 &&
			 tries++ < LATCHED_NMI_TEST_MAX_BURST);
		if (!ok)
			break;
		/* ... and at the end of the next one it has been handled. */
		seq = atomic_long_read(&t.c->sent);
		if (!latched_nmi_test_wait(&t, &t.c->done, seq))
			break;
		ret = latched_nmi_test_between_rounds();
		if (ret)
			break;
	}

	WRITE_ONCE(t.c->nested_kind, -1);
	latched_nmi_test_end(&t);
	faults = t.c->nested_faults;
	snprintf(latched_nmi_test_nested_result.line,
		 sizeof(latched_nmi_test_nested_result.line),
		 "kind=%s rounds=%u faults=%u user=%u begun_after=%u lost=%lu reentered=%lu result=%s\n",
		 kind == FAULT_NONE ? "none" : latched_nmi_test_names[kind],
		 rounds, faults, t.c->nested_user, t.c->nested_after, t.lost,
		 t.reentered,
		 t.c->nested_after != rounds || t.lost || t.reentered ||
		 (kind != FAULT_NONE && faults != rounds) ? "fail" : "pass");
	return ret;
}

/* The files */

static int latched_nmi_test_parse_kind(const char *name)
{
	if (!strcmp(name, "none"))
		return FAULT_NONE;
	return match_string(latched_nmi_test_names, NR_FAULTS, name);
}

static ssize_t latched_nmi_test_storm_parse(char *buf)
{
	unsigned int nmis, burst = 1, gap_ns = 0;
	int cpu = -1;

	if (sscanf(buf, "%u %u %u %d", &nmis, &burst, &gap_ns, &cpu) < 1)
		return -EINVAL;
	if (!burst || burst > LATCHED_NMI_TEST_MAX_BURST ||
	    gap_ns > LATCHED_NMI_TEST_MAX_GAP_NS)
		return -EINVAL;

	return latched_nmi_test_storm(nmis, burst, gap_ns, cpu);
}

static ssize_t latched_nmi_test_chase_parse(char *buf)
{
	unsigned int rounds, max_delay_ns = 20000;
	int cpu = -1;

	if (sscanf(buf, "%u %u %d", &rounds, &max_delay_ns, &cpu) < 1)
		return -EINVAL;
	if (max_delay_ns > LATCHED_NMI_TEST_MAX_GAP_NS)
		return -EINVAL;

	return latched_nmi_test_chase(rounds, max_delay_ns, cpu);
}

static ssize_t latched_nmi_test_nested_parse(char *buf)
{
	unsigned int rounds = 1;
	int cpu = -1, kind, ret;
	char name[16];

	if (sscanf(buf, "%15s %u %d", name, &rounds, &cpu) < 1)
		return -EINVAL;

	kind = latched_nmi_test_parse_kind(name);
	if (kind < 0)
		return kind;

	if (kind == FAULT_DB) {
		ret = latched_nmi_test_want_bp(true);
		if (ret)
			return ret;
	}

	ret = latched_nmi_test_nested(kind, rounds, cpu);
	latched_nmi_test_want_bp(test_bit(FAULT_DB, &latched_nmi_test_faults));
	return ret;
}

static ssize_t latched_nmi_test_faults_parse(char *buf)
{
	unsigned long faults = 0;
	char *name;

	while ((name = strsep(&buf, " \t\n"))) {
		int kind;

		if (!*name)
			continue;
		kind = latched_nmi_test_parse_kind(name);
		if (kind < 0)
			return kind;
		if (kind != FAULT_NONE)
			faults |= BIT(kind);
	}

	return latched_nmi_test_set_faults(faults);
}

static ssize_t latched_nmi_test_backtrace_parse(char *buf)
{
	struct latched_nmi_test_target t;
	int cpu, ret;

	ret = kstrtoint(strim(buf), 0, &cpu);
	if (ret)
		return ret;

	ret = latched_nmi_test_begin(&t, cpu);
	if (ret)
		return ret;

	WRITE_ONCE(t.c->dump, true);
	latched_nmi_test_wait(&t, &t.c->done, latched_nmi_test_send(t.cpu));
	latched_nmi_test_end(&t);
	return t.lost ? -EIO : 0;
}

static ssize_t latched_nmi_test_write(const char __user *ubuf, size_t count,
				      ssize_t (*parse)(char *buf))
{
	char *buf;
	ssize_t ret;

	if (count > PAGE_SIZE)
		return -E2BIG;

	buf = memdup_user_nul(ubuf, count);
	if (IS_ERR(buf))
		return PTR_ERR(buf);

	ret = mutex_lock_interruptible(&latched_nmi_test_mutex);
	if (!ret) {
		ret = parse(buf);
		mutex_unlock(&latched_nmi_test_mutex);
	}
	kfree(buf);
	return ret ?: count;
}

static int latched_nmi_test_result_show(struct seq_file *m, void *unused)
{
	struct latched_nmi_test_result *result = m->private;

	mutex_lock(&latched_nmi_test_mutex);
	seq_puts(m, result->line);
	mutex_unlock(&latched_nmi_test_mutex);
	return 0;
}

static int latched_nmi_test_result_open(struct inode *inode, struct file *file)
{
	return single_open(file, latched_nmi_test_result_show, inode->i_private);
}

static int latched_nmi_test_faults_show(struct seq_file *m, void *unused)
{
	unsigned long faults = READ_ONCE(latched_nmi_test_faults);
	unsigned int i;

	if (!faults)
		seq_puts(m, "none");
	for_each_set_bit(i, &faults, NR_FAULTS)
		seq_printf(m, "%s ", latched_nmi_test_names[i]);
	seq_putc(m, '\n');
	return 0;
}

static int latched_nmi_test_faults_open(struct inode *inode, struct file *file)
{
	return single_open(file, latched_nmi_test_faults_show, NULL);
}

#define LATCHED_NMI_TEST_FOPS(name, opener, releaser)				\
static ssize_t latched_nmi_test_##name##_write(struct file *file,		\
					       const char __user *ubuf,		\
					       size_t count, loff_t *ppos)	\
{										\
	return latched_nmi_test_write(ubuf, count,				\
				      latched_nmi_test_##name##_parse);		\
}										\
										\
static const struct file_operations latched_nmi_test_##name##_fops = {		\
	.owner		= THIS_MODULE,						\
	.open		= opener,						\
	.read		= seq_read,						\
	.write		= latched_nmi_test_##name##_write,			\
	.llseek		= seq_lseek,						\
	.release	= releaser,						\
}

LATCHED_NMI_TEST_FOPS(faults, latched_nmi_test_faults_open, single_release);
LATCHED_NMI_TEST_FOPS(backtrace, simple_open, NULL);
LATCHED_NMI_TEST_FOPS(storm, latched_nmi_test_result_open, single_release);
LATCHED_NMI_TEST_FOPS(chase, latched_nmi_test_result_open, single_release);
LATCHED_NMI_TEST_FOPS(nested, latched_nmi_test_result_open, single_release);

static unsigned long latched_nmi_test_value(int stat, unsigned int cpu)
{
	struct latched_nmi_test_cpu *c = per_cpu_ptr(&latched_nmi_test_cpu, cpu);

	if (stat == STAT_SENT)
		return atomic_long_read(&c->sent) - c->sent_base;
	if (stat == STAT_UNSEEN)
		return atomic_long_read(&c->sent) - READ_ONCE(c->seen);
	return READ_ONCE(c->stat[stat]) - c->stat_base[stat];
}

static int latched_nmi_test_stats_show(struct seq_file *m, void *unused)
{
	int stat;

	for (stat = 0; stat < NR_ALL_STATS; stat++) {
		unsigned long total = 0;
		unsigned int cpu;

		for_each_possible_cpu(cpu)
			total += latched_nmi_test_value(stat, cpu);

		seq_printf(m, "%s %lu", latched_nmi_test_names[stat], total);
		for_each_possible_cpu(cpu)
			seq_printf(m, " %lu", latched_nmi_test_value(stat, cpu));
		seq_putc(m, '\n');
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(latched_nmi_test_stats);

static int latched_nmi_test_pt_regs_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "0x%lx\n", (unsigned long)task_pt_regs(current));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(latched_nmi_test_pt_regs);

static int latched_nmi_test_per_cpu_offset_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "0x%lx\n", per_cpu_offset(0));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(latched_nmi_test_per_cpu_offset);

static ssize_t latched_nmi_test_reset_write(struct file *file,
					    const char __user *ubuf,
					    size_t count, loff_t *ppos)
{
	unsigned int cpu;

	/* Writers are not stopped: the counters go on, seen from a new base. */
	mutex_lock(&latched_nmi_test_mutex);
	for_each_possible_cpu(cpu) {
		struct latched_nmi_test_cpu *c = per_cpu_ptr(&latched_nmi_test_cpu, cpu);

		memcpy(c->stat_base, c->stat, sizeof(c->stat));
		c->sent_base = atomic_long_read(&c->sent);
	}
	mutex_unlock(&latched_nmi_test_mutex);
	return count;
}

static const struct file_operations latched_nmi_test_reset_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= latched_nmi_test_reset_write,
};

static int latched_nmi_test_hold_get(void *data, u64 *val)
{
	*val = READ_ONCE(latched_nmi_test_hold_ns);
	return 0;
}

static int latched_nmi_test_hold_set(void *data, u64 val)
{
	if (val > LATCHED_NMI_TEST_MAX_HOLD_NS)
		return -EINVAL;
	WRITE_ONCE(latched_nmi_test_hold_ns, val);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(latched_nmi_test_hold_fops, latched_nmi_test_hold_get,
			 latched_nmi_test_hold_set, "%llu\n");

static struct dentry *latched_nmi_test_dir;

static void __init latched_nmi_test_create_files(void)
{
	struct dentry *dir = debugfs_create_dir(LATCHED_NMI_TEST_NAME, NULL);

	debugfs_create_file("faults", 0600, dir, NULL, &latched_nmi_test_faults_fops);
	debugfs_create_x64("user_addr", 0600, dir, &latched_nmi_test_user_addr);
	debugfs_create_file_unsafe("hold_ns", 0600, dir, NULL,
				   &latched_nmi_test_hold_fops);
	debugfs_create_file("storm", 0600, dir, &latched_nmi_test_storm_result,
			    &latched_nmi_test_storm_fops);
	debugfs_create_file("chase", 0600, dir, &latched_nmi_test_chase_result,
			    &latched_nmi_test_chase_fops);
	debugfs_create_file("nested", 0600, dir, &latched_nmi_test_nested_result,
			    &latched_nmi_test_nested_fops);
	debugfs_create_file("backtrace", 0200, dir, NULL,
			    &latched_nmi_test_backtrace_fops);
	debugfs_create_file("pt_regs", 0400, dir, NULL,
			    &latched_nmi_test_pt_regs_fops);
	debugfs_create_file("per_cpu_offset", 0400, dir, NULL,
			    &latched_nmi_test_per_cpu_offset_fops);
	debugfs_create_file("stats", 0400, dir, NULL, &latched_nmi_test_stats_fops);
	debugfs_create_file("reset", 0200, dir, NULL, &latched_nmi_test_reset_fops);
	latched_nmi_test_dir = dir;
}

static int __init latched_nmi_test_init(void)
{
	int ret;

	if (!boot_cpu_has(X86_FEATURE_APIC))
		return -ENODEV;

	latched_nmi_test_vmalloc = vmalloc(PAGE_SIZE);
	if (!latched_nmi_test_vmalloc)
		return -ENOMEM;

	ret = register_kprobe(&latched_nmi_test_kprobe);
	if (ret)
		goto free_vmalloc;

	ret = register_nmi_handler(NMI_LOCAL, latched_nmi_test_handler, 0,
				   LATCHED_NMI_TEST_NAME);
	if (ret)
		goto unregister_kprobe;

	ret = perf_pmu_register(&latched_nmi_test_pmu, LATCHED_NMI_TEST_NAME, -1);
	if (ret)
		goto unregister_handler;

	latched_nmi_test_create_files();
	return 0;

unregister_handler:
	unregister_nmi_handler(NMI_LOCAL, LATCHED_NMI_TEST_NAME);
unregister_kprobe:
	unregister_kprobe(&latched_nmi_test_kprobe);
free_vmalloc:
	vfree(latched_nmi_test_vmalloc);
	return ret;
}
module_init(latched_nmi_test_init);

/*
 * In this order: nobody sends NMIs any more; all that were sent have been handled,
 * as a CPU serves a pending NMI before the function call; nobody handles them.
 */
static void __exit latched_nmi_test_exit(void)
{
	debugfs_remove(latched_nmi_test_dir);
	perf_pmu_unregister(&latched_nmi_test_pmu);
	kick_all_cpus_sync();
	unregister_nmi_handler(NMI_LOCAL, LATCHED_NMI_TEST_NAME);

	mutex_lock(&latched_nmi_test_mutex);
	latched_nmi_test_set_faults(0);
	mutex_unlock(&latched_nmi_test_mutex);

	unregister_kprobe(&latched_nmi_test_kprobe);
	vfree(latched_nmi_test_vmalloc);
}
module_exit(latched_nmi_test_exit);

MODULE_DESCRIPTION("Test PMU and fault triggers for the x86-64 NMI entry");
MODULE_LICENSE("GPL");
