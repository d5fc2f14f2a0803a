/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One x86-64 CPU as the NMI entry code sees it.
 *
 * Every protocol includes this file and adds its own instructions. The whole
 * model is one process: one loop of options, each of which is either one
 * instruction at "rip", or one event that the outside world may choose at any
 * instruction boundary. The checker takes every choice at every boundary.
 *
 *	NMI pin		One pending bit. An arrival sets it; delivery, possible
 *			only while "masked" is clear, clears it and sets
 *			"masked". Every IRET clears "masked".
 *	#MC		At any boundary, but never while an earlier #MC has not
 *			executed its own IRET (MCG_STATUS.MCIP, one IST frame).
 *			Its handler returns, and may fault any number of times.
 *	faults		The NMI handler and the handlers of #MC and #DB may
 *			fault: a frame below RSP, and an IRET that returns there.
 *	#DB		A data watchpoint hits an access of the stub to the task.
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
 * Five stacks at a constant distance D from each other, as in the per-CPU
 * entry area, the lowest word of each being its guard page.
 */
#define REAL_TOP	(D)
#define LATCHED_TOP	(2 * D)
#define DB_TOP		(3 * D)
#define MCE_TOP		(4 * D)
#define THREAD_TOP	(5 * D)
#define MEM_WORDS	(5 * D)

#define IN_STACK(sp, top)	((sp) > (top) - D && (sp) <= (top))

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
#define FLAG_COND	1
#define FLAG_DF		2
#define KERNEL_SS	4
#define USER_SS		5
#define SS_NMI		8	/* FRED: this event was an NMI, unmask on return. */

byte mem[MEM_WORDS];

/* -------------------------------------------------------------- registers */

byte rip, rsp, cs, ss;
byte rdx;		/* Stands for all general registers. */
bit cond;		/* The flag that the next conditional jump looks at. */
bit df;
bit masked;		/* NMIs are masked from delivery until an IRET. */
bit pending;		/* The NMI pin. */
bit dead;		/* Triple fault, or an IRET to nowhere. */

/* What the stub and its C part keep. */
short nest_count;
byte latch, restart;

/* Nobody asks for more than "zero or not". */
#define INCREMENT(v)	v = 1

/* ---------------------------------------------- the interrupted (outermost) */

/*
 * What an NMI may interrupt when nothing of the NMI path is in progress.
 *
 *	USER		User mode.
 *	USER_EVIL	User mode that resembles the NMI path in every value that
 *			user code controls: RIP, RSP, RDX, DF.
 *	KERNEL		Kernel mode.
 *	GAP_*		Kernel mode in the SYSCALL gap: RSP is still the user's,
 *			and points at one of the stacks.
 */
#define USER		0
#define USER_EVIL	1
#define KERNEL		2
#define GAP_REAL	3
#define GAP_LATCHED	4
#define GAP_DB		5

/* Bit per context. */
#ifndef CONTEXTS
#define CONTEXTS	63
#endif
#ifndef EVIL_RIP
#define EVIL_RIP	OUT_USER
#endif
#define EVIL_RDX	(REAL_TOP - FRAME - 1)

#define OUT_USER	1
#define OUT_KERNEL	2
#define OUT_GAP		3
#define USER_RSP	(MEM_WORDS + 2)
#define KERNEL_RSP	(MEM_WORDS + 4)
#define USER_RDX	(MEM_WORDS + 6)
#define KERNEL_RDX	(MEM_WORDS + 8)
#define SCRATCH		(MEM_WORDS + 10)

byte ctx;

#define CTX_RIP	(ctx == USER -> OUT_USER : (ctx == USER_EVIL -> EVIL_RIP : \
		(ctx == KERNEL -> OUT_KERNEL : OUT_GAP)))
#define CTX_CS	(ctx <= USER_EVIL -> USER_CS : KERNEL_CS)
#define CTX_SS	(ctx <= USER_EVIL -> USER_SS : KERNEL_SS)
#define CTX_RSP	(ctx == USER -> USER_RSP : (ctx == KERNEL -> KERNEL_RSP : \
		(ctx == GAP_REAL -> REAL_TOP - FRAME : \
		(ctx == GAP_DB -> DB_TOP - FRAME : LATCHED_TOP - FRAME))))
