/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This project's stub, arch/x86/entry/entry_64_latched_nmi.S. Its C part is in
 * latched-fixup.pml. L1 ... L14 are the facts in the header of the former.
 *
 * One option is one instruction. "@asm:" quotes the instruction, or the line of
 * the .S file that becomes some, and "@label:" the label in front of it; where
 * nobody but the context itself can see what an instruction does (saving
 * registers, CR3, GS), several are one step and the others are "@private:".
 * check-steps compares the quotes with the file, in both directions.
 */

/* What is on the REAL stack: the frame, RDX, nest_count, latch. */
#define DISTANCE	(FRAME + 3)
/* ... and below: the frame, ORIG_RAX, RDX, a fault's frame, the guard page. */
#define NMI_WORDS	(DISTANCE + FRAME + 2 + FRAME + 1)
#define LATCHED_TOP	(NMI_TOP - DISTANCE)
/* #DF: the frame, the other registers, the guard page. */
#define DF_WORDS	(2 * (FRAME + 1) + 1)
/* #MC: at the bottom, what it returns to, a frame and RDX. */
#define MC_LENT		(FRAME + 1)

/* Where the frames are. */
#define REAL		(NMI_TOP - FRAME)
#define LATCHED		(LATCHED_TOP - FRAME)
#define PARKED		(DF_TOP - FRAME)
#define DEBUG		(DB_TOP - FRAME)
#define MACHINE_CHECK	(MCE_TOP - FRAME)

/* In words: from REAL, from one frame to another, from pt_regs. */
#define DX_W		(-1)
#define NEST_COUNT_W	(-2)
#define LATCH_W		(-3)
#define LATCHED_TO_REAL	DISTANCE
#define REGS_TO_REAL	(2 + DISTANCE)
#define REAL_TO_MCE	(MCE_TOP - NMI_TOP)
#define MCE_TO_REAL	(NMI_TOP - MCE_TOP)
#define DB_TO_REAL	(NMI_TOP - DB_TOP)
#define DB_TO_PARKED	(DF_TOP - DB_TOP)

#define nest_count	mem[REAL + NEST_COUNT_W]
#define latch		mem[REAL + LATCH_W]

/*
 * What the mutants change. A mutant is one -D on the command line of spin;
 * the file "verdicts" lists them.
 */
#ifndef EPILOGUE_BEGIN
#define EPILOGUE_BEGIN	E_CMPL
#endif
#ifndef EPILOGUE_END
#define EPILOGUE_END	E_INT3
#endif
#ifndef ON_FAR
#define ON_FAR		A_BTSL
#endif
#ifndef ON_NEAR
#define ON_NEAR		X_CMP_BEGIN
#endif
#ifndef ON_BELOW
#define ON_BELOW	A_BTSL
#endif
#ifndef ON_ABOVE
#define ON_ABOVE	A_BTSL
#endif
#ifndef ON_EPILOGUE
#define ON_EPILOGUE	S_MOVL		/* Where an NMI in the epilogue goes. */
#endif
#ifndef ON_MC_OF_EPILOGUE
#define ON_MC_OF_EPILOGUE N_INCL	/* An NMI in the check of such an #MC. */
#endif
#ifndef ON_MC_OF_USER
#define ON_MC_OF_USER	A_BTSL		/* An NMI in the check of #MC from user. */
#endif
#ifndef ON_MC_ELSEWHERE
#define ON_MC_ELSEWHERE	A_BTSL		/* An NMI in the check of another #MC. */
#endif
#ifndef ON_NESTED
#define ON_NESTED	N_INCL
#endif
#ifndef NESTED_LATCHES
#define NESTED_LATCHES	1
#endif
#ifndef RESTART_COUNT
#define RESTART_COUNT	1
#endif
#ifndef RESTART_COUNTED
#define RESTART_COUNTED	1
#endif
#ifndef BTSL_SETS
#define BTSL_SETS	1
#endif
#ifndef ON_USER
#define ON_USER		U_CLD
#endif
#ifndef NMI_LOOKS_FIRST_AT
#define NMI_LOOKS_FIRST_AT A_TESTB
#endif
#ifndef CLD
#define CLD		1
#endif
#ifndef AFTER_SAVE_AGAIN
#define AFTER_SAVE_AGAIN T_XORL
#endif
#ifndef AFTER_TAKE
#define AFTER_TAKE	H_RUN
#endif
#ifndef XCHGL_CLEARS
#define XCHGL_CLEARS	1
#endif
#ifndef ADDL_COUNTS
#define ADDL_COUNTS	1
#endif
#ifndef ON_LATCH
#define ON_LATCH	T_XORL		/* After the handlers have run. */
#endif
#ifndef ON_LATCH_AT_END
#define ON_LATCH_AT_END	R_SAVE	/* In the epilogue. */
#endif
#ifndef MC_ENTRY
#define MC_ENTRY	M_ENDBR
#endif
#ifndef MC_CHECK_COUNT
#define MC_CHECK_COUNT	1
#endif
#ifndef MC_CHECK_USER
#define MC_CHECK_USER	MC_STOCK_ENTRY	/* #MC from user mode. */
#endif
#ifndef DB_ENTRY
#define DB_ENTRY	G_ENDBR
#endif
#ifndef DB_CHECK_USER
#define DB_CHECK_USER	DB_SAVE		/* #DB from user mode. */
#endif
#ifndef DB_DROPS
#define DB_DROPS	G_ADDQ		/* #DB at the first instruction of an NMI. */
#endif
#ifndef DB_MOVES_DX
#define DB_MOVES_DX	1
#endif

