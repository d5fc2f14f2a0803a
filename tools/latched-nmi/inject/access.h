/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_ACCESS_H
#define _INJECT_ACCESS_H

#include "guest.h"

/* Memory that one instruction reads or writes. */
struct access {
	u64 addr;
	u32 len;
	bool read, write;
};

#define MAX_ACCESSES	8

/* What the guest is about to execute. */
struct insn {
	struct access access[MAX_ACCESSES];
	int nr;
	/* It loads DR7. */
	bool to_dr7;
};

void insn_decode(struct guest *g, const struct regs *r, struct insn *insn);
/* Where the function @name loads DR7; nowhere if the compiler made no such function. */
int insn_find_to_dr7(struct guest *g, const char *name, u64 *addr, int max);

#endif
