/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Exploration of the NMI entry as it was built: the text of a vmlinux, executed
 * instruction by instruction on a machine with symbolic values, with every event
 * at every boundary.
 */
#ifndef _EXPLORE_H
#define _EXPLORE_H

#include <stdio.h>

#include "../../../latched-nmi/inject/cases.h"
#include "../../../latched-nmi/inject/sym.h"
#include "../../../latched-nmi/inject/util.h"

typedef int64_t s64;
typedef int32_t s32;

/* The size of a symbol that is there. */
static inline u64 sym_size(const struct symtab *t, const char *name)
{
	char end[256];

	snprintf(end, sizeof(end), "end:%s", name);
	return sym_addr(t, end) - sym_addr(t, name);
}

/* ------------------------------------------------------------ image.c */

/* The kernel as it runs on one machine: alternatives applied. */
struct image {
	const char *path;
	struct symtab *sym;
	/* Of text that was added. */
	struct symtab *more;
	struct seg *seg;
	int nr_seg;
};

/* A set of CPU features, by their names in cpufeatures.h without X86_. */
struct features;
struct features *features_load(const char *cpufeatures_h);
void features_set(struct features *f, const char *names);
bool features_has(const struct features *f, const char *name);

struct image *image_load(const char *vmlinux);
/* An entry that is not the kernel's, linked with it. */
void image_add(struct image *im, const char *path);
void image_patch(struct image *im, const struct features *f);
bool image_read(const struct image *im, u64 addr, void *buf, size_t len);
void image_write(struct image *im, u64 addr, const void *buf, size_t len);
u64 image_u64(const struct image *im, u64 addr);

/* ----------------------------------------------------------- decode.c */

enum opnd_kind { O_NONE, O_REG, O_IMM, O_MEM, O_SPECIAL };

/* Register numbers as in an instruction; RIP is a base only. */
enum { AX, CX, DX, BX, SP, BP, SI, DI, R8, R9, R10, R11, R12, R13, R14, R15,
	NO_REG = 16, REG_IP };

struct opnd {
	u8 kind;
	u8 size;
	u8 reg;		/* O_SPECIAL: a capstone register */
	bool high;	/* AH, CH, DH, BH */
	u8 base, index, scale;
	bool gs;
	u8 special;
	s64 val;	/* immediate or displacement */
};

struct insn {
	u64 addr;
	u32 id;		/* capstone's X86_INS_* */
	u8 len;
	u8 cc;		/* of Jcc, SETcc, CMOVcc; 16 is none */
	bool rep;
	bool asm_text;
	u8 nr;
	struct opnd op[3];
};

void decode_init(const struct image *im);
/* After a change of the text. */
void decode_flush(void);
/* NULL if there is no instruction. */
const struct insn *decode(u64 addr);
void decode_text(u64 addr, char *buf, size_t len);
bool in_asm(u64 addr);
/* The same, as the injector has it. */
bool in_swept_text(u64 addr);

/* -------------------------------------------------------------- cpu.c */

/*
 * Everything that a state consists of is one array of words, so that a hash of
 * it can be kept up to date by each write, and each write can be undone.
 */
enum {
	W_GPR,
	W_RIP = W_GPR + 16, W_FLAGS, W_CS, W_SS, W_GS, W_KGS, W_CR2, W_CR3, W_DR7,
	W_SPEC, W_MASKED, W_PENDING,
	/* What happened, for the properties; no instruction reads it. */
	W_OWED, W_RUNNING, W_MC, W_DB, W_TOUCHED, W_AWAY, W_BUDGET,
	/* For the counters: an NMI was latched, the one in progress was, one restarted. */
	W_LATCHED, W_COUNTED, W_RESTARTED,
	/* The TLB has old entries of the user's page table. */
	W_STALE,
	W_MEM,
	/* Which bytes of a word of memory are known, see set_part(). */
	W_PART = W_MEM + 1024,
	W_MAX = W_PART + 1024
};

extern u64 w[W_MAX];
extern u64 state_hash[2];
void set(int i, u64 v);
/* The same for a word of memory. */
void set_word(int i, u64 v);
size_t undo_mark(void);
void undo_to(size_t mark);
void rehash(void);

#define UNLIMITED	(~0ULL)	/* W_BUDGET: of events */

#define RIP	w[W_RIP]
#define GPR(r)	w[W_GPR + (r)]