/* ------------------------------------------------------- text, in its order */

/* __nmi_user_prologue_begin ... __nmi_user_prologue_end */
#define U_CLD		10
#define U_PUSHQ		11
#define U_SWAPGS	12
#define U_SAVE_RSP	13
#define U_LOAD_RSP	14	/* __nmi_user_prologue_rdx */
#define U_PUSH_FRAME	15	/* Five of them. */
#define U_PUSH_ORIG	20
#define U_PUSH_DX	21
#define U_PUSH_OTHERS	22
#define U_END		23
#define U_CLEAR_REGS	23
#define U_CALL		24

/* asm_exc_nmi_latched */
#define A_ENDBR		25
#define A_TESTB		26
#define A_JNZ		27
#define A_TESTL		28
#define A_JZ		29
#define A_BTSL		30	/* .Ltest_nest_count */
#define A_JC		31	/* __nmi_prologue_decided */
#define A_SUBQ		32
#define A_PUSHQ		33	/* Five of them. */

/* latched_nmi_handler */
#define H_CLD		38
#define H_DEBUG		39
#define H_SAVE		40
#define H_RUN		41	/* .Lrun_handlers */
#define H_CMPL		42
#define H_JNE		43
#define H_POP_REGS	44
#define H_ADDQ		45

/* __nmi_epilogue_begin ... __nmi_epilogue_end */
#define E_CMPL		46
#define E_JNE		47
#define E_MOVL		48
#define E_IRETQ		49
#define E_INT3		50

/* asm_exc_machine_check_latched ... __machine_check_latched_end */
#define M_ENDBR		51
#define M_TESTL		52
#define M_JNZ_FAR	53
#define M_CMPQ		54
#define M_JB		55
#define M_CMPQ2		56
#define M_JAE		57
#define M_TESTB		58
#define M_JNZ		59
#define M_MOVL		60
#define M_JMP		61
#define M_END		62

/* asm_exc_debug_latched ... __debug_latched_end */
#define G_ENDBR		63
#define G_TESTL		64
#define G_JNZ_FAR	65
#define G_TESTB		66
#define G_JNZ		67
#define G_CMP_FIRST	68
#define G_JE		69
#define G_CMPQ		70
#define G_JB		71
#define G_CMPQ2		72
#define G_JAE		73
#define G_PUSHQ		74	/* Six times pushq and popq. */
#define G_POPQ		75
#define G_LEAQ		86
#define G_JMP		87
#define G_ADDQ		88	/* .Ldrop_debug */
#define G_JMP_NMI	89
#define G_END		90

/* __nmi_prologue_begin ... __nmi_prologue_end: the rare decisions. */
#define X_CMP_BEGIN	91	/* .Lnear */
#define X_JB_BELOW	92
#define X_CMP_MC_END	93
#define X_JAE_ABOVE	94
#define X_CMP_END	95
#define X_JB		96
#define X_TESTB		97
#define X_JNZ		98
#define X_CMP_MC_RIP	99
#define X_JB2		100
#define X_CMP_MC_RIP2	101
#define X_JAE2		102
#define N_INCL		103	/* .Lnested */
#define N_IRETQ		104	/* __nmi_nested_iret */
#define S_MOVL		105	/* .Lrestart */
#define S_JMP_OUT	106
#define X_END		107

/* latched_nmi_repeat ... __latched_nmi_text_end */
#define R_SAVE		107
#define T_XORL		108	/* .Ltake_latch */
#define T_XCHGL		109
#define T_ADDL		110
#define T_JMP		111
#define S_INCL		112	/* .Lrestarted */
#define S_SUBQ		113
#define S_JMP		114
#define TEXT_END	115

