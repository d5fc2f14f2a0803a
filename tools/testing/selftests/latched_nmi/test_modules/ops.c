// SPDX-License-Identifier: GPL-2.0
/*
 * The operations. Each is a number of rounds that a thread carries out, which is
 * bound to a CPU other than the target as long as there are two.
 */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/perf_event.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>

#include <asm/apic.h>
#include <asm/irq_vectors.h>
#include <asm/msr.h>
#include <asm/tsc.h>

#include "lnt.h"

#define LNT_LOST_NS	(2 * NSEC_PER_SEC)

/* Tries of a round of "nested" that finds no task to copy from. */
#define LNT_MAX_TRIES	1000

/**
 * struct lnt_op - an operation
 * @cpu: the target
 * @self: the thread is bound to the target
 * @c: its state
 * @round: carries out a round; false if an NMI is lost
 * @rounds: number of rounds
 * @round_nr: number of rounds that were carried out
 * @nmis: NMIs to send, for "storm"
 * @burst: of these, in a round; also of "roundtrip"
 * @gap_ns: time between the NMIs of a burst
 * @max_delay_ns: longest time between the two NMIs of a round of "chase"
 * @kind: fault in a round of "nested", or the kind of a "roundtrip"
 * @event: overflows in each round of "roundtrip", if there is one
 * @cycles: what each round of it took
 * @sent: NMIs sent
 * @runs: handler runs of the target during the operation
 * @lost: NMIs of the target that were lost
 * @reentered: handler runs that began inside another one
 * @samples: of the target, that perf has been handed
 * @ns: how long it took
 * @done: completed when the thread is
 *
 * The target stays online.
 */
struct lnt_op {
	unsigned int		cpu;
	bool			self;
	struct lnt_cpu		*c;
	bool			(*round)(struct lnt_op *op);
	unsigned int		rounds;
	unsigned int		round_nr;
	unsigned int		nmis;
	unsigned int		burst;
	unsigned int		gap_ns;
	unsigned int		max_delay_ns;
	int			kind;
	struct perf_event	*event;
	u64			*cycles;
	unsigned int		sent;
	unsigned long		runs;
	unsigned long		lost;
	unsigned long		reentered;
	unsigned long		samples;
	u64			ns;
	struct completion	done;
};

char lnt_storm_result[LNT_RESULT_MAX];
char lnt_chase_result[LNT_RESULT_MAX];
char lnt_nested_result[LNT_RESULT_MAX];
char lnt_roundtrip_result[LNT_RESULT_MAX];

static unsigned long lnt_op_send(struct lnt_op *op)
{
	op->sent++;
	return lnt_send(op->cpu);
}

/**
 * lnt_wait() - wait for a handler run on the target
 * @op: the operation
 * @counter: &lnt_cpu.seen for one that has begun, &lnt_cpu.done for one that has
 *	     ended
 * @seq: sequence number of the NMI that the run has to cover
 *
 * Return: true if there was one, false if the NMI is lost.
 */
static bool lnt_wait(struct lnt_op *op, const unsigned long *counter, unsigned long seq)
{
	u64 start = ktime_get_ns();

	while (!lnt_reached(counter, seq)) {
		u64 waited = ktime_get_ns() - start;

		if (waited > LNT_LOST_NS) {
			op->c->stat[LNT_LOST]++;
			return false;
		}
		if (waited > 2 * NSEC_PER_MSEC && preemptible())
			usleep_range(50, 100);
		else
			cpu_relax();
	}
	return true;
}

static int lnt_op_thread(void *data)
{
	struct lnt_op *op = data;

	while (op->round_nr < op->rounds && !kthread_should_stop()) {
		if (!op->round(op))
			break;
		op->round_nr++;
		cond_resched();
	}
	complete(&op->done);
	return 0;
}

