/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Latched NMI entry for x86-64, after Mathieu Desnoyers' RFC of 2011.
 *
 * NMI handlers may fault, hit int3 and take #DB or #MC. Each of those returns
 * with IRET, which unmasks NMIs while the handler still runs. The real NMI
 * handler (NMIs masked) only decides and copies the frame; the system's
 * handlers run from the latched NMI handler (NMIs possibly unmasked), where a
 * nested NMI sets a latch and returns at once. The epilogue tests the latch
 * and restarts the latched handler.
 *
 * Hazards
 * -------
 * H1 #MC in the prologue of an NMI from user mode: its IRET unmasks NMIs while
 *    the frame is still on the REAL stack, where the next NMI overwrites it.
 * H2 The same in the prologue of an NMI from kernel mode.
 * H3 #MC in the epilogue after nest_count was cleared: an NMI inside #MC takes
 *    itself for a first one and overwrites the frame that IRET is about to use.
 * H4 An NMI between clearing nest_count and IRET restarts the handler; with a
 *    count of 0 the next nested NMI would take itself for a first one.
 * H5 A fix-up of pt_regs (SRSO) is lost if IRET uses another copy of the frame.
 * H6 #DB by a data watchpoint on the thread stack, to which the prologue of an
 *    NMI from user mode pushes: its IRET does what #MC's does in H1.
 *
 * State machine
 * -------------
 * asm_exc_nmi_latched: (real NMI handler: REAL stack, NMIs masked)
 *	from user mode		-> thread stack, dispatcher
 *	RIP in the epilogue	-> restart: nest_count = 1, latched_nmi_handler
 *	#MC entry check of an
 *	#MC that hit the epilogue -> nested
 *	nest_count != 0		-> nested: latch++, IRET
 *	else			-> first: copy the frame to the LATCHED stack,
 *				   nest_count = 1, latched_nmi_handler
 * latched_nmi_handler: (LATCHED stack, NMIs masked or not)
 *	save, dispatcher, restore
 * __nmi_epilogue_begin:
 *	latch != 0		-> latched_nmi_handler
 *	nest_count = 0, IRET
 * __nmi_epilogue_end:
 *
 * Stacks
 * ------
 * Neighbours in the cpu entry area, so that each is a constant distance D =
 * LATCHED_NMI_DISTANCE from the next: no register, GS or CR3 is needed to get
 * from one to the other.
 *
 *   REAL stack (IST)                      LATCHED stack
 *  +---------------------------+  top    +---------------------------+  top
 *  | SS      } written by      |         | SS      } copied from the |
 *  | RSP     } hardware at     |         | RSP     } REAL stack by   |
 *  | RFLAGS  } delivery; valid |         | RFLAGS  } the first NMI;  |
 *  | CS      } until NMIs are  |         | CS      } valid until its |
 *  | RIP     } unmasked        |         | RIP     } IRET            |
 *  +---------------------------+ -40     +---------------------------+ -40
 *  | user RDX: user mode only  |         | rest of pt_regs           |
 *  +---------------------------+ -48     | (user RDX after the H1,   |
 *  | latch | restart | nest_   |         |  H6 fix-up)               |
 *  |       |         |   count |         +---------------------------+ -168
 *  +---------------------------+ -56     | C frames                  |
 *
 * Register contract
 * -----------------
 * Up to latched_nmi_handler and in the epilogue every general register holds
 * the interrupted context's value; only RSP and RFLAGS are in use. In between
 * RBX, R14 and R15 hold GSBASE, CR3 and SPEC_CTRL as paranoid_entry defines.
 *
 * Facts
 * -----
 * L1  Hardware masks NMIs from delivery until the next IRET on this CPU. The
 *     gate clears IF, and nothing here or in an NMI handler sets it. So the
 *     REAL frame is stable until somebody's IRET, and #MC, or #DB where
 *     watchable memory is touched, is the only one that can come before.
 * L2  The state is one quadword on the REAL stack, 0 at rest. It is the slot
 *     of the classic entry's "NMI executing" variable, 0 at rest too: the gate
 *     can be switched whenever no NMI is in progress.
 * L3  CS is looked at first. RIP tells where the kernel was only if CS says it
 *     was the kernel: user code can have any RIP, an epilogue address as well.
 * L4  RSP is never proof of nesting: user code controls it in the SYSCALL gap.
 *     nest_count and RIP ranges decide.
 * L5  nest_count = 1 is the last instruction of the prologue. Before it, the
 *     decision is a function of the REAL frame and the state alone, and so it
 *     can be taken again from the start (H2). RSP is all that the prologue
 *     changes: the REAL and the LATCHED stack need neither CLAC nor CLD.
 * L6  There is one frame: the one at the top of the LATCHED stack, which is
 *     part of pt_regs. It is not written between "copied" and IRET (H5).
 * L7  The dispatcher takes the latch before it runs the handlers. A nested NMI
 *     finds the latch taken, and sets it anew, or not yet taken. Either way a
 *     complete run of the handlers begins after its arrival.
 * L8  Nothing in the epilogue but a real NMI and #MC can come in between: it
 *     touches the cpu entry area only, where no watchpoint is allowed, and
 *     returns to kernel mode, which cannot fault. It is restartable: a real
 *     NMI in it is served by running the latched handler again on the same
 *     frame, with nest_count = 1 (H4).
 * L9  The first instructions of the #MC entry see an #MC that hit the epilogue,
 *     set nest_count = 1 and rewind its return to __nmi_epilogue_begin: what
 *     nests in #MC is latched, and seen by the epilogue afterwards (H3). Until
 *     they have run, an NMI finds RIP among them; the #MC frame is then at the
 *     top of the #MC stack, and tells the same.
 * L10 The epilogue and the #MC entry check are one range of text, so that one
 *     comparison dismisses both.
 * L11 For H1, H2 and H6 a fix-up in C at the start of the #MC and #DB handlers
 *     is early enough, by L1: see latched_nmi_fixup().
 * L12 An NMI from user mode is on the thread stack once the dispatcher runs.
 *     The dispatcher sets nest_count itself; at the end it first clears it and
 *     then tests the latch, since after the clear every NMI is a first one.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/asm-offsets.h>
