/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _EXPLORE_MEMORY_H
#define _EXPLORE_MEMORY_H

#include "explore.h"

/* Where things are on this machine. */
#define PER_CPU_AREA	0xffff88800fc00000ULL
#define USER_GS		0x00007fabcdef0000ULL
#define CEA		0xfffffe0000000000ULL
#define CEA_ESTACKS	(CEA + 0x40000)
#define ENTRY_STACK_TOP	(CEA + 0x4000)
/* The lower half of its top is 0: not even that is a lucky number. */
#define THREAD_STACK	0xffffc90100000000ULL
/* What a task_struct holds does not matter here. */
#define CURRENT		0xffff888001000000ULL
#define CANARY		0x5afe5afe5afe5a00ULL
#define ESPFIX_STACK	0xffffff0100000fc0ULL
#define ESPFIX_WADDR	0xffff888001234fc0ULL
#define ESPFIX_WORDS	8
/* With PTI page tables are pairs; without, one may be at any page: bit 12 is set. */
#define KERNEL_CR3	0x0000000001000000ULL
#define UNPAIRED_CR3	0x0000000001001000ULL
#define KERNEL_PCID	2
#define USER_CR3_BIT	0x1000
#define USER_PCID_BIT	0x800
#define ORIG_CR2	0x00000000c2000000ULL
#define FAULT_CR2	0x00000000c2fa0000ULL
#define DR7_ARMED	0x0000000000000402ULL
/*
 * SPEC_CTRL in kernel mode: IBRS and SSBD, and something in the upper half. IBRS_EXIT
 * clears that half together with IBRS on the way to user mode.
 */
#define SPEC_KERNEL	0x0000a50b00000005ULL
#define SPEC_USER	(SPEC_KERNEL & 0xfffffffe)

#define STACK_WORDS	112
/* What #MC returns to is in the lowest words of its stack, apart from the rest. */
#define TO_WORDS	6
#define MODULE_TEXT	0xffffffffc0000000ULL
#define USER_TEXT	0x0000000000401000ULL
#define USER_STACK	0x00007ffc5a5a0000ULL

/* Per-CPU variables that are memory; all the others are not looked at. */
enum { NMI_STATE, NMI_CR2, NMI_DR7, FLUSH_MASK, NR_VARIABLES };

/* nmi_state, see arch/x86/kernel/nmi.c */
#define NMI_EXECUTING	1
#define NMI_LATCHED	2

/* The page table of kernel mode, and whether user mode has one of its own. */
extern u64 kernel_cr3;
extern bool pti;
/* The per-CPU area, less the link address of its variables. */
extern u64 kernel_gs;
/* Indices in w[]. */
extern int variable_word, espfix_word, to_word;
/* The state quadword of either entry. */
extern u64 state_addr;
/* FLUSH_MASK, if a flush of the user's page table is due. */
extern u64 flush_due;

void memory_init(const struct image *im);
/* The lowest words of the uppermost @words of a stack, up to @below. */
void kill_stack(enum stack st, u64 below, int words);
/* What the fix-up noted for the return from #MC. */
void kill_to(void);

#endif
