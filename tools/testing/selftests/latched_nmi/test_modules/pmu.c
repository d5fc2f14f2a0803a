// SPDX-License-Identifier: GPL-2.0
/* Perf events whose overflow arrives as an NMI. */
#include <linux/hrtimer.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/perf_event.h>
#include <linux/sched/clock.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/trace_events.h>

#include "lnt.h"

#define LNT_MIN_PERIOD_NS	20000

enum lnt_source {
	LNT_SOURCE_IPI = 1,
	LNT_SOURCE_SELF,
};

/**
 * struct lnt_event - sender of one perf event's NMIs
 * @timer: sends the NMIs, on the CPU that lnt_sender() tells
 * @kick: starts @timer on that CPU
 * @lock: protects @armed
 * @armed: @timer is queued or its callback running
 * @running: the event has been started
 * @due: periods over which the handler has not seen yet
 * @source: who sends
 * @cpu: CPU on which the event runs
 * @event: the perf event
 * @list: a list of @event alone
 */
struct lnt_event {
	struct hrtimer		timer;
	call_single_data_t	kick;
	raw_spinlock_t		lock;
	bool			armed;
	bool			running;
	atomic_t		due;
	enum lnt_source		source;
	unsigned int		cpu;
	struct perf_event	*event;
	struct hlist_head	list;
};

static struct pmu lnt_pmu;

/* Interrupts are off: the CPU stays online until it has been sent the kick. */
static unsigned int lnt_sender(struct lnt_event *le)
{
	unsigned int cpu = READ_ONCE(le->cpu);

	if (le->source == LNT_SOURCE_SELF)
		return cpu;
	if (cpu != smp_processor_id())
		return smp_processor_id();
	return lnt_other_cpu(cpu);
}

static void lnt_kick(void *info)
{
	struct lnt_event *le = info;

	raw_spin_lock(&le->lock);
	if (READ_ONCE(le->running) && !le->armed) {
		le->armed = true;
		hrtimer_start(&le->timer, ns_to_ktime(le->event->hw.sample_period),
			      HRTIMER_MODE_REL_PINNED_HARD);
	}
	raw_spin_unlock(&le->lock);
}

static enum hrtimer_restart lnt_timer(struct hrtimer *timer)
{
	struct lnt_event *le = container_of(timer, struct lnt_event, timer);
	unsigned int sender, periods = 1;
	u64 overruns;

	raw_spin_lock(&le->lock);
	if (!READ_ONCE(le->running)) {
		le->armed = false;
		raw_spin_unlock(&le->lock);
		return HRTIMER_NORESTART;
	}

	/* The event may have moved to this CPU, or the timer by hotplug. */
	sender = lnt_sender(le);
	if (sender != smp_processor_id())
		le->armed = false;
	raw_spin_unlock(&le->lock);

	/* If it is late, two: at the second overflow perf looks at the rate. */
	if (sender == smp_processor_id()) {
		overruns = hrtimer_forward_now(timer, ns_to_ktime(le->event->hw.sample_period));
		periods = min_t(u64, overruns, 2);
	}
	atomic_add(periods, &le->due);
	lnt_send(READ_ONCE(le->cpu));

	if (sender == smp_processor_id())
		return HRTIMER_RESTART;
	smp_call_function_single_async(sender, &le->kick);
	return HRTIMER_NORESTART;
}

static void lnt_update(struct perf_event *event)
{
	u64 now = local_clock();

	local64_add(now - local64_xchg(&event->hw.prev_count, now), &event->count);
}