#include <asm/frame.h>
#include <asm/latched_nmi.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/percpu.h>
#include <asm/segment.h>
#include <asm/smap.h>
#include <asm/unwind_hints.h>

#include "calling.h"

/* Words of a hardware frame, from its RIP. */
#define HWFRAME_RIP	(RIP - RIP)
#define HWFRAME_CS	(CS - RIP)
#define HWFRAME_SIZE	(SS - RIP + 8)

	.section .entry.text, "ax"

/*
 * The rare decisions of the real NMI handler.
 *
 * REAL stack, RSP at the hardware frame, interrupted context's registers.
 */
SYM_CODE_START(__nmi_prologue_begin)
	ANNOTATE_NOENDBR
	UNWIND_HINT_IRET_REGS

.Lnear_epilogue:
	/* Modules are above the whole range (L10). */
	cmpq	$__machine_check_latched_end, HWFRAME_RIP(%rsp)
	jae	.Ltest_nest_count
	cmpq	$__nmi_epilogue_end, HWFRAME_RIP(%rsp)
	jb	.Lrestart

	/* In the #MC entry check: did that #MC hit the epilogue (L9)? */
	testb	$3, (HWFRAME_CS + LATCHED_NMI_MCE_DISTANCE)(%rsp)
	jnz	.Ltest_nest_count
	cmpq	$__nmi_epilogue_begin, (HWFRAME_RIP + LATCHED_NMI_MCE_DISTANCE)(%rsp)
	jb	.Ltest_nest_count
	cmpq	$__nmi_epilogue_end, (HWFRAME_RIP + LATCHED_NMI_MCE_DISTANCE)(%rsp)
	jae	.Ltest_nest_count

.Lnested:
	incl	LATCHED_NMI_LATCH(%rsp)
	iretq

.Lrestart:
	incw	LATCHED_NMI_RESTART(%rsp)
	addq	$LATCHED_NMI_DISTANCE, %rsp
	jmp	.Lset_nest_count
SYM_CODE_END(__nmi_prologue_begin)

/*
 * The real NMI handler: entered by the IDT gate of the NMI.
 *
 * REAL stack, RSP at the hardware frame, interrupted context's registers.
 */
SYM_CODE_START(asm_exc_nmi_latched)
	UNWIND_HINT_IRET_ENTRY
	ENDBR

	testb	$3, HWFRAME_CS(%rsp)
	jnz	__nmi_user_prologue_begin

	cmpq	$__nmi_epilogue_begin, HWFRAME_RIP(%rsp)
	jae	.Lnear_epilogue

.Ltest_nest_count:
	cmpb	$0, LATCHED_NMI_NEST_COUNT(%rsp)
	jne	.Lnested

	/* From here on the LATCHED stack. */
	addq	$(LATCHED_NMI_DISTANCE + HWFRAME_SIZE), %rsp
	.rept 5
	pushq	-(LATCHED_NMI_DISTANCE + 8)(%rsp)
	.endr

.Lset_nest_count:
	movb	$1, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_DISTANCE)(%rsp)

/*
 * The latched NMI handler.
 *
 * LATCHED stack, RSP at the one frame (L6), interrupted context's registers,
 * nest_count = 1. The REAL frame is no longer needed.
 */
SYM_INNER_LABEL(latched_nmi_handler, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	UNWIND_HINT_IRET_REGS
	ASM_CLAC
	cld

#ifdef CONFIG_DEBUG_ENTRY
	cmpb	$1, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_DISTANCE)(%rsp)
	je	.Lnest_count_is_1
	ud2
