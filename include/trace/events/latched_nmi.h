/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM latched_nmi

#if !defined(_TRACE_LATCHED_NMI_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_LATCHED_NMI_H

#include <linux/tracepoint.h>

int latched_nmi_trace_reg(void);
void latched_nmi_trace_unreg(void);

/*
 * latched_nmi_run - a run of the NMI handlers was caused by the latch
 * @ip:		instruction that the outermost NMI interrupted
 * @nested:	NMIs that were latched while the previous run was in progress
 * @restarted:	NMIs that hit the epilogue of the previous run
 *
 * While it is in use, an NMI handler compares counters; otherwise it costs nothing.
 */
TRACE_EVENT_FN(latched_nmi_run,

	TP_PROTO(unsigned long ip, unsigned int nested, unsigned int restarted),

	TP_ARGS(ip, nested, restarted),

	TP_STRUCT__entry(
		__field(	unsigned long,	ip		)
		__field(	unsigned int,	nested		)
		__field(	unsigned int,	restarted	)
	),

	TP_fast_assign(
		__entry->ip		= ip;
		__entry->nested		= nested;
		__entry->restarted	= restarted;
	),

	TP_printk("ip=%pS nested=%u restarted=%u",
		(void *)__entry->ip,
		__entry->nested,
		__entry->restarted),

	latched_nmi_trace_reg, latched_nmi_trace_unreg
);

#endif /* _TRACE_LATCHED_NMI_H */

#include <trace/define_trace.h>
