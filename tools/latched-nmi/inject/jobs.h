/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_JOBS_H
#define _INJECT_JOBS_H

#include <signal.h>

#include "mutant.h"
#include "mutate.h"
#include "result.h"
#include "sweep.h"

/* One QEMU's worth of work: a booted machine and what runs on it. */
struct job {
	const struct machine *machine;
	const char *entry;
	/* Contexts of the table, or none. */
	const char *contexts;
	struct sweep_wish wish;
	/* Mutants of the table that are for this machine, or none. */
	const char *mutants;
	/* A schedule of --replay and its context, or none. */
	const struct context *replay_context;
	const char *replay_instance;
	struct event replay;

	/* Changes of instructions: one of so many workers, if there are any. */
	struct mutate_wish mutate;

	char *out;
	int pid;
	bool failed;
};

struct jobs {
	struct job *job;
	int nr;
};

/* Set by a signal: no job is started any more, and those that run are stopped. */
extern volatile sig_atomic_t jobs_interrupted;

/* The new job is all zero but for what is given. */
struct job *jobs_add(struct jobs *js, const struct machine *m, const char *entry);

/*
 * Run all jobs, @parallel at a time, each in a process of its own.  Result lines go
 * to @all, and to @copy if it is not NULL.  Returns the number of workers that failed.
 */
int jobs_run(struct jobs *js, int parallel, const struct guest_config *opt,
	     const struct config *cfg, struct results *all, FILE *copy);

#endif