/* swapgs_restore_regs_and_return_to_usermode */
#define U_POP_REGS	170
#define U_IRETQ		171

#define NMI_ENTRY	A_ENDBR
/*
 * The stub has just touched memory of the task, or per-CPU variables (H6). Or user
 * code has, and #DB was held back until an NMI was delivered (L14).
 */
#define WATCHABLE	((rip > U_LOAD_RSP && rip <= U_END) || rip == A_ENDBR)
#define IRET_TO_USER	(rip == U_IRETQ)
/* User code that looks as if it were in the epilogue, or the user prologue. */
#define EVIL_RIP	E_MOVL
#define EVIL_RIP2	U_PUSH_FRAME
/* What old frames say. */
#define MC_STALE_RIP	E_MOVL
#define DB_STALE_RIP	U_PUSH_FRAME

#define BEHIND_PROLOGUE	(!IN_PROLOGUE(rip) && !IN_USER_PROLOGUE(rip))

#define MORE_AT_REST	(nmi_state == NMI_NOT_RUNNING)
byte nmi_state;

/*
 * What the stub counts, it counts exactly: each NMI that nests is latched once,
 * each restart is counted once, and what is taken from the latch is counted.
 */
#define TO_BE_COUNTED \
	if \
	:: needed[ON_LATCHED] && rip >= E_CMPL && rip <= E_IRETQ -> \
		CHECK_EXACT(!restart_uncounted); restart_uncounted = 1 \
	:: needed[ON_LATCHED] && !(rip >= E_CMPL && rip <= E_IRETQ) -> \
		CHECK_EXACT(!nested_uncounted); nested_uncounted = 1 \
	:: else \
	fi
#define ALL_COUNTED	(!nested_uncounted && !restart_uncounted && !take_uncounted)
bit nested_uncounted, restart_uncounted, take_uncounted;

/* latched_nmi_fixup() and latched_nmi_move(). */
#define MC_FIXUP	if :: FIXUP_IN_MC -> fixup() :: else fi
#define MC_MOVE		move_to()

#include "machine.pml"

/* Nobody asks for more than "zero or not". */
#define INCREMENT_LATCH \
	CHECK_EXACT(nested_uncounted); nested_uncounted = 0; latch = 1
#define COUNT_RESTART \
	CHECK_EXACT(restart_uncounted); restart_uncounted = 0

/* An RIP that testl $LATCHED_NMI_FAR does not dismiss (L10). */
#define NEAR(ip)	(((ip) >= U_CLD && (ip) < TEXT_END) || (ip) == OUT_BELOW || \
			 (ip) == OUT_ABOVE)

#define IN_PROLOGUE(ip)		(((ip) >= A_ENDBR && (ip) < H_CLD) || \
				 ((ip) >= X_CMP_BEGIN && (ip) < X_END))
#define IN_USER_PROLOGUE(ip)	((ip) >= U_CLD && (ip) < U_END)
#define IN_EPILOGUE(ip)		((ip) >= EPILOGUE_BEGIN && (ip) < EPILOGUE_END)

/* Whichever stack it was read from. */
#define USER_FRAME_ENDS \
	if \
	:: needed[ON_REAL] -> REAL_FRAME_ENDS \
	:: else -> needed[ON_PARKED] = 0; mem[PARKED + DX_W] = 0; POISON(PARKED) \
	fi

#include "latched-fixup.pml"

/* --------------------------------------------------------- the instructions */

#define PROLOGUE	"NMI:     "
#define HANDLER		"handler: "
#define EPILOGUE	"epilogue "
#define MC_CHECK	"#MC:     "
#define DB_CHECK	"#DB:     "
#define USER_NMI	"NMI:     "

#define FALLS_THROUGH	rip++
#define JUMP_IF(label)	rip = (cond -> (label) : rip + 1); cond = 0

#define SET_COUNT_AT(offset, v) \
	WORD((offset) + NEST_COUNT_W) = v; CHECK_COUNT(nest_count <= 1)

#define FROM_RDX(words)	mem[IN_MEMORY(rdx + (words))]

/* One word of the frame that RDX points at, by way of the #DB stack. */
#define PARK_WORD(word, what) \
	:: d_step { INSN(G_PUSHQ + 2 * word, DB_CHECK, "pushq "); printf(what); printf("\n"); \
		CHECK_FRAMES(!needed[ON_PARKED] || rdx == PARKED + DX_W); \
		PUSH(FROM_RDX(word)); FALLS_THROUGH } \
	:: d_step { INSN(G_POPQ + 2 * word, DB_CHECK, "popq, to the #DF stack"); \
		POP(mem[rsp + 1 + DB_TO_PARKED + DX_W + word]); FALLS_THROUGH }