/* Return: 0, -EINTR if the writer was interrupted, or an error before the first round. */
static int lnt_run(struct lnt_op *op, int cpu, bool other)
{
	struct task_struct *thread;
	unsigned int sender;
	int ret = -ENODEV;

	cpus_read_lock();
	sender = raw_smp_processor_id();
	op->cpu = cpu < 0 ? lnt_other_cpu(sender) : cpu;
	if (op->cpu >= nr_cpu_ids || !cpu_online(op->cpu))
		goto unlock;
	if (op->self)
		sender = op->cpu;
	else if (op->cpu == sender)
		sender = lnt_other_cpu(sender);
	if (other && op->cpu == sender)
		goto unlock;

	op->c = per_cpu_ptr(&lnt_cpu, op->cpu);
	op->runs = READ_ONCE(op->c->stat[LNT_RUNS]);
	op->lost = READ_ONCE(op->c->stat[LNT_LOST]);
	op->reentered = READ_ONCE(op->c->stat[LNT_REENTERED]);
	op->samples = READ_ONCE(op->c->stat[LNT_SAMPLES]);
	op->ns = ktime_get_ns();
	init_completion(&op->done);

	thread = kthread_create_on_cpu(lnt_op_thread, op, sender, LNT_NAME "/%u");
	ret = PTR_ERR_OR_ZERO(thread);
	if (ret)
		goto unlock;
	/* It may end by itself. */
	get_task_struct(thread);
	wake_up_process(thread);
	ret = wait_for_completion_interruptible(&op->done) ? -EINTR : 0;
	kthread_stop(thread);
	put_task_struct(thread);

	op->ns = ktime_get_ns() - op->ns;
	op->runs = READ_ONCE(op->c->stat[LNT_RUNS]) - op->runs;
	op->lost = READ_ONCE(op->c->stat[LNT_LOST]) - op->lost;
	op->reentered = READ_ONCE(op->c->stat[LNT_REENTERED]) - op->reentered;
	op->samples = READ_ONCE(op->c->stat[LNT_SAMPLES]) - op->samples;
unlock:
	cpus_read_unlock();
	return ret;
}

/* An operation that was ended early says nothing about what it has not tried. */
static const char *lnt_verdict(struct lnt_op *op, bool ok)
{
	return ok && op->round_nr == op->rounds && !op->lost && !op->reentered ?
	       "pass" : "fail";
}

static bool lnt_storm_round(struct lnt_op *op)
{
	unsigned int n = min(op->burst, op->nmis - op->sent);
	unsigned long seq = 0;

	preempt_disable();
	while (n--) {
		seq = lnt_op_send(op);
		ndelay(op->gap_ns);
	}
	preempt_enable();
	return lnt_wait(op, &op->c->seen, seq);
}

/* See the file "storm". */
int lnt_storm(unsigned int nmis, unsigned int burst, unsigned int gap_ns, int cpu)
{
	struct lnt_op op = {
		.round	= lnt_storm_round,
		.rounds	= DIV_ROUND_UP(nmis, burst),
		.nmis	= nmis,
		.burst	= burst,
		.gap_ns	= gap_ns,
	};
	int ret = lnt_run(&op, cpu, false);

	if (!ret || ret == -EINTR)
		snprintf(lnt_storm_result, LNT_RESULT_MAX,
			 "sent=%u runs=%lu lost=%lu reentered=%lu ns=%llu result=%s\n",
			 op.sent, op.runs, op.lost, op.reentered, op.ns,
			 lnt_verdict(&op, op.sent == nmis));
	return ret;
}

static bool lnt_chase_round(struct lnt_op *op)
{
	unsigned long seq;
	bool ok;

	preempt_disable();
	seq = lnt_op_send(op);
	ok = lnt_wait(op, &op->c->seen, seq);
	/* A prime stride visits all delays in any number of rounds. */
	ndelay((u64)op->round_nr * 7919 % (op->max_delay_ns + 1));
	seq = lnt_op_send(op);
	preempt_enable();
	return ok && lnt_wait(op, &op->c->done, seq);
}

