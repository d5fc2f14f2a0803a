/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Injector: put an event on every instruction boundary of the NMI path of a
 * built kernel and judge the outcome from outside the guest.
 */
#ifndef _INJECT_H
#define _INJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void *xalloc(size_t n);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);

/* sym.c: ELF symbols. */
struct symtab;
struct symtab *sym_load(const char *path);
bool sym_find(const struct symtab *t, const char *name, u64 *addr);
u64 sym_addr(const struct symtab *t, const char *name);
/* "symbol+0xoffset" of @addr into @buf. */
void sym_label(const struct symtab *t, u64 addr, char *buf, size_t len);
u64 sym_size(const struct symtab *t, const char *name);

/* vm.c: QEMU, its gdb stub and its monitor. */
#define REGS_MAX	1024

enum reg {
	R_RAX, R_RBX, R_RCX, R_RDX, R_RSI, R_RDI, R_RBP, R_RSP,
	R_R8, R_R9, R_R10, R_R11, R_R12, R_R13, R_R14, R_R15,
	R_RIP, R_EFLAGS, R_CS, R_SS, R_DS, R_ES, R_FS, R_GS,
	R_FS_BASE, R_GS_BASE, R_K_GS_BASE,
	R_CR0, R_CR2, R_CR3, R_CR4, R_CR8, R_EFER,
	R_NR
};

/* The g packet as it came; reg_get() takes it apart. */
struct regs {
	u8 raw[REGS_MAX];
	size_t len;
};

struct vm_config {
	const char *qemu;
	const char *kernel;
	const char *initrd;
	const char *cpu;
	const char *append;
	const char *memory;
	const char *dir;
	const char *serial;
};

enum stop {
	STOP_TRAP,
	STOP_RESET,
	STOP_HANG,
};

struct vm {
	int pid;
	int gdb;
	int qmp;
	bool dead_guest;
	char gdb_buf[8192];
	size_t gdb_len;
	char qmp_buf[65536];
	size_t qmp_len;
};

void vm_start(struct vm *vm, const struct vm_config *cfg);
void vm_kill(struct vm *vm);
void vm_hmp(struct vm *vm, const char *cmd, char *out, size_t len);
void vm_inject_nmi(struct vm *vm);
void vm_savevm(struct vm *vm, const char *name);
void vm_loadvm(struct vm *vm, const char *name);

void vm_bp_set(struct vm *vm, u64 addr);
void vm_bp_clear(struct vm *vm, u64 addr);
void vm_step(struct vm *vm);
/* Let the guest run to a breakpoint; @limit_ms is QEMU's CPU time. */
enum stop vm_cont(struct vm *vm, int limit_ms);

void vm_regs(struct vm *vm, struct regs *r);
void vm_reg_set(struct vm *vm, enum reg n, u64 val);
u64 reg_get(const struct regs *r, enum reg n);
const char *reg_name(enum reg n);
/* Name the registers that differ, or return false if none does. */
bool reg_diff(const struct regs *a, const struct regs *b, char *out, size_t len);

/* All memory access is by guest-physical address. */
void vm_read(struct vm *vm, u64 phys, void *buf, size_t len);
void vm_write(struct vm *vm, u64 phys, const void *buf, size_t len);
u64 vm_translate(struct vm *vm, u64 virt);

/* cfg.c: the case table. */
enum step_kind {
	STEP_NMI,
	STEP_MCE,
	STEP_IRET,
	STEP_RUN,
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
	char *sym;
};

#define MAX_STEPS	16
#define MAX_SWEEPS	3

struct event {
	char *name;
	char *title;
	char *only;
	bool classic_lossy;
	int nr;
	struct step step[MAX_STEPS];
};

struct context {
	char *name;
	char *load;
	char *at;
	char *until;
	char *rsp;
	bool spin;
	bool irqs_off;
	bool needs_mce;
	/* A data watchpoint on each slot of the thread stack's pt_regs in turn. */
	bool watch;
};

struct machine {
	char *name;
	char *cpu;
	char *append;
	char *mce;
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
	int nr_event, nr_context, nr_machine, nr_zone, nr_mutant, nr_suite;
};

void cfg_load(struct config *cfg, const char *path);
/* Is @name in the comma-separated @list?  "*" holds every name. */
bool list_has(const char *list, const char *name);

/* run.c: one guest, its contexts and cases. */
enum verdict {
	V_OK,
	V_LOST,
	V_REGS,
	V_STATE,
	V_CRASH,
	V_RESET,
	V_HANG,
	V_UNREACHED,
	V_NR
};

extern const char * const verdict_name[V_NR];

struct options {
	const char *qemu;
	const char *kernel;
	const char *vmlinux;
	const char *init;
	const char *module;
	const char *cases;
	const char *svg;
	const char *results;
	const char *render;
	const char *workdir;
	const char *machine;
	const char *entry;
	const char *only_case;
	const char *instance;
	const char *at;
	const char *suite;
	const char *serial;
	const char *mutants;
	int jobs;
	bool verbose;
	bool trace;
	bool help;
};

struct guest;

struct guest *guest_boot(const struct options *opt, const struct config *cfg,
			 const struct machine *m, const char *entry);
void guest_end(struct guest *g);
/*
 * Run those of @events (a list) that apply in @ctx.  Result lines go to @out:
 *   path <entry> <machine> <context> <instructions of the NMI path>
 *   case <entry> <machine> <context>/<event>
 *   point <label> <verdict> <detail>
 *   end
 *   skip <entry> <machine> <context> <reason>
 */
void guest_context(struct guest *g, const struct context *ctx,
		   const char *events, FILE *out);
void guest_mutant(struct guest *g, const struct mutant *mu, FILE *out);

/* mutant.c */
struct patch {
	u64 addr;
	u8 len;
	u8 new[16];
};

typedef void (*mutant_read_t)(void *arg, u64 addr, void *buf, size_t len);

/* What @mu changes in the running text; die if a pattern is not there. */
int mutant_patches(const struct symtab *sym, const struct mutant *mu,
		   mutant_read_t read, void *arg, struct patch *out, int max);

/* cpio.c: the guest's initramfs. */
void cpio_write(const char *path, const char *init, const char *module);

/* report.c */
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
	/* A mutant: cases run, and the first failure or "". */
	bool mutant;
	char *first;
	struct point *pt;
	int nr, max;
	int bad;
};

struct path_len {
	char *entry;
	char *machine;
	char *context;
	int nr;
};

struct report {
	struct result *res;
	int nr;
	struct path_len *path;
	int nr_path;
};

void report_read(struct report *rep, FILE *in);
/* KTAP to @out; returns the number of parent tests that are not ok. */
int report_ktap(const struct report *rep, const struct config *cfg, FILE *out);
void report_svg(const struct report *rep, const struct config *cfg,
		const char *machine, const char *path);

#endif
