/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Latched NMI entry for x86-64, after Mathieu Desnoyers' RFC of 2011.
 *
 * An NMI handler may fault, hit int3, or take #DB or #MC. Each of those returns
 * with IRET, which unmasks NMIs while the handler still runs. So the real NMI
 * handler, which runs with NMIs masked, only decides what to do and copies the
 * frame. The system's handlers run from the latched NMI handler, with NMIs
 * masked or not. An NMI that nests in it sets a latch and returns at once. The
 * latched handler tests the latch after the system's handlers have run, and
 * once more in the epilogue, just before it returns.
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
 *	from user mode		-> thread stack, exc_nmi(). What nests is a first
 *				   NMI, for which exc_nmi() finds in nmi_state
 *				   that one runs, and leaves it the work
 *	RIP in the epilogue	-> restart: nest_count = 1, latched_nmi_repeat
 *	RIP in the #MC entry check of an #MC that hit the epilogue
 *				-> nested
 *	nest_count != 0		-> nested: latch++, IRET
 *	else			-> first: nest_count = 1, copy the frame to the
 *				   LATCHED stack, latched_nmi_handler
 * latched_nmi_handler: (LATCHED stack, NMIs masked or not)
 *	save registers
 *	do { exc_nmi() } while (take the latch)
 *	restore registers
 * __nmi_epilogue_begin:
 *	latch != 0		-> latched_nmi_repeat
 *	nest_count = 0, IRET
 * __nmi_epilogue_end:
 * latched_nmi_repeat:
 *	save registers, take the latch, exc_nmi(), ... as above
 *
 * Stacks
 * ------
 * Both are in the exception stack that the IDT gate of the NMI names, D =
 * LATCHED_NMI_DISTANCE apart, so that no register, GS or CR3 is needed to get
 * from one to the other. The #DF stack lends its top to a frame that the fix-up
 * has to move (L12).
 *
 *   NMI exception stack                   #DF exception stack
 *  +---------------------------+  top    +---------------------------+  top
 *  | SS      } written by      |         | SS      } PARKED frame    |
 *  | RSP     } hardware at     |         | RSP     } of an NMI from  |
 *  | RFLAGS  } delivery; valid |         | RFLAGS  } user mode whose |
 *  | CS      } until NMIs are  |         | CS      } prologue #MC or |
 *  | RIP     } unmasked        |         | RIP     } #DB hit         |
 *  +-- REAL -------------------+ -40     +---------------------------+ -40
 *  | user RDX: user mode only  |         | its user RDX              |
 *  +---------------------------+ -48     +---------------------------+ -48
 *  | latch      | nest_count   |
 *  +---------------------------+ -56
 *  | restarted  | nested       | counters
 *  +---------------------------+ -64
 *  |            | fixed up     | counter
 *  +---------------------------+ -96
 *  | SS      } copied by the   |
 *  | RSP     } first NMI, or   |
 *  | RFLAGS  } by the fix-up;  |
 *  | CS      } valid until its |
 *  | RIP     } IRET            |
 *  +-- LATCHED ----------------+ -136
 *  | rest of pt_regs           |
 *  +---------------------------+ -264
 *  | C frames                  |
 *
 * Register contract
 * -----------------
 * Up to latched_nmi_handler or latched_nmi_repeat, and in the epilogue, every
 * general register holds the interrupted context's value; only RSP and RFLAGS
 * are in use. In between RBX, R14 and R15 hold GSBASE, CR3 and SPEC_CTRL as
 * paranoid_entry defines.
 *
 * Facts
 * -----
 * L1  Hardware masks NMIs from delivery until the next IRET on this CPU. The
 *     gate clears IF, and nothing here or in an NMI handler sets it. So the
 *     REAL frame is stable until somebody's IRET. Before that nothing can come
 *     in between but #MC, and #DB where watchable memory is touched or if it
 *     was held back (L14). If both are due at once, hardware delivers #MC and
 *     discards the #DB trap.
 * L2  The state is one quadword on the REAL stack, 0 at rest. It is the slot
 *     of the classic entry's "NMI executing" variable, 0 at rest too: the gate
 *     can be switched whenever no NMI is in progress.
 * L3  CS is looked at first. RIP tells where the kernel was only if CS says it
 *     was the kernel: user code can have any RIP, an epilogue address as well.
 * L4  RSP is never proof of nesting: user code controls it in the SYSCALL gap.
 *     nest_count and RIP ranges decide.
 * L5  Up to where it sets nest_count, the prologue changes nothing but RFLAGS,
 *     and its decision is a function of the REAL frame and the state. So it can
 *     be taken again from the start (H2). A nested one adds to the latch last, and
 *     #MC at its IRET finds that done. A first NMI sets nest_count before it
 *     copies the frame: from there on CF == 0 tells that it is the first, and
 *     that the copy is still to be done. Nothing up to latched_nmi_handler depends
 *     on AC or DF, so that CLAC and CLD can wait. They are not needed at
 *     latched_nmi_repeat: the epilogue leads there, and an NMI or the #MC of
 *     one that hit it, all with DF clear, and with AC clear if there is SMAP.
 * L6  There is one frame: the one at the top of the LATCHED stack, which is
 *     part of pt_regs. The entry does not write it between "copied" and IRET,
 *     so what paranoid_entry or a handler changes there takes effect (H5).
 * L7  The latch is taken, that is cleared, before the run of the handlers that
 *     serves it. The first run does without: the latch is 0 at rest, and what
 *     nests in an #MC in the prologue gets a run of its own. A restart takes what
 *     nested after the handlers had run. So a complete run begins after the
 *     arrival of each nested NMI.
 * L8  Nothing in the epilogue but a real NMI and #MC can come in between: it
 *     touches the cpu entry area only, where no watchpoint is allowed, and
 *     returns to kernel mode, which cannot fault. It is restartable: a real
 *     NMI in it is served by running the latched handler again on the same
 *     frame, with nest_count = 1 (H4).
 * L9  The first instructions of the #MC entry see an #MC that hit the epilogue
 *     and set nest_count = 1; in the end #MC returns to __nmi_epilogue_begin.
 *     So what nests in #MC is latched, and seen by the epilogue afterwards
 *     (H3). Until those instructions have run, an NMI finds RIP among them; the
 *     #MC frame is then at the top of the #MC stack, and tells the same.
 * L10 All of this text is in the first LATCHED_NMI_TEXT_SIZE bytes behind a
 *     boundary of 2 MiB. A test of some bits of RIP dismisses other text, be it
 *     the kernel's or a module's, and wherever the linker puts it. For what
 *     it does not dismiss, ranges decide.
 * L11 For H1 and H2 a fix-up in C at the start of the #MC handler is early
 *     enough, by L1. It secures the frame, sets the state, and notes where #MC
 *     will return to: see latched_nmi_fixup().
 * L12 On its way to the thread stack an NMI from user mode has no state. It
 *     finds the frame by a pointer in RSP or RDX. To secure the frame, one
 *     moves it to the top of the #DF stack, and the pointer with it. Nobody
 *     else uses that in the meantime: the only #DF that is survived is raised
 *     by an IRET to user mode. The NMIs that nest in this one are first ones.
 * L13 The first instructions of the #DB entry see a #DB that hit the copy to
 *     the thread stack, and move the frame as in L12 (H6). Doing it twice does
 *     no harm: the frame is copied to itself. If #MC hits these instructions,
 *     latched_nmi_fixup() sees it by RIP, and moves the frame and RDX for them.
 * L14 If user code loads SS from a watched address, the #DB is held back, and
 *     may come after the delivery of an NMI, before its first instruction. The
 *     #DB entry drops it then, even if somebody watches the kernel: its IRET
 *     would cost the NMI its frame.
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

