/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _ASM_X86_LATCHED_NMI_H
#define _ASM_X86_LATCHED_NMI_H

#include <asm/page_types.h>

#ifdef CONFIG_X86_LATCHED_NMI

/*
 * The NMI exception stack holds two stacks: the REAL stack, which is its
 * uppermost 12 words, and the LATCHED stack, which is the rest. So LATCHED
 * pt_regs are where tools that read crash dumps look for the pt_regs of an NMI.
 */
#define LATCHED_NMI_DISTANCE		(12 * 8)

/* In bytes from the hardware frame on the REAL stack. */
#define LATCHED_NMI_DX			(-8)
#define LATCHED_NMI_NEST_COUNT		(-16)
#define LATCHED_NMI_LATCH		(-12)
#define LATCHED_NMI_NESTED		(-24)
#define LATCHED_NMI_RESTARTED		(-20)

/*
 * Distance of neighbouring exception stacks in the cpu entry area, each with
 * a guard page below it: #DF, NMI, #DB, #MC.
 */
#define LATCHED_NMI_ESTACK		(EXCEPTION_STKSZ + PAGE_SIZE)

/*
 * The entry lies within this many bytes after a boundary of 2 MiB. KASLR moves
 * the kernel by multiples of that, so that a test of these bits of an RIP tells
 * nearly all other text from it; vmlinux.lds.S asserts it.
 */
#define LATCHED_NMI_TEXT_SIZE		1024
#define LATCHED_NMI_FAR			(0x200000 - LATCHED_NMI_TEXT_SIZE)

#ifndef __ASSEMBLER__

#include <linux/types.h>

struct pt_regs;

extern void asm_exc_nmi_latched(void);
extern void asm_exc_debug_latched(void);
extern void asm_exc_machine_check_latched(void);

/**
 * latched_nmi_near - could kernel mode at @ip be in the latched NMI entry?
 * @ip:		an RIP
 *
 * Return: true for each instruction of the entry, and for few others.
 */
static __always_inline bool latched_nmi_near(unsigned long ip)
{
	return !(ip & LATCHED_NMI_FAR);
}

bool latched_nmi_fixup(const struct pt_regs *regs);
void latched_nmi_move(struct pt_regs *regs);
bool latched_nmi_enabled(void);

#endif /* !__ASSEMBLER__ */

#elif !defined(__ASSEMBLER__)

#include <linux/types.h>

struct pt_regs;

static __always_inline bool latched_nmi_near(unsigned long ip) { return false; }
static __always_inline bool latched_nmi_fixup(const struct pt_regs *regs) { return false; }
static __always_inline void latched_nmi_move(struct pt_regs *regs) { }
static inline bool latched_nmi_enabled(void) { return false; }

#endif /* CONFIG_X86_LATCHED_NMI */

#ifndef __ASSEMBLER__
void idt_setup_nmi_entry(bool latched);
#endif

#endif /* _ASM_X86_LATCHED_NMI_H */
