/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One x86-64 CPU as the NMI entry code sees it.
 *
 * Every protocol includes this file and adds its own steps. The whole model is
 * one process: one loop of options, each of which is either the step at "rip",
 * or one event that the outside world may choose before any step. The checker
 * takes every choice before every step. A step is an instruction, or several
 * between which an event does nothing that it does not do before or after them.
 *
 *	NMI pin		One pending bit. An arrival sets it; delivery, possible
 *			only while "masked" is clear, clears it and sets
 *			"masked". Every IRET clears "masked".
 *	#MC		At any boundary, but never while an earlier #MC has not
 *			executed its own IRET (MCG_STATUS.MCIP, one IST frame).
 *			Its handler returns, and may fault any number of times.
 *	faults		The NMI handler and the handlers of #MC and #DB may
 *			fault: a frame below RSP, and an IRET that returns there.
 *	#DB		A data watchpoint hits an access of the entry to the task,
 *			or of user mode; none is armed while #DB is handled.
 *	#DF		The one that is survived: an IRET to user mode faults.
 *	SMI		Its handler executed an IRET: "masked" is clear.
 *
 * All of them are unbounded in number. What makes the state space finite is
 * that the machine has no memory of them: a pin is one bit, and a stack that
 * an IRET has left holds what it held before, or values of the same few kinds.
 *
 * Stacks are memory, and a frame is five words in it. Nobody is told that a
 * frame was overwritten: the IRET that reads it goes wrong, and is seen.
 */

/* ------------------------------------------------------------- the memory */

/*
 * The stacks, in the order of the per-CPU entry area, and behind them that of
 * the thread. Each is as large as the protocol needs it; the lowest word is its
 * guard page. Only the RFC has a LATCHED stack apart from the NMI stack.
 */
#ifndef DF_WORDS
#define DF_WORDS	8
#endif
#ifndef LATCHED_WORDS
#define LATCHED_WORDS	0
#endif
#ifndef MC_LENT
#define MC_LENT		0		/* Words at the bottom that the protocol uses. */
#endif
#define DF_TOP		(DF_WORDS)
#define NMI_TOP		(DF_TOP + NMI_WORDS)
#define REAL_TOP	NMI_TOP
#define LATCHED_END	(NMI_TOP + LATCHED_WORDS)
#define DB_TOP		(LATCHED_END + 12)
#define MCE_TOP		(DB_TOP + 12 + MC_LENT)
#define THREAD_TOP	(MCE_TOP + 13)
#define MEM_WORDS	THREAD_TOP

#ifndef LATCHED_TOP
#define LATCHED_TOP	LATCHED_END
#endif

#define ON_NMI_STACK(sp)	((sp) > DF_TOP && (sp) <= NMI_TOP)

/* Is the guard page of some stack among the "words" words below "sp"? */
#define BETWEEN(guard, sp, words)	((sp) > (guard) && (sp) <= (guard) + (words))
#define NO_ROOM(sp, words) \
	((sp) == 0 || (sp) > MEM_WORDS || BETWEEN(0, sp, words) || \
	 BETWEEN(DF_TOP, sp, words) || BETWEEN(NMI_TOP, sp, words) || \
	 BETWEEN(LATCHED_END, sp, words) || BETWEEN(DB_TOP, sp, words) || \
	 BETWEEN(MCE_TOP, sp, words))

/* Words of a hardware frame, counted from the RSP that IRET finds. */
#define RIP_W	0
#define CS_W	1
#define FLAGS_W	2
#define RSP_W	3
#define SS_W	4
#define FRAME	5

/* Zero is what no segment, flags word or address is: poison. */
#define KERNEL_CS	2
#define USER_CS		3
#define FLAGS_ONE	8	/* The bit of RFLAGS that is always set. */
#define FLAG_DF		2
#define KERNEL_SS	4
#define USER_SS		5
#define SS_NMI		8	/* FRED: this event was an NMI, unmask on return. */

byte mem[MEM_WORDS];

/* -------------------------------------------------------------- registers */

byte rip, rsp, cs, ss;
byte rdx;		/* Stands for all general registers. */
bit df;
bit masked;		/* NMIs are masked from delivery until an IRET. */
bit pending;		/* The NMI pin. */
bit dead;		/* Triple fault, or an IRET to nowhere. */

