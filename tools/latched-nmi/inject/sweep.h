/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_SWEEP_H
#define _INJECT_SWEEP_H

#include <stdio.h>

#include "case.h"

/* What of a context is wanted; NULL is everything. */
struct sweep_wish {
	const char *events;
	/* One instruction of a window, one boundary. */
	const char *instance;
	const char *at;
	/* Only the NMI's path. */
	bool trace;
};

/* Run the events in @ctx at each of their boundaries; result lines go to @out. */
void sweep_context(struct guest *g, const struct context *ctx,
		   const struct sweep_wish *wish, FILE *out);

/* Run @ev, which is not of the table, in @ctx, in a window at one @instance of it. */
void sweep_event(struct guest *g, const struct context *ctx, const char *instance,
		 const struct event *ev, FILE *out);

/*
 * The cases of @ev at the first instruction of @ctx, on a guest that has no patch in force.
 */
struct plan *sweep_plan(struct guest *g, const struct context *ctx, const struct event *ev);

/*
 * Run those cases of @plan, in the @ctx it was made in, that tell most of a change between
 * @begin and @end, up to the first failure, which goes to @first.  Returns the number of
 * cases that were run.
 */
int sweep_telling(struct guest *g, const struct context *ctx, const struct plan *plan,
		  u64 begin, u64 end, char *first, size_t len);

/*
 * Run @ev in @ctx up to the first failure, which goes to @first.  Returns the
 * number of cases that were run.
 */
int sweep_first(struct guest *g, const struct context *ctx, const struct event *ev,
		char *first, size_t len);

/* How many of the events of a context that @entry has are wanted. */
int sweep_count(const struct config *cfg, const char *entry,
		const struct sweep_wish *wish);

#endif