static void lnt_start(struct perf_event *event, int flags)
{
	struct lnt_event *le = event->pmu_private;

	/* perf starts what it has throttled, stopped or not. */
	if (!(event->hw.state & PERF_HES_STOPPED))
		return;

	event->hw.state = 0;
	/* As for a software event: it overflows when this is not negative any more. */
	local64_set(&event->hw.period_left, -(s64)event->hw.sample_period);
	local64_set(&event->hw.prev_count, local_clock());

	atomic_set(&le->due, 0);
	WRITE_ONCE(le->cpu, smp_processor_id());
	WRITE_ONCE(le->running, true);

	/* If it is still pending from the last time, it will see the new state. */
	smp_call_function_single_async(lnt_sender(le), &le->kick);
}

/* In NMI context if perf has throttled the event. */
static void lnt_stop(struct perf_event *event, int flags)
{
	struct lnt_event *le = event->pmu_private;

	if (event->hw.state & PERF_HES_STOPPED)
		return;

	WRITE_ONCE(le->running, false);
	lnt_update(event);
	event->hw.state |= PERF_HES_STOPPED | PERF_HES_UPTODATE;
}

static int lnt_add(struct perf_event *event, int flags)
{
	struct lnt_cpu *c = this_cpu_ptr(&lnt_cpu);
	int i;

	for (i = 0; i < LNT_SLOTS; i++) {
		if (!c->slot[i])
			break;
	}
	if (i == LNT_SLOTS)
		return -EAGAIN;

	event->hw.idx = i;
	event->hw.state = PERF_HES_STOPPED | PERF_HES_UPTODATE;
	WRITE_ONCE(c->slot[i], event);

	if (flags & PERF_EF_START)
		lnt_start(event, flags);
	perf_event_update_userpage(event);
	return 0;
}

/* Runs on the event's CPU: no NMI handler uses the event any more afterwards. */
static void lnt_del(struct perf_event *event, int flags)
{
	struct lnt_cpu *c = this_cpu_ptr(&lnt_cpu);

	lnt_stop(event, flags);
	WRITE_ONCE(c->slot[event->hw.idx], NULL);
	perf_event_update_userpage(event);
}

static void lnt_read(struct perf_event *event)
{
	if (!(event->hw.state & PERF_HES_UPTODATE))
		lnt_update(event);
}

static int lnt_check_period(struct perf_event *event, u64 value)
{
	return value < LNT_MIN_PERIOD_NS ? -EINVAL : 0;
}

static void lnt_destroy(struct perf_event *event)
{
	struct lnt_event *le = event->pmu_private;

	/* Neither the timer nor the kick start the other if not running. */
	WRITE_ONCE(le->running, false);
	kick_all_cpus_sync();
	hrtimer_cancel(&le->timer);
	kick_all_cpus_sync();
	kfree(le);
}

