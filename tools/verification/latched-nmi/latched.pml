/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This project's stub: arch/x86/entry/entry_64_latched_nmi.S, and the C part
 * of it in arch/x86/kernel/latched_nmi.c. L1 ... L12 are the facts in the
 * header of the former.
 *
 * One option is one instruction. "@asm:" quotes the instruction as it stands
 * in the .S file and "@c:" the statement in the .c file; check-steps compares
 * the quotes with the files, in both directions.
 *
 * Instructions that touch registers and the stack of their own context only
 * (saving registers, CR3, GS) are one step, as nobody else can see them.
 */

/* REAL: frame, RDX, state. LATCHED: frame, ORIG_RAX, RDX, a fault's frame. */
#define D	13

/*
 * What the mutants change. A mutant is one -D on the command line of spin;
 * the file "verdicts" lists them.
 */
#ifndef EPILOGUE_BEGIN
#define EPILOGUE_BEGIN	E_CMPL
#endif
#ifndef EPILOGUE_END
#define EPILOGUE_END	(E_IRETQ + 1)
#endif
#ifndef ON_EPILOGUE
#define ON_EPILOGUE	R_INCW		/* Where an NMI in the epilogue goes. */
#endif
#ifndef AFTER_RESTART
#define AFTER_RESTART	A_MOVB
#endif
#ifndef ON_MC_OF_EPILOGUE
#define ON_MC_OF_EPILOGUE N_INCL	/* An NMI in the check of such an #MC. */
#endif
#ifndef ON_MC_OF_USER
#define ON_MC_OF_USER	A_CMPB		/* An NMI in the check of #MC from user. */
#endif
#ifndef ON_MC_ELSEWHERE
#define ON_MC_ELSEWHERE	A_CMPB		/* An NMI in the check of another #MC. */
#endif
#ifndef ON_NESTED
#define ON_NESTED	N_INCL
#endif
#ifndef NESTED_LATCHES
#define NESTED_LATCHES	1
#endif
#ifndef ON_LATCH
#define ON_LATCH	H_HANDLER
#endif
#ifndef FIRST_COUNT
#define FIRST_COUNT	1
#endif
#ifndef COUNT_EARLY
#define COUNT_EARLY	0		/* nest_count = 1 before the frame is copied. */
#endif
#ifndef ON_USER
#define ON_USER		U_CLD
#endif
#ifndef NMI_LOOKS_FIRST_AT
#define NMI_LOOKS_FIRST_AT A_TESTB
#endif
#ifndef MC_ENTRY
#define MC_ENTRY	M_ENTRY
#endif
#ifndef MC_CHECK_BEGIN
#define MC_CHECK_BEGIN	EPILOGUE_BEGIN
#endif
#ifndef MC_CHECK_COUNT
#define MC_CHECK_COUNT	1
#endif
#ifndef MC_CHECK_RIP
#define MC_CHECK_RIP	EPILOGUE_BEGIN
#endif
#define RIP_IS_KEPT	WORD(RIP_W)
#ifndef MC_CHECK_USER
#define MC_CHECK_USER	MC_STOCK_ENTRY	/* #MC from user mode. */
#endif
#ifndef FIXUP_IN_MC
#define FIXUP_IN_MC	1
#endif
#ifndef FIXUP_IN_DB
#define FIXUP_IN_DB	1
#endif
#ifndef FIXUP_KERNEL
#define FIXUP_KERNEL	1
#endif
#ifndef FIXUP_USER
#define FIXUP_USER	1
#endif
#ifndef FIXUP_MC_IN_DB
#define FIXUP_MC_IN_DB	1
#endif
#ifndef FIXUP_DECIDES
#define FIXUP_DECIDES	1	/* 0: a user NMI resumes where #MC hit it. */
#endif
#ifndef FIXUP_KNOWS_GAP
#define FIXUP_KNOWS_GAP	1
#endif
#ifndef FIXUP_RESTARTS
#define FIXUP_RESTARTS	1
#endif
#ifndef FIXUP_NESTS
#define FIXUP_NESTS	1
#endif
#ifndef FIXUP_COUNT
#define FIXUP_COUNT	1
#endif
#ifndef FIXUP_MOVES_SP
#define FIXUP_MOVES_SP	1
#endif
#ifndef FIXUP_MOVES_DX
#define FIXUP_MOVES_DX	1
#endif
#ifndef FIXUP_DX_FROM
#define FIXUP_DX_FROM	U_LOAD_RSP
#endif
#ifndef USER_COUNT
#define USER_COUNT	1
#endif
#ifndef USER_LATCHED
#define USER_LATCHED	K_SET_COUNT
#endif
/* The order of the steps of the dispatcher. */
#ifndef AFTER_COUNT
#define AFTER_COUNT	K_TAKE
#endif
#ifndef AFTER_TAKE
#define AFTER_TAKE	K_BEGIN
#endif
#ifndef AFTER_END
#define AFTER_END	K_WHENCE
#endif
#ifndef AFTER_WHENCE
#define AFTER_WHENCE	K_CLEAR_COUNT
#endif
#ifndef AFTER_CLEAR
#define AFTER_CLEAR	K_TEST_LATCH
#endif
#ifndef AFTER_TEST
#define AFTER_TEST	K_LOOP
#endif

