/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_GUEST_H
#define _INJECT_GUEST_H

#include "cases.h"
#include "sym.h"
#include "vm.h"

/* Kernel image mapping with nokaslr. */
#define KERNEL_MAP	0xffffffff80000000ULL

#define MAX_RANGES	4
#define MAX_RET		64
#define MAX_TRAPS	8
#define MAX_KEPT	8
#define NR_IST		5
#define IST_REAL	2
#define IST_DB		3

/* What is booted, and how. */
struct guest_config {
	const char *qemu;
	const char *kernel;
	const char *vmlinux;
	const char *init;
	const char *initrd;
	const char *serial;
	/* A directory of our own for what each guest leaves. */
	const char *workdir;
	bool verbose;
	/*
	 * For changes of instructions: a snapshot "self-check" as well, before the latched
	 * entry checks itself, and vm.log, with the entry text that is executed.
	 */
	bool changes;
};

/* Bytes that are put over the kernel's text. */
struct patch {
	u64 addr;
	u8 len;
	u8 new[16];
};

/* A context whose snapshot can be loaded again: without patches. */
struct kept {
	const struct context *ctx;
	struct regs s0;
	char s0_dr[256];
	u64 ret[MAX_RET];
	int nr_ret;
	u64 nmi_regs;
};

struct range {
	u64 begin, end;
};

/* A booted kernel, and what it stands at. */
struct guest {
	const struct guest_config *opt;
	const struct config *cfg;
	const struct machine *machine;
	const char *entry;
	char dir[256];
	struct vm vm;
	struct symtab *ksym, *isym;
	/* As in linux_banner. */
	char version[64];

	/* Text that is not C: entry text first, then thunks. */
	struct range text[MAX_RANGES];
	int nr_text;
	/* Functions that a guest in good health does not call. */
	u64 trap[MAX_TRAPS];
	int nr_trap;
	u64 gate_nmi, gate_mce, gate_db;
	u64 iretq;
	u64 ist_top[NR_IST];
	u64 state_phys;
	/* The counts of nested NMIs and of restarts, in one quadword. */
	u64 counts_phys;
	u64 percpu, percpu_phys;
	u64 nmi_count_phys;
	u64 nmi_state_phys;
	/* RF, if QEMU sets it in the frame of an NMI. */
	u64 rf_pushed;

	/* The context in force: the interrupted instruction and its state. */
	const struct context *ctx;
	char snap[64];
	struct regs s0;
	char s0_dr[256];
	u64 s0_rip, s0_rsp;
	/* Nothing ran since the context's snapshot was taken or loaded. */
	bool restored;
	/* Which of the watchpoints of a watch context. */
	int slot;

	/* Where C functions return to entry text, as traced. */
	u64 ret[MAX_RET];
	int nr_ret;
	/* Where pt_regs of a plain NMI is, as traced. */
	u64 nmi_regs;

	const struct patch *patch;
	int nr_patch;
	struct kept kept[MAX_KEPT];
	int nr_kept;

	/* CPU time of QEMU after which a guest hangs. */
	int limit_ms;

	/* The case in progress. */
	const struct event *ev;
	u64 counts_before;
	u32 runs_before;
	bool nmi_injected;
	/* What interrupted the context was an NMI. */
	bool nmi_first;
	/* An NMI has hit the kernel's IRET. */
	bool nmi_at_iret;
};

/* CPU time that a case may take, and that a case may take which is repeated. */
#define CASE_MS		300
#define PATIENT_MS	2000

struct guest *guest_boot(const struct guest_config *opt, const struct config *cfg,
			 const struct machine *m, const char *entry);
void guest_end(struct guest *g);
/* Back to the snapshot of the context in force. */
void guest_restore(struct guest *g);
/* Put the patches in force over the text. */
void guest_patch(struct guest *g);

/* Types of a watchpoint, as perf_event_open(2) has them. */
#define BP_W	2
#define BP_RW	3

/*
 * From the snapshot "boot": the guest asks for a watchpoint of eight bytes at @addr, and
 * for one on a word of its own, by perf_event_open(2). Return: 0, or the error.
 */
int guest_watch(struct guest *g, u64 addr, u32 type);

/* Let the guest run until it stops; @want is where it is hoped to. */
enum stop guest_cont(struct guest *g, u64 want);
/* Does it stop at @addr? */
bool guest_run_to(struct guest *g, u64 addr);
u64 guest_rip(struct guest *g, struct regs *r);

u64 kernel_phys(u64 virt);
u64 guest_u64(struct guest *g, u64 phys);
u32 guest_u32(struct guest *g, u64 phys);

bool in_asm(const struct guest *g, u64 addr);
/* Without the thunks, which C code goes through as well. */
bool in_entry_text(const struct guest *g, u64 addr);
bool in_kernel_image(const struct guest *g, u64 addr);
bool is_trap(const struct guest *g, u64 addr);

/* A symbol of the kernel or of /init. */
bool guest_find(const struct guest *g, const char *name, u64 *addr);
void label_of(const struct guest *g, u64 addr, char *buf, size_t len);
/* A step to standard error, if that is wanted. */
void note(const struct guest *g, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The debug registers, as the monitor prints them. */
void guest_dr(struct guest *g, char *buf, size_t len);

#endif
