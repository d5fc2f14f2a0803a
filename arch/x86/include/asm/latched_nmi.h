/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _ASM_X86_LATCHED_NMI_H
#define _ASM_X86_LATCHED_NMI_H

#include <asm/page_types.h>

#ifdef CONFIG_X86_LATCHED_NMI

/*
 * Distance in bytes of neighbouring exception stacks in the cpu entry area,
 * of which each has a guard page below it: REAL (NMI), LATCHED, #DB, #MC.
 */
#define LATCHED_NMI_DISTANCE		(EXCEPTION_STKSZ + PAGE_SIZE)
#define LATCHED_NMI_MCE_DISTANCE	(3 * LATCHED_NMI_DISTANCE)

/* The state, in bytes from the hardware frame on the REAL stack. */
#define LATCHED_NMI_STATE		(-16)
#define LATCHED_NMI_NEST_COUNT		(LATCHED_NMI_STATE + 0)
#define LATCHED_NMI_RESTART		(LATCHED_NMI_STATE + 2)
#define LATCHED_NMI_LATCH		(LATCHED_NMI_STATE + 4)

#ifndef __ASSEMBLY__

#include <linux/compiler.h>
#include <linux/percpu-defs.h>
#include <linux/types.h>

#include <asm/percpu.h>

struct pt_regs;
struct seq_file;

/**
 * struct latched_nmi_state - what the entry keeps on the REAL stack of a CPU
 * @nest_count:	1 from the decision of a first NMI until the epilogue, else 0
 * @restart:	NMIs that restarted the handler in the epilogue since it was taken
 * @latch:	NMIs that nested since the latch was taken; 0 is "not latched"
 *
 * All 0 at rest. Written by the CPU itself only.
 */
struct latched_nmi_state {
	u8	nest_count;
	u16	restart;
	u32	latch;
};

/**
 * struct latched_nmi_cause - why the dispatcher runs the handlers once more
 * @nested:	NMIs that were latched while the previous run was in progress
 * @restarted:	NMIs that hit the epilogue of the previous run
 */
struct latched_nmi_cause {
	unsigned int nested;
	unsigned int restarted;
};

DECLARE_PER_CPU(struct latched_nmi_cause, latched_nmi_cause);

extern void asm_exc_nmi_latched(void);
extern void asm_exc_machine_check_latched(void);
extern void __machine_check_latched_end(void);
extern void latched_nmi_handler(void);
extern char __nmi_prologue_begin[];
extern char __nmi_epilogue_begin[], __nmi_epilogue_end[];
extern char __nmi_user_prologue_begin[], __nmi_user_prologue_rdx[];
extern char __nmi_user_prologue_end[];

/* Half-open ranges of entry text, for a @ip of kernel mode. */
static __always_inline bool latched_nmi_in_prologue(unsigned long ip)
{
	return ip >= (unsigned long)__nmi_prologue_begin &&
	       ip <  (unsigned long)latched_nmi_handler;
}

static __always_inline bool latched_nmi_in_user_prologue(unsigned long ip)
{
	return ip >= (unsigned long)__nmi_user_prologue_begin &&
	       ip <  (unsigned long)__nmi_user_prologue_end;
}

static __always_inline bool latched_nmi_in_epilogue(unsigned long ip)
{
	return ip >= (unsigned long)__nmi_epilogue_begin &&
	       ip <  (unsigned long)__nmi_epilogue_end;
}

void exc_nmi_latched(struct pt_regs *regs);
void latched_nmi_fixup(struct pt_regs *regs);
void __latched_nmi_report(struct pt_regs *regs);
void latched_nmi_show_interrupts(struct seq_file *p, int prec);
bool latched_nmi_enabled(void);

/**
 * latched_nmi_report - count and trace what made the handlers run once more
 * @regs:	the interrupted context
 *
 * Context: NMI, between irqentry_nmi_enter() and irqentry_nmi_exit().
 */
static __always_inline void latched_nmi_report(struct pt_regs *regs)
{
	if (unlikely(this_cpu_read(latched_nmi_cause.nested) |
		     this_cpu_read(latched_nmi_cause.restarted)))
		__latched_nmi_report(regs);
}

#endif /* !__ASSEMBLY__ */

#elif !defined(__ASSEMBLY__)

struct pt_regs;
struct seq_file;

static __always_inline void latched_nmi_fixup(struct pt_regs *regs) { }
static __always_inline void latched_nmi_report(struct pt_regs *regs) { }
static inline bool latched_nmi_enabled(void) { return false; }
static inline void latched_nmi_show_interrupts(struct seq_file *p, int prec) { }

#endif /* CONFIG_X86_LATCHED_NMI */

#ifndef __ASSEMBLY__
void idt_setup_nmi_entry(bool latched);
#endif

#endif /* _ASM_X86_LATCHED_NMI_H */