/* The order of the steps of the fix-up in #DB. */
#ifndef D_FIRST
#define D_FIRST		D_LOAD
#endif
#ifndef AFTER_LOAD
#define AFTER_LOAD	D_TEST
#endif
#ifndef AFTER_D_TEST
#define AFTER_D_TEST	D_STORE
#endif

/* ------------------------------------------------------- text, in its order */

/* __nmi_prologue_begin: the rare decisions. */
#define X_CMP_MC_END	10
#define X_JAE		11
#define X_CMP_END	12
#define X_JB		13
#define X_TESTB		14
#define X_JNZ		15
#define X_CMP_MC_RIP	16
#define X_JB2		17
#define X_CMP_MC_RIP2	18
#define X_JAE2		19
#define N_INCL		20
#define N_IRETQ		21
#define R_INCW		22
#define R_ADDQ		23
#define R_JMP		24

/* asm_exc_nmi_latched */
#define A_ENDBR		25
#define A_TESTB		26
#define A_JNZ		27
#define A_CMPQ		28
#define A_JAE		29
#define A_CMPB		30
#define A_JNE		31
#define A_ADDQ		32
#define A_PUSHQ		33	/* Five of them. */
#define A_MOVB		38

/* latched_nmi_handler */
#define H_HANDLER	39
#define H_CLD		40
#define H_SAVE		41
#define H_CALL		42
#define H_POP_REGS	43
#define H_ADDQ		44

/* __nmi_epilogue_begin ... __nmi_epilogue_end */
#define E_CMPL		45
#define E_JNE		46
#define E_MOVB		47
#define E_IRETQ		48

/* asm_exc_machine_check_latched ... __machine_check_latched_end */
#define M_ENTRY		49
#define M_CMPQ		50
#define M_JB		51
#define M_CMPQ2		52
#define M_JAE		53
#define M_TESTB		54
#define M_JNZ		55
#define M_MOVB		56
#define M_MOVQ		57
#define M_JMP		58
#define M_END		59

/* __nmi_user_prologue_begin ... __nmi_user_prologue_end */
#define U_CLD		60
#define U_PUSHQ		61
#define U_SWAPGS	62
#define U_SAVE_RSP	63
#define U_LOAD_RSP	64	/* __nmi_user_prologue_rdx */
#define U_PUSH_FRAME	65	/* Five of them. */
#define U_PUSH_ORIG	70
#define U_PUSH_REGS	71
#define U_CLEAR_REGS	72
#define U_END		73
#define U_CALL		73
#define U_POP_REGS	74
#define U_IRETQ		75

/* exc_nmi_latched(), in C. */
#define K_WHERE		80
#define K_SET_COUNT	81
#define K_TAKE		82
#define K_TAKE2		83
#define K_XCHG		84
#define K_XCHG2		85
#define K_BEGIN		86
#define K_BODY		87
#define K_END		88
#define K_WHENCE	90
#define K_CLEAR_COUNT	91
#define K_TEST_LATCH	92
#define K_LOOP		93

#define NMI_ENTRY	A_ENDBR
/* The stub has just touched memory of the task, or per-CPU variables (H6). */
#define WATCHABLE	(rip > U_LOAD_RSP && rip <= U_END)
/* User code that looks as if it were in the epilogue. */
#define EVIL_RIP	E_MOVB

/* latched_nmi_fixup() in #DB, in C. */
#define D_LOAD		95
#define D_TEST		96
#define D_STORE		97
#define D_COUNT		98
#define D_POINTERS	99

/* What #MC and #DB do first, below. */
#define MC_FIXUP	if :: FIXUP_IN_MC -> fixup(MCE_TOP - FRAME) :: else fi
#define DB_FIXUP	rip = (FIXUP_IN_DB && DEBUG(CS_W) == KERNEL_CS && \
			       IN_USER_PROLOGUE(DEBUG(RIP_W)) -> D_FIRST : DB_BODY)

#define DB_STALE_RIP	U_PUSH_FRAME

#include "machine.pml"

/* ------------------------------------------ latched_nmi_fixup(), in C (L11) */

/*
 * In #MC it is one step: no NMI can come in between where it does anything, by
 * L1, and a second #MC while the first is on its stack is a non-guarantee. In
 * #DB it is several, among the instructions below, since #MC may come between.
 *
 * "at" is the frame that #MC or #DB is going to return to; regs->dx is in the
 * word below it.
 */
#define REGS(word)	mem[(at) + (word)]
#define REGS_RDX	mem[(at) - 1]
#define REAL(word)	mem[REAL_TOP - FRAME + (word)]
#define DEBUG(word)	mem[DB_TOP - FRAME + (word)]