/* See the file "chase". */
int lnt_chase(unsigned int rounds, unsigned int max_delay_ns, int cpu)
{
	struct lnt_op op = {
		.round		= lnt_chase_round,
		.rounds		= rounds,
		.max_delay_ns	= max_delay_ns,
	};
	int ret = lnt_run(&op, cpu, true);

	if (!ret || ret == -EINTR)
		snprintf(lnt_chase_result, LNT_RESULT_MAX,
			 "sent=%u runs=%lu lost=%lu reentered=%lu result=%s\n",
			 op.sent, op.runs, op.lost, op.reentered, lnt_verdict(&op, true));
	return ret;
}

static bool lnt_nested_round(struct lnt_op *op)
{
	struct lnt_cpu *c = op->c;
	unsigned int tries = 0;
	unsigned long seq;

	if (!op->round_nr) {
		c->nested_user = 0;
		c->nested_faults = 0;
		c->nested_after = 0;
		WRITE_ONCE(c->nested_seq, 0);
	}

	WRITE_ONCE(c->nested_kind, op->kind);
	do {
		seq = lnt_op_send(op);
		/* At the end of that run the nested NMI has been sent ... */
		if (!lnt_wait(op, &c->done, seq))
			return false;
		cond_resched();
	} while (READ_ONCE(c->nested_kind) >= 0 && tries++ < LNT_MAX_TRIES);
	WRITE_ONCE(c->nested_kind, -1);

	/* ... and at the end of the next one it has been handled. */
	return lnt_wait(op, &c->done, atomic_long_read(&c->sent));
}

/* See the file "nested". */
int lnt_nested(int kind, unsigned int rounds, int cpu)
{
	struct lnt_op op = {
		.round	= lnt_nested_round,
		.rounds	= rounds,
		.kind	= kind,
	};
	int ret = lnt_run(&op, cpu, false);
	struct lnt_cpu *c = op.c;

	if (!ret || ret == -EINTR)
		snprintf(lnt_nested_result, LNT_RESULT_MAX,
			 "kind=%s rounds=%u faults=%u user=%u begun_after=%u lost=%lu reentered=%lu result=%s\n",
			 lnt_kind_name(kind), op.round_nr, c->nested_faults,
			 c->nested_user, c->nested_after, op.lost, op.reentered,
			 lnt_verdict(&op, c->nested_after == rounds &&
				     (kind == lnt_nr_kinds || c->nested_faults == rounds)));
	return ret;
}

enum {
	LNT_TRIP_SELF,
	LNT_TRIP_IPI,
	LNT_TRIP_SAMPLE,
	LNT_TRIP_ALL,
};

static const char * const lnt_trips[] = {
	[LNT_TRIP_SELF]		= "self",
	[LNT_TRIP_IPI]		= "ipi",
	[LNT_TRIP_SAMPLE]	= "sample",
	[LNT_TRIP_ALL]		= "all",
};

/* The other CPUs get one NMI each; the target's come after it, all but one by a chain. */
static bool lnt_roundtrip_nmis(struct lnt_op *op)
{
	bool all = op->kind == LNT_TRIP_ALL, ok;
	unsigned long seq;
	unsigned int cpu;

	for_each_online_cpu(cpu) {
		if (all && cpu != op->cpu)
			lnt_send(cpu);
	}
	seq = lnt_op_send(op) + op->burst - 1;
	ok = lnt_reached(&op->c->done, seq) || lnt_wait(op, &op->c->done, seq);

	for_each_online_cpu(cpu) {
		struct lnt_cpu *c = per_cpu_ptr(&lnt_cpu, cpu);

		if (all && ok)
			ok = lnt_wait(op, &c->done, atomic_long_read(&c->sent));
	}
	return ok;
}

static bool lnt_roundtrip_round(struct lnt_op *op)
{
	unsigned long flags;
	u64 start;
	bool ok;

	local_irq_save(flags);
	if (op->event)
		lnt_event_due(op->event);
	WRITE_ONCE(op->c->chain, op->burst - 1);
	start = rdtsc_ordered();
	ok = lnt_roundtrip_nmis(op);
	op->cycles[op->round_nr] = rdtsc_ordered() - start;
	local_irq_restore(flags);
	return ok;
}