/* What the protocol keeps. */
short nest_count;
byte latch;

/* States of exc_nmi(), see below. */
#define NMI_NOT_RUNNING	0
#define NMI_EXECUTING	1
#define NMI_LATCHED	2

/* ---------------------------------------------- the interrupted (outermost) */

/*
 * What an NMI may interrupt when nothing of the NMI path is in progress.
 *
 *	USER		User mode.
 *	USER_EVIL	User mode that resembles the epilogue in every value that
 *			user code controls: RIP, RSP, RDX, DF.
 *	USER_EVIL2	The same for the part of the prologue that #DB looks at.
 *	KERNEL		Kernel mode, far from the NMI entry.
 *	GAP_*		Kernel mode in the SYSCALL gap: RSP is still the user's,
 *			and points at one of the stacks. RIP is near the NMI
 *			entry, below or above.
 */
#define USER		0
#define USER_EVIL	1
#define KERNEL		2
#define GAP_REAL	3
#define GAP_LATCHED	4
#define USER_EVIL2	5

/* Bit per context. */
#ifndef CONTEXTS
#define CONTEXTS	63
#endif
#ifndef EVIL_RIP
#define EVIL_RIP	OUT_USER
#endif
#ifndef EVIL_RIP2
#define EVIL_RIP2	OUT_USER
#endif
#define EVIL_RDX	(REAL_TOP - FRAME - 1)

#define OUT_USER	1
#define OUT_KERNEL	2
#define OUT_BELOW	3
#define OUT_ABOVE	250
#define USER_RSP	(MEM_WORDS + 2)
#define KERNEL_RSP	(MEM_WORDS + 4)
#define USER_RDX	(MEM_WORDS + 6)
#define KERNEL_RDX	(MEM_WORDS + 8)
#define SCRATCH		(MEM_WORDS + 10)

byte ctx;

#define CTX_USER	(ctx == USER || ctx == USER_EVIL || ctx == USER_EVIL2)
#define CTX_RIP	(ctx == USER -> OUT_USER : (ctx == USER_EVIL -> EVIL_RIP : \
		(ctx == USER_EVIL2 -> EVIL_RIP2 : (ctx == KERNEL -> OUT_KERNEL : \
		(ctx == GAP_REAL -> OUT_BELOW : OUT_ABOVE)))))
#define CTX_CS	(CTX_USER -> USER_CS : KERNEL_CS)
#define CTX_SS	(CTX_USER -> USER_SS : KERNEL_SS)
#define CTX_RSP	(ctx == USER -> USER_RSP : (ctx == KERNEL -> KERNEL_RSP : \
		(ctx == GAP_LATCHED || ctx == USER_EVIL -> LATCHED_TOP - FRAME : \
		 REAL_TOP - FRAME)))
#define CTX_RDX	(ctx == USER -> USER_RDX : (ctx == KERNEL -> KERNEL_RDX : EVIL_RDX))
/* Set in the middle of a copy backward, or by a program. */
#define CTX_DF	(ctx == KERNEL || ctx == USER_EVIL)

#define OUTERMOST	(cs == USER_CS || rip == OUT_KERNEL || rip == OUT_BELOW || \
			 rip == OUT_ABOVE)
/* An NMI that can be delivered is delivered before the next step. */
#define AT(label)	(rip == (label) && cs == KERNEL_CS && !dead && \
			 !(pending && !masked && NMI_FAIR))

/* ------------------------------------------------------ ghosts, properties */

/*
 * Ghosts record what happened, for the properties only. No step reads one.
 *
 * "owed" is the sequence-number formulation of "every arrival is followed by
 * a complete handler run begun after it", with the numbers reduced to the
 * only comparison that matters: owed says that the last arrival is younger
 * than the beginning of the last handler run. "running" is set from the
 * beginning of a run to its end, so a run that is begun and abandoned is seen.
 */
bit owed, running;
bit away;		/* The outermost context is interrupted. */
bit mc_active, db_active; /* From delivery of #MC, #DB to its own IRET. */
bit needed[3];		/* The frame there is somebody's only copy. */
#define ON_REAL		0
#define ON_LATCHED	1
#define ON_PARKED	2
#ifdef MC
byte mc_hit;		/* The RIP that #MC hit. */
#endif