static int lnt_event_init(struct perf_event *event)
{
	struct hw_perf_event *hwc = &event->hw;
	struct lnt_event new = { .event = event }, *le;

	if (event->attr.type != lnt_pmu.type)
		return -ENOENT;
	if (has_branch_stack(event))
		return -EOPNOTSUPP;
	if (!is_sampling_event(event))
		return -EINVAL;
	if (event->attr.config != LNT_SOURCE_IPI && event->attr.config != LNT_SOURCE_SELF)
		return -EINVAL;

	/* The rate is fixed: map the frequency to a period once. */
	if (event->attr.freq) {
		hwc->sample_period = div64_u64(NSEC_PER_SEC, event->attr.sample_freq);
		hwc->last_period = hwc->sample_period;
		event->attr.sample_period = hwc->sample_period;
		event->attr.freq = 0;
	}
	if (lnt_check_period(event, hwc->sample_period))
		return -EINVAL;

	new.source = event->attr.config;
	le = kmemdup(&new, sizeof(new), GFP_KERNEL);
	if (!le)
		return -ENOMEM;

	INIT_CSD(&le->kick, lnt_kick, le);
	raw_spin_lock_init(&le->lock);
	hrtimer_setup(&le->timer, lnt_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	hlist_add_head(&event->hlist_entry, &le->list);

	event->pmu_private = le;
	event->destroy = lnt_destroy;
	return 0;
}

PMU_FORMAT_ATTR(event, "config:0-7");
PMU_EVENT_ATTR_STRING(ipi, lnt_attr_ipi, "event=0x1");
PMU_EVENT_ATTR_STRING(self, lnt_attr_self, "event=0x2");

static struct attribute *lnt_format_attrs[] = {
	&format_attr_event.attr,
	NULL,
};

static const struct attribute_group lnt_format_group = {
	.name	= "format",
	.attrs	= lnt_format_attrs,
};

static struct attribute *lnt_event_attrs[] = {
	&lnt_attr_ipi.attr.attr,
	&lnt_attr_self.attr.attr,
	NULL,
};

static const struct attribute_group lnt_event_group = {
	.name	= "events",
	.attrs	= lnt_event_attrs,
};

static const struct attribute_group *lnt_attr_groups[] = {
	&lnt_format_group,
	&lnt_event_group,
	NULL,
};

static struct pmu lnt_pmu = {
	.module		= THIS_MODULE,
	.task_ctx_nr	= perf_sw_context,
	.attr_groups	= lnt_attr_groups,
	.event_init	= lnt_event_init,
	.add		= lnt_add,
	.del		= lnt_del,
	.start		= lnt_start,
	.stop		= lnt_stop,
	.read		= lnt_read,
	.check_period	= lnt_check_period,
};

/**
 * lnt_overflow() - the periods of an event that are over, in the NMI handler
 * @event: an event of this CPU
 * @regs: what the NMI interrupted
 *
 * perf_event_overflow() is not exported. The one way for a module to all that it
 * does, BPF programs, limits, signals and wakeups among it, is a software event's:
 * perf_tp_event(), which counts the event, and makes it overflow. To perf it is a
 * tracepoint with an empty record that fired in all events of a list of one.
 */
void lnt_overflow(struct perf_event *event, struct pt_regs *regs)
{
	struct lnt_event *le = event->pmu_private;
	struct trace_entry record = { };
	u64 count;
	int rctx;

	if (event->hw.state & PERF_HES_STOPPED)
		return;

	count = (u64)atomic_xchg(&le->due, 0) * event->hw.sample_period;
	lnt_update(event);
	if (!count)
		return;
	if (user_mode(regs) ? event->attr.exclude_user : event->attr.exclude_kernel)
		return;

	rctx = perf_swevent_get_recursion_context();
	if (rctx < 0)
		return;

	lnt_inc(LNT_SAMPLES);
	/* The time that has passed is in the count already. */
	local64_sub(count, &event->count);
	perf_tp_event(0, count, &record, sizeof(record), regs, &le->list, rctx, NULL);
}

/**
 * lnt_event_create() - an event that overflows when it is told to
 * @cpu: where it counts
 *
 * Its own period is too long to end. A sample is prepared with its call chain, and
 * goes nowhere, since nobody has mapped a buffer.
 *
 * Return: the event, for perf_event_release_kernel(), or an error.
 */
struct perf_event *lnt_event_create(int cpu)
{
	struct perf_event_attr attr = {
		.type		= lnt_pmu.type,
		.size		= sizeof(attr),
		.config		= LNT_SOURCE_SELF,
		.sample_period	= 1000000ull * NSEC_PER_SEC,
		.sample_type	= PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME |
				  PERF_SAMPLE_CALLCHAIN,
		.pinned		= 1,
	};

	return perf_event_create_kernel_counter(&attr, cpu, NULL, NULL, NULL);
}

/* The next handler run on its CPU makes @event, of lnt_event_create(), overflow. */
void lnt_event_due(struct perf_event *event)
{
	struct lnt_event *le = event->pmu_private;

	atomic_inc(&le->due);
}

int lnt_pmu_init(void)
{
	return perf_pmu_register(&lnt_pmu, LNT_NAME, -1);
}

void lnt_pmu_exit(void)
{
	perf_pmu_unregister(&lnt_pmu);
}