#define CTX_RDX	(ctx == USER -> USER_RDX : (ctx == KERNEL -> KERNEL_RDX : EVIL_RDX))
#define CTX_DF	(ctx == USER_EVIL)

#define OUTERMOST	(cs == USER_CS || rip == OUT_KERNEL || rip == OUT_GAP)
/* An NMI that can be delivered is delivered before the next instruction. */
#define AT(label)	(rip == (label) && cs == KERNEL_CS && !dead && \
			 !(pending && !masked && NMI_FAIR))

/* ------------------------------------------------------ ghosts, properties */

/*
 * Ghosts record what happened, for the properties only. No instruction reads
 * one.
 *
 * "owed" is the sequence-number formulation of "every arrival is followed by
 * a complete handler run begun after it", with the numbers reduced to the
 * only comparison that matters: owed says that the last arrival is younger
 * than the beginning of the last handler run. "running" is set from the
 * beginning of a run to its end, so a run that is begun and abandoned is seen.
 */
bit owed, running;
bit away;		/* The outermost context is interrupted. */
bit mc_active;		/* From delivery of #MC to its own IRET. */
bit needed[2];		/* The frame there is somebody's only copy. */
#define ON_REAL		0
#define ON_LATCHED	1

/*
 * The properties. Each assertion is headed by a constant that names it, so
 * that one exhaustive run tells which of them hold and which do not.
 */
bit REENTRY, FRAMES, RETURN, ARRIVAL, REST, COUNT, STACK, CLEAN;	/* Always 0. */

/*
 * After the first violation the outside world keeps still, so that what is
 * seen from there on is its consequence.
 */
bit doomed;

/* ONLY=n: stop at the nth property, for the shortest trail that shows it. */
#ifndef ONLY
#define ONLY 0
#endif
#if ONLY == 0 || ONLY == 1
#define CHECK_REENTRY(c)	assert(REENTRY || (c)); doomed = doomed || !(c)
#else
#define CHECK_REENTRY(c)	doomed = doomed || !(c)
#endif
#if ONLY == 0 || ONLY == 2
#define CHECK_FRAMES(c)	assert(FRAMES || (c)); doomed = doomed || !(c)
#else
#define CHECK_FRAMES(c)	doomed = doomed || !(c)
#endif
#if ONLY == 0 || ONLY == 3
#define CHECK_RETURN(c)	assert(RETURN || (c)); doomed = doomed || !(c)
#else
#define CHECK_RETURN(c)	doomed = doomed || !(c)
#endif
#if ONLY == 0 || ONLY == 4
#define CHECK_ARRIVAL(c)	assert(ARRIVAL || (c)); doomed = doomed || !(c)
#else
#define CHECK_ARRIVAL(c)	doomed = doomed || !(c)
#endif
#if ONLY == 0 || ONLY == 5
#define CHECK_REST(c)		assert(REST || (c)); doomed = doomed || !(c)
#else
#define CHECK_REST(c)		doomed = doomed || !(c)
#endif
#if ONLY == 0 || ONLY == 6
#define CHECK_COUNT(c)		assert(COUNT || (c)); doomed = doomed || !(c)
#else
#define CHECK_COUNT(c)		doomed = doomed || !(c)
#endif
#if ONLY == 0 || ONLY == 7
#define CHECK_STACK(c)		assert(STACK || (c)); doomed = doomed || !(c)
#else
#define CHECK_STACK(c)		doomed = doomed || !(c)
#endif
#if ONLY == 0 || ONLY == 8
#define CHECK_CLEAN(c)		assert(CLEAN || (c)); doomed = doomed || !(c)
#else
#define CHECK_CLEAN(c)		doomed = doomed || !(c)
#endif

/* Count is 0 or 1, checked at every write. */
#define SET_COUNT(v)	nest_count = v; CHECK_COUNT(nest_count == 0 || nest_count == 1)

/*
 * One line of a replayed trail: the state before the instruction, then who
 * executes what. Costs nothing in a verification.
 */