/*
 * Values that are not numbers. What is computed from one is ANY; a branch that
 * depends on one is taken and not taken. DEAD is memory whose content no longer
 * matters: so is what is computed from it, and a branch that depends on it is a
 * violation. CLOB is a register that a C function may have changed.
 */
#define SYM_BASE	0x7e5a000000000000ULL
#define IS_SYM(v)	(((v) >> 48) == 0x7e5a)
#define DEAD		(SYM_BASE + 1)
#define ANY		(SYM_BASE + 2)
#define CLOB		(SYM_BASE + 3)
#define TOKEN(r)	(SYM_BASE + 0x100 + (r))

/* Some bytes of a value that is not a number. */
static inline u64 part_of(u64 v)
{
	return v == DEAD ? DEAD : ANY;
}

#define FL_CF	0x1ULL
#define FL_PF	0x4ULL
#define FL_ZF	0x40ULL
#define FL_SF	0x80ULL
#define FL_TF	0x100ULL
#define FL_IF	0x200ULL
#define FL_DF	0x400ULL
#define FL_OF	0x800ULL
#define FL_NT	0x4000ULL
#define FL_RF	0x10000ULL
#define FL_AC	0x40000ULL
/* The arithmetic flags depend on a value that is not a number. */
#define FL_UNKNOWN (1ULL << 62)
/* On one that is DEAD: no instruction may decide by it. */
#define FL_DEAD (1ULL << 61)
#define FL_ARITH (FL_CF | FL_PF | FL_ZF | FL_SF | FL_OF | 0x10)

#define KERNEL_CS	0x10
#define KERNEL_SS	0x18
#define USER_CS		0x33
#define USER32_CS	0x23
#define USER_SS		0x2b

/* The instruction in progress. */
extern u64 executing;
/* If there is one: by address, which instructions have been executed. */
#define REACHED_SIZE	(1 << 22)
extern u8 *reached;
extern bool has_pcid, has_ibrs, has_ibt;
/* How many outcomes has the instruction at RIP? */
int cpu_outcomes(void);
/* Execute it. False after a violation, which has been reported. */
bool cpu_step(int outcome);
bool iret(void);
/* An exception that is handled on the stack in use, and returns to RIP. */
bool fault(void);
bool push(u64 v);
bool pop(u64 *v);

static inline u64 size_mask(int size)
{
	return size == 8 ? ~0ULL : (1ULL << (8 * size)) - 1;
}

/* Is the page table in use the user's? */
bool user_cr3(void);
bool read_mem(u64 addr, int size, u64 *v);
bool write_mem(u64 addr, int size, u64 v);

/* ---------------------------------------------------------- machine.c */

/* What memory the machine has, and what is known about it. */
enum stack { DF, REAL, LATCHED, DB, MCE, THREAD, ENTRY, NR_STACKS };

struct stack_info {
	const char *name;
	u64 bottom, top;
	int words;	/* of it, from the top, that are memory */
	int first;	/* index in w[] of the lowest of them */
};

struct machine_desc {
	char *name;
	char *features;
};

struct context_desc {
	const char *name;
	const char *at;
	u64 cs, ss, flags;
	u64 rsp;
	const char *rsp_stack;
	bool user_gs, user_cr3;
	/* What interrupts it is an NMI. */
	bool only_nmi;
	/* The instructions from "at" up to this symbol, in turn. */
	const char *until;
	const char *frame, *own, *in;
};

extern const struct image *image;
extern struct stack_info stacks[NR_STACKS];
extern bool entry_latched;
extern bool count_to_two;
/* A first NMI in kernel mode need not be explored in each place of each search. */
extern bool explored_already;
extern int violation;
extern char violation_text[256];

enum property { P_NONE, P_REENTRY, P_RETURN, P_ARRIVAL, P_REST, P_CRASH, P_HANG,
	P_CLEAN, P_COUNT, NR_PROPERTIES };
extern const char * const property_name[NR_PROPERTIES];

