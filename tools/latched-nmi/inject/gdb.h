/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_GDB_H
#define _INJECT_GDB_H

#include "util.h"

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

/* QEMU's gdb stub. */
struct gdb {
	int fd;
	char buf[8192];
	size_t len;
};

/*
 * Connect to @path, which the process @pid opens.  Memory is addressed
 * physically, and a step takes neither interrupts nor timers.
 */
void gdb_open(struct gdb *g, const char *path, int pid);
void gdb_close(struct gdb *g);

void gdb_bp_set(struct gdb *g, u64 addr);
void gdb_bp_clear(struct gdb *g, u64 addr);
void gdb_step(struct gdb *g);

/* Let the guest run, and interrupt it.  Either way an answer follows. */
void gdb_run(struct gdb *g);
void gdb_interrupt(struct gdb *g);
/* The packet that came within @ms into @out; false if none did. */
bool gdb_answer(struct gdb *g, char *out, size_t max, int ms);
/* Drop the answers that belong to the time before a snapshot was loaded. */
void gdb_flush(struct gdb *g);

void gdb_regs(struct gdb *g, struct regs *r);
void gdb_reg_set(struct gdb *g, enum reg n, u64 val);
u64 reg_get(const struct regs *r, enum reg n);
void reg_put(struct regs *r, enum reg n, u64 val);
/* Name the registers that differ, or return false if none does. */
bool reg_diff(const struct regs *a, const struct regs *b, char *out, size_t len);

void gdb_read(struct gdb *g, u64 phys, void *buf, size_t len);
void gdb_write(struct gdb *g, u64 phys, const void *buf, size_t len);

#endif
