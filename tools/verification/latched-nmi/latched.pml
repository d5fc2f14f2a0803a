/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This project's protocol: arch/x86/entry/entry_64_latched_nmi.S, and what #MC does
 * about an NMI that it hit, arch/x86/kernel/latched_nmi.c. L1 ... L14 are the facts
 * in the header of the former.
 *
 * A step is what the protocol has an order for, and most often several instructions.
 * What each instruction does is explored in the built kernel, by explore/.
 */

/* The NMI stack: REAL frame, RDX; LATCHED frame, RDX, a fault's frame, guard page. */
#define DISTANCE	(FRAME + 1)
#define NMI_WORDS	(DISTANCE + FRAME + 1 + FRAME + 1)
#define LATCHED_TOP	(NMI_TOP - DISTANCE)
/* The #DF stack: the PARKED frame or that of #DF, RDX; registers, guard page. */
#define DF_WORDS	(2 * (FRAME + 1) + 1)
/* The #MC stack: at the bottom the frame that #MC is to return to, and RDX. */
#define MC_LENT		(FRAME + 1)

#define REAL		(NMI_TOP - FRAME)
#define LATCHED		(LATCHED_TOP - FRAME)
#define PARKED		(DF_TOP - FRAME)
#define DEBUG		(DB_TOP - FRAME)
#define MACHINE_CHECK	(MCE_TOP - FRAME)
#define TO		(IS(to_beside_parked) -> PARKED - FRAME - 1 : DB_TOP + 2)

/* A word of a frame. RDX is saved below it. */
#define OF(frame, word)	mem[(frame) + (word)]
#define DX_W		(-1)

/* The mutants, by the names that the file "verdicts" has for them. */
mtype = { none, shortcut,
	no_latch_test, no_epilogue_restart, no_count_after_restart, no_nest_test,
	epilogue_too_short, epilogue_begins_early, epilogue_ends_late, latch_taken_late,
	no_take, no_latch_in_nested, no_count, no_cs_test, nested_uncounted,
	restart_uncounted,
	no_fixup, no_kernel_prologue_fixup, no_first_in_fixup, no_restart_in_fixup,
	restart_in_fixup_uncounted, no_nesting_in_fixup, no_latch_in_fixup,
	latched_twice_in_fixup, fixup_skips_cld, no_copy_in_fixup, no_count_in_fixup,
	no_epilogue_fixup, no_mce_entry_test, no_count_in_mce_entry, no_rewind_in_fixup,
	no_move_after_mce, moved_before_judged, no_cs_test_in_mce_entry,
	mce_entry_always_nests, mce_entry_ignores_cs, fixup_from_user,
	no_user_prologue_fixup, user_fixup_undecided, no_park_in_fixup, parked_twice,
	no_user_rdx_fixup, no_user_rsp_fixup, user_rdx_fixup_too_early, to_beside_parked,
	no_debug_check, no_move_in_debug_check, no_drop_in_debug_check,
	debug_check_ignores_cs, no_debug_check_in_fixup, fixup_ignores_cs_of_debug };
#ifndef MUTANT
#define MUTANT		none
#endif
#define IS(mutant)	(MUTANT == mutant)

/* An NMI from user mode. */
#define U_BEGIN		10
#define U_SWITCH	11
#define U_COPY		12
#define U_COPY_REST	13
#define U_RUN		14
#define U_RESTORE	15
#define U_IRET		16
/* The real NMI handler: asm_exc_nmi_latched. */
#define A_ENTRY		20
#define A_DECIDE	21
#define N_LATCH		22
#define N_IRET		23
#define S_RESTART	24
#define F_COPY		25
/* The latched NMI handler. */
#define H_SAVE		30	/* latched_nmi_handler */
#define H_AGAIN		31	/* latched_nmi_repeat */
#define H_TAKE		32
#define H_COUNT		33
#define H_RUN		34
#define H_TEST		35
#define H_RESTORE	36
#define E_TEST		37	/* __nmi_epilogue_begin */
#define E_CLEAR		38
#define E_IRET		39
/* The #MC entry check: asm_exc_machine_check_latched. */
#define M_CHECK		40
#define M_COUNT		41
/* The #DB entry check: asm_exc_debug_latched. */
#define G_CHECK		42
#define G_DROP		43
#define G_COPY		44
#define G_MOVE		45

