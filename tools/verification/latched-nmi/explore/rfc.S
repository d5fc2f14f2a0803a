/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The literal RFC of 2011, to be explored in the place of the kernel's own entry:
 * a search must find H4. With COUNT_IS_1 a restart sets nmi_nest_count to 1, and
 * all is well until #MC comes.
 *
 * Only for NMIs from kernel mode with the kernel's page table, on a machine that
 * has FSGSBASE. paranoid_entry and exc_nmi are the kernel's.
 */
#define NEST_COUNT	(-16)		/* from the hardware frame on the REAL stack */
#define LATCH		(-12)
#define DISTANCE	(12 * 8)	/* of the LATCHED stack below */

	.section .text, "ax"
	.globl	rfc_text_begin, rfc_text_end, real_nmi_handler, rfc_latched_nmi_handler
	.globl	rfc_epilogue_begin, rfc_epilogue_end

rfc_text_begin:
real_nmi_handler:
	/* if (in_nmi_epilogue()) */
	cmpq	$rfc_epilogue_begin, (%rsp)
	jb	1f
	cmpq	$rfc_epilogue_end, (%rsp)
	jae	1f
	movl	$0, LATCH(%rsp)
#ifdef COUNT_IS_1
	movl	$1, NEST_COUNT(%rsp)
#endif
	subq	$DISTANCE, %rsp
	jmp	rfc_latched_nmi_handler

	/* if (in_nmi()) */
1:	cmpl	$0, NEST_COUNT(%rsp)
	jle	2f
	movl	$1, LATCH(%rsp)
	iretq

2:	incl	NEST_COUNT(%rsp)
	subq	$(DISTANCE - 40), %rsp
	.rept 5
	pushq	(DISTANCE - 8)(%rsp)
	.endr

rfc_latched_nmi_handler:
	cld
	pushq	$-1
	call	paranoid_entry
	movq	%rsp, %rdi
	call	exc_nmi
	wrgsbase %rbx
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rax
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	addq	$8, %rsp

rfc_epilogue_begin:
	cmpl	$0, (DISTANCE + LATCH)(%rsp)
	je	3f
	movl	$0, (DISTANCE + LATCH)(%rsp)
	jmp	rfc_latched_nmi_handler
3:	decl	(DISTANCE + NEST_COUNT)(%rsp)
	iretq
rfc_epilogue_end:
rfc_text_end:

	.section .note.GNU-stack, "", @progbits