active proctype cpu()
{
	d_step { POWER_ON }
	do
	EVENT_OPTIONS

	/* NMI from user mode: REAL stack, or #DF stack after the fix-up (L12). */
	/* @label: __nmi_user_prologue_begin */
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
	/* @label: __nmi_user_prologue_rdx */
	/* @asm: movq PER_CPU_VAR(cpu_current_top_of_stack), %rsp */
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
	/* @asm: PUSH_REGS rdx=(%rdx) */
	:: d_step { INSN(U_PUSH_DX, USER_NMI, "PUSH_REGS, with user RDX");
		PUSH(FROM_RDX(0)); USER_FRAME_ENDS; FALLS_THROUGH }
	:: d_step { INSN(U_PUSH_OTHERS, USER_NMI, "PUSH_REGS, the rest"); FALLS_THROUGH }
	/* @label: __nmi_user_prologue_end */
	/* @asm: CLEAR_REGS */
	:: d_step { INSN(U_CLEAR_REGS, USER_NMI, "CLEAR_REGS"); rdx = SCRATCH; FALLS_THROUGH }
	/* @private: ENCODE_FRAME_POINTER */
	/* @private: IBRS_ENTER */
	/* @private: UNTRAIN_RET */
	/* @private: movq %rsp, %rdi */
	/* @asm: call exc_nmi */
	:: d_step { INSN(U_CALL, USER_NMI, "call exc_nmi"); rip = C_TEST }
	/* @asm: jmp swapgs_restore_regs_and_return_to_usermode */
	:: d_step { INSN(U_POP_REGS, USER_NMI, "POP_REGS"); POP(rdx); rsp++; FALLS_THROUGH }
	:: d_step { INSN(U_IRETQ, USER_NMI, "iretq"); iret() }

	/* The real NMI handler: REAL stack, NMIs masked (L1). */
	/* @label: asm_exc_nmi_latched */
	/* @asm: ENDBR */
	:: d_step { INSN(A_ENDBR, PROLOGUE, "endbr"); rip = NMI_LOOKS_FIRST_AT }
	/* @asm: testb $3, HWFRAME_CS(%rsp) */
	:: d_step { INSN(A_TESTB, PROLOGUE, "testb CS (L3)");
		cond = (WORD(CS_W) != KERNEL_CS); FALLS_THROUGH }
	/* @asm: jnz __nmi_user_prologue_begin */
	:: d_step { INSN(A_JNZ, PROLOGUE, "jnz user"); JUMP_IF(ON_USER) }
	/* @asm: testl $LATCHED_NMI_FAR, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(A_TESTL, PROLOGUE, "testl FAR, RIP (L10)");
		cond = NEAR(WORD(RIP_W)); FALLS_THROUGH }
	/* @asm: jz .Lnear */
	:: d_step { INSN(A_JZ, PROLOGUE, "jz near");
		rip = (cond -> ON_NEAR : ON_FAR); cond = 0 }
	/* @label: .Ltest_nest_count */
	/* @asm: btsl $0, LATCHED_NMI_NEST_COUNT(%rsp) */
	:: d_step { INSN(A_BTSL, PROLOGUE, "btsl $0, nest_count (L5)");
		cond = (WORD(NEST_COUNT_W) != 0);
		if :: BTSL_SETS -> SET_COUNT_AT(0, 1) :: else fi; FALLS_THROUGH }
	/* @label: __nmi_prologue_decided */
	/* @asm: jc .Lnested */
	:: d_step { INSN(A_JC, PROLOGUE, "jc nested"); JUMP_IF(ON_NESTED) }
	/* @asm: subq $(LATCHED_NMI_DISTANCE - HWFRAME_SIZE), %rsp */
	:: d_step { INSN(A_SUBQ, PROLOGUE, "subq, to the top of the LATCHED stack");
		rsp = rsp - (DISTANCE - FRAME); FALLS_THROUGH }
	/* @private: .rept 5 */
	/* @asm: pushq (LATCHED_NMI_DISTANCE - 8)(%rsp) */
	/* @private: .endr */
	:: d_step { INSN(A_PUSHQ, PROLOGUE, "pushq SS");
		CHECK_FRAMES(!needed[ON_LATCHED]); PUSH(WORD(DISTANCE - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 1, PROLOGUE, "pushq RSP");
		PUSH(WORD(DISTANCE - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 2, PROLOGUE, "pushq RFLAGS");
		PUSH(WORD(DISTANCE - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 3, PROLOGUE, "pushq CS");
		PUSH(WORD(DISTANCE - 1)); FALLS_THROUGH }
	:: d_step { INSN(A_PUSHQ + 4, PROLOGUE, "pushq RIP");
		PUSH(WORD(DISTANCE - 1)); needed[ON_LATCHED] = 1; REAL_FRAME_ENDS;
		FALLS_THROUGH }

	/* The latched NMI handler: LATCHED stack, RSP at the one frame (L6). */
	/* @label: latched_nmi_handler */
	/* @private: ASM_CLAC */
	/* @asm: cld */
	:: d_step { INSN(H_CLD, HANDLER, "clac; cld");
		df = (CLD -> 0 : df); FALLS_THROUGH }
	/* With CONFIG_DEBUG_ENTRY; the frame goes where the handler pushes its own. */
	/* @private: cmpl $1, (LATCHED_TO_REAL + LATCHED_NMI_NEST_COUNT)(%rsp) */
	/* @private: je .Lnest_count_is_1 */
	/* @private: ud2 */
	/* @label: .Lnest_count_is_1 */
	/* @private: pushq $0 */
	/* @private: pushq %rsp */
	/* @private: addq $8, (%rsp) */
	/* @private: pushfq */
	/* @private: pushq $__KERNEL_CS */
	/* @private: pushq $.Lnmis_unmasked */
	/* @asm: iretq */
	:: d_step { CHOICE(H_DEBUG, EVENTS && EARLY, HANDLER, "DEBUG_ENTRY: iretq to itself");
		CHECK_COUNT(WORD(LATCHED_TO_REAL + NEST_COUNT_W) == 1);
		masked = 0; FALLS_THROUGH }
	:: d_step { INSN(H_DEBUG, HANDLER, "no DEBUG_ENTRY"); FALLS_THROUGH }
	/* @label: .Lnmis_unmasked */
	/* @private: pushq $-1 */
	/* @asm: call paranoid_entry */
	:: d_step { INSN(H_SAVE, HANDLER, "pushq $-1; paranoid_entry");
		PUSH(0); PUSH(rdx); rdx = SCRATCH; FALLS_THROUGH }
	/* @label: .Lrun_handlers */
	/* @private: movq %rsp, %rdi */
	/* @asm: call exc_nmi */
	:: d_step { INSN(H_RUN, HANDLER, "call exc_nmi"); rip = C_TEST }
	/* @asm: cmpl $0, (REGS_TO_REAL + LATCHED_NMI_LATCH)(%rsp) */
	:: d_step { INSN(H_CMPL, HANDLER, "cmpl $0, latch");
		cond = (WORD(REGS_TO_REAL + LATCH_W) != 0); FALLS_THROUGH }
	/* @asm: jne .Ltake_latch */
	:: d_step { INSN(H_JNE, HANDLER, "jne take_latch"); JUMP_IF(ON_LATCH) }
	/* @private: IBRS_EXIT save_reg=%r15 */
	/* @private: PARANOID_RESTORE_CR3 scratch_reg=%r15 save_reg=%r14 */
	/* @private: ALTERNATIVE "jmp .Lrestore_gs", "wrgsbase %rbx", X86_FEATURE_FSGSBASE */
	/* @label: .Lrestore_regs */
	/* @asm: POP_REGS */
	:: d_step { INSN(H_POP_REGS, HANDLER, "POP_REGS"); POP(rdx); FALLS_THROUGH }
	/* @asm: addq $8, %rsp */
	:: d_step { INSN(H_ADDQ, HANDLER, "addq $8, rsp"); rsp++; FALLS_THROUGH }

	/* The epilogue (L8): LATCHED stack, RSP at the one frame (L6). */
	/* @label: __nmi_epilogue_begin */
	/* @asm: cmpl $0, (LATCHED_TO_REAL + LATCHED_NMI_LATCH)(%rsp) */
	:: d_step { INSN(E_CMPL, EPILOGUE, "cmpl $0, latch");
		cond = (WORD(LATCHED_TO_REAL + LATCH_W) != 0); FALLS_THROUGH }
	/* @asm: jne latched_nmi_repeat */
	:: d_step { INSN(E_JNE, EPILOGUE, "jne latched_nmi_repeat"); JUMP_IF(ON_LATCH_AT_END) }
	/* @asm: movl $0, (LATCHED_TO_REAL + LATCHED_NMI_NEST_COUNT)(%rsp) */
	:: d_step { INSN(E_MOVL, EPILOGUE, "movl $0, nest_count");
		SET_COUNT_AT(LATCHED_TO_REAL, 0); FALLS_THROUGH }
	/* @asm: iretq */
	:: d_step { INSN(E_IRETQ, EPILOGUE, "iretq"); needed[ON_LATCHED] = 0; iret() }
	/* @label: __nmi_epilogue_end */
	/* @private: int3 */

	/* The #MC entry check (L9): #MC stack. */
	/* @label: asm_exc_machine_check_latched */
	/* @asm: ENDBR */
	:: d_step { INSN(M_ENDBR, MC_CHECK, "endbr"); FALLS_THROUGH }
	/* @asm: testl $LATCHED_NMI_FAR, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(M_TESTL, MC_CHECK, "testl FAR, RIP (L10)");
		cond = !NEAR(WORD(RIP_W)); FALLS_THROUGH }
	/* @asm: jnz asm_exc_machine_check */
	:: d_step { INSN(M_JNZ_FAR, MC_CHECK, "jnz out"); JUMP_IF(MC_STOCK_ENTRY) }
	/* @asm: cmpq $__nmi_epilogue_begin, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(M_CMPQ, MC_CHECK, "cmpq epilogue_begin, RIP");
		cond = (WORD(RIP_W) < EPILOGUE_BEGIN); FALLS_THROUGH }
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
	/* @asm: movl $1, (MCE_TO_REAL + LATCHED_NMI_NEST_COUNT)(%rsp) */
	:: d_step { INSN(M_MOVL, MC_CHECK, "movl $1, nest_count");
		if :: MC_CHECK_COUNT -> SET_COUNT_AT(MCE_TO_REAL, 1) :: else fi;
		FALLS_THROUGH }
	/* @asm: jmp asm_exc_machine_check */
	:: d_step { INSN(M_JMP, MC_CHECK, "jmp asm_exc_machine_check"); rip = MC_STOCK_ENTRY }
	/* @label: __machine_check_latched_end */
	/* @private: int3 */

	/* The #DB entry check (L13): #DB stack. */
	/* @label: asm_exc_debug_latched */
	/* @asm: ENDBR */
	:: d_step { INSN(G_ENDBR, DB_CHECK, "endbr"); FALLS_THROUGH }
	/* @asm: testl $LATCHED_NMI_FAR, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(G_TESTL, DB_CHECK, "testl FAR, RIP (L10)");
		cond = !NEAR(WORD(RIP_W)); FALLS_THROUGH }
	/* @asm: jnz asm_exc_debug */
	:: d_step { INSN(G_JNZ_FAR, DB_CHECK, "jnz out"); JUMP_IF(DB_SAVE) }
	/* @asm: testb $3, HWFRAME_CS(%rsp) */
	:: d_step { INSN(G_TESTB, DB_CHECK, "testb CS (L3)");
		cond = (WORD(CS_W) != KERNEL_CS); FALLS_THROUGH }
	/* @asm: jnz asm_exc_debug */
	:: d_step { INSN(G_JNZ, DB_CHECK, "jnz out"); JUMP_IF(DB_CHECK_USER) }
	/* @asm: cmpq $asm_exc_nmi_latched, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(G_CMP_FIRST, DB_CHECK, "cmpq asm_exc_nmi_latched, RIP");
		cond = (WORD(RIP_W) == A_ENDBR); FALLS_THROUGH }
	/* @asm: je .Ldrop_debug */
	:: d_step { INSN(G_JE, DB_CHECK, "je drop_debug"); JUMP_IF(DB_DROPS) }
	/* @asm: cmpq $__nmi_user_prologue_rdx, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(G_CMPQ, DB_CHECK, "cmpq user_prologue_rdx, RIP");
		cond = (WORD(RIP_W) < U_LOAD_RSP); FALLS_THROUGH }
	/* @asm: jb asm_exc_debug */
	:: d_step { INSN(G_JB, DB_CHECK, "jb out"); JUMP_IF(DB_SAVE) }
	/* @asm: cmpq $__nmi_user_prologue_end, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(G_CMPQ2, DB_CHECK, "cmpq user_prologue_end, RIP");
		cond = (WORD(RIP_W) >= U_END); FALLS_THROUGH }
	/* @asm: jae asm_exc_debug */
	:: d_step { INSN(G_JAE, DB_CHECK, "jae out"); JUMP_IF(DB_SAVE) }
	/* @private: .irp word, 0, 1, 2, 3, 4, 5 */
	/* @asm: pushq \word*8(%rdx) */
	/* @asm: popq (DB_TO_PARKED + LATCHED_NMI_DX + \word*8)(%rsp) */
	/* @private: .endr */
	PARK_WORD(0, "RDX")
	PARK_WORD(1, "RIP")
	PARK_WORD(2, "CS")
	PARK_WORD(3, "RFLAGS")
	PARK_WORD(4, "RSP")
	PARK_WORD(5, "SS")
	/* @asm: leaq (DB_TO_PARKED + LATCHED_NMI_DX)(%rsp), %rdx */
	:: d_step { INSN(G_LEAQ, DB_CHECK, "leaq the parked frame, rdx (L12)");
		if
		:: rdx == REAL + DX_W ->
			needed[ON_PARKED] = needed[ON_REAL]; REAL_FRAME_ENDS
		:: else
		fi;
		if :: DB_MOVES_DX -> rdx = rsp + DB_TO_PARKED + DX_W :: else fi;
		FALLS_THROUGH }
	/* @asm: jmp asm_exc_debug */
	:: d_step { INSN(G_JMP, DB_CHECK, "jmp asm_exc_debug"); rip = DB_SAVE }
	/* @label: .Ldrop_debug */
	/* @asm: addq $DB_TO_REAL, %rsp */
	:: d_step { INSN(G_ADDQ, DB_CHECK, "drop it: addq, to the REAL stack (L14)");
		rsp = rsp + DB_TO_REAL; FALLS_THROUGH }
	/* @asm: jmp asm_exc_nmi_latched */
	:: d_step { INSN(G_JMP_NMI, DB_CHECK, "jmp asm_exc_nmi_latched");
		DB_FRAME_ENDS; rip = A_ENDBR }
	/* @label: __debug_latched_end */
	/* @private: int3 */

	/* The rare decisions: REAL stack, NMIs masked (L1). */
	/* @label: __nmi_prologue_begin */
	/* @label: .Lnear */
	/* @asm: cmpq $__nmi_epilogue_begin, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(X_CMP_BEGIN, PROLOGUE, "cmpq epilogue_begin, RIP (L10)");
		cond = (WORD(RIP_W) < EPILOGUE_BEGIN); FALLS_THROUGH }
	/* @asm: jb .Ltest_nest_count */
	:: d_step { INSN(X_JB_BELOW, PROLOGUE, "jb test_nest_count"); JUMP_IF(ON_BELOW) }
	/* @asm: cmpq $__machine_check_latched_end, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(X_CMP_MC_END, PROLOGUE, "cmpq machine_check_end, RIP (L10)");
		cond = (WORD(RIP_W) >= M_END); FALLS_THROUGH }
	/* @asm: jae .Ltest_nest_count */
	:: d_step { INSN(X_JAE_ABOVE, PROLOGUE, "jae test_nest_count"); JUMP_IF(ON_ABOVE) }
	/* @asm: cmpq $__nmi_epilogue_end, HWFRAME_RIP(%rsp) */
	:: d_step { INSN(X_CMP_END, PROLOGUE, "cmpq epilogue_end, RIP");
		cond = (WORD(RIP_W) < EPILOGUE_END); FALLS_THROUGH }
	/* @asm: jb .Lrestart */
	:: d_step { INSN(X_JB, PROLOGUE, "jb restart"); JUMP_IF(ON_EPILOGUE) }
	/* @asm: testb $3, (REAL_TO_MCE + HWFRAME_CS)(%rsp) */
	:: d_step { INSN(X_TESTB, PROLOGUE, "testb CS of #MC");
		cond = (WORD(REAL_TO_MCE + CS_W) != KERNEL_CS); FALLS_THROUGH }
	/* @asm: jnz .Ltest_nest_count */
	:: d_step { INSN(X_JNZ, PROLOGUE, "jnz test_nest_count"); JUMP_IF(ON_MC_OF_USER) }
	/* @asm: cmpq $__nmi_epilogue_begin, (REAL_TO_MCE + HWFRAME_RIP)(%rsp) */
	:: d_step { INSN(X_CMP_MC_RIP, PROLOGUE, "cmpq epilogue_begin, RIP of #MC (L9)");
		cond = (WORD(REAL_TO_MCE + RIP_W) < EPILOGUE_BEGIN); FALLS_THROUGH }
	/* @asm: jb .Ltest_nest_count */
	:: d_step { INSN(X_JB2, PROLOGUE, "jb test_nest_count"); JUMP_IF(ON_MC_ELSEWHERE) }
	/* @asm: cmpq $__nmi_epilogue_end, (REAL_TO_MCE + HWFRAME_RIP)(%rsp) */
	:: d_step { INSN(X_CMP_MC_RIP2, PROLOGUE, "cmpq epilogue_end, RIP of #MC (L9)");
		cond = (WORD(REAL_TO_MCE + RIP_W) >= EPILOGUE_END); FALLS_THROUGH }
	/* @asm: jae .Ltest_nest_count */
	:: d_step { INSN(X_JAE2, PROLOGUE, "jae test_nest_count");
		rip = (cond -> ON_MC_ELSEWHERE : ON_MC_OF_EPILOGUE); cond = 0 }
	/* @label: .Lnested */
	/* @asm: incl LATCHED_NMI_LATCH(%rsp) */
	:: d_step { INSN(N_INCL, PROLOGUE, "nested: incl latch");
		if :: NESTED_LATCHES -> INCREMENT_LATCH :: else fi; FALLS_THROUGH }
	/* @label: __nmi_nested_iret */
	/* @asm: iretq */
	:: d_step { INSN(N_IRETQ, PROLOGUE, "iretq"); iret(); REAL_FRAME_ENDS }
	/* @label: .Lrestart */
	/* @asm: movl $1, LATCHED_NMI_NEST_COUNT(%rsp) */
	:: d_step { INSN(S_MOVL, PROLOGUE, "restart: movl $1, nest_count (H4)");
		if :: RESTART_COUNT -> SET_COUNT_AT(0, 1) :: else fi; FALLS_THROUGH }
	/* @asm: jmp .Lrestarted */
	:: d_step { INSN(S_JMP_OUT, PROLOGUE, "jmp restarted"); REAL_FRAME_ENDS; rip = S_INCL }
	/* @label: __nmi_prologue_end */

	/* Another run of the handlers: LATCHED stack, RSP at the one frame (L6). */
	/* @label: latched_nmi_repeat */
	/* @private: pushq $-1 */
	/* @asm: call paranoid_entry */
	:: d_step { INSN(R_SAVE, HANDLER, "again: pushq $-1; paranoid_entry");
		PUSH(0); PUSH(rdx); rdx = SCRATCH; rip = AFTER_SAVE_AGAIN }
	/* EAX is saved and restored by everybody, as RDX is. */
	/* @label: .Ltake_latch */
	/* @asm: xorl %eax, %eax */
	:: d_step { INSN(T_XORL, HANDLER, "take: xorl eax, eax"); rdx = 0; FALLS_THROUGH }
	/* @asm: xchgl %eax, (REGS_TO_REAL + LATCHED_NMI_LATCH)(%rsp) */
	:: d_step { INSN(T_XCHGL, HANDLER, "xchgl eax, latch (L7)");
		rdx = WORD(REGS_TO_REAL + LATCH_W);
		take_uncounted = rdx;
		if :: XCHGL_CLEARS -> WORD(REGS_TO_REAL + LATCH_W) = 0 :: else fi;
		FALLS_THROUGH }
	/* @asm: addl %eax, (REGS_TO_REAL + LATCHED_NMI_NESTED)(%rsp) */
	:: d_step { INSN(T_ADDL, HANDLER, "addl eax, nested");
		take_uncounted = (ADDL_COUNTS && take_uncounted == rdx -> 0 : take_uncounted);
		rdx = SCRATCH; FALLS_THROUGH }
	/* @asm: jmp .Lrun_handlers */
	:: d_step { INSN(T_JMP, HANDLER, "jmp run_handlers"); rip = AFTER_TAKE }

	/* @label: .Lrestarted */
	/* @asm: incl LATCHED_NMI_RESTARTED(%rsp) */
	:: d_step { INSN(S_INCL, PROLOGUE, "restart: incl restarted");
		if :: RESTART_COUNTED -> COUNT_RESTART :: else fi; FALLS_THROUGH }
	/* @asm: subq $LATCHED_NMI_DISTANCE, %rsp */
	:: d_step { INSN(S_SUBQ, PROLOGUE, "subq, to the frame on the LATCHED stack");
		rsp = rsp - DISTANCE; FALLS_THROUGH }
	/* @asm: jmp latched_nmi_repeat */
	:: d_step { INSN(S_JMP, PROLOGUE, "jmp latched_nmi_repeat"); rip = R_SAVE }
	/* @label: .Lrestore_gs */
	/* @private: testl %ebx, %ebx */
	/* @private: jnz .Lrestore_regs */
	/* @private: swapgs */
	/* @private: jmp .Lrestore_regs */
	/* @label: __latched_nmi_text_end */

	EXC_NMI_OPTIONS(H_CMPL, U_POP_REGS)
	FAULT_OPTIONS
	MC_OPTIONS
	DB_OPTIONS
	DF_OPTIONS
	od
}
