// SPDX-License-Identifier: GPL-2.0
/* The NMI handler. */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/perf_event.h>
#include <linux/printk.h>
#include <linux/ptrace.h>

#include <asm/nmi.h>

#include "lnt.h"

DEFINE_PER_CPU(struct lnt_cpu, lnt_cpu) = {
	.nested_kind = -1,
};

/* Bit mask of the faults that every run takes, and how long it spins after them. */
unsigned long lnt_faults;
u64 lnt_hold_ns;

/* Are NMIs of others handled, so that the kernel does not complain of them? */
bool lnt_claim_foreign;

/*
 * An NMI that a run has accounted for before it arrived causes another run. That
 * is as many as the run took in addition to its own, but most of them have been
 * merged into one by then: the local APIC and the CPU hold one each.
 */
static bool lnt_take_sent(struct lnt_cpu *c)
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

/* A round of the operation "nested". */
static void lnt_nest(struct lnt_cpu *c, struct pt_regs *regs)
{
	unsigned int kind = c->nested_kind;
	unsigned long before = kind < lnt_nr_kinds ? c->fault[kind] : 0;

	/* Tried again in the next run. */
	if (!lnt_take(kind, regs))
		return;

	c->nested_kind = -1;
	if (user_mode(regs))
		c->nested_user++;
	if (kind < lnt_nr_kinds)
		c->nested_faults += READ_ONCE(c->fault[kind]) - before;

	lnt_inc(LNT_NESTED);
	c->nested_seq = lnt_send_self();

	/* Long enough for the NMI to arrive, if it is not masked. */
	ndelay(5000);
}

static int lnt_handler(unsigned int type, struct pt_regs *regs)
{
	struct lnt_cpu *c = this_cpu_ptr(&lnt_cpu);
	unsigned long faults = READ_ONCE(lnt_faults);
	u64 hold_ns = READ_ONCE(lnt_hold_ns);
	unsigned int i;

	if (c->running) {
		lnt_inc(LNT_REENTERED);
		return NMI_HANDLED;
	}

	if (!lnt_take_sent(c)) {
		if (!c->late) {
			lnt_inc(LNT_FOREIGN);
			return READ_ONCE(lnt_claim_foreign) ? NMI_HANDLED : NMI_DONE;
		}
		c->late--;
		lnt_inc(LNT_LATE);
		return NMI_HANDLED;
	}

	WRITE_ONCE(c->running, true);
	lnt_inc(LNT_RUNS);
	if (user_mode(regs))
		lnt_inc(LNT_RUNS_USER);

	if (c->nested_seq) {
		if (lnt_reached(&c->seen, c->nested_seq))
			c->nested_after++;
		WRITE_ONCE(c->nested_seq, 0);
	}

	for (i = 0; i < LNT_SLOTS; i++) {
		struct perf_event *event = READ_ONCE(c->slot[i]);

		if (event)
			lnt_overflow(event, regs);
	}

	for_each_set_bit(i, &faults, lnt_nr_kinds)
		lnt_take(i, regs);

	if (c->nested_kind >= 0)
		lnt_nest(c, regs);

	/* Nested if a fault has unmasked NMIs, else right after this run. */
	if (c->chain) {
		c->chain--;
		lnt_send_self();
	}

	if (c->panic && c->nested_kind < 0)
		nmi_panic(regs, LNT_NAME ": panic in the handler");

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

/* A further handler, for the operation "roundtrip": the NMI is never its own. */
static int lnt_decline(unsigned int type, struct pt_regs *regs)
{
	return NMI_DONE;
}

static struct {
	struct nmiaction	action;
	char			name[sizeof(LNT_NAME) + 4];
} lnt_decliner[LNT_MAX_DECLINING];

static unsigned int lnt_nr_declining;

/**
 * lnt_declining() - register handlers that decline, or unregister them
 * @nr: how many there shall be
 *
 * Return: 0 or an error; there may be less of them then.
 */
int lnt_declining(unsigned int nr)
{
	int ret;

	lockdep_assert_held(&lnt_mutex);

	while (lnt_nr_declining > nr)
		unregister_nmi_handler(NMI_LOCAL, lnt_decliner[--lnt_nr_declining].name);
	while (lnt_nr_declining < nr) {
		struct nmiaction *action = &lnt_decliner[lnt_nr_declining].action;
		char *name = lnt_decliner[lnt_nr_declining].name;

		/* They are unregistered by their names. */
		snprintf(name, sizeof(lnt_decliner[0].name), LNT_NAME "-%u", lnt_nr_declining);
		*action = (struct nmiaction){
			.list		= LIST_HEAD_INIT(action->list),
			.handler	= lnt_decline,
			.name		= name,
		};
		ret = __register_nmi_handler(NMI_LOCAL, action);
		if (ret)
			return ret;
		lnt_nr_declining++;
	}
	return 0;
}

int lnt_handler_init(void)
{
	return register_nmi_handler(NMI_LOCAL, lnt_handler, 0, LNT_NAME);
}

void lnt_handler_exit(void)
{
	unregister_nmi_handler(NMI_LOCAL, LNT_NAME);
}
