/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_CONTEXT_H
#define _INJECT_CONTEXT_H

#include "guest.h"

/*
 * Bring the guest to the first instruction that @ctx names and make it the one
 * that is interrupted.  False, and @why, if it does not get there.
 */
bool context_enter(struct guest *g, const struct context *ctx, char *why, size_t len);
/*
 * The same for a context that is entered again and again, as mutants do: the second
 * time its snapshot is loaded.  Then it is @known, and so are the return points of C
 * that context_keep_returns() has been told of.
 */
bool context_reenter(struct guest *g, const struct context *ctx, bool *known);
void context_keep_returns(struct guest *g);
/* On to its next instruction or slot; false behind the last, and for most at once. */
bool context_next(struct guest *g);
void context_leave(struct guest *g);

/* "name" or, in a window, "name@symbol+offset", or "name@slot". */
void context_name(const struct guest *g, char *buf, size_t len);

#endif
