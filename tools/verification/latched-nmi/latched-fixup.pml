/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What #MC does about an NMI that it hit: arch/x86/kernel/latched_nmi.c (L11).
 *
 * "@c:" quotes each statement of the .c file, and "@mce:" those of the function in
 * the kernel's #MC handler that calls it; check-steps compares the quotes with the
 * files, in order and in both directions. The fix-up is one step: no NMI can come in
 * between where it does anything, by L1, which is checked; and a second #MC while
 * the first is on its stack is a non-guarantee.
 *
 * struct latched_nmi_context is the word DX_W and a frame. regs is MACHINE_CHECK.
 */

/* What the mutants change. */
#ifndef FIXUP_IN_MC
#define FIXUP_IN_MC	1
#endif
#ifndef FIXUP_FROM_USER
#define FIXUP_FROM_USER	0
#endif
#ifndef FIXUP_KERNEL
#define FIXUP_KERNEL	1
#endif
#ifndef FIXUP_USER
#define FIXUP_USER	1
#endif
#ifndef FIXUP_DECIDES
#define FIXUP_DECIDES	1	/* 0: a user NMI resumes where #MC hit it. */
#endif
#ifndef FIXUP_TO
#define FIXUP_TO	H_CLD	/* Where a first NMI goes on. */
#endif
#ifndef FIXUP_RESTART
#define FIXUP_RESTART	R_SAVE	/* Where a restart does. */
#endif
#ifndef FIXUP_CF_FROM
#define FIXUP_CF_FROM	A_JC
#endif
#ifndef FIXUP_CF_TO
#define FIXUP_CF_TO	H_CLD
#endif
#ifndef FIXUP_CF
#define FIXUP_CF	1
#endif
#ifndef FIXUP_RESTARTS
#define FIXUP_RESTARTS	1
#endif
#ifndef FIXUP_NESTS
#define FIXUP_NESTS	1
#endif
#ifndef FIXUP_LATCHES
#define FIXUP_LATCHES	1
#endif
#ifndef FIXUP_LATCHED
#define FIXUP_LATCHED	N_IRETQ
#endif
#ifndef FIXUP_COPIES
#define FIXUP_COPIES	1
#endif
#ifndef FIXUP_COUNT
#define FIXUP_COUNT	1
#endif
#ifndef FIXUP_COUNTS
#define FIXUP_COUNTS	1	/* state->restarted++ */
#endif
#ifndef FIXUP_PARKS
#define FIXUP_PARKS	1
#endif
#ifndef FIXUP_PARKS_DX
#define FIXUP_PARKS_DX	1
#endif
#ifndef FIXUP_PARKS_ONCE
#define FIXUP_PARKS_ONCE 1
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
#ifndef FIXUP_EPILOGUE
#define FIXUP_EPILOGUE	EPILOGUE_BEGIN
#endif
#ifndef FIXUP_REWINDS
#define FIXUP_REWINDS	1
#endif
#ifndef FIXUP_IN_DB_CHECK
#define FIXUP_IN_DB_CHECK 1
#endif
#ifndef FIXUP_DB_USER
#define FIXUP_DB_USER	0
#endif
#ifndef FIXUP_MOVES
#define FIXUP_MOVES	1
#endif
#ifndef FIXUP_MOVES_AT_ONCE
#define FIXUP_MOVES_AT_ONCE 0
#endif

/* exc_machine_check_nmi(): the steps of the #MC handler in machine.pml. */
/* @mce: bool move = latched_nmi_fixup(regs) */
bit move;
/* @mce: exc_machine_check_kernel(regs) */
/* @mce: if (move) latched_nmi_move(regs) */

/* In the lowest words of the #MC stack; for a mutant, below what is parked. */
#ifndef TO
#define TO	(DB_TOP + 2)
#endif
#define TO_ON_DF (PARKED - 1 - FRAME)

#define C(frame, word)	mem[(frame) + (word)]

#define DB_FRAME_ENDS	db_active = 0; POISON(DEBUG); C(DEBUG, RIP_W) = DB_STALE_RIP

/* Whoever else has something here is seen. */
#define TO_ENDS		C(TO, DX_W) = 0; WRITE_FRAME(TO, 0, 0, 0, 0, 0)

inline copy(to, from)
{
	/* @c: to->ip = from->ip */
	C(to, RIP_W) = C(from, RIP_W);
	/* @c: to->cs = from->cs */
	C(to, CS_W) = C(from, CS_W);
	/* @c: to->flags = from->flags */
	C(to, FLAGS_W) = C(from, FLAGS_W);
	/* @c: to->sp = from->sp */
	C(to, RSP_W) = C(from, RSP_W);
	/* @c: to->ss = from->ss */
	C(to, SS_W) = C(from, SS_W)
}