static int lnt_cmp_cycles(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static int lnt_roundtrip_run(struct lnt_op *op, unsigned int handlers, int cpu)
{
	int ret = lnt_run(op, cpu, op->kind == LNT_TRIP_IPI);

	if (ret && ret != -EINTR)
		return ret;

	sort(op->cycles, op->round_nr, sizeof(*op->cycles), lnt_cmp_cycles, NULL);
	snprintf(lnt_roundtrip_result, LNT_RESULT_MAX,
		 "kind=%s handlers=%u burst=%u rounds=%u min=%llu median=%llu lost=%lu reentered=%lu result=%s\n",
		 lnt_trips[op->kind], handlers, op->burst, op->round_nr, op->cycles[0],
		 op->cycles[op->round_nr / 2], op->lost, op->reentered,
		 lnt_verdict(op, !op->event || op->samples == op->rounds));
	return ret;
}

/* See the file "roundtrip". */
int lnt_roundtrip(const char *name, unsigned int rounds, unsigned int handlers,
		  unsigned int burst, int cpu)
{
	struct lnt_op op = {
		.round	= lnt_roundtrip_round,
		.rounds	= rounds,
		.burst	= burst,
	};
	int ret;

	op.kind = match_string(lnt_trips, ARRAY_SIZE(lnt_trips), name);
	if (op.kind < 0)
		return op.kind;
	op.self = op.kind != LNT_TRIP_IPI;

	/* One more: an operation may end before its first round does. */
	op.cycles = kvcalloc(rounds + 1, sizeof(*op.cycles), GFP_KERNEL);
	if (!op.cycles)
		return -ENOMEM;

	if (op.kind == LNT_TRIP_SAMPLE) {
		op.event = lnt_event_create(cpu);
		ret = PTR_ERR_OR_ZERO(op.event);
		if (ret)
			goto free;
	}
	ret = lnt_declining(handlers);
	if (!ret)
		ret = lnt_roundtrip_run(&op, handlers, cpu);
	lnt_declining(0);
	if (op.event)
		perf_event_release_kernel(op.event);
free:
	kvfree(op.cycles);
	return ret;
}

static bool lnt_backtrace_round(struct lnt_op *op)
{
	WRITE_ONCE(op->c->dump, true);
	return lnt_wait(op, &op->c->done, lnt_op_send(op));
}

/* See the file "backtrace". */
int lnt_backtrace(int cpu)
{
	struct lnt_op op = {
		.round	= lnt_backtrace_round,
		.rounds	= 1,
	};
	int ret = cpu < 0 ? -ENODEV : lnt_run(&op, cpu, false);

	return !ret && op.lost ? -EIO : ret;
}

static bool lnt_panic_round(struct lnt_op *op)
{
	WRITE_ONCE(op->c->panic, true);
	return lnt_nested_round(op);
}

/* See the file "panic". */
int lnt_panic(int kind, int cpu)
{
	struct lnt_op op = {
		.round	= lnt_panic_round,
		.rounds	= 1,
		.kind	= kind,
	};

	return lnt_run(&op, cpu, false) ?: -EIO;
}

/* See the file "offline". */
int lnt_offline(unsigned int nmis, int cpu)
{
	int ret = 0;

	cpus_read_lock();
	if (cpu < 0 || cpu >= nr_cpu_ids || !cpu_present(cpu) || cpu_online(cpu)) {
		cpus_read_unlock();
		return -ENODEV;
	}
	/* Nobody handles them: a CPU that is offline returns right away. */
	while (nmis--) {
		preempt_disable();
		apic->send_IPI_mask(cpumask_of(cpu), NMI_VECTOR);
		preempt_enable();
		usleep_range(100, 200);
		if (signal_pending(current)) {
			ret = -EINTR;
			break;
		}
	}
	cpus_read_unlock();
	return ret;
}
