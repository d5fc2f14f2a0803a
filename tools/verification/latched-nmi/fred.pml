/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The reference: what the hardware does right when events return as under
 * FRED. A return unmasks NMIs only if the frame says that the event was an
 * NMI, so a fault or #MC inside the handler unmasks nothing, and there is
 * nothing to latch. Faults, #MC and #DB are as in the other protocols.
 */
/* The frame, RDX, a fault's frame. */
#define NMI_WORDS	12
#define FRED

#define F_SAVE		10
#define F_BEGIN		11
#define F_BODY		12
#define F_END		13
#define F_RESTORE	14
#define F_ERETS		15

#define NMI_ENTRY	F_SAVE
#define MC_ENTRY	MC_STOCK_ENTRY
#define WATCHABLE	(rip == F_BODY)
#include "machine.pml"

#define HANDLER		"handler: "

active proctype cpu()
{
	d_step { POWER_ON }
	do
	EVENT_OPTIONS

	:: d_step { STEP(F_SAVE, HANDLER, "save registers");
		PUSH(rdx); rdx = SCRATCH; df = 0; rip = F_BEGIN }
	:: d_step { STEP(F_BEGIN, HANDLER, "exc_nmi() begins"); HANDLER_BEGINS; rip = F_BODY }
	MAY_FAULT(F_BODY, HANDLER)
	:: d_step { STEP(F_BODY, HANDLER, "exc_nmi() runs"); rip = F_END }
	:: d_step { STEP(F_END, HANDLER, "exc_nmi() ends"); HANDLER_ENDS; rip = F_RESTORE }
	:: d_step { STEP(F_RESTORE, HANDLER, "restore registers"); POP(rdx); rip = F_ERETS }
	:: d_step { STEP(F_ERETS, HANDLER, "erets or eretu"); needed[ON_REAL] = 0; iret() }

	FAULT_OPTIONS
	MC_OPTIONS
	DB_OPTIONS
	od
}