mtype = { NMIs_open, NMIs_masked };
#define SAY(where, what) \
	printf("  count %d latch %d pin %d ", nest_count, latch, pending); \
	printf("%e\t", (masked -> NMIs_masked : NMIs_open)); \
	printf(where); printf(what); printf("\n")

/* Fetches one instruction: the options of the loop in CPU begin with it. */
#define INSN(label, where, what)	AT(label) -> SAY(where, what); RAN

/* The same, for one half of an instruction with more than one outcome. */
#define CHOICE(label, cond, where, what) \
	AT(label) && (cond) -> SAY(where, what); RAN

/* ------------------------------------------------------------- liveness */

/*
 * In the liveness runs the outside world calms down at some time of its own
 * choice. STORM leaves the NMIs on, but the code that an NMI has interrupted
 * executes at least one instruction before the next.
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

#ifndef NMI_STATE_AT_REST
#define NMI_STATE_AT_REST	true
#endif

#define DIE \
	dead = 1; \
	printf("  *** the machine is dead\n"); \
	CHECK_RETURN(false)

/* Spin wants no conditional expression in a parameter of an inline. */
#define PUSH(value)	word = value; push_word()
byte word;

inline push_word()
{
	if
	:: dead
	:: !dead && (rsp == 0 || rsp > MEM_WORDS || (rsp - 1) % D == 0) ->
		CHECK_STACK(false);
		DIE
	:: else ->
		rsp--;
		mem[rsp] = word
	fi;
	word = 0
}

#define WORD(offset)	mem[IN_MEMORY(rsp + (offset))]
#define IN_MEMORY(a)	((a) < MEM_WORDS -> (a) : 0)
#define POP(reg)	reg = WORD(0); WORD(0) = 0; rsp++
#define FLAGS		(FLAGS_ONE + cond + 2 * df)

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
	:: rsp < FRAME || rsp > MEM_WORDS || (rsp - 1) % D < FRAME ->
		CHECK_STACK(false);
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
	CHECK_RETURN(away);
	CHECK_RETURN(cs == CTX_CS && rip == CTX_RIP && rsp == CTX_RSP);
	CHECK_RETURN(ss == CTX_SS && df == CTX_DF && rdx == CTX_RDX);
	CHECK_RETURN(!running && !mc_active);
	CHECK_ARRIVAL(!running && (!owed || pending));
	CHECK_REST(nest_count == 0 && latch == 0 && restart == 0 && NMI_STATE_AT_REST);
	away = 0;
	/* After a wrong return the machine is beyond repair. */
	dead = !(cs == CTX_CS && rip == CTX_RIP && rsp == CTX_RSP &&
		 ss == CTX_SS && df == CTX_DF && rdx == CTX_RDX && !running &&
		 !mc_active);
}

/*
 * A frame whose lifetime has ended is replaced by one that looks alive, is of
 * kernel mode, and leads nowhere. On hardware some older frame would be there;
 * here whoever still believes in it is seen, and a state is not worth a second
 * one that differs in garbage only.
 */
#define NOWHERE	255
#define POISON(base)	WRITE_FRAME(base, NOWHERE, KERNEL_CS, FLAGS_ONE, KERNEL_RSP, KERNEL_SS)

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
		cond = mem[rsp + FLAGS_W] & FLAG_COND;
		df = (mem[rsp + FLAGS_W] & FLAG_DF) / FLAG_DF;
		rip = mem[rsp + RIP_W];
		cs = mem[rsp + CS_W];
		ss = mem[rsp + SS_W] & ~SS_NMI;
		rsp = mem[rsp + RSP_W];
		POISON(base);
		base = 0;
		if
		:: !(cs == KERNEL_CS && ss == KERNEL_SS) &&
		   !(cs == USER_CS && ss == USER_SS) -> DIE
		:: cs == KERNEL_CS && rip == NOWHERE -> DIE
		:: else ->
			if
			:: OUTERMOST -> cond = 0; outermost_resumes()
			:: else
			fi
		fi
	fi
}