/*
 * The properties. Each assertion is headed by a constant that names it, so
 * that one exhaustive run tells which of them hold and which do not. With ONLY=n
 * the other constants are 1, so that a run stops at the nth property alone.
 */
#ifndef ONLY
#define ONLY	0
#endif
#define UNLESS_ONLY(n)	(ONLY != 0 && ONLY != n)
bit REENTRY = UNLESS_ONLY(1);
bit FRAMES = UNLESS_ONLY(2);
bit RETURN = UNLESS_ONLY(3);
bit ARRIVAL = UNLESS_ONLY(4);
bit REST = UNLESS_ONLY(5);
bit COUNT = UNLESS_ONLY(6);
bit STACK = UNLESS_ONLY(7);
bit CLEAN = UNLESS_ONLY(8);
bit EXACT = UNLESS_ONLY(9);
bit JUDGED = UNLESS_ONLY(10);

/*
 * After the first violation the outside world keeps still, so that what is
 * seen from there on is its consequence.
 */
bit doomed;
#define CHECK(property, c)	assert(property || (c)); doomed = doomed || !(c)

/* Count is 0 or 1, checked at every write. */
#define SET_COUNT(v)	nest_count = v; CHECK(COUNT, nest_count == 0 || nest_count == 1)

/*
 * One line of a replayed trail: the state before the step, then who executes
 * what. Costs nothing in a verification.
 */
mtype = { NMIs_open, NMIs_masked };
#define SAY(where, what) \
	printf("  count %d latch %d pin %d ", nest_count, latch, pending); \
	printf("%e\t", (masked -> NMIs_masked : NMIs_open)); \
	printf(where); printf(what); printf("\n")

/*
 * REACH: has every step been taken? Spin does not tell that of indivisible steps.
 * So each notes that it was taken, and the search reports it in the end. The list
 * of all steps is what the generated code has of these notes.
 */
#ifdef REACH
c_decl {
	static unsigned char taken[512];
	extern int atexit(void (*function)(void));

	static void report_taken(void)
	{
		int step;

		for (step = 0; step < 512; step++)
			if (taken[step])
				printf("taken %d\n", step);
	}
}
#define REPORT_TAKEN	c_code { atexit(report_taken); }
#define TAKEN(step)	c_code { taken[step] = 1; }
#else
#define REPORT_TAKEN	skip
#define TAKEN(step)	skip
#endif

/* The CPU is at this step: the options of the loop begin with it. */
#define STEP(label, where, what)	AT(label) -> TAKEN(label); SAY(where, what); RAN

/* The same, for one half of a step with more than one outcome. */
#define CHOICE(label, possible, where, what) \
	AT(label) && (possible) -> TAKEN(256 + label); SAY(where, what); RAN

/* ------------------------------------------------------------- liveness */

/*
 * In the liveness runs the outside world calms down at some time of its own
 * choice. STORM leaves the NMIs on, but the code that an NMI has interrupted
 * executes at least one step before the next.
 */
#ifdef LIVE
bit quiet, ran;
#define EVENTS		(!quiet && !doomed)
#define RAN		ran = 1
#define RAN_NOTHING	ran = 0
#ifdef STORM
#define NMI_EVENTS	(!doomed)
#define NMI_FAIR	ran
#else
#define NMI_EVENTS	EVENTS
#define NMI_FAIR	true
#endif
#define CALM_DOWN \
	:: d_step { !quiet -> printf("---- no more events\n"); quiet = 1 } \
	:: d_step { OUTERMOST && !dead && !ran -> ran = 1 }
#define AT_REST		(OUTERMOST && !pending && !dead)

#ifdef STORM
/* Every arrival is followed by a run begun after it, and every run ends. */
ltl live { [] ((quiet && owed) -> <> !owed) && [] ((quiet && running) -> <> !running) }
#else
/* When events cease, the machine comes to rest. */
ltl live { [] (quiet -> <> [] AT_REST) }
#endif

#else
#define EVENTS		(!doomed)
#define NMI_EVENTS	EVENTS
#define NMI_FAIR	true
#define RAN		skip
#define RAN_NOTHING	skip
#define CALM_DOWN
#endif

