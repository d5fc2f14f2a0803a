/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_VM_H
#define _INJECT_VM_H

#include "gdb.h"
#include "qmp.h"

struct vm_config {
	const char *qemu;
	const char *kernel;
	const char *initrd;
	const char *cpu;
	const char *append;
	/* Where the sockets, the snapshots and QEMU's messages go. */
	const char *dir;
	/* A file for the guest's console, or NULL. */
	const char *serial;
	/* More of QEMU's options, or NULL. */
	const char *options;
	/* BEGIN+LENGTH of text whose translation goes to the file vm.log, or NULL. */
	const char *log_text;
};

enum stop {
	STOP_TRAP,
	STOP_RESET,
	STOP_HANG,
};

/* One QEMU: gdb steps the guest and reads it, qmp injects and takes snapshots. */
struct vm {
	int pid;
	struct gdb gdb;
	struct qmp qmp;
	bool dead_guest;
	char log[256];
};

/* The guest is stopped before its first instruction. */
void vm_start(struct vm *vm, const struct vm_config *cfg);
void vm_kill(struct vm *vm);

/* Let the guest run to a breakpoint; @limit_ms is QEMU's CPU time. */
enum stop vm_cont(struct vm *vm, int limit_ms);

void vm_inject_nmi(struct vm *vm);
/* A command of the human monitor: its text, to be freed. */
char *vm_hmp(struct vm *vm, const char *cmd);
void vm_savevm(struct vm *vm, const char *name);
void vm_loadvm(struct vm *vm, const char *name);
/* The physical address of @virt as the CPU would translate it now, or ~0. */
u64 vm_translate(struct vm *vm, u64 virt);

#endif
