/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_PATH_H
#define _INJECT_PATH_H

#include "case.h"

/* The boundaries that the guest comes by. */
struct path {
	struct spot *spot;
	int nr, max;
};

/* What the instructions of an NMI's path in entry text do. */
enum phase {
	/* Decide where to go, leave the stack of the delivery. */
	PHASE_ENTRY,
	PHASE_SAVE,
	/* C, which has no boundaries there. */
	PHASE_HANDLERS,
	PHASE_RESTORE,
	/* From the last register on: the epilogue. */
	PHASE_RETURN,
	NR_PHASE
};

extern const char * const phase_name[NR_PHASE];

/*
 * Step from where the guest stands (or, if the event @before was injected, from
 * its gate) and record the boundaries that @st asks for.
 */
bool path_trace(struct guest *g, const struct step *st, enum step_kind before,
		struct path *p);
/*
 * The return points of C must be known before a script leaves C by anything but a
 * call: trace the plain NMI into @p, #MC in a handler, and plain #MC.
 */
bool path_learn(struct guest *g, struct path *p);
/* The phase of each boundary of a plain NMI's path @p, into @phase. */
void path_phases(struct guest *g, const struct path *p, enum phase *phase);
/* The range that the table declares for the entry in use. */
const struct zone *path_zone(const struct guest *g, const char *name);
void path_free(struct path *p);

#endif
