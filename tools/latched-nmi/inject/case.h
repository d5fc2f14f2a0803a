/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_CASE_H
#define _INJECT_CASE_H

#include "guest.h"

enum verdict {
	V_OK,
	/* No handler run began after the last NMI. */
	V_LOST,
	/* The interrupted context is not what it was. */
	V_REGS,
	/* The entry's state is not 0, or the next case fails after it. */
	V_STATE,
	/* A panic, an oops, a double fault. */
	V_CRASH,
	/* A triple fault. */
	V_RESET,
	V_HANG,
	/* The script did not come to its end: nothing was shown. */
	V_UNREACHED,
	V_NR
};

extern const char * const verdict_name[V_NR];

/* A boundary: the instruction at @addr, when it is come to for the @pass-th time. */
struct spot {
	u64 addr;
	int pass;
};

/*
 * Do steps [@from, @to) of @ev; sweeps stop at @spot[].  V_OK means that the
 * guest stands right after step @to - 1.
 */
enum verdict case_steps(struct guest *g, const struct event *ev, int from, int to,
			const struct spot *spot, char *detail, size_t len);
/* All steps, then back to the interrupted instruction; judged. */
enum verdict case_run(struct guest *g, const struct event *ev,
		      const struct spot *spot, char *detail, size_t len);

#endif