#define EPILOGUE_BEGIN	(IS(epilogue_begins_early) -> H_RESTORE : E_TEST)
#define EPILOGUE_END	(IS(epilogue_too_short) -> E_IRET : \
			 (IS(epilogue_ends_late) -> M_COUNT : M_CHECK))
#define IN_USER_PROLOGUE(ip) ((ip) >= U_BEGIN && (ip) < U_RUN)
#define IN_PROLOGUE(ip)	((ip) >= A_ENTRY && (ip) <= F_COPY)
#define IN_EPILOGUE(ip)	((ip) >= EPILOGUE_BEGIN && (ip) < EPILOGUE_END)
#define IN_MC_CHECK(ip)	((ip) == M_CHECK || (ip) == M_COUNT)
#define IN_DB_CHECK(ip)	((ip) >= G_CHECK && (ip) <= G_MOVE)

#define NMI_ENTRY	A_ENTRY
#define MC_ENTRY	(IS(no_epilogue_fixup) -> MC_STOCK_ENTRY : M_CHECK)
#define DB_ENTRY	(IS(no_debug_check) -> DB_SAVE : G_CHECK)
/*
 * The entry has just touched memory of the task, or per-CPU variables (H6). Or user
 * code has, and #DB was held back until an NMI was delivered (L14).
 */
#define WATCHABLE	((rip >= U_COPY && rip <= U_RUN) || rip == A_ENTRY)
#define IRET_TO_USER	(rip == U_IRET)
#define BEHIND_PROLOGUE	(!IN_PROLOGUE(rip) && !IN_USER_PROLOGUE(rip))
/* User code may look as if it were in the epilogue, or in the user prologue. */
#define EVIL_RIP	E_CLEAR
#define EVIL_RIP2	U_COPY
/* So may what an earlier #MC or #DB has left. */
#define MC_STALE_RIP	E_CLEAR
#define DB_STALE_RIP	U_COPY

#define MORE_AT_REST	(nmi_state == NMI_NOT_RUNNING)
byte nmi_state;

/*
 * Each NMI that nests is latched once, each restart is counted once, and what is
 * taken from the latch is counted.
 */
#define TO_BE_COUNTED \
	if \
	:: needed[ON_LATCHED] && rip >= E_TEST && rip <= E_IRET -> \
		CHECK(EXACT, !restart_due); restart_due = 1 \
	:: needed[ON_LATCHED] && !(rip >= E_TEST && rip <= E_IRET) -> \
		CHECK(EXACT, !nested_due); nested_due = 1 \
	:: else \
	fi
#define ALL_COUNTED	(!nested_due && !restart_due && !take_due)
bit nested_due, restart_due, take_due;

#define MC_FIXUP	if :: IS(no_fixup) :: else -> fixup() fi
#define MC_MOVE		move_to()

#include "machine.pml"

/* Nobody asks for more than whether the latch is 0. */
#define LATCH		CHECK(EXACT, nested_due); nested_due = 0; latch = 1
#define COUNT_RESTART	CHECK(EXACT, restart_due); restart_due = 0

/* --------------------------------------------------------------- the decision */

/* A real #MC frame says that #MC hit the epilogue (L9); the user's RIP does not (L3). */
#define MC_HIT_EPILOGUE(ignores_cs) \
	((OF(MACHINE_CHECK, CS_W) == KERNEL_CS || ignores_cs) && \
	 IN_EPILOGUE(OF(MACHINE_CHECK, RIP_W)))