/* From the frame at the top of one exception stack to that of another. */
#define MCE_TO_REAL	(-2 * LATCHED_NMI_ESTACK)
#define REAL_TO_MCE	(2 * LATCHED_NMI_ESTACK)
#define DB_TO_REAL	(-LATCHED_NMI_ESTACK)
#define DB_TO_PARKED	(-2 * LATCHED_NMI_ESTACK)

/* From the LATCHED frame, and from the pt_regs that it is part of. */
#define LATCHED_TO_REAL	LATCHED_NMI_DISTANCE
#define REGS_TO_REAL	(RIP + LATCHED_NMI_DISTANCE)

	.section .entry.text, "ax"

/*
 * NMI from user mode: to the thread stack, then as the classic entry does (L12).
 *
 * REAL stack, RSP at the hardware frame, user registers.
 */
	.balign 64
SYM_CODE_START_NOALIGN(__nmi_user_prologue_begin)
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
	movq	PER_CPU_VAR(cpu_current_top_of_stack), %rsp
	UNWIND_HINT_IRET_REGS base=%rdx offset=8
	pushq	5*8(%rdx)	/* SS */
	pushq	4*8(%rdx)	/* RSP */
	pushq	3*8(%rdx)	/* RFLAGS */
	pushq	2*8(%rdx)	/* CS */
	pushq	1*8(%rdx)	/* RIP */
	UNWIND_HINT_IRET_REGS
	pushq	$-1		/* ORIG_RAX: no syscall to restart */
	PUSH_REGS rdx=(%rdx)