#define IN_PROLOGUE(ip)		((ip) >= X_CMP_MC_END && (ip) < H_HANDLER)
#define IN_USER_PROLOGUE(ip)	((ip) >= U_CLD && (ip) < U_END)
#define IN_EPILOGUE(ip)		((ip) >= EPILOGUE_BEGIN && (ip) < EPILOGUE_END)

#define BEHIND_PROLOGUE		(!IN_PROLOGUE(rip) && !IN_USER_PROLOGUE(rip))

inline fixup_copy_frame()
{
	CHECK_FRAMES(!needed[ON_LATCHED]);
	mem[LATCHED_TOP - FRAME - 1] = mem[REAL_TOP - FRAME - 1];
	WRITE_FRAME(LATCHED_TOP - FRAME, REAL(RIP_W), REAL(CS_W), REAL(FLAGS_W),
		    REAL(RSP_W), REAL(SS_W));
	SET_COUNT(FIXUP_COUNT);
	needed[ON_LATCHED] = 1;
	REAL_FRAME_ENDS
}

#define FIXUP_RESTART	(FIXUP_RESTARTS && IN_EPILOGUE(REAL(RIP_W)))
#define FIXUP_NESTED	(FIXUP_NESTS && nest_count != 0)

inline fixup_prologue(at)
{
	/* What a comparison left behind does not matter where it goes. */
	REGS(FLAGS_W) = REGS(FLAGS_W) & ~FLAG_COND;
	if
	:: REAL(CS_W) != KERNEL_CS && !FIXUP_USER
	:: REAL(CS_W) == KERNEL_CS && !FIXUP_KERNEL
	:: REAL(CS_W) != KERNEL_CS && FIXUP_USER ->
		printf("        fix-up: user, goes on with the copy\n");
		if
		:: FIXUP_DECIDES ->
			fixup_copy_frame();
			REGS(RSP_W) = LATCHED_TOP - FRAME;
			/* @c: regs->ip = (unsigned long)__nmi_user_prologue_begin */
			REGS(RIP_W) = ON_USER
		:: else -> fixup_user(at)
		fi
	:: REAL(CS_W) == KERNEL_CS && FIXUP_KERNEL && FIXUP_RESTART ->
		printf("        fix-up: restart\n");
		/* @c: state->restart++ */
		INCREMENT(restart);
		/* @c: WRITE_ONCE(state->nest_count, 1) */
		SET_COUNT(1);
		REAL_FRAME_ENDS;
		/* @c: regs->sp = (unsigned long)&latched_nmi_frame_of(LATCHED_NMI)->ip */
		REGS(RSP_W) = LATCHED_TOP - FRAME;
		/* @c: regs->ip = (unsigned long)latched_nmi_handler */
		REGS(RIP_W) = H_HANDLER
	:: REAL(CS_W) == KERNEL_CS && FIXUP_KERNEL && !FIXUP_RESTART && FIXUP_NESTED ->
		printf("        fix-up: nested\n");
		/* @c: state->latch++ */
		INCREMENT(latch);
		/* @c: regs->ip = real->ip */
		/* @c: regs->cs = real->cs */
		/* @c: regs->flags = real->flags */
		/* @c: regs->sp = real->sp */
		/* @c: regs->ss = real->ss */
		WRITE_FRAME(at, REAL(RIP_W), REAL(CS_W), REAL(FLAGS_W),
			    REAL(RSP_W), REAL(SS_W));
		REAL_FRAME_ENDS
	:: REAL(CS_W) == KERNEL_CS && FIXUP_KERNEL && !FIXUP_RESTART && !FIXUP_NESTED ->
		printf("        fix-up: first\n");
		fixup_copy_frame();
		REGS(RSP_W) = LATCHED_TOP - FRAME;
		REGS(RIP_W) = H_HANDLER
	fi
}

inline fixup_user(at)
{
	printf("        fix-up: the user prologue goes on with the copy\n");
	if
	:: nest_count == 0 -> fixup_copy_frame()
	:: else
	fi;
	fixup_pointers(at)
}

inline fixup_pointers(at)
{
	if
	:: FIXUP_MOVES_SP && (REGS(RSP_W) == REAL_TOP - FRAME ||
			      REGS(RSP_W) == REAL_TOP - FRAME - 1) ->
		/* @c: regs->sp += LATCHED_NMI_DISTANCE */
		REGS(RSP_W) = REGS(RSP_W) + D
	:: else
	fi;
	if
	:: FIXUP_MOVES_DX && REGS(RIP_W) >= FIXUP_DX_FROM &&
	   REGS_RDX == REAL_TOP - FRAME - 1 ->
		/* @c: regs->dx += LATCHED_NMI_DISTANCE */
		REGS_RDX = REGS_RDX + D
	:: else
	fi
}