/* ------------------------------------------------------------- primitives */

#ifdef FRED
#define IRET_UNMASKS(mark)	masked = ((mark) & SS_NMI -> 0 : masked)
#else
#define IRET_UNMASKS(mark)	masked = 0
#endif

/* What a protocol adds: more that is 0 at rest, and what it counts. */
#ifndef MORE_AT_REST
#define MORE_AT_REST	true
#endif
#ifndef ALL_COUNTED
#define ALL_COUNTED	true
#endif
#ifndef TO_BE_COUNTED
#define TO_BE_COUNTED	skip
#endif

#define DIE \
	dead = 1; \
	printf("  *** the machine is dead\n"); \
	CHECK(RETURN, false)

/* Spin wants no conditional expression in a parameter of an inline. */
#define PUSH(value)	word = value; push_word()
byte word;

inline push_word()
{
	if
	:: dead
	:: !dead && NO_ROOM(rsp, 1) ->
		CHECK(STACK, false);
		DIE
	:: else ->
		rsp--;
		mem[rsp] = word
	fi;
	word = 0
}

#define WORD(offset)	mem[IN_MEMORY(rsp + (offset))]
#define IN_MEMORY(a)	((a) >= 0 && (a) < MEM_WORDS -> (a) : 0)
#define POP(reg)	reg = WORD(0); WORD(0) = 0; rsp++
#define FLAGS		(FLAGS_ONE + FLAG_DF * df)

#define WRITE_FRAME(base, fip, fcs, fflags, fsp, fss) \
	mem[(base) + RIP_W] = fip; \
	mem[(base) + CS_W] = fcs; \
	mem[(base) + FLAGS_W] = fflags; \
	mem[(base) + RSP_W] = fsp; \
	mem[(base) + SS_W] = fss

/* Delivery through an IST gate. TF and IF play no role here. */
#define DELIVER(top, handler, mark) \
	away = (OUTERMOST -> 1 : away); \
	WRITE_FRAME((top) - FRAME, rip, cs, FLAGS, rsp, ss + (mark)); \
	rsp = (top) - FRAME; \
	cs = KERNEL_CS; \
	ss = KERNEL_SS; \
	rip = handler

#define FAULT_IRET	200	/* The handler of a fault does no more than return. */

/* Delivery without IST, from kernel mode: a frame below RSP. */
inline fault()
{
	if
	:: NO_ROOM(rsp, FRAME) ->
		CHECK(STACK, false);
		DIE
	:: else ->
		WRITE_FRAME(rsp - FRAME, rip, cs, FLAGS, rsp, ss);
		rsp = rsp - FRAME;
		rip = FAULT_IRET
	fi
}

/* The outermost context goes on: here everything has to be as it was. */
inline outermost_resumes()
{
	printf("==== the outermost context resumes\n");
	CHECK(RETURN, away);
	CHECK(RETURN, cs == CTX_CS && rip == CTX_RIP && rsp == CTX_RSP);
	CHECK(RETURN, ss == CTX_SS && df == CTX_DF && rdx == CTX_RDX);
	CHECK(RETURN, !running && !mc_active && !db_active);
	CHECK(ARRIVAL, !running && (!owed || pending));
	CHECK(REST, nest_count == 0 && latch == 0 && MORE_AT_REST);
	CHECK(EXACT, ALL_COUNTED);
	away = 0;
	/* After a wrong return the machine is beyond repair. */
	dead = !(cs == CTX_CS && rip == CTX_RIP && rsp == CTX_RSP &&
		 ss == CTX_SS && df == CTX_DF && rdx == CTX_RDX && !running &&
		 !mc_active && !db_active);
}

/*
 * A frame whose lifetime has ended is replaced by one that looks alive, is of
 * kernel mode, and leads nowhere. On hardware some older frame would be there;
 * here whoever still believes in it is seen, and a state is not worth a second
 * one that differs in garbage only.
 */
#define NOWHERE	255
#define POISON(base)	WRITE_FRAME(base, NOWHERE, KERNEL_CS, FLAGS_ONE, KERNEL_RSP, KERNEL_SS)

/* Frames that others look at. The rest is cleared, to have fewer states. */
#define IS_SHARED(base) \
	((base) == REAL_TOP - FRAME || (base) == LATCHED_TOP - FRAME || \
	 (base) == DB_TOP - FRAME || (base) == MCE_TOP - FRAME || (base) == DF_TOP - FRAME)

