/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_CASES_H
#define _INJECT_CASES_H

#include "util.h"

/* The case table, cases.cfg, whose head describes the language, and mutants.cfg. */

enum step_kind {
	STEP_NMI,
	STEP_MCE,
	STEP_IRET,
	/* What the CPU is made to take here, whether NMIs are masked or not. */
	STEP_DB,
	STEP_INT2,
	STEP_RUN,
	/* One instruction. */
	STEP_STEP,
	/* On to the first C function: is the state what C relies on? */
	STEP_C_STATE,
	STEP_SWEEP,
};

enum sweep_kind {
	/* Every boundary in entry text up to the interrupted instruction. */
	SWEEP_ALL,
	/* The same, and each pass over an instruction counts. */
	SWEEP_PASSES,
	/* SWEEP_ALL without the instruction that it starts at. */
	SWEEP_AFTER,
	/* Entry text up to the first C function, or the return to C. */
	SWEEP_STUB,
	/* Every instruction, C or not, up to a symbol. */
	SWEEP_TO,
	/* Every instruction, from C up to entry text. */
	SWEEP_C,
	/* SWEEP_ALL, cut to a named zone. */
	SWEEP_ZONE,
};

struct step {
	enum step_kind kind;
	enum sweep_kind sweep;
	/* STEP_RUN: which time the guest has to come to @sym; 0 is the first, too. */
	int pass;
	char *sym;
};

#define MAX_STEPS	48
#define MAX_SWEEPS	3

struct event {
	char *name;
	char *title;
	char *only;
	bool classic_lossy;
	/* The latched entry has to count a nested NMI, a restart. */
	bool counts_nested, counts_restart;
	/* No more than one run of the handlers begins after the last NMI. */
	bool one_run;
	int nr;
	struct step step[MAX_STEPS];
};

struct context {
	char *name;
	char *load;
	char *at;
	char *until;
	char *rsp, *rip, *rax;
	/* Flags that are set beside those that are. */
	char *flags;
	bool spin;
	bool irqs_off;
	bool needs_mce;
	/* A data watchpoint on each slot of the thread stack's pt_regs in turn. */
	bool watch;
};

/* Of the file "machines", which has them for everything that boots a guest. */
struct machine {
	char *name;
	char *title;
	char *emulator;
	char *program;
	char *options;
	char *cpu;
	char *append;
	char *mce;
	char *mce_smp;
	/* Of the emulators that the injector does not know. */
	char *slow;
	/* The machine whose mutants, and whose blocks of a suite that leaves it out, it takes. */
	char *like;
	/* Whose they are of the suite that is run. */
	const char *suite_of;
	const char *mutants_of;
};

struct zone {
	char *name;
	char *entry;
	char *begin;
	char *end;
};

struct mutant {
	char *name;
	char *machine;
	char *cases;
	int nr;
	char *op[8];
};

/* A change of an instruction, see mutate.c, that nothing can find. */
struct equivalent {
	char *name;
	/* How the place and the instruction begin. */
	char *at;
	char *insn;
	char *why;
};

struct suite {
	char *name;
	char *machines;
	char *contexts;
	char *events;
	char *entries;
};

struct config {
	struct event *event;
	struct context *context;
	struct machine *machine;
	struct zone *zone;
	struct mutant *mutant;
	struct suite *suite;
	struct equivalent *equivalent;
	int nr_event, nr_context, nr_machine, nr_zone, nr_mutant, nr_suite;
	int nr_equivalent;
};

/*
 * Both tables, of machines and of cases.  Dies with file and line if they make no
 * sense.  Only machines that QEMU emulates are taken.
 */
void cfg_load(struct config *cfg, const char *machines, const char *cases,
	      const char *mutants);

/* What the machines of the list @wanted do that @suite leaves out: see "like". */
void cfg_stand_in(struct config *cfg, const char *suite, const char *wanted);

const struct machine *cfg_machine(const struct config *cfg, const char *name);
const struct context *cfg_context(const struct config *cfg, const char *name);
const struct event *cfg_event(const struct config *cfg, const char *name);

/* A machine of the table, with what is different. */
struct machine_variant {
	char *name;
	char *base;
	char *cpu;
	/* In addition to those of the base. */
	char *options;
	char *append;
};

struct machine cfg_variant(const struct config *cfg, const struct machine_variant *v);

/*
 * Die, naming the word and what there is, if a word of @list is none of the @kind:
 * "machine", "context", "event", "mutant", "suite" or "entry".
 */
void cfg_check_list(const struct config *cfg, const char *kind, const char *list,
		    const char *where);

/*
 * A schedule of events, EVENT[@SYMBOL[+0xOFFSET][#PASS]]..., as a script.  The
 * words are those of --replay; die if one of them is none.
 */
void cfg_schedule(struct event *ev, const char *words);

/* The two entries of a kernel image. */
extern const char * const entries[2];

#endif