.Lnest_count_is_1:
	/* Unmask NMIs right away, as a fault in the handler would. */
	pushq	$0		/* SS */
	pushq	%rsp		/* RSP, 8 too low */
	addq	$8, (%rsp)
	pushfq			/* RFLAGS */
	pushq	$__KERNEL_CS	/* CS */
	pushq	$.Lnmis_unmasked /* RIP */
	iretq
	UNWIND_HINT_IRET_REGS
.Lnmis_unmasked:
	ANNOTATE_NOENDBR
#endif

	pushq	$-1		/* ORIG_RAX: no syscall to restart */
	call	paranoid_entry
	UNWIND_HINT_REGS

	movq	%rsp, %rdi
	call	exc_nmi_latched

	IBRS_EXIT save_reg=%r15
	PARANOID_RESTORE_CR3 scratch_reg=%r15 save_reg=%r14

	ALTERNATIVE "jmp .Lrestore_gs", "", X86_FEATURE_FSGSBASE
	wrgsbase %rbx
.Lrestore_regs:
	POP_REGS
	addq	$8, %rsp	/* ORIG_RAX */

/*
 * The epilogue (L8).
 *
 * LATCHED stack, RSP at the one frame, interrupted context's registers.
 */
SYM_INNER_LABEL(__nmi_epilogue_begin, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	UNWIND_HINT_IRET_REGS
	cmpl	$0, (LATCHED_NMI_LATCH - LATCHED_NMI_DISTANCE)(%rsp)
	jne	latched_nmi_handler
	movb	$0, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_DISTANCE)(%rsp)
	iretq
SYM_INNER_LABEL(__nmi_epilogue_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	int3
SYM_CODE_END(asm_exc_nmi_latched)

/*
 * The #MC entry check (L9): entered by the IDT gate of #MC, goes on at the
 * kernel's own #MC entry.
 *
 * #MC stack, RSP at the hardware frame, interrupted context's registers.
 */
#ifdef CONFIG_X86_MCE
SYM_CODE_START(asm_exc_machine_check_latched)
	UNWIND_HINT_IRET_ENTRY
	ENDBR
	cmpq	$__nmi_epilogue_begin, HWFRAME_RIP(%rsp)
	jb	asm_exc_machine_check
	cmpq	$__nmi_epilogue_end, HWFRAME_RIP(%rsp)
	jae	asm_exc_machine_check
	testb	$3, HWFRAME_CS(%rsp)
	jnz	asm_exc_machine_check

	movb	$1, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_MCE_DISTANCE)(%rsp)
	movq	$__nmi_epilogue_begin, HWFRAME_RIP(%rsp)
	jmp	asm_exc_machine_check
SYM_INNER_LABEL(__machine_check_latched_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	int3
SYM_CODE_END(asm_exc_machine_check_latched)
#else
	.set __machine_check_latched_end, __nmi_epilogue_end
#endif

/*
 * NMI from user mode: to the thread stack, then as the classic entry does.
 *
 * REAL stack, RSP at the hardware frame, user registers. No nest_count here:
 * the frame is needed on the REAL stack for these few instructions only, and
 * if #MC or #DB unmasks NMIs meanwhile, latched_nmi_fixup() moves it (L11).
 */
SYM_CODE_START(__nmi_user_prologue_begin)
	ANNOTATE_NOENDBR
	UNWIND_HINT_IRET_REGS
	ASM_CLAC
	cld
	pushq	%rdx
	swapgs
	FENCE_SWAPGS_USER_ENTRY
	SWITCH_TO_KERNEL_CR3 scratch_reg=%rdx
	movq	%rsp, %rdx
SYM_INNER_LABEL(__nmi_user_prologue_rdx, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	movq	PER_CPU_VAR(pcpu_hot + X86_top_of_stack), %rsp
	UNWIND_HINT_IRET_REGS base=%rdx offset=8
	pushq	5*8(%rdx)	/* SS */
	pushq	4*8(%rdx)	/* RSP */
	pushq	3*8(%rdx)	/* RFLAGS */
	pushq	2*8(%rdx)	/* CS */
	pushq	1*8(%rdx)	/* RIP */
	UNWIND_HINT_IRET_REGS
	pushq	$-1		/* ORIG_RAX: no syscall to restart */
	PUSH_AND_CLEAR_REGS rdx=(%rdx)
SYM_INNER_LABEL(__nmi_user_prologue_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	ENCODE_FRAME_POINTER

	IBRS_ENTER
	UNTRAIN_RET

	movq	%rsp, %rdi
	call	exc_nmi_latched

	/* No exit work: it would enable interrupts. */
	jmp	swapgs_restore_regs_and_return_to_usermode

/* Without FSGSBASE: EBX == 0 -> SWAPGS. */
.Lrestore_gs:
	UNWIND_HINT_REGS
	testl	%ebx, %ebx
	jnz	.Lrestore_regs
	swapgs
	jmp	.Lrestore_regs
SYM_CODE_END(__nmi_user_prologue_begin)
