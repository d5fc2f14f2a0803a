/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mathieu Desnoyers' RFC of 2011, to the letter.
 *
 * What the RFC leaves open is filled in the obvious way: the hardware frame is
 * copied to the LATCHED stack when the first NMI goes there, and the frame
 * tells whether RIP is a kernel address.
 *
 * COUNT_IS_1 is the one-line repair of H4: an NMI in the epilogue restarts the
 * handler with a count of 1.
 *
 * The comments quote the RFC. A comparison and its branch are one step: NMIs
 * are masked in the real handler, and in the epilogue the RFC treats an NMI
 * before, between and after the two alike.
 */
/* REAL: the frame. LATCHED: the frame, RDX, a fault's frame. */
#define NMI_WORDS	6
#define LATCHED_WORDS	12

#ifdef COUNT_IS_1
#define COUNT_ON_RESTART	SET_COUNT(1)
#else
#define COUNT_ON_RESTART	skip
#endif

/* real_nmi_handler */
#define R_IRQ_DISABLE	9
#define R_IN_EPILOGUE	10
#define R_UNLATCH	11
#define R_GOTO		12
#define R_IN_NMI	13
#define R_LATCH		14
#define R_IRET		15
#define R_COUNT		16
#define R_COPY		17
/* latched_nmi_handler */
#define L_SAVE		20
#define L_BEGIN		21
#define L_BODY		22
#define L_END		23
#define L_RESTORE	24
/* __nmi_epilogue_begin ... __nmi_epilogue_end */
#define E_IF_LATCH	30
#define E_UNLATCH	31
#define E_GOTO		32
#define E_COUNT		33
#define E_IRET		34
#define E_END		35

#define NMI_ENTRY	R_IRQ_DISABLE
#define MC_ENTRY	MC_STOCK_ENTRY
#define IN_EPILOGUE(ip)	((ip) >= E_IF_LATCH && (ip) < E_END)
#include "machine.pml"

#define REAL_NMI	"NMI:     "
#define LATCHED		"handler: "
#define EPILOGUE	"epilogue "

active proctype cpu()
{
	d_step { POWER_ON }
	do
	EVENT_OPTIONS

	/* real_nmi_handler: always running with nmis disabled */
	/* local_irq_disable(); */
	:: d_step { STEP(R_IRQ_DISABLE, REAL_NMI, "cld; local_irq_disable()");
		df = 0; rip = R_IN_EPILOGUE }
	/* if (in_nmi_epilogue()) */
	:: d_step { STEP(R_IN_EPILOGUE, REAL_NMI, "if (in_nmi_epilogue())");
		rip = (WORD(CS_W) == KERNEL_CS && IN_EPILOGUE(WORD(RIP_W)) ->
		       R_UNLATCH : R_IN_NMI) }
	/* nmi_latch = 0; */
	:: d_step { STEP(R_UNLATCH, REAL_NMI, "nmi_latch = 0"); latch = 0;
		COUNT_ON_RESTART; rip = R_GOTO }
	/* set stack pointer to start of LATCHED_NMI_STACK, goto latched_nmi_handler; */
	:: d_step { STEP(R_GOTO, REAL_NMI, "goto latched_nmi_handler");
		REAL_FRAME_ENDS; rsp = LATCHED_TOP - FRAME; rip = L_SAVE }
	/* if (in_nmi()) */
	:: d_step { STEP(R_IN_NMI, REAL_NMI, "if (in_nmi())");
		rip = (nest_count > 0 -> R_LATCH : R_COUNT) }
	/* nmi_latch = 1; */
	:: d_step { STEP(R_LATCH, REAL_NMI, "nmi_latch = 1"); latch = 1; rip = R_IRET }
	/* iret */
	:: d_step { STEP(R_IRET, REAL_NMI, "iret"); iret(); REAL_FRAME_ENDS }
	/* nmi_nest_count++; */
	:: d_step { STEP(R_COUNT, REAL_NMI, "nmi_nest_count++");
		SET_COUNT(nest_count + 1); rip = R_COPY }
	/* set stack pointer to start of LATCHED_NMI_STACK, goto latched_nmi_handler; */
	:: d_step { STEP(R_COPY, REAL_NMI, "copy the frame; goto latched_nmi_handler");
		CHECK(FRAMES, !needed[ON_LATCHED]);
		WRITE_FRAME(LATCHED_TOP - FRAME, WORD(RIP_W), WORD(CS_W),
			    WORD(FLAGS_W), WORD(RSP_W), WORD(SS_W));
		needed[ON_LATCHED] = 1; REAL_FRAME_ENDS;
		rsp = LATCHED_TOP - FRAME; rip = L_SAVE }

	/* latched_nmi_handler: Can fault and reenable NMIs. */
	:: d_step { STEP(L_SAVE, LATCHED, "save registers");
		PUSH(rdx); rdx = SCRATCH; rip = L_BEGIN }
	:: d_step { STEP(L_BEGIN, LATCHED, "the system NMI handler begins");
		HANDLER_BEGINS; rip = L_BODY }
	MAY_FAULT(L_BODY, LATCHED)
	:: d_step { STEP(L_BODY, LATCHED, "the system NMI handler runs"); rip = L_END }
	:: d_step { STEP(L_END, LATCHED, "the system NMI handler ends");
		HANDLER_ENDS; rip = L_RESTORE }
	:: d_step { STEP(L_RESTORE, LATCHED, "restore registers"); POP(rdx); rip = E_IF_LATCH }

	/* __nmi_epilogue_begin: */
	/* if (nmi_latch) */
	:: d_step { STEP(E_IF_LATCH, EPILOGUE, "if (nmi_latch)");
		rip = (latch -> E_UNLATCH : E_COUNT) }
	/* nmi_latch = 0; */
	:: d_step { STEP(E_UNLATCH, EPILOGUE, "nmi_latch = 0"); latch = 0; rip = E_GOTO }
	/* goto latched_nmi_handler; */
	:: d_step { STEP(E_GOTO, EPILOGUE, "goto latched_nmi_handler"); rip = L_SAVE }
	/* nmi_nest_count--; */
	:: d_step { STEP(E_COUNT, EPILOGUE, "nmi_nest_count--");
		SET_COUNT((nest_count > -2 -> nest_count - 1 : -2)); rip = E_IRET }
	/* iret */
	:: d_step { STEP(E_IRET, EPILOGUE, "iret"); needed[ON_LATCHED] = 0; iret() }
	/* __nmi_epilogue_end: */

	FAULT_OPTIONS
	MC_OPTIONS
	od
}