inline park()
{
	/* @c: struct latched_nmi_context *parked = &latched_nmi_top_of(DF)->frame */
	CHECK_FRAMES(masked && !needed[ON_PARKED]);
	if
	:: FIXUP_PARKS ->
		/* @c: latched_nmi_copy(parked, real) */
		copy(PARKED, REAL);
		/* @c: parked->dx = real->dx */
		if :: FIXUP_PARKS_DX -> C(PARKED, DX_W) = C(REAL, DX_W) :: else fi
	:: else
	fi;
	/* @c: return parked */
	needed[ON_PARKED] = needed[ON_REAL];
	REAL_FRAME_ENDS
}

#define IP	C(MACHINE_CHECK, RIP_W)
#define SP	C(MACHINE_CHECK, RSP_W)
#define DX	C(MACHINE_CHECK, DX_W)

inline fixup_prologue(ip)
{
	/* @c: struct latched_nmi_top *top = latched_nmi_top_of(NMI) */
	/* @c: struct latched_nmi_context *real = &top->frame */
	/* @c: struct latched_nmi_context *latched = latched_nmi_latched_frame(top) */
	/* @c: struct latched_nmi_state *state = &top->state */
	/* @c: bool first = latched_nmi_between(ip, __nmi_prologue_decided,
	 *	latched_nmi_handler) && !(regs->flags & X86_EFLAGS_CF) */
	first = FIXUP_CF && ip >= FIXUP_CF_FROM && ip < FIXUP_CF_TO &&
		!(C(MACHINE_CHECK, FLAGS_W) & FLAG_COND);
	/* @c: to->ip = (unsigned long)latched_nmi_handler */
	C(TO, RIP_W) = FIXUP_TO;
	/* @c: to->sp = (unsigned long)&latched->ip */
	C(TO, RSP_W) = LATCHED;
	/* What a comparison left behind does not matter where it goes. */
	C(TO, FLAGS_W) = C(TO, FLAGS_W) & ~FLAG_COND;
	CHECK_FRAMES(masked);
	if
	/* @c: if (real->cs & 3) */
	:: C(REAL, CS_W) == USER_CS && FIXUP_DECIDES ->
		printf("        fix-up: user, parked\n");
		/* @c: to->ip = (unsigned long)__nmi_user_prologue_begin */
		C(TO, RIP_W) = ON_USER;
		/* @c: to->sp = (unsigned long)&latched_nmi_park(real)->ip */
		park();
		C(TO, RSP_W) = PARKED
	:: C(REAL, CS_W) == USER_CS && !FIXUP_DECIDES ->
		park();
		C(TO, RIP_W) = IP;
		C(TO, RSP_W) = PARKED
	/* @c: else if (latched_nmi_between(real->ip, __nmi_epilogue_begin, __nmi_epilogue_end)) */
	:: C(REAL, CS_W) == KERNEL_CS && FIXUP_RESTARTS && IN_EPILOGUE(C(REAL, RIP_W)) ->
		printf("        fix-up: restart\n");
		/* @c: to->ip = (unsigned long)latched_nmi_repeat */
		C(TO, RIP_W) = FIXUP_RESTART;
		/* @c: state->restarted++ */
		if :: FIXUP_COUNTS -> COUNT_RESTART :: else fi;
		/* @c: state->nest_count = 1 */
		SET_COUNT(FIXUP_COUNT);
		REAL_FRAME_ENDS
	/* @c: else if (state->nest_count && !first) */
	:: C(REAL, CS_W) == KERNEL_CS && !(FIXUP_RESTARTS && IN_EPILOGUE(C(REAL, RIP_W))) &&
	   FIXUP_NESTS && nest_count != 0 && !first ->
		printf("        fix-up: nested\n");
		if
		/* @c: if (ip != (unsigned long)__nmi_nested_iret) state->latch++ */
		:: FIXUP_LATCHES && ip != FIXUP_LATCHED -> INCREMENT_LATCH
		:: else
		fi;
		/* @c: latched_nmi_copy(to, real) */
		copy(TO, REAL);
		REAL_FRAME_ENDS
	/* @c: else */
	:: else ->
		printf("        fix-up: first\n");
		CHECK_FRAMES(!needed[ON_LATCHED]);
		/* @c: latched_nmi_copy(latched, real) */
		if :: FIXUP_COPIES -> copy(LATCHED, REAL) :: else fi;
		/* @c: state->nest_count = 1 */
		SET_COUNT(FIXUP_COUNT);
		needed[ON_LATCHED] = 1;
		REAL_FRAME_ENDS
	fi;
	first = 0
}
bit first;

