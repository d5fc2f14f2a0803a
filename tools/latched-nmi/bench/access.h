/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _BENCH_ACCESS_H
#define _BENCH_ACCESS_H

#include "gdb.h"

#define MAX_ACCESS	8

/* What one instruction does to memory and to the order of execution. */
struct insn {
	u64 addr;
	u8 len;
	/* Its text, for people. */
	char text[200];
	/* Pushes -1, as entries do before they save registers; pops RSI. */
	bool begins_save, ends_restore;
	bool is_iret;
	/* Nothing after it starts before everything ahead of it has ended. */
	bool serialising;
	bool is_nop;
	int nr;
	struct {
		u64 addr;
		u8 size;
		bool load, store;
	} mem[MAX_ACCESS];
};

/* Decode the instruction at @addr, of which @code are the bytes, in the state @r. */
void insn_decode(struct insn *in, u64 addr, const u8 *code, size_t len,
		 const struct regs *r);

#endif