inline fixup(at)
{
	if
	:: REGS(CS_W) != KERNEL_CS
	:: REGS(CS_W) == KERNEL_CS && IN_PROLOGUE(REGS(RIP_W)) ->
		fixup_prologue(at)
	:: REGS(CS_W) == KERNEL_CS && IN_USER_PROLOGUE(REGS(RIP_W)) ->
		if
		:: FIXUP_USER -> fixup_user(at)
		:: else
		fi
	:: REGS(CS_W) == KERNEL_CS && !IN_PROLOGUE(REGS(RIP_W)) &&
	   !IN_USER_PROLOGUE(REGS(RIP_W)) ->
		if
		:: FIXUP_MC_IN_DB && IN_STACK(REGS(RSP_W), DB_TOP) &&
		   REGS(RSP_W) != DB_TOP &&
		   !(FIXUP_KNOWS_GAP && REGS(RIP_W) == OUT_GAP) &&
		   DEBUG(CS_W) == KERNEL_CS && IN_USER_PROLOGUE(DEBUG(RIP_W)) &&
		   nest_count == 0 ->
			printf("        fix-up: copy for #DB\n");
			fixup_copy_frame()
		:: else
		fi
	fi
}

/* --------------------------------------------------------- the instructions */

#define PROLOGUE	"NMI:     "
#define HANDLER		"handler: "
#define EPILOGUE	"epilogue "
#define MC_CHECK	"#MC:     "
#define USER_NMI	"NMI:     "
#define DISPATCHER	"  C:     "

#define FIXUP		"#DB:     "

/* What it has loaded, below the registers that #DB saved. */
#define LOADED		(DB_TOP - D + 2)

#define FALLS_THROUGH	rip++
#define JUMP_IF(label)	rip = (cond -> (label) : rip + 1); cond = 0

/* Whichever stack it was read from. */
#define USER_FRAME_ENDS \
	if \
	:: needed[ON_REAL] -> REAL_FRAME_ENDS \
	:: else -> needed[ON_LATCHED] = 0; mem[LATCHED_TOP - FRAME - 1] = 0; POISON(LATCHED_TOP - FRAME) \
	fi

#define FROM_RDX(words)	mem[IN_MEMORY(rdx + (words))]

