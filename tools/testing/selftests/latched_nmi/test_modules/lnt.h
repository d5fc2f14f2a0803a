/* SPDX-License-Identifier: GPL-2.0 */
/*
 * latched_nmi_test: a test PMU, and faults in NMI handlers. ../README is its manual.
 *
 *   send.c     sends NMIs, each with a sequence number
 *   fault.c    the faults that the handler takes
 *   pmu.c      perf events whose overflow arrives as an NMI
 *   handler.c  the NMI handler, which accounts for what was sent
 *   ops.c      operations: so many NMIs, in that way, to that CPU
 *   files.c    the files in debugfs
 *   main.c     module init and exit
 */
#ifndef LNT_H
#define LNT_H

#include <linux/atomic.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/types.h>

struct perf_event;
struct pt_regs;

#define LNT_NAME	"latched_nmi_test"

/* Events that one CPU can run at a time. */
#define LNT_SLOTS	8

/* Kinds of faults that the counters have room for. */
#define LNT_MAX_KINDS	16

/* What comes after LNT_NR_COUNTERS is not counted but computed. */
enum lnt_stat {
	LNT_RUNS,
	LNT_RUNS_USER,
	LNT_LATE,
	LNT_FOREIGN,
	LNT_LOST,
	LNT_REENTERED,
	LNT_NESTED,
	LNT_SAMPLES,
	LNT_USER_COPIED,
	LNT_NR_COUNTERS,
	LNT_SENT = LNT_NR_COUNTERS,
	LNT_UNSEEN,
	LNT_NR_STATS,
};

/**
 * struct lnt_cpu - NMIs of one CPU
 * @sent: sequence number of the last NMI sent to this CPU
 * @seen: @sent as it was when the last handler run began
 * @done: @seen of the last handler run that has ended
 * @late: NMIs that @seen covers but that may still arrive on their own
 * @running: a handler run is in progress
 * @stat: counters, written by this CPU (%LNT_LOST by the operations)
 * @fault: faults taken, by kind
 * @slot: events that run on this CPU
 * @nested_kind: fault that the next handler run takes before it nests an NMI,
 *		 or -1 if it shall not
 * @nested_seq: sequence number of the nested NMI, 0 if none is awaited
 * @nested_user: rounds of the operation "nested" that interrupted user mode
 * @nested_faults: rounds of it that took their fault
 * @nested_after: rounds of it where the next run began after the nested NMI
 * @chain: NMIs that handler runs still have to send to their own CPU, one each
 * @dump: the next handler run prints its stack
 * @panic: the next handler run panics, after it has nested an NMI
 */
struct lnt_cpu {
	atomic_long_t		sent;
	unsigned long		seen;
	unsigned long		done;
	unsigned int		late;
	bool			running;
	unsigned long		stat[LNT_NR_COUNTERS];
	unsigned long		fault[LNT_MAX_KINDS];
	struct perf_event	*slot[LNT_SLOTS];
	int			nested_kind;
	unsigned long		nested_seq;
	unsigned int		nested_user;
	unsigned int		nested_faults;
	unsigned int		nested_after;
	unsigned int		chain;
	bool			dump;
	bool			panic;
};

DECLARE_PER_CPU(struct lnt_cpu, lnt_cpu);

/* Serializes the operations and the changes to what the handler does. */
extern struct mutex lnt_mutex;

static inline void lnt_inc(enum lnt_stat stat)
{
	this_cpu_inc(lnt_cpu.stat[stat]);
}

/* Has @counter, a sequence number, come as far as @seq? */
static inline bool lnt_reached(const unsigned long *counter, unsigned long seq)
{
	return (long)(READ_ONCE(*counter) - seq) >= 0;
}

/* send.c */
unsigned long lnt_send(unsigned int cpu);
unsigned long lnt_send_self(void);
unsigned int lnt_other_cpu(unsigned int cpu);

/* fault.c */
extern const unsigned int lnt_nr_kinds;
extern u64 lnt_user_addr;
int lnt_parse_kind(const char *name);
const char *lnt_kind_name(int kind);
const char *lnt_kind_text(int kind);
bool lnt_take(int kind, const struct pt_regs *regs);
int lnt_claim(unsigned long kinds);
int lnt_fault_init(void);
void lnt_fault_exit(void);

/* pmu.c */
void lnt_overflow(struct perf_event *event, struct pt_regs *regs);
struct perf_event *lnt_event_create(int cpu);
void lnt_event_due(struct perf_event *event);
int lnt_pmu_init(void);
void lnt_pmu_exit(void);

/* handler.c */
extern unsigned long lnt_faults;
extern u64 lnt_hold_ns;
extern bool lnt_claim_foreign;
#define LNT_MAX_DECLINING	64
int lnt_declining(unsigned int nr);
int lnt_handler_init(void);
void lnt_handler_exit(void);

/* ops.c */
#define LNT_RESULT_MAX	160
extern char lnt_storm_result[LNT_RESULT_MAX];
extern char lnt_chase_result[LNT_RESULT_MAX];
extern char lnt_nested_result[LNT_RESULT_MAX];
extern char lnt_roundtrip_result[LNT_RESULT_MAX];
int lnt_storm(unsigned int nmis, unsigned int burst, unsigned int gap_ns, int cpu);
int lnt_chase(unsigned int rounds, unsigned int max_delay_ns, int cpu);
int lnt_nested(int kind, unsigned int rounds, int cpu);
int lnt_roundtrip(const char *name, unsigned int rounds, unsigned int handlers,
		  unsigned int burst, int cpu);
int lnt_backtrace(int cpu);
int lnt_panic(int kind, int cpu);
int lnt_offline(unsigned int nmis, int cpu);

/* files.c */
void lnt_files_init(void);
void lnt_files_exit(void);

#endif /* LNT_H */
