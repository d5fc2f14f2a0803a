/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The entry that this project replaces: asm_exc_nmi of Linux 6.12,
 * arch/x86/entry/entry_64.S, and exc_nmi() of arch/x86/kernel/nmi.c.
 *
 * The comment there tells the scheme: the hardware frame is copied twice on
 * the one NMI stack, to "outermost" and from there to "iret"; a nested NMI
 * rewrites "iret" to lead to repeat_nmi. "NMI executing" (nest_count here) and
 * RSP together with DF tell a nested NMI from a first one.
 *
 * A comparison and its branch are one step, the flags being private and every
 * disturbance in between returning to the branch.
 */

/* frame, RDX, executing, iret, outermost, ORIG_RAX, RDX, a fault's frame */
#define NMI_WORDS	26
#define EXECUTING_SLOT	(REAL_TOP - 7)
#define OUTERMOST_FRAME	(REAL_TOP - 17)
#define LATCHED_TOP	(OUTERMOST_FRAME + FRAME)

/* asm_exc_nmi */
#define S_ENTRY		10
#define S_PUSHQ		11
#define S_TESTB		12
/* user mode */
#define U_SAVE_RSP	13
#define U_LOAD_RSP	14
#define U_PUSH_FRAME	15	/* Five of them. */
#define U_PUSH_ORIG	20
#define U_PUSH_REGS	21
#define U_CLEAR_REGS	22
#define U_CALL		23
#define U_POP_REGS	24
#define U_IRETQ		25
/* .Lnmi_from_kernel */
#define K_IN_REPEAT	30
#define K_EXECUTING	31
#define K_ABOVE		32
#define K_BELOW		33
#define K_DF		34
/* nested_nmi */
#define N_SUBQ		35
#define N_LEAQ		36
#define N_PUSH_SS	37
#define N_PUSH_RSP	38
#define N_PUSHFQ	39
#define N_PUSH_CS	40
#define N_PUSH_RIP	41
#define N_ADDQ		42
#define N_POPQ		43	/* nested_nmi_out */
#define N_IRETQ		44
/* first_nmi */
#define F_MOVQ		50
#define F_PUSHQ		51
#define F_SUBQ		52
#define F_COPY		53	/* Five of them. */
/* repeat_nmi */
#define R_MOVQ		58
#define R_ADDQ		59
#define R_COPY		60	/* Five of them. */
#define R_SUBQ		65
/* end_repeat_nmi */
#define H_SAVE		66
#define H_CALL		67
#define H_POP_REGS	68
#define H_ADDQ		69
#define H_STD		70
#define H_MOVQ		71
#define H_IRETQ		72

#define NMI_ENTRY	S_ENTRY
#define MC_ENTRY	MC_STOCK_ENTRY
#define EVIL_RIP	R_COPY
#define WATCHABLE	(rip > U_LOAD_RSP && rip <= U_CALL)
#define MORE_AT_REST	(nmi_state == NMI_NOT_RUNNING)
byte nmi_state;

#include "machine.pml"

#define ENTRY		"NMI:     "
#define HANDLER		"handler: "

#define FALLS_THROUGH	rip++
#define FROM_RDX(words)	mem[IN_MEMORY(rdx + (words))]

