// SPDX-License-Identifier: GPL-2.0
/* Sending NMIs. */
#include <linux/cpumask.h>
#include <linux/smp.h>

#include <asm/apic.h>
#include <asm/irq_vectors.h>

#include "lnt.h"

/**
 * lnt_send() - send an NMI to a CPU
 * @cpu: an online CPU
 *
 * The sequence number is taken before the IPI is sent: a handler run that has
 * seen it might begin before the NMI arrives, but a lost NMI leaves it unseen
 * unless a run began in between.
 *
 * Return: the NMI's sequence number.
 */
unsigned long lnt_send(unsigned int cpu)
{
	unsigned long seq = atomic_long_inc_return(&per_cpu(lnt_cpu, cpu).sent);

	apic->send_IPI_mask(cpumask_of(cpu), NMI_VECTOR);
	return seq;
}

/**
 * lnt_send_self() - send an NMI to this CPU, in NMI context
 *
 * The interrupted code may be about to send an IPI, between its writes to the two
 * halves of the ICR of an xAPIC. The self shorthand would leave the upper half
 * alone, but is not defined for NMIs.
 *
 * Return: the NMI's sequence number.
 */
unsigned long lnt_send_self(void)
{
	unsigned long seq;
	u32 icr2 = 0;

	if (!x2apic_mode) {
		apic->safe_wait_icr_idle();
		icr2 = apic->read(APIC_ICR2);
	}

	seq = lnt_send(smp_processor_id());

	if (!x2apic_mode) {
		apic->safe_wait_icr_idle();
		apic->write(APIC_ICR2, icr2);
	}
	return seq;
}

/* An online CPU other than @cpu, or @cpu if there is none. */
unsigned int lnt_other_cpu(unsigned int cpu)
{
	unsigned int other = cpumask_any_but(cpu_online_mask, cpu);

	return other < nr_cpu_ids ? other : cpu;
}