bool violate(enum property p, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* What W_TOUCHED says of the last instruction. */
enum { TOUCHED_NOTHING, TOUCHED_STACK, TOUCHED_DATA };

enum ev { EV_STEP, EV_FORK, EV_NMI, EV_MC, EV_DB, EV_WATCH, EV_FAULT, EV_SMI, NR_EVENTS };
extern const char * const event_name[NR_EVENTS];

void machine_init(const struct image *im, const struct features *f, const char *entry);
/* Bring the machine to @ctx, @n instructions behind its first; false: no such. */
bool machine_start(const struct context_desc *ctx, int n);
/* One instruction, or one step of a summary. */
bool machine_step(int outcome);
int machine_outcomes(void);
bool machine_event(enum ev ev);
bool machine_may(enum ev ev);
bool at_rest(void);
/* Is all as it has to be, back at the interrupted instruction? */
bool judge(void);
bool is_summary(u64 addr);
bool is_fault(u64 addr);
/* C of the kernel's that has pointers to its own data, and none to these stacks. */
bool follows_pointers(u64 addr);
/* Data that within_cpu_entry() does not refuse a watchpoint on. */
bool watchable(u64 addr);
int find_word(u64 addr);
bool pinned(u64 addr, int size, u64 *v);
void kill_word(u64 addr);
void label(u64 addr, char *buf, size_t len);

/* ------------------------------------------------------------ count.c */

void count_init(const struct image *im);
void count_start(void);
/* An NMI arrives at the real handler. */
void count_nmi(void);
/* An instruction changes @old to @v at @addr. */
bool count_latch(u64 addr, u64 old, u64 v);
/* The entry calls exc_nmi(). */
bool count_run(void);
/* latched_nmi_fixup() returns. */
bool count_fixup(void);
/* Back at the interrupted instruction. */
bool count_rest(void);

/* ----------------------------------------------------------- config.c */

#define MAX_MACHINES	32
#define MAX_CONTEXTS	64
#define MAX_RUNS	64
#define MAX_EQUIVALENTS	64

struct run_desc {
	char *name, *entry, *machines, *contexts, *events;
	/* Instead of contexts and events: look for one of so many changes. */
	int changes;
	/* So many events; 0: there is no bound. */
	int at_most;
	bool loss;
};

struct explore_config {
	struct machine_desc machine[MAX_MACHINES];
	struct context_desc context[MAX_CONTEXTS];
	struct run_desc run[MAX_RUNS];
	/* As in the injector's table: changes that make no difference here. */
	struct equivalent equivalent[MAX_EQUIVALENTS];
	int nr_machine, nr_context, nr_run, nr_equivalent;
};

void explore_load(struct explore_config *cfg, const char *path, const char *version);

/* ----------------------------------------------------------- search.c */

struct search {
	/* What to do. */
	const struct context_desc *ctx;
	int behind;
	u32 events;		/* 1 << EV_... */
	u64 budget;
	bool first;		/* end at the first violation */
	bool progress;
	u64 max_states;
	/* What was found. */
	u64 states, instructions, violations, count[NR_PROPERTIES];
	u32 depth;
	double seconds;
	bool complete;
	u8 *path;		/* choices that lead to the first violation */
	size_t nr_path;
	int property;
	char text[256];
};

void search(struct search *s);
/* "event@symbol+0xN ..." of the violation; each instruction to  if given. */
void search_replay(const struct search *s, char *schedule, size_t len, FILE *out);

/* ----------------------------------------------------------- script.c */

struct sweep_result {
	int points, lost;
};

bool script_can(const struct event *ev);
/* An event of the injector's case table, at each boundary. */
bool script_sweep(const struct config *cfg, const struct event *ev,
		  const struct context_desc *ctx, int behind, const char *entry,
		  FILE *out, struct sweep_result *res);

/* ----------------------------------------------------------- mutate.c */

/*
 * Each change of an instruction, or those of @names, SYMBOL+0xOFFSET:CHANGE,..., is to
 * be found by the runs "mutate" on one of their machines that @machines has, too.
 */
int mutate(const struct explore_config *cfg, const char *machines, const char *names,
	   int workers, bool verbose);
/* One of @sample changes of entry text, on one machine. Returns how many are not found. */
int mutate_sample(const struct explore_config *cfg, const struct machine_desc *m,
		  int sample, FILE *out);

/* ------------------------------------------------------------- main.c */

void prepare(const struct machine_desc *m, const char *entry, struct image **im);

u32 events_of(const char *list);

/* ---------------------------------------------------------- compare.c */

int compare(const char *vmlinux, const char *features, const struct explore_config *cfg,
	    const char *results, const char *cases, const char *guests, const char *machines,
	    const char *text, bool verbose);

#endif