active proctype cpu()
{
	d_step { POWER_ON }
	do
	EVENT_OPTIONS

	:: d_step { STEP(S_ENTRY, ENTRY, "clac; cld"); df = 0; FALLS_THROUGH }
	:: d_step { STEP(S_PUSHQ, ENTRY, "pushq rdx"); PUSH(rdx); FALLS_THROUGH }
	:: d_step { STEP(S_TESTB, ENTRY, "testb CS; jz .Lnmi_from_kernel");
		rip = (WORD(1 + CS_W) == KERNEL_CS -> K_IN_REPEAT : U_SAVE_RSP) }

	:: d_step { STEP(U_SAVE_RSP, ENTRY, "movq rsp, rdx"); rdx = rsp; FALLS_THROUGH }
	:: d_step { STEP(U_LOAD_RSP, ENTRY, "movq thread stack, rsp");
		rsp = THREAD_TOP; FALLS_THROUGH }
	:: d_step { STEP(U_PUSH_FRAME, ENTRY, "pushq SS"); PUSH(FROM_RDX(5)); FALLS_THROUGH }
	:: d_step { STEP(U_PUSH_FRAME + 1, ENTRY, "pushq RSP"); PUSH(FROM_RDX(4)); FALLS_THROUGH }
	:: d_step { STEP(U_PUSH_FRAME + 2, ENTRY, "pushq RFLAGS"); PUSH(FROM_RDX(3)); FALLS_THROUGH }
	:: d_step { STEP(U_PUSH_FRAME + 3, ENTRY, "pushq CS"); PUSH(FROM_RDX(2)); FALLS_THROUGH }
	:: d_step { STEP(U_PUSH_FRAME + 4, ENTRY, "pushq RIP"); PUSH(FROM_RDX(1)); FALLS_THROUGH }
	:: d_step { STEP(U_PUSH_ORIG, ENTRY, "pushq $-1"); PUSH(0); FALLS_THROUGH }
	:: d_step { STEP(U_PUSH_REGS, ENTRY, "PUSH_AND_CLEAR_REGS, push");
		PUSH(FROM_RDX(0)); REAL_FRAME_ENDS; FALLS_THROUGH }
	:: d_step { STEP(U_CLEAR_REGS, ENTRY, "PUSH_AND_CLEAR_REGS, clear");
		rdx = SCRATCH; FALLS_THROUGH }
	:: d_step { STEP(U_CALL, ENTRY, "call exc_nmi"); rip = C_TEST }
	:: d_step { STEP(U_POP_REGS, ENTRY, "POP_REGS"); POP(rdx); rsp++; FALLS_THROUGH }
	:: d_step { STEP(U_IRETQ, ENTRY, "iretq"); iret() }

	:: d_step { STEP(K_IN_REPEAT, ENTRY, "RIP in repeat_nmi ... end_repeat_nmi?");
		rip = (WORD(1 + RIP_W) >= R_MOVQ && WORD(1 + RIP_W) < H_SAVE ->
		       N_POPQ : K_EXECUTING) }
	:: d_step { STEP(K_EXECUTING, ENTRY, "NMI executing?");
		rip = (nest_count == 1 -> N_SUBQ : K_ABOVE) }
	:: d_step { STEP(K_ABOVE, ENTRY, "RSP above the NMI stack?");
		rip = (WORD(1 + RSP_W) > REAL_TOP -> F_MOVQ : K_BELOW) }
	:: d_step { STEP(K_BELOW, ENTRY, "RSP below the NMI stack?");
		rip = (WORD(1 + RSP_W) < DF_TOP -> F_MOVQ : K_DF) }
	:: d_step { STEP(K_DF, ENTRY, "DF clear?");
		rip = (WORD(1 + FLAGS_W) & FLAG_DF -> N_SUBQ : F_MOVQ) }

	:: d_step { STEP(N_SUBQ, ENTRY, "nested: subq $8, rsp"); rsp--; FALLS_THROUGH }
	:: d_step { STEP(N_LEAQ, ENTRY, "leaq -10*8(rsp), rdx"); rdx = rsp - 10; FALLS_THROUGH }
	:: d_step { STEP(N_PUSH_SS, ENTRY, "pushq SS"); PUSH(KERNEL_SS); FALLS_THROUGH }
	:: d_step { STEP(N_PUSH_RSP, ENTRY, "pushq rdx"); PUSH(rdx); FALLS_THROUGH }
	:: d_step { STEP(N_PUSHFQ, ENTRY, "pushfq"); PUSH(FLAGS); FALLS_THROUGH }
	:: d_step { STEP(N_PUSH_CS, ENTRY, "pushq CS"); PUSH(KERNEL_CS); FALLS_THROUGH }
	:: d_step { STEP(N_PUSH_RIP, ENTRY, "pushq $repeat_nmi"); PUSH(R_MOVQ); FALLS_THROUGH }
	:: d_step { STEP(N_ADDQ, ENTRY, "addq $(6*8), rsp"); rsp = rsp + 6; FALLS_THROUGH }
	:: d_step { STEP(N_POPQ, ENTRY, "popq rdx"); POP(rdx); FALLS_THROUGH }
	:: d_step { STEP(N_IRETQ, ENTRY, "iretq"); iret(); REAL_FRAME_ENDS }

	:: d_step { STEP(F_MOVQ, ENTRY, "first: movq (rsp), rdx"); rdx = WORD(0); FALLS_THROUGH }
	:: d_step { STEP(F_PUSHQ, ENTRY, "pushq $0, NMI executing"); PUSH(0);
		if :: rsp == EXECUTING_SLOT -> SET_COUNT(0) :: else fi;
		FALLS_THROUGH }
	:: d_step { STEP(F_SUBQ, ENTRY, "subq $(5*8), rsp"); rsp = rsp - 5; FALLS_THROUGH }
	:: d_step { STEP(F_COPY, ENTRY, "pushq SS, outermost"); CHECK(FRAMES, !needed[ON_LATCHED]);
		PUSH(WORD(11)); FALLS_THROUGH }
	:: d_step { STEP(F_COPY + 1, ENTRY, "pushq RSP"); PUSH(WORD(11)); FALLS_THROUGH }
	:: d_step { STEP(F_COPY + 2, ENTRY, "pushq RFLAGS"); PUSH(WORD(11)); FALLS_THROUGH }
	:: d_step { STEP(F_COPY + 3, ENTRY, "pushq CS"); PUSH(WORD(11)); FALLS_THROUGH }
	:: d_step { STEP(F_COPY + 4, ENTRY, "pushq RIP"); PUSH(WORD(11));
		needed[ON_LATCHED] = 1; REAL_FRAME_ENDS; FALLS_THROUGH }

	:: d_step { STEP(R_MOVQ, ENTRY, "repeat: movq $1, NMI executing"); SET_COUNT(1);
		FALLS_THROUGH }
	:: d_step { STEP(R_ADDQ, ENTRY, "addq $(10*8), rsp"); rsp = rsp + 10; FALLS_THROUGH }
	:: d_step { STEP(R_COPY, ENTRY, "pushq SS, iret"); PUSH(WORD(-6)); FALLS_THROUGH }
	:: d_step { STEP(R_COPY + 1, ENTRY, "pushq RSP"); PUSH(WORD(-6)); FALLS_THROUGH }
	:: d_step { STEP(R_COPY + 2, ENTRY, "pushq RFLAGS"); PUSH(WORD(-6)); FALLS_THROUGH }
	:: d_step { STEP(R_COPY + 3, ENTRY, "pushq CS"); PUSH(WORD(-6)); FALLS_THROUGH }
	:: d_step { STEP(R_COPY + 4, ENTRY, "pushq RIP"); PUSH(WORD(-6)); FALLS_THROUGH }
	:: d_step { STEP(R_SUBQ, ENTRY, "subq $(5*8), rsp"); rsp = rsp - 5; FALLS_THROUGH }

	:: d_step { STEP(H_SAVE, HANDLER, "pushq $-1; paranoid_entry");
		PUSH(0); PUSH(rdx); rdx = SCRATCH; FALLS_THROUGH }
	:: d_step { STEP(H_CALL, HANDLER, "call exc_nmi"); rip = C_TEST }
	:: d_step { STEP(H_POP_REGS, HANDLER, "POP_REGS"); POP(rdx); FALLS_THROUGH }
	:: d_step { STEP(H_ADDQ, HANDLER, "addq $(6*8), rsp"); rsp = rsp + 6; FALLS_THROUGH }
	:: d_step { STEP(H_STD, HANDLER, "std"); df = 1; FALLS_THROUGH }
	:: d_step { STEP(H_MOVQ, HANDLER, "movq $0, NMI executing"); SET_COUNT(0); FALLS_THROUGH }
	:: d_step { STEP(H_IRETQ, HANDLER, "iretq");
		if
		:: WORD(RIP_W) == R_MOVQ && WORD(CS_W) == KERNEL_CS
		:: else -> needed[ON_LATCHED] = 0; POISON(OUTERMOST_FRAME)
		fi;
		iret() }

	EXC_NMI_OPTIONS(H_POP_REGS, U_POP_REGS)
	FAULT_OPTIONS
	MC_OPTIONS
	DB_OPTIONS
	od
}