#define BETWEEN_MC_AND_COUNT \
	(IN_MC_CHECK(OF(REAL, RIP_W)) && !IS(no_mce_entry_test) && \
	 (MC_HIT_EPILOGUE(IS(mce_entry_ignores_cs)) || IS(mce_entry_always_nests)))

/*
 * What the real NMI handler does about an NMI from kernel mode is a function of the
 * REAL frame and the state, so that it can be asked for twice (L5).
 */
#define DECISION(restarts, nests) \
	(IN_EPILOGUE(OF(REAL, RIP_W)) && restarts -> S_RESTART : \
	 ((nest_count != 0 || BETWEEN_MC_AND_COUNT) && nests -> N_LATCH : F_COPY))

#define COPY(to, from) \
	WRITE_FRAME(to, OF(from, RIP_W), OF(from, CS_W), OF(from, FLAGS_W), \
		    OF(from, RSP_W), OF(from, SS_W))

/* ----------------------------------------------------------------- the fix-up */

/*
 * #MC finishes the decision for an NMI that it hit (L11). The frame is secured at
 * the start of the #MC handler, while NMIs are masked (L1). What #MC returns to is
 * noted in TO, and put into its frame in the end, when #MC has judged what it hit.
 *
 * All of it is one step, since nothing but a second #MC can come in between, and
 * that is a non-guarantee.
 */
bit move;
byte hit, decision;
bit in_sp, in_dx;

/* Whoever else has something here is seen. */
#define TO_ENDS		OF(TO, DX_W) = 0; WRITE_FRAME(TO, 0, 0, 0, 0, 0)
#define DB_FRAME_ENDS	db_active = 0; POISON(DEBUG); OF(DEBUG, RIP_W) = DB_STALE_RIP

/* The frame of an NMI from user mode goes to the #DF stack (L12). */
inline park()
{
	CHECK(FRAMES, masked && !needed[ON_PARKED]);
	if
	:: IS(no_park_in_fixup)
	:: else -> COPY(PARKED, REAL); OF(PARKED, DX_W) = OF(REAL, DX_W)
	fi;
	needed[ON_PARKED] = needed[ON_REAL];
	REAL_FRAME_ENDS
}

/* In the real handler: do what is decided, and never go back there. */
inline finish_decision()
{
	CHECK(FRAMES, masked);
	decision = DECISION(!IS(no_restart_in_fixup), !IS(no_nesting_in_fixup));
	/* A first NMI has set nest_count before it copies the frame (L5). */
	decision = (hit == F_COPY && !IS(no_first_in_fixup) -> F_COPY : decision);
	OF(TO, RSP_W) = LATCHED;
	if
	:: OF(REAL, CS_W) == USER_CS ->
		printf("        fix-up: user, parked\n");
		park();
		OF(TO, RIP_W) = (IS(user_fixup_undecided) -> hit : U_BEGIN);
		OF(TO, RSP_W) = PARKED
	:: OF(REAL, CS_W) != USER_CS && decision == S_RESTART ->
		printf("        fix-up: restart\n");
		if :: IS(restart_in_fixup_uncounted) :: else -> COUNT_RESTART fi;
		SET_COUNT(!IS(no_count_in_fixup));
		REAL_FRAME_ENDS;
		OF(TO, RIP_W) = H_AGAIN
	:: OF(REAL, CS_W) != USER_CS && decision == N_LATCH ->
		printf("        fix-up: nested\n");
		if
		:: (hit == N_IRET && !IS(latched_twice_in_fixup)) || IS(no_latch_in_fixup)
		:: else -> LATCH
		fi;
		COPY(TO, REAL);
		REAL_FRAME_ENDS
	:: OF(REAL, CS_W) != USER_CS && decision == F_COPY ->
		printf("        fix-up: first\n");
		CHECK(FRAMES, !needed[ON_LATCHED]);
		if :: IS(no_copy_in_fixup) :: else -> COPY(LATCHED, REAL) fi;
		SET_COUNT(!IS(no_count_in_fixup));
		needed[ON_LATCHED] = 1;
		REAL_FRAME_ENDS;
		OF(TO, RIP_W) = (IS(fixup_skips_cld) -> H_AGAIN : H_SAVE)
	fi
}