#define REAL_FRAME_ENDS \
	needed[ON_REAL] = 0; \
	mem[REAL_TOP - FRAME - 1] = 0; \
	POISON(REAL_TOP - FRAME)

byte base;

inline iret()
{
	if
	:: dead
	:: !dead && (rsp == 0 || rsp + FRAME > MEM_WORDS) -> DIE
	:: else ->
		RAN_NOTHING;
		IRET_UNMASKS(mem[rsp + SS_W]);
		base = rsp;
		df = (mem[rsp + FLAGS_W] & FLAG_DF) / FLAG_DF;
		rip = mem[rsp + RIP_W];
		cs = mem[rsp + CS_W];
		ss = mem[rsp + SS_W] & ~SS_NMI;
		rsp = mem[rsp + RSP_W];
		if
		:: IS_SHARED(base) -> POISON(base)
		:: else -> WRITE_FRAME(base, 0, 0, 0, 0, 0)
		fi;
		base = 0;
		if
		:: !(cs == KERNEL_CS && ss == KERNEL_SS) &&
		   !(cs == USER_CS && ss == USER_SS) -> DIE
		:: cs == KERNEL_CS && rip == NOWHERE -> DIE
		:: else ->
			if
			:: OUTERMOST -> outermost_resumes()
			:: else
			fi
		fi
	fi
}

#define HANDLER_BEGINS	CHECK(REENTRY, !running); CHECK(CLEAN, !df); running = 1; owed = 0
#define HANDLER_ENDS	running = 0

/* ----------------------------------------------------------------- events */

#ifndef MC_NESTS
#define MC_NESTS	0
#endif
#ifdef MC
#define MC_EVENT \
	:: d_step { EVENTS && !dead && (!mc_active || MC_NESTS) -> \
		printf("---- #MC is delivered\n"); \
		mc_active = 1; \
		mc_hit = rip; \
		DELIVER(MCE_TOP, MC_ENTRY, 0) }
#else
#define MC_EVENT
#endif

/* DB_IN_MC: a #DB that was due together with #MC is not discarded, but delivered. */
#ifdef DB_IN_MC
#define DB_LATE		(rip == MC_ENTRY && mem[MCE_TOP - FRAME + CS_W] == KERNEL_CS)
#else
#define DB_LATE		false
#endif

#ifdef DB
#define DB_EVENT \
	:: d_step { EVENTS && !dead && !db_active && (cs == USER_CS || WATCHABLE || DB_LATE) -> \
		printf("---- #DB: a watchpoint hit the last instruction\n"); \
		db_active = 1; \
		DELIVER(DB_TOP, DB_ENTRY, 0) }
#else
#define DB_EVENT
#endif

#ifdef DF
#define DF_EVENT \
	:: d_step { EVENTS && !dead && cs == KERNEL_CS && (rip == OUT_KERNEL || IRET_TO_USER) -> \
		printf("---- #DF: an IRET to user mode faulted\n"); \
		CHECK(FRAMES, !needed[ON_PARKED]); \
		DELIVER(DF_TOP, DF_SAVE, 0) }
#else
#define DF_EVENT
#endif

#ifdef SMI
#define SMI_EVENT \
	:: d_step { EVENTS && !dead && masked && SMI -> \
		printf("---- an SMI handler executes IRET: NMIs are unmasked\n"); \
		masked = 0 }
#else
#define SMI_EVENT
#endif

#define EVENT_OPTIONS \
	:: d_step { NMI_EVENTS && !dead && !(pending && owed) -> \
		printf("---- an NMI arrives\n"); \
		pending = 1; \
		owed = 1 } \
	:: d_step { NMI_FAIR && !dead && pending && !masked -> \
		printf("---- the NMI is delivered\n"); \
		pending = 0; \
		masked = 1; \
		CHECK(FRAMES, !needed[ON_REAL]); \
		needed[ON_REAL] = 1; \
		TO_BE_COUNTED; \
		DELIVER(REAL_TOP, NMI_ENTRY, SS_NMI_MARK) } \
	CONTEXT(USER) \
	CONTEXT(USER_EVIL) \
	CONTEXT(KERNEL) \
	CONTEXT(GAP_REAL) \
	CONTEXT(GAP_LATCHED) \
	CONTEXT(USER_EVIL2) \
	MC_EVENT \
	DB_EVENT \
	DF_EVENT \
	SMI_EVENT \
	CALM_DOWN