inline fixup_user(ip)
{
	/* @c: const struct latched_nmi_context *real = &latched_nmi_top_of(NMI)->frame */
	/* @c: const struct latched_nmi_context *parked */
	/* @c: bool in_sp = regs->sp == (unsigned long)&real->ip ||
	 *	regs->sp == (unsigned long)&real->dx */
	in_sp = (SP == REAL || SP == REAL + DX_W);
	/* @c: bool in_dx = ip >= (unsigned long)__nmi_user_prologue_rdx &&
	 *	regs->dx == (unsigned long)&real->dx */
	in_dx = (ip >= FIXUP_DX_FROM && DX == REAL + DX_W);
	if
	/* @c: if (!in_sp && !in_dx) return */
	:: FIXUP_PARKS_ONCE && !in_sp && !in_dx
	:: else ->
		printf("        fix-up: the user's frame is parked\n");
		/* @c: parked = latched_nmi_park(real) */
		park();
		/* @c: if (in_sp) to->sp -= (unsigned long)real - (unsigned long)parked */
		C(TO, RSP_W) = (in_sp && FIXUP_MOVES_SP -> C(TO, RSP_W) - (REAL - PARKED) :
				C(TO, RSP_W));
		/* @c: if (in_dx) to->dx = (unsigned long)&parked->dx */
		C(TO, DX_W) = (in_dx && FIXUP_MOVES_DX -> PARKED + DX_W : C(TO, DX_W))
	fi;
	in_sp = 0;
	in_dx = 0
}
bit in_sp, in_dx;

#define IN_DB_CHECK(ip)	((ip) >= G_ENDBR && (ip) < G_END)
#define IS_EPILOGUE(ip)	((ip) >= FIXUP_EPILOGUE && (ip) < EPILOGUE_END)

inline fixup()
{
	/* @c: struct latched_nmi_context *to = latched_nmi_to() */
	/* @c: const struct latched_nmi_context *debug = &latched_nmi_top_of(DB)->frame */
	/* @c: unsigned long ip = regs->ip */
	hit = IP;
	if
	/* exc_machine_check_user(), and far from the NMI entry: not called. */
	:: (C(MACHINE_CHECK, CS_W) != KERNEL_CS && !FIXUP_FROM_USER) || !NEAR(hit)
	:: else ->
		/* @c: to->dx = regs->dx */
		C(TO, DX_W) = DX;
		/* @c: to->ip = regs->ip */
		/* @c: to->cs = regs->cs */
		/* @c: to->flags = regs->flags */
		/* @c: to->sp = regs->sp */
		/* @c: to->ss = regs->ss */
		copy(TO, MACHINE_CHECK);
		if
		/* @c: if (latched_nmi_between(ip, asm_exc_debug_latched, __debug_latched_end) &&
		 *	!(debug->cs & 3)) ip = debug->ip */
		:: FIXUP_IN_DB_CHECK && IN_DB_CHECK(hit) &&
		   (C(DEBUG, CS_W) == KERNEL_CS || FIXUP_DB_USER) ->
			hit = C(DEBUG, RIP_W)
		:: else
		fi;
		move = 1;
		if
		/* @c: if (latched_nmi_between(ip, asm_exc_nmi_latched, latched_nmi_handler) ||
		 *	latched_nmi_between(ip, __nmi_prologue_begin, __nmi_prologue_end))
		 *	latched_nmi_fixup_prologue(regs, ip, to) */
		:: IN_PROLOGUE(hit) ->
			/* With the NMI goes a #DB that hit its first instruction (L14). */
			if :: IN_DB_CHECK(IP) -> DB_FRAME_ENDS :: else fi;
			if :: FIXUP_KERNEL -> fixup_prologue(hit) :: else fi
		/* @c: else if (latched_nmi_between(ip, __nmi_epilogue_begin, __nmi_epilogue_end))
		 *	to->ip = (unsigned long)__nmi_epilogue_begin */
		:: IS_EPILOGUE(hit) ->
			C(TO, RIP_W) = (FIXUP_REWINDS -> FIXUP_EPILOGUE : IP)
		/* @c: else if (latched_nmi_between(ip, __nmi_user_prologue_begin,
		 *	__nmi_user_prologue_end)) latched_nmi_fixup_user(regs, ip, to) */
		:: IN_USER_PROLOGUE(hit) ->
			if :: FIXUP_USER -> fixup_user(hit) :: else fi
		/* @c: else return false */
		:: !IN_PROLOGUE(hit) && !IS_EPILOGUE(hit) && !IN_USER_PROLOGUE(hit) ->
			TO_ENDS;
			move = 0
		fi
		/* @c: latched_nmi_top_of(NMI)->state.fixed_up++ */
		/* @c: return true */
	fi;
	hit = 0;
	if :: FIXUP_MOVES_AT_ONCE && move -> copy(MACHINE_CHECK, TO) :: else fi
}

byte hit;

inline move_to()
{
	/* @c: const struct latched_nmi_context *to = latched_nmi_to() */
	if
	:: move && FIXUP_MOVES ->
		/* @c: regs->dx = to->dx */
		DX = C(TO, DX_W);
		/* @c: regs->ip = to->ip */
		/* @c: regs->cs = to->cs */
		/* @c: regs->flags = to->flags */
		/* @c: regs->sp = to->sp */
		/* @c: regs->ss = to->ss */
		copy(MACHINE_CHECK, TO)
	:: else
	fi;
	if :: move -> TO_ENDS :: else fi;
	move = 0
}