#define HANDLER_BEGINS	CHECK_REENTRY(!running); CHECK_CLEAN(!df); running = 1; owed = 0
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
		DELIVER(MCE_TOP, MC_ENTRY, 0) }
#else
#define MC_EVENT
#endif

#ifdef DB
#define DB_EVENT \
	:: d_step { EVENTS && !dead && cs == KERNEL_CS && WATCHABLE -> \
		printf("---- #DB: a watchpoint hit the last instruction\n"); \
		DELIVER(DB_TOP, DB_SAVE, 0) }
#else
#define DB_EVENT
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
		CHECK_FRAMES(!needed[ON_REAL]); \
		needed[ON_REAL] = 1; \
		DELIVER(REAL_TOP, NMI_ENTRY, SS_NMI_MARK) } \
	CONTEXT(USER) \
	CONTEXT(USER_EVIL) \
	CONTEXT(KERNEL) \
	CONTEXT(GAP_REAL) \
	CONTEXT(GAP_LATCHED) \
	CONTEXT(GAP_DB) \
	MC_EVENT \
	DB_EVENT \
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

#define POWER_ON	ctx = KERNEL; CONTEXT_SWITCH; \
			printf("---- the CPU is in context KERNEL\n")

/* ------------------------------------------- code shared by all protocols */

#define FAULT_OPTIONS \
	:: d_step { INSN(FAULT_IRET, "fault:   ", "iretq"); iret() }

#define MAY_FAULT(label, where) \
	:: d_step { CHOICE(label, EVENTS, where, "faults"); fault() }

/*
 * The stock #MC entry and handler, from kernel or user mode. MC_FIXUP is the
 * protocol's hook, the first thing that the C handler does.
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

#ifdef MC
#ifdef MC_EARLY_FAULT
#define MC_EARLY	MAY_FAULT(MC_C_ENTRY, "#MC:     ")
#else
#define MC_EARLY
#endif
#define MC_OPTIONS \
	:: d_step { INSN(MC_SAVE, "#MC:     ", "save registers"); \
		PUSH(rdx); rdx = SCRATCH; rip = MC_C_ENTRY } \
	MC_EARLY \
	:: d_step { INSN(MC_C_ENTRY, "#MC:     ", "fix-up, if the protocol has one"); \
		rip = MC_BODY; MC_FIXUP } \
	MAY_FAULT(MC_BODY, "#MC:     ") \
	:: d_step { INSN(MC_BODY, "#MC:     ", "the C handler proper"); \
		rip = MC_RESTORE } \
	:: d_step { INSN(MC_RESTORE, "#MC:     ", "restore registers"); \
		POP(rdx); rip = MC_IRET } \
	:: d_step { INSN(MC_IRET, "#MC:     ", "iretq"); \
		mc_active = 0; iret() }
#else
#define MC_OPTIONS
#endif

/* The same for #DB. */
#define DB_SAVE		220
#define DB_C_ENTRY	221
#define DB_BODY		222
#define DB_RESTORE	223
#define DB_IRET		224

/* Where the last #DB returned to: what would do the most harm. */
#ifndef DB_STALE_RIP
#define DB_STALE_RIP	NOWHERE
#endif
#ifndef DB_FIXUP
#define DB_FIXUP	skip
#endif

#ifdef DB
#define DB_OPTIONS \
	:: d_step { INSN(DB_SAVE, "#DB:     ", "save registers"); \
		PUSH(rdx); rdx = SCRATCH; rip = DB_C_ENTRY } \
	:: d_step { INSN(DB_C_ENTRY, "#DB:     ", "fix-up, if the protocol has one"); \
		rip = DB_BODY; DB_FIXUP } \
	:: d_step { INSN(DB_BODY, "#DB:     ", "the C handler proper"); \
		rip = DB_RESTORE } \
	:: d_step { INSN(DB_RESTORE, "#DB:     ", "restore registers"); \
		POP(rdx); rip = DB_IRET } \
	:: d_step { INSN(DB_IRET, "#DB:     ", "iretq"); iret(); \
		mem[DB_TOP - FRAME + RIP_W] = DB_STALE_RIP }
#else
#define DB_OPTIONS
#endif