#ifdef FRED
#define SS_NMI_MARK	SS_NMI
#else
#define SS_NMI_MARK	0
#endif

#define CONTEXT_SWITCH \
	rip = CTX_RIP; cs = CTX_CS; ss = CTX_SS; rsp = CTX_RSP; rdx = CTX_RDX; \
	df = CTX_DF

#define CONTEXT(c) \
	:: d_step { EVENTS && !dead && OUTERMOST && !pending && ctx != (c) && \
		    (CONTEXTS & (1 << (c))) -> \
		ctx = c; CONTEXT_SWITCH; \
		printf("---- the CPU goes on in context "); printf(#c); printf("\n") }

#define POWER_ON \
	POISON(REAL_TOP - FRAME); \
	POISON(LATCHED_TOP - FRAME); \
	POISON(DB_TOP - FRAME); \
	mem[DB_TOP - FRAME + RIP_W] = DB_STALE_RIP; \
	POISON(MCE_TOP - FRAME); \
	mem[MCE_TOP - FRAME + RIP_W] = MC_STALE_RIP; \
	POISON(DF_TOP - FRAME); \
	ctx = KERNEL; CONTEXT_SWITCH; REPORT_TAKEN; \
	printf("---- the CPU is in context KERNEL\n")

/* ------------------------------------------- code shared by all protocols */

#define FAULT_OPTIONS \
	:: d_step { STEP(FAULT_IRET, "fault:   ", "iretq"); iret() }

#define MAY_FAULT(label, where) \
	:: d_step { CHOICE(label, EVENTS, where, "faults"); fault() }

/*
 * The stock #MC entry and handler, from kernel or user mode. MC_FIXUP and MC_MOVE
 * are the protocol's hooks, the first and the last thing in the C handler.
 */
#define MC_SAVE		210
#define MC_C_ENTRY	211
#define MC_BODY		212
#define MC_RESTORE	213
#define MC_IRET		214
#define MC_STOCK_ENTRY	MC_SAVE

#ifndef MC_FIXUP
#define MC_FIXUP	skip
#endif
#ifndef MC_MOVE
#define MC_MOVE		skip
#endif

/* Where the last #MC and #DB returned to: what would do the most harm. */
#ifndef MC_STALE_RIP
#define MC_STALE_RIP	NOWHERE
#endif
#ifndef DB_STALE_RIP
#define DB_STALE_RIP	NOWHERE
#endif

#ifdef MC
#ifdef MC_EARLY_FAULT
#define MC_EARLY	MAY_FAULT(MC_C_ENTRY, "#MC:     ")
#else
#define MC_EARLY
#endif
#define MC_OPTIONS \
	:: d_step { STEP(MC_SAVE, "#MC:     ", "save registers"); \
		PUSH(rdx); rdx = SCRATCH; rip = MC_C_ENTRY } \
	MC_EARLY \
	:: d_step { STEP(MC_C_ENTRY, "#MC:     ", "fix-up, if the protocol has one"); \
		rip = MC_BODY; MC_FIXUP } \
	MAY_FAULT(MC_BODY, "#MC:     ") \
	:: d_step { STEP(MC_BODY, "#MC:     ", "the C handler proper"); \
		CHECK(JUDGED, mem[MCE_TOP - FRAME + RIP_W] == mc_hit); \
		mc_hit = 0; rip = MC_RESTORE } \
	:: d_step { STEP(MC_RESTORE, "#MC:     ", "move, restore registers"); \
		MC_MOVE; POP(rdx); rip = MC_IRET } \
	:: d_step { STEP(MC_IRET, "#MC:     ", "iretq"); \
		mc_active = 0; iret(); \
		mem[MCE_TOP - FRAME + RIP_W] = MC_STALE_RIP }
#else
#define MC_OPTIONS
#endif

/* The stock #DB entry and handler. */
#define DB_SAVE		220
#define DB_BODY		221
#define DB_RESTORE	222
#define DB_IRET		223

#ifndef DB_ENTRY
#define DB_ENTRY	DB_SAVE
#endif

#ifdef DB
#define DB_OPTIONS \
	:: d_step { STEP(DB_SAVE, "#DB:     ", "save registers"); \
		PUSH(rdx); rdx = SCRATCH; rip = DB_BODY } \
	MAY_FAULT(DB_BODY, "#DB:     ") \
	:: d_step { STEP(DB_BODY, "#DB:     ", "the C handler"); rip = DB_RESTORE } \
	:: d_step { STEP(DB_RESTORE, "#DB:     ", "restore registers"); \
		POP(rdx); rip = DB_IRET } \
	:: d_step { STEP(DB_IRET, "#DB:     ", "iretq"); \
		db_active = 0; iret(); \
		mem[DB_TOP - FRAME + RIP_W] = DB_STALE_RIP }
#else
#define DB_OPTIONS
#endif

/* #DF: the handler of an IRET to user mode that faulted. */
#define DF_SAVE		230
#define DF_BODY		231
#define DF_RESTORE	232
#define DF_IRET		233

#ifdef DF
#define DF_OPTIONS \
	:: d_step { STEP(DF_SAVE, "#DF:     ", "save registers"); \
		PUSH(0); PUSH(rdx); rdx = SCRATCH; rip = DF_BODY } \
	:: d_step { STEP(DF_BODY, "#DF:     ", "the C handler"); rip = DF_RESTORE } \
	:: d_step { STEP(DF_RESTORE, "#DF:     ", "restore registers"); \
		POP(rdx); rsp++; rip = DF_IRET } \
	:: d_step { STEP(DF_IRET, "#DF:     ", "iretq"); iret() }
#else
#define DF_OPTIONS
#endif

/* ------------------------------------------------- exc_nmi(), in the kernel */

/*
 * arch/x86/kernel/nmi.c. An NMI that nests in one from user mode comes here while
 * that one runs; nmi_state tells. The caller says where it returns to.
 */

/* NMIs are unmasked early: by an SEV-ES guest here, with CONFIG_DEBUG_ENTRY in asm. */
#ifndef EARLY
#define EARLY		0
#endif

#define C_TEST		180
#define C_LATCH		181
#define C_EXECUTING	182
#define C_BEGIN		183
#define C_BODY		184
#define C_END		185
#define C_DEC		186
#define C_RETURN	187

#define IN_C		"  C:     "

#define EXC_NMI_OPTIONS(to_kernel, to_user) \
	:: d_step { CHOICE(C_TEST, EVENTS && EARLY, IN_C, "sev_es_nmi_complete()"); masked = 0 } \
	:: d_step { STEP(C_TEST, IN_C, "nmi_state != NMI_NOT_RUNNING?"); \
		rip = (nmi_state != NMI_NOT_RUNNING -> C_LATCH : C_EXECUTING) } \
	:: d_step { STEP(C_LATCH, IN_C, "nmi_state = NMI_LATCHED"); \
		nmi_state = NMI_LATCHED; rip = C_RETURN } \
	:: d_step { STEP(C_EXECUTING, IN_C, "nmi_state = NMI_EXECUTING"); \
		nmi_state = NMI_EXECUTING; rip = C_BEGIN } \
	MAY_FAULT(C_BEGIN, IN_C) \
	:: d_step { STEP(C_BEGIN, IN_C, "the handlers begin"); HANDLER_BEGINS; rip = C_BODY } \
	MAY_FAULT(C_BODY, IN_C) \
	:: d_step { STEP(C_BODY, IN_C, "the handlers run"); rip = C_END } \
	:: d_step { STEP(C_END, IN_C, "the handlers end"); HANDLER_ENDS; rip = C_DEC } \
	MAY_FAULT(C_DEC, IN_C) \
	:: d_step { STEP(C_DEC, IN_C, "if (dec nmi_state) goto nmi_restart"); \
		nmi_state = (nmi_state -> nmi_state - 1 : 0); \
		rip = (nmi_state -> C_BEGIN : C_RETURN) } \
	:: d_step { STEP(C_RETURN, IN_C, "return"); \
		rip = (ON_NMI_STACK(rsp) -> to_kernel : to_user) }
