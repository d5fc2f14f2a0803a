/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_MUTATE_H
#define _INJECT_MUTATE_H

#include <stdio.h>

#include "guest.h"

struct results;

/*
 * Which instructions are changed: all of the zones "stub" of the table, or a sample
 * that is the same each time, or those named; and the share of one worker.
 */
struct mutate_wish {
	/* SYMBOL+0xOFFSET:CHANGE, ... or NULL. */
	const char *names;
	/* One of so many. */
	int sample;
	int worker, workers;
	/* What was found on another machine is not tried again. */
	const struct results *before;
};

/*
 * Change one instruction after the other in the running text and run the events of
 * the suite "mutate", up to the first that fails; a result line for each to @out.
 */
void mutate_run(struct guest *g, const struct mutate_wish *wish, FILE *out);

#endif