/*
 * On the way to the thread stack: park the frame, and move the pointer to it, which
 * is RSP, later RDX, and both in between. RDX is the user's before that. If neither
 * points to the REAL frame, it was parked before.
 */
inline finish_user_prologue()
{
	in_sp = (OF(MACHINE_CHECK, RSP_W) == REAL || OF(MACHINE_CHECK, RSP_W) == REAL + DX_W);
	in_dx = (OF(MACHINE_CHECK, DX_W) == REAL + DX_W &&
		 (hit >= U_SWITCH || IS(user_rdx_fixup_too_early)));
	if
	:: !in_sp && !in_dx && !IS(parked_twice)
	:: else ->
		printf("        fix-up: the user's frame is parked\n");
		park();
		if
		:: in_sp && !IS(no_user_rsp_fixup) ->
			OF(TO, RSP_W) = OF(TO, RSP_W) - (REAL - PARKED)
		:: else
		fi;
		if
		:: in_dx && !IS(no_user_rdx_fixup) -> OF(TO, DX_W) = PARKED + DX_W
		:: else
		fi
	fi
}

inline fixup()
{
	hit = OF(MACHINE_CHECK, RIP_W);
	if
	/* What #MC has hit in the #DB entry check is what #DB hit (L13, L14). */
	:: IN_DB_CHECK(hit) && !IS(no_debug_check_in_fixup) &&
	   (OF(DEBUG, CS_W) == KERNEL_CS || IS(fixup_ignores_cs_of_debug)) ->
		hit = OF(DEBUG, RIP_W)
	:: else
	fi;
	COPY(TO, MACHINE_CHECK);
	OF(TO, DX_W) = OF(MACHINE_CHECK, DX_W);
	move = 1;
	if
	:: OF(MACHINE_CHECK, CS_W) != KERNEL_CS && !IS(fixup_from_user) -> move = 0
	:: else ->
		if
		:: IN_PROLOGUE(hit) && !IS(no_kernel_prologue_fixup) ->
			/* With the NMI goes a #DB that hit its first step (L14). */
			if
			:: IN_DB_CHECK(OF(MACHINE_CHECK, RIP_W)) -> DB_FRAME_ENDS
			:: else
			fi;
			finish_decision()
		:: IN_EPILOGUE(hit) && !IS(no_rewind_in_fixup) ->
			OF(TO, RIP_W) = E_TEST
		:: IN_USER_PROLOGUE(hit) && !IS(no_user_prologue_fixup) ->
			finish_user_prologue()
		:: else -> move = 0
		fi
	fi;
	if :: move :: else -> TO_ENDS fi;
	if :: IS(moved_before_judged) -> COPY(MACHINE_CHECK, TO) :: else fi;
	hit = 0;
	decision = 0;
	in_sp = 0;
	in_dx = 0
}

inline move_to()
{
	if
	:: move && !IS(no_move_after_mce) ->
		COPY(MACHINE_CHECK, TO);
		OF(MACHINE_CHECK, DX_W) = OF(TO, DX_W)
	:: else
	fi;
	if :: move -> TO_ENDS :: else fi;
	move = 0
}

/* ------------------------------------------------------------------ the steps */

#define USER_NMI	"NMI:     "
#define REAL_NMI	"NMI:     "
#define HANDLER		"handler: "
#define EPILOGUE	"epilogue "
#define MC_CHECK	"#MC:     "
#define DB_CHECK	"#DB:     "

#define FROM_RDX(words)	mem[IN_MEMORY(rdx + (words))]