active proctype cpu()
{
	d_step { POWER_ON }
	do
	EVENT_OPTIONS

	/* The rare decisions: REAL stack, NMIs masked (L1). */
	/* @asm: cmpq $__machine_check_latched_end, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(X_CMP_MC_END, PROLOGUE, "cmpq machine_check_end, RIP (L10)");
		cond = (WORD(RIP_W) >= M_END); FALLS_THROUGH }
	/* @asm: jae .Ltest_nest_count */
	:: d_step { INSN(X_JAE, PROLOGUE, "jae test_nest_count"); JUMP_IF(A_CMPB) }
	/* @asm: cmpq $__nmi_epilogue_end, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(X_CMP_END, PROLOGUE, "cmpq epilogue_end, RIP");
		cond = (WORD(RIP_W) < EPILOGUE_END); FALLS_THROUGH }
	/* @asm: jb .Lrestart */
	:: d_step { INSN(X_JB, PROLOGUE, "jb restart"); JUMP_IF(ON_EPILOGUE) }
	/* @asm: testb $3, (HWFRAME_CS + LATCHED_NMI_MCE_DISTANCE)(%rsp) */
	:: d_step { INSN(X_TESTB, PROLOGUE, "testb CS of #MC");
		cond = (WORD(3 * D + CS_W) != KERNEL_CS); FALLS_THROUGH }
	/* @asm: jnz .Ltest_nest_count */
	:: d_step { INSN(X_JNZ, PROLOGUE, "jnz test_nest_count"); JUMP_IF(ON_MC_OF_USER) }
	/* @asm: cmpq $__nmi_epilogue_begin, (HWFRAME_RIP + LATCHED_NMI_MCE_DISTANCE)(%rsp) */
	:: d_step { INSN(X_CMP_MC_RIP, PROLOGUE, "cmpq epilogue_begin, RIP of #MC (L9)");
		cond = (WORD(3 * D + RIP_W) < EPILOGUE_BEGIN); FALLS_THROUGH }
	/* @asm: jb .Ltest_nest_count */
	:: d_step { INSN(X_JB2, PROLOGUE, "jb test_nest_count"); JUMP_IF(ON_MC_ELSEWHERE) }
	/* @asm: cmpq $__nmi_epilogue_end, (HWFRAME_RIP + LATCHED_NMI_MCE_DISTANCE)(%rsp) */
	:: d_step { INSN(X_CMP_MC_RIP2, PROLOGUE, "cmpq epilogue_end, RIP of #MC (L9)");
		cond = (WORD(3 * D + RIP_W) >= EPILOGUE_END); FALLS_THROUGH }
	/* @asm: jae .Ltest_nest_count */
	:: d_step { INSN(X_JAE2, PROLOGUE, "jae test_nest_count");
		rip = (cond -> ON_MC_ELSEWHERE : ON_MC_OF_EPILOGUE); cond = 0 }
	/* @asm: incl LATCHED_NMI_LATCH(%rsp) */
	:: d_step { INSN(N_INCL, PROLOGUE, "nested: incl latch");
		if :: NESTED_LATCHES -> INCREMENT(latch) :: else fi; FALLS_THROUGH }
	/* @asm: iretq */
	:: d_step { INSN(N_IRETQ, PROLOGUE, "iretq"); iret(); REAL_FRAME_ENDS }
	/* @asm: incw LATCHED_NMI_RESTART(%rsp) */
	:: d_step { INSN(R_INCW, PROLOGUE, "restart: incw restart");
		INCREMENT(restart); FALLS_THROUGH }
	/* @asm: addq $LATCHED_NMI_DISTANCE, %rsp */
	:: d_step { INSN(R_ADDQ, PROLOGUE, "addq, to the frame on the LATCHED stack");
		rsp = rsp + D; FALLS_THROUGH }
	/* @asm: jmp .Lset_nest_count */
	:: d_step { INSN(R_JMP, PROLOGUE, "jmp set_nest_count (H4)"); rip = AFTER_RESTART }

	/* asm_exc_nmi_latched: REAL stack, NMIs masked (L1). */
	/* @asm: ENDBR */
	:: d_step { INSN(A_ENDBR, PROLOGUE, "endbr"); rip = NMI_LOOKS_FIRST_AT }
	/* @asm: testb $3, HWFRAME_CS(%rsp) */
	:: d_step { INSN(A_TESTB, PROLOGUE, "testb CS (L3)");
		cond = (WORD(CS_W) != KERNEL_CS); FALLS_THROUGH }
	/* @asm: jnz __nmi_user_prologue_begin */
	:: d_step { INSN(A_JNZ, PROLOGUE, "jnz user"); JUMP_IF(ON_USER) }
	/* @asm: cmpq $__nmi_epilogue_begin, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(A_CMPQ, PROLOGUE, "cmpq epilogue_begin, RIP");
		cond = (WORD(RIP_W) >= EPILOGUE_BEGIN); FALLS_THROUGH }
	/* @asm: jae .Lnear_epilogue */
	:: d_step { INSN(A_JAE, PROLOGUE, "jae near_epilogue"); JUMP_IF(X_CMP_MC_END) }
	/* @asm: cmpb $0, LATCHED_NMI_NEST_COUNT(%rsp) */
	:: d_step { INSN(A_CMPB, PROLOGUE, "cmpb $0, nest_count");
		cond = (nest_count != 0); FALLS_THROUGH }
	/* @asm: jne .Lnested */
	:: d_step { INSN(A_JNE, PROLOGUE, "jne nested"); JUMP_IF(ON_NESTED) }
	/* @asm: addq $(LATCHED_NMI_DISTANCE + HWFRAME_SIZE), %rsp */
	:: d_step { INSN(A_ADDQ, PROLOGUE, "addq, to the top of the LATCHED stack");
		if :: COUNT_EARLY -> SET_COUNT(1) :: else fi;
		rsp = rsp + D + FRAME; FALLS_THROUGH }
	/* @asm: pushq -(LATCHED_NMI_DISTANCE + 8)(%rsp) */
	:: d_step { INSN(A_PUSHQ, PROLOGUE, "pushq SS");
		CHECK_FRAMES(!needed[ON_LATCHED]); PUSH(WORD(-D - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 1, PROLOGUE, "pushq RSP"); PUSH(WORD(-D - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 2, PROLOGUE, "pushq RFLAGS");
		PUSH(WORD(-D - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 3, PROLOGUE, "pushq CS"); PUSH(WORD(-D - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 4, PROLOGUE, "pushq RIP"); PUSH(WORD(-D - 1)); FALLS_THROUGH }
	/* @asm: movb $1, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_DISTANCE)(%rsp) */
	:: d_step { INSN(A_MOVB, PROLOGUE, "movb $1, nest_count (L5)");
		SET_COUNT(FIRST_COUNT); REAL_FRAME_ENDS; needed[ON_LATCHED] = 1;
		FALLS_THROUGH }

	/* latched_nmi_handler: LATCHED stack, RSP at the one frame (L6). */
	/* @private: ASM_CLAC */
	/* @asm: cld */
	:: d_step { INSN(H_HANDLER, HANDLER, "clac; cld"); df = 0; FALLS_THROUGH }
	/* With CONFIG_DEBUG_ENTRY; the frame goes where the handler pushes its own. */
	/* @private: cmpb $1, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_DISTANCE)(%rsp) */
	/* @private: je .Lnest_count_is_1 */
	/* @private: ud2 */
	/* @private: pushq $0 */
	/* @private: pushq %rsp */
	/* @private: addq $8, (%rsp) */
	/* @private: pushfq */
	/* @private: pushq $__KERNEL_CS */
	/* @private: pushq $.Lnmis_unmasked */
	/* @asm: iretq */
	:: d_step { CHOICE(H_CLD, EVENTS, HANDLER, "DEBUG_ENTRY: iretq to itself");
		masked = 0; FALLS_THROUGH }
	:: d_step { INSN(H_CLD, HANDLER, "no DEBUG_ENTRY"); FALLS_THROUGH }
	/* @private: pushq $-1 */
	/* @private: call paranoid_entry */
	:: d_step { INSN(H_SAVE, HANDLER, "pushq $-1; paranoid_entry");
		PUSH(0); PUSH(rdx); rdx = SCRATCH; FALLS_THROUGH }
	/* @private: movq %rsp, %rdi */
	/* @asm: call exc_nmi_latched */
	:: d_step { INSN(H_CALL, HANDLER, "call exc_nmi_latched"); rip = K_WHERE }
	/* @private: IBRS_EXIT save_reg=%r15 */
	/* @private: PARANOID_RESTORE_CR3 scratch_reg=%r15 save_reg=%r14 */
	/* @private: ALTERNATIVE "jmp .Lrestore_gs", "", X86_FEATURE_FSGSBASE */
	/* @private: wrgsbase %rbx */
	/* @asm: POP_REGS */
	:: d_step { INSN(H_POP_REGS, HANDLER, "POP_REGS"); POP(rdx); FALLS_THROUGH }
	/* @asm: addq $8, %rsp */
	:: d_step { INSN(H_ADDQ, HANDLER, "addq $8, rsp"); rsp++; FALLS_THROUGH }

	/* __nmi_epilogue_begin (L8). */
	/* @asm: cmpl $0, (LATCHED_NMI_LATCH - LATCHED_NMI_DISTANCE)(%rsp) */
	:: d_step { INSN(E_CMPL, EPILOGUE, "cmpl $0, latch"); cond = (latch != 0); FALLS_THROUGH }
	/* @asm: jne latched_nmi_handler */
	:: d_step { INSN(E_JNE, EPILOGUE, "jne latched_nmi_handler"); JUMP_IF(ON_LATCH) }
	/* @asm: movb $0, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_DISTANCE)(%rsp) */
	:: d_step { INSN(E_MOVB, EPILOGUE, "movb $0, nest_count"); SET_COUNT(0); FALLS_THROUGH }
	/* @asm: iretq */
	:: d_step { INSN(E_IRETQ, EPILOGUE, "iretq"); needed[ON_LATCHED] = 0; iret() }
	/* __nmi_epilogue_end */
	/* @private: int3 */

	/* asm_exc_machine_check_latched: #MC stack (L9). */
	/* @asm: ENDBR */
	:: d_step { INSN(M_ENTRY, MC_CHECK, "endbr"); FALLS_THROUGH }
	/* @asm: cmpq $__nmi_epilogue_begin, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(M_CMPQ, MC_CHECK, "cmpq epilogue_begin, RIP");
		cond = (WORD(RIP_W) < MC_CHECK_BEGIN); FALLS_THROUGH }
	/* @asm: jb asm_exc_machine_check */
	:: d_step { INSN(M_JB, MC_CHECK, "jb out"); JUMP_IF(MC_STOCK_ENTRY) }
	/* @asm: cmpq $__nmi_epilogue_end, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(M_CMPQ2, MC_CHECK, "cmpq epilogue_end, RIP");
		cond = (WORD(RIP_W) >= EPILOGUE_END); FALLS_THROUGH }
	/* @asm: jae asm_exc_machine_check */
	:: d_step { INSN(M_JAE, MC_CHECK, "jae out"); JUMP_IF(MC_STOCK_ENTRY) }
	/* @asm: testb $3, HWFRAME_CS(%rsp) */
	:: d_step { INSN(M_TESTB, MC_CHECK, "testb CS (L3)");
		cond = (WORD(CS_W) != KERNEL_CS); FALLS_THROUGH }
	/* @asm: jnz asm_exc_machine_check */
	:: d_step { INSN(M_JNZ, MC_CHECK, "jnz out"); JUMP_IF(MC_CHECK_USER) }
	/* @asm: movb $1, (LATCHED_NMI_NEST_COUNT - LATCHED_NMI_MCE_DISTANCE)(%rsp) */
	:: d_step { INSN(M_MOVB, MC_CHECK, "movb $1, nest_count");
		if :: MC_CHECK_COUNT -> SET_COUNT(1) :: else fi; FALLS_THROUGH }
	/* @asm: movq $__nmi_epilogue_begin, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(M_MOVQ, MC_CHECK, "movq epilogue_begin, RIP");
		WORD(RIP_W) = MC_CHECK_RIP; FALLS_THROUGH }
	/* @asm: jmp asm_exc_machine_check */
	:: d_step { INSN(M_JMP, MC_CHECK, "jmp asm_exc_machine_check"); rip = MC_STOCK_ENTRY }
	/* __machine_check_latched_end */
	/* @private: int3 */

	/* __nmi_user_prologue_begin: REAL stack, or LATCHED after the fix-up (L11). */
	/* @private: ASM_CLAC */
	/* @asm: cld */
	:: d_step { INSN(U_CLD, USER_NMI, "clac; cld"); df = 0; FALLS_THROUGH }
	/* @asm: pushq %rdx */
	:: d_step { INSN(U_PUSHQ, USER_NMI, "pushq rdx"); PUSH(rdx); FALLS_THROUGH }
	/* @private: swapgs */
	/* @private: FENCE_SWAPGS_USER_ENTRY */
	/* @asm: SWITCH_TO_KERNEL_CR3 scratch_reg=%rdx */
	:: d_step { INSN(U_SWAPGS, USER_NMI, "swapgs; CR3, by way of rdx");
		rdx = SCRATCH; FALLS_THROUGH }
	/* @asm: movq %rsp, %rdx */
	:: d_step { INSN(U_SAVE_RSP, USER_NMI, "movq rsp, rdx"); rdx = rsp; FALLS_THROUGH }
	/* @asm: movq PER_CPU_VAR(pcpu_hot + X86_top_of_stack), %rsp */
	:: d_step { INSN(U_LOAD_RSP, USER_NMI, "movq thread stack, rsp");
		rsp = THREAD_TOP; FALLS_THROUGH }
	/* @asm: pushq 5*8(%rdx) */
	:: d_step { INSN(U_PUSH_FRAME, USER_NMI, "pushq SS"); PUSH(FROM_RDX(5)); FALLS_THROUGH }
	/* @asm: pushq 4*8(%rdx) */
	:: d_step { INSN(U_PUSH_FRAME + 1, USER_NMI, "pushq RSP");
		PUSH(FROM_RDX(4)); FALLS_THROUGH }
	/* @asm: pushq 3*8(%rdx) */
	:: d_step { INSN(U_PUSH_FRAME + 2, USER_NMI, "pushq RFLAGS");
		PUSH(FROM_RDX(3)); FALLS_THROUGH }
	/* @asm: pushq 2*8(%rdx) */
	:: d_step { INSN(U_PUSH_FRAME + 3, USER_NMI, "pushq CS");
		PUSH(FROM_RDX(2)); FALLS_THROUGH }
	/* @asm: pushq 1*8(%rdx) */
	:: d_step { INSN(U_PUSH_FRAME + 4, USER_NMI, "pushq RIP");
		PUSH(FROM_RDX(1)); FALLS_THROUGH }
	/* @asm: pushq $-1 */
	:: d_step { INSN(U_PUSH_ORIG, USER_NMI, "pushq $-1"); PUSH(0); FALLS_THROUGH }
	/* @asm: PUSH_AND_CLEAR_REGS rdx=(%rdx) */
	:: d_step { INSN(U_PUSH_REGS, USER_NMI, "PUSH_AND_CLEAR_REGS, push");
		PUSH(FROM_RDX(0)); FALLS_THROUGH }
	:: d_step { INSN(U_CLEAR_REGS, USER_NMI, "PUSH_AND_CLEAR_REGS, clear");
		rdx = SCRATCH; USER_FRAME_ENDS; FALLS_THROUGH }
	/* @private: ENCODE_FRAME_POINTER */
	/* @private: IBRS_ENTER */
	/* @private: UNTRAIN_RET */
	/* @private: movq %rsp, %rdi */
	/* @asm: call exc_nmi_latched */
	:: d_step { INSN(U_CALL, USER_NMI, "call exc_nmi_latched"); rip = K_WHERE }
	/* @asm: jmp swapgs_restore_regs_and_return_to_usermode */
	:: d_step { INSN(U_POP_REGS, USER_NMI, "POP_REGS"); POP(rdx); rsp++; FALLS_THROUGH }
	:: d_step { INSN(U_IRETQ, USER_NMI, "iretq"); iret() }
	/* @private: testl %ebx, %ebx */
	/* @private: jnz .Lrestore_regs */
	/* @private: swapgs */
	/* @private: jmp .Lrestore_regs */

	/* exc_nmi_latched(): the dispatcher, on either stack (L7, L12). */
	MAY_FAULT(K_WHERE, DISPATCHER)
	:: d_step { INSN(K_WHERE, DISPATCHER, "user_mode(regs)?");
		rip = (WORD(2 + CS_W) != KERNEL_CS -> K_SET_COUNT : AFTER_COUNT) }
	/* @c: WRITE_ONCE(state->nest_count, 1) */
	:: d_step { INSN(K_SET_COUNT, DISPATCHER, "nest_count = 1");
		SET_COUNT(USER_COUNT); rip = AFTER_COUNT }
	MAY_FAULT(K_TAKE, DISPATCHER)
	/* @c: READ_ONCE(state->latch) */
	:: d_step { INSN(K_TAKE, DISPATCHER, "latch?");
		rip = (latch -> K_XCHG : K_TAKE2) }
	/* @c: READ_ONCE(state->restart) */
	:: d_step { INSN(K_TAKE2, DISPATCHER, "restart?");
		rip = (restart -> K_XCHG : AFTER_TAKE) }
	/* @c: arch_xchg(&state->latch, 0) */
	:: d_step { INSN(K_XCHG, DISPATCHER, "xchg latch, 0"); latch = 0; rip = K_XCHG2 }
	/* @c: arch_xchg(&state->restart, 0) */
	:: d_step { INSN(K_XCHG2, DISPATCHER, "xchg restart, 0"); restart = 0; rip = AFTER_TAKE }
	/* @c: exc_nmi(regs) */
	/* @c: exc_nmi(regs) */
	:: d_step { INSN(K_BEGIN, DISPATCHER, "exc_nmi() begins"); HANDLER_BEGINS; rip = K_BODY }
	MAY_FAULT(K_BODY, DISPATCHER)
	:: d_step { INSN(K_BODY, DISPATCHER, "exc_nmi() runs"); rip = K_END }
	:: d_step { INSN(K_END, DISPATCHER, "exc_nmi() ends"); HANDLER_ENDS; rip = AFTER_END }
	:: d_step { INSN(K_WHENCE, DISPATCHER, "user_mode(regs)?");
		rip = (WORD(2 + CS_W) != KERNEL_CS -> AFTER_WHENCE : H_POP_REGS) }
	/* @c: WRITE_ONCE(state->nest_count, 0) */
	:: d_step { INSN(K_CLEAR_COUNT, DISPATCHER, "nest_count = 0"); SET_COUNT(0);
		rip = AFTER_CLEAR }
	/* @c: READ_ONCE(state->latch) */
	:: d_step { INSN(K_TEST_LATCH, DISPATCHER, "latch?"); cond = (latch != 0);
		rip = AFTER_TEST }
	MAY_FAULT(K_LOOP, DISPATCHER)
	:: d_step { INSN(K_LOOP, DISPATCHER, "again, or return");
		rip = (cond -> USER_LATCHED : U_POP_REGS); cond = 0 }

	/* latched_nmi_fixup() in #DB: #MC may come in the middle of its copy. */
	/* @c: READ_ONCE(real->dx) */
	/* @c: READ_ONCE(real->ip) */
	/* @c: READ_ONCE(real->cs) */
	/* @c: READ_ONCE(real->flags) */
	/* @c: READ_ONCE(real->sp) */
	/* @c: READ_ONCE(real->ss) */
	:: d_step { INSN(D_LOAD, FIXUP, "load the REAL frame");
		mem[LOADED - 1] = mem[REAL_TOP - FRAME - 1];
		WRITE_FRAME(LOADED, REAL(RIP_W), REAL(CS_W), REAL(FLAGS_W), REAL(RSP_W),
			    REAL(SS_W));
		rip = AFTER_LOAD }
	/* @c: READ_ONCE(state->nest_count) */
	:: d_step { INSN(D_TEST, FIXUP, "nest_count?");
		rip = (nest_count -> D_POINTERS : AFTER_D_TEST) }
	/* @c: WRITE_ONCE(latched->dx, dx) */
	/* @c: WRITE_ONCE(latched->ip, ip) */
	/* @c: WRITE_ONCE(latched->cs, cs) */
	/* @c: WRITE_ONCE(latched->flags, flags) */
	/* @c: WRITE_ONCE(latched->sp, sp) */
	/* @c: WRITE_ONCE(latched->ss, ss) */
	:: d_step { INSN(D_STORE, FIXUP, "store it on the LATCHED stack");
		mem[LATCHED_TOP - FRAME - 1] = mem[LOADED - 1];
		WRITE_FRAME(LATCHED_TOP - FRAME, mem[LOADED + RIP_W], mem[LOADED + CS_W],
			    mem[LOADED + FLAGS_W], mem[LOADED + RSP_W], mem[LOADED + SS_W]);
		rip = D_COUNT }
	/* @c: WRITE_ONCE(state->nest_count, 1) */
	:: d_step { INSN(D_COUNT, FIXUP, "nest_count = 1");
		SET_COUNT(FIXUP_COUNT); needed[ON_LATCHED] = 1; REAL_FRAME_ENDS;
		rip = D_POINTERS }
	:: d_step { INSN(D_POINTERS, FIXUP, "move the pointers to the copy");
		mem[LOADED - 1] = 0; WRITE_FRAME(LOADED, 0, 0, 0, 0, 0);
		fixup_pointers(DB_TOP - FRAME); rip = DB_BODY }

	FAULT_OPTIONS
	MC_OPTIONS
	DB_OPTIONS
	od
}
