/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_RESULT_H
#define _INJECT_RESULT_H

#include <stdio.h>

#include "path.h"

/*
 * Results travel as lines, from the workers to the report and to the file that
 * --results writes and --render reads:
 *
 *   kernel VERSION
 *   path ENTRY MACHINE CONTEXT INSTRUCTIONS     the NMI's path in entry text, then
 *   step LABEL PHASE                            a line for each instruction
 *   case ENTRY MACHINE CONTEXT/EVENT            then a line for each boundary:
 *   point LABEL VERDICT DETAIL
 *   skip ENTRY MACHINE CONTEXT[/EVENT] REASON
 *   mutant MACHINE NAME CASES [FIRST FAILURE]
 *   change MACHINE NAME CASES <tab> INSTRUCTION <tab> WHY EQUIVALENT <tab> SELF-CHECK <tab> FIRST FAILURE
 */
void write_kernel(FILE *out, const struct guest *g);
void write_path(FILE *out, const struct guest *g, const char *context, int nr);
void write_step(FILE *out, const char *label, enum phase phase);
void write_case(FILE *out, const struct guest *g, const char *name);
void write_point(FILE *out, const char *label, enum verdict v, const char *detail);
void write_skip(FILE *out, const struct guest *g, const char *name, const char *why);
void write_mutant(FILE *out, const struct guest *g, const char *name, int cases,
		  const char *first);

void write_change(FILE *out, const struct guest *g, const char *name, int cases,
		  const char *insn, const char *why, bool self_check, const char *first);

struct point {
	char *label;
	enum verdict v;
	char *detail;
};

struct result {
	char *entry;
	char *machine;
	char *name;
	/* A context that could not be reached, and why. */
	char *skip;
	/* A mutant: @nr cases were run, and the first failure or "". */
	bool mutant;
	char *first;
	/* The mutant is a change of this instruction; why nothing can find it. */
	char *insn;
	char *why;
	/* The kernel's self-check notices it. */
	bool self_check;
	struct point *pt;
	int nr, max;
	/* Boundaries where something was lost, and where the script did not end. */
	int lost, unreached;
};

struct result_path {
	char *entry;
	char *machine;
	char *context;
	int nr;
	struct {
		char *label;
		enum phase phase;
	} *step;
	int steps;
};

struct results {
	char *kernel;
	struct result *res;
	int nr;
	struct result_path *path;
	int nr_path;
};

void results_read(struct results *all, FILE *in);

/* The result of a change of an instruction, or NULL. */
const struct result *results_change(const struct results *all, const char *name,
				    const char *insn);
/* Add @more; of a change that stands in both, the result of @more counts. */
void results_merge(struct results *all, const struct results *more);

/* The event that a result is about. */
const struct event *result_event(const struct result *r, const struct config *cfg);
/* May this result lose, because stock is declared to? */
bool result_lossy(const struct result *r, const struct config *cfg);
/* Judged against declared. */
bool result_ok(const struct result *r, const struct config *cfg);

/* The command that runs a boundary of a result again, or all of it; to be freed. */
char *result_again(const struct result *r, const char *at);

#endif