active proctype cpu()
{
	d_step { POWER_ON }
	do
	EVENT_OPTIONS

	/*
	 * An NMI from user mode has no state. It copies its frame to the thread stack,
	 * from the REAL stack, or from the #DF stack if it was parked there (L12).
	 * #DB may come behind each half of the copy.
	 */
	:: d_step { STEP(U_BEGIN, USER_NMI, "cld; save RDX, which then points to the frame");
		df = 0; PUSH(rdx); rdx = rsp; rip = U_SWITCH }
	:: d_step { STEP(U_SWITCH, USER_NMI, "to the thread stack");
		rsp = THREAD_TOP; rip = U_COPY }
	:: d_step { STEP(U_COPY, USER_NMI, "copy half of the frame");
		PUSH(FROM_RDX(5)); PUSH(FROM_RDX(4)); PUSH(FROM_RDX(3)); rip = U_COPY_REST }
	:: d_step { STEP(U_COPY_REST, USER_NMI, "copy the rest of it, and RDX");
		PUSH(FROM_RDX(2)); PUSH(FROM_RDX(1)); PUSH(FROM_RDX(0));
		if
		:: needed[ON_REAL] -> REAL_FRAME_ENDS
		:: else -> needed[ON_PARKED] = 0; OF(PARKED, DX_W) = 0; POISON(PARKED)
		fi;
		rip = U_RUN }
	:: d_step { STEP(U_RUN, USER_NMI, "call exc_nmi"); rdx = SCRATCH; rip = C_TEST }
	:: d_step { STEP(U_RESTORE, USER_NMI, "restore registers"); POP(rdx); rip = U_IRET }
	:: d_step { STEP(U_IRET, USER_NMI, "iret"); iret() }

	/* The real NMI handler decides, on the REAL stack, with NMIs masked (L1). */
	:: d_step { STEP(A_ENTRY, REAL_NMI, "from user mode? (L3)");
		rip = (OF(REAL, CS_W) == USER_CS && !IS(no_cs_test) -> U_BEGIN : A_DECIDE) }
	:: d_step { STEP(A_DECIDE, REAL_NMI, "first, nested or restart?");
		rip = DECISION(!IS(no_epilogue_restart), !IS(no_nest_test));
		if :: rip == F_COPY && !IS(no_count) -> SET_COUNT(1) :: else fi }
	:: d_step { STEP(N_LATCH, REAL_NMI, "nested: latch++");
		if :: IS(no_latch_in_nested) :: else -> LATCH fi; rip = N_IRET }
	:: d_step { STEP(N_IRET, REAL_NMI, "iret"); iret(); REAL_FRAME_ENDS }
	:: d_step { STEP(S_RESTART, REAL_NMI, "restart: nest_count = 1 (H4)");
		if :: IS(no_count_after_restart) :: else -> SET_COUNT(1) fi;
		if :: IS(restart_uncounted) :: else -> COUNT_RESTART fi;
		REAL_FRAME_ENDS; rsp = LATCHED; rip = H_AGAIN }
	:: d_step { STEP(F_COPY, REAL_NMI, "first, nest_count is 1: copy the frame");
		CHECK(FRAMES, !needed[ON_LATCHED]);
		COPY(LATCHED, REAL); needed[ON_LATCHED] = 1;
		REAL_FRAME_ENDS; rsp = LATCHED; rip = H_SAVE }

	/*
	 * The latched NMI handler, on the LATCHED stack, with RSP at the one frame (L6).
	 * CONFIG_DEBUG_ENTRY unmasks NMIs right away, as a fault would.
	 */
	:: d_step { CHOICE(H_SAVE, EVENTS && EARLY, HANDLER, "DEBUG_ENTRY: iret to itself");
		CHECK(COUNT, nest_count == 1); masked = 0 }
	:: d_step { STEP(H_SAVE, HANDLER, "cld; save registers");
		df = 0; PUSH(rdx); rdx = SCRATCH; rip = H_RUN }
	:: d_step { STEP(H_AGAIN, HANDLER, "again: save registers");
		PUSH(rdx); rdx = SCRATCH; rip = (IS(latch_taken_late) -> H_RUN : H_TAKE) }
	/* The latch is taken before the run that serves it (L7). */
	:: d_step { STEP(H_TAKE, HANDLER, "take the latch");
		rdx = latch; take_due = latch;
		if :: IS(no_take) :: else -> latch = 0 fi; rip = H_COUNT }
	:: d_step { STEP(H_COUNT, HANDLER, "count what was taken");
		take_due = take_due && (rdx != 1 || IS(nested_uncounted));
		rdx = SCRATCH; rip = (IS(latch_taken_late) -> H_RESTORE : H_RUN) }
	:: d_step { STEP(H_RUN, HANDLER, "call exc_nmi"); rip = C_TEST }
	:: d_step { STEP(H_TEST, HANDLER, "latch?");
		rip = (latch && !IS(shortcut) -> H_TAKE : H_RESTORE) }
	:: d_step { STEP(H_RESTORE, HANDLER, "restore registers"); POP(rdx); rip = E_TEST }

	/* An NMI or #MC in the epilogue leads back to its beginning, or before (L8). */
	:: d_step { STEP(E_TEST, EPILOGUE, "latch?");
		rip = (latch && !IS(no_latch_test) -> H_AGAIN : E_CLEAR) }
	:: d_step { STEP(E_CLEAR, EPILOGUE, "nest_count = 0"); SET_COUNT(0); rip = E_IRET }
	:: d_step { STEP(E_IRET, EPILOGUE, "iret"); needed[ON_LATCHED] = 0; iret() }

	/* If #MC hit the epilogue, what nests in #MC is to be latched (L9). */
	:: d_step { STEP(M_CHECK, MC_CHECK, "in the epilogue?");
		rip = (MC_HIT_EPILOGUE(IS(no_cs_test_in_mce_entry)) ->
		       M_COUNT : MC_STOCK_ENTRY) }
	:: d_step { STEP(M_COUNT, MC_CHECK, "nest_count = 1");
		if :: IS(no_count_in_mce_entry) :: else -> SET_COUNT(1) fi;
		rip = MC_STOCK_ENTRY }

	/*
	 * If #DB hit the copy to the thread stack, the frame is parked as for #MC (L13).
	 * At the first step of an NMI, #DB is dropped (L14).
	 */
	:: d_step { STEP(G_CHECK, DB_CHECK, "at or in the entry of an NMI?");
		rip = (OF(DEBUG, CS_W) != KERNEL_CS && !IS(debug_check_ignores_cs) -> DB_SAVE :
		      (OF(DEBUG, RIP_W) == A_ENTRY && !IS(no_drop_in_debug_check) -> G_DROP :
		      (OF(DEBUG, RIP_W) >= U_SWITCH && OF(DEBUG, RIP_W) < U_RUN -> G_COPY :
		       DB_SAVE))) }
	:: d_step { STEP(G_DROP, DB_CHECK, "drop it");
		rsp = REAL; DB_FRAME_ENDS; rip = A_ENTRY }
	/* If it was parked before, it is copied to itself. */
	:: d_step { STEP(G_COPY, DB_CHECK, "copy the frame to the #DF stack");
		CHECK(FRAMES, !needed[ON_PARKED] || rdx == PARKED + DX_W);
		COPY(PARKED, rdx - DX_W); OF(PARKED, DX_W) = mem[rdx]; rip = G_MOVE }
	:: d_step { STEP(G_MOVE, DB_CHECK, "RDX points there");
		if
		:: rdx == REAL + DX_W -> needed[ON_PARKED] = needed[ON_REAL]; REAL_FRAME_ENDS
		:: else
		fi;
		rdx = (IS(no_move_in_debug_check) -> rdx : PARKED + DX_W); rip = DB_SAVE }

	EXC_NMI_OPTIONS(H_TEST, U_RESTORE)
	FAULT_OPTIONS
	MC_OPTIONS
	DB_OPTIONS
	DF_OPTIONS
	od
}