SYM_INNER_LABEL(__nmi_user_prologue_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	CLEAR_REGS
	ENCODE_FRAME_POINTER

	IBRS_ENTER
	UNTRAIN_RET

	movq	%rsp, %rdi
	call	exc_nmi

	/* No exit work: it would enable interrupts. */
	jmp	swapgs_restore_regs_and_return_to_usermode
SYM_CODE_END(__nmi_user_prologue_begin)

/*
 * The real NMI handler: entered by the IDT gate of the NMI.
 *
 * REAL stack, RSP at the hardware frame, interrupted context's registers. It begins
 * in the cache line in which the text for user mode ends.
 */
SYM_CODE_START_NOALIGN(asm_exc_nmi_latched)
	UNWIND_HINT_IRET_ENTRY
	ENDBR

	testb	$3, HWFRAME_CS(%rsp)
	jnz	__nmi_user_prologue_begin

	testl	$LATCHED_NMI_FAR, HWFRAME_RIP(%rsp)
	jz	.Lnear

.Ltest_nest_count:
	btsl	$0, LATCHED_NMI_NEST_COUNT(%rsp)
SYM_INNER_LABEL(__nmi_prologue_decided, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	jc	.Lnested

	/* From here on the LATCHED stack; CF remains 0 (L5). */
	subq	$(LATCHED_NMI_DISTANCE - HWFRAME_SIZE), %rsp
	.rept 5
	pushq	(LATCHED_NMI_DISTANCE - 8)(%rsp)
	.endr

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
	cmpl	$1, (LATCHED_TO_REAL + LATCHED_NMI_NEST_COUNT)(%rsp)
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

.Lrun_handlers:
	movq	%rsp, %rdi
	call	exc_nmi

	cmpl	$0, (REGS_TO_REAL + LATCHED_NMI_LATCH)(%rsp)
	jne	.Ltake_latch

	IBRS_EXIT save_reg=%r15
	PARANOID_RESTORE_CR3 scratch_reg=%r15 save_reg=%r14

	ALTERNATIVE "jmp .Lrestore_gs", "wrgsbase %rbx", X86_FEATURE_FSGSBASE
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
	cmpl	$0, (LATCHED_TO_REAL + LATCHED_NMI_LATCH)(%rsp)
	jne	latched_nmi_repeat
	movl	$0, (LATCHED_TO_REAL + LATCHED_NMI_NEST_COUNT)(%rsp)
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
	testl	$LATCHED_NMI_FAR, HWFRAME_RIP(%rsp)
	jnz	asm_exc_machine_check
	cmpq	$__nmi_epilogue_begin, HWFRAME_RIP(%rsp)
	jb	asm_exc_machine_check
	cmpq	$__nmi_epilogue_end, HWFRAME_RIP(%rsp)
	jae	asm_exc_machine_check
	testb	$3, HWFRAME_CS(%rsp)
	jnz	asm_exc_machine_check

	movl	$1, (MCE_TO_REAL + LATCHED_NMI_NEST_COUNT)(%rsp)
	jmp	asm_exc_machine_check
SYM_INNER_LABEL(__machine_check_latched_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	int3
SYM_CODE_END(asm_exc_machine_check_latched)
#else
	.set __machine_check_latched_end, __nmi_epilogue_end
#endif

/*
 * The #DB entry check (L13): entered by the IDT gate of #DB, goes on at the
 * kernel's own #DB entry.
 *
 * #DB stack, RSP at the hardware frame, interrupted context's registers. If the
 * copy to the thread stack was hit, RDX points below the frame to be copied.
 */
SYM_CODE_START(asm_exc_debug_latched)
	UNWIND_HINT_IRET_ENTRY
	ENDBR
	testl	$LATCHED_NMI_FAR, HWFRAME_RIP(%rsp)
	jnz	asm_exc_debug
	testb	$3, HWFRAME_CS(%rsp)
	jnz	asm_exc_debug
	cmpq	$asm_exc_nmi_latched, HWFRAME_RIP(%rsp)
	je	.Ldrop_debug
	cmpq	$__nmi_user_prologue_rdx, HWFRAME_RIP(%rsp)
	jb	asm_exc_debug
	cmpq	$__nmi_user_prologue_end, HWFRAME_RIP(%rsp)
	jae	asm_exc_debug

	.irp	word, 0, 1, 2, 3, 4, 5
	pushq	\word*8(%rdx)
	popq	(DB_TO_PARKED + LATCHED_NMI_DX + \word*8)(%rsp)
	.endr
	leaq	(DB_TO_PARKED + LATCHED_NMI_DX)(%rsp), %rdx
	jmp	asm_exc_debug

.Ldrop_debug:
	UNWIND_HINT_IRET_REGS
	addq	$DB_TO_REAL, %rsp
	jmp	asm_exc_nmi_latched
SYM_INNER_LABEL(__debug_latched_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	int3
SYM_CODE_END(asm_exc_debug_latched)

/*
 * The rare decisions of the real NMI handler.
 *
 * REAL stack, RSP at the hardware frame, interrupted context's registers.
 */
SYM_CODE_START(__nmi_prologue_begin)
	ANNOTATE_NOENDBR
	UNWIND_HINT_IRET_REGS

.Lnear:
	cmpq	$__nmi_epilogue_begin, HWFRAME_RIP(%rsp)
	jb	.Ltest_nest_count
	cmpq	$__machine_check_latched_end, HWFRAME_RIP(%rsp)
	jae	.Ltest_nest_count
	cmpq	$__nmi_epilogue_end, HWFRAME_RIP(%rsp)
	jb	.Lrestart

	/* In the #MC entry check: did that #MC hit the epilogue (L9)? */
	testb	$3, (REAL_TO_MCE + HWFRAME_CS)(%rsp)
	jnz	.Ltest_nest_count
	cmpq	$__nmi_epilogue_begin, (REAL_TO_MCE + HWFRAME_RIP)(%rsp)
	jb	.Ltest_nest_count
	cmpq	$__nmi_epilogue_end, (REAL_TO_MCE + HWFRAME_RIP)(%rsp)
	jae	.Ltest_nest_count

.Lnested:
	incl	LATCHED_NMI_LATCH(%rsp)
SYM_INNER_LABEL(__nmi_nested_iret, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	iretq

.Lrestart:
	movl	$1, LATCHED_NMI_NEST_COUNT(%rsp)
	jmp	.Lrestarted
SYM_INNER_LABEL(__nmi_prologue_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
SYM_CODE_END(__nmi_prologue_begin)

/*
 * Another run of the handlers.
 *
 * LATCHED stack, RSP at the one frame (L6), interrupted context's registers,
 * nest_count = 1. The REAL frame is no longer needed.
 */
SYM_CODE_START(latched_nmi_repeat)
	ANNOTATE_NOENDBR
	UNWIND_HINT_IRET_REGS
	pushq	$-1		/* ORIG_RAX: no syscall to restart */
	call	paranoid_entry
	UNWIND_HINT_REGS

.Ltake_latch:
	xorl	%eax, %eax
	xchgl	%eax, (REGS_TO_REAL + LATCHED_NMI_LATCH)(%rsp)
	addl	%eax, (REGS_TO_REAL + LATCHED_NMI_NESTED)(%rsp)
	jmp	.Lrun_handlers

/* REAL stack, the decision is taken: RIP in the epilogue. */
.Lrestarted:
	UNWIND_HINT_IRET_REGS
	incl	LATCHED_NMI_RESTARTED(%rsp)
	subq	$LATCHED_NMI_DISTANCE, %rsp
	jmp	latched_nmi_repeat

/* Without FSGSBASE: EBX == 0 -> SWAPGS. */
.Lrestore_gs:
	UNWIND_HINT_REGS
	testl	%ebx, %ebx
	jnz	.Lrestore_regs
	swapgs
	jmp	.Lrestore_regs
SYM_INNER_LABEL(__latched_nmi_text_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
SYM_CODE_END(latched_nmi_repeat)
