// SPDX-License-Identifier: GPL-2.0
/*
 * What an instruction reads and writes: decoded by capstone, with addresses by the
 * registers before it.
 */
#include <capstone/capstone.h>
#include <stdio.h>
#include <string.h>

#include "access.h"

/* Words of the frame that IRET pops. */
#define FRAME_WORDS	5

static csh handle;

static u64 reg_of(const struct regs *r, x86_reg reg, u64 next)
{
	static const struct {
		x86_reg r64, r32;
		enum reg n;
	} map[] = {
		{ X86_REG_RAX, X86_REG_EAX, R_RAX }, { X86_REG_RBX, X86_REG_EBX, R_RBX },
		{ X86_REG_RCX, X86_REG_ECX, R_RCX }, { X86_REG_RDX, X86_REG_EDX, R_RDX },
		{ X86_REG_RSI, X86_REG_ESI, R_RSI }, { X86_REG_RDI, X86_REG_EDI, R_RDI },
		{ X86_REG_RBP, X86_REG_EBP, R_RBP }, { X86_REG_RSP, X86_REG_ESP, R_RSP },
		{ X86_REG_R8, X86_REG_R8D, R_R8 }, { X86_REG_R9, X86_REG_R9D, R_R9 },
		{ X86_REG_R10, X86_REG_R10D, R_R10 }, { X86_REG_R11, X86_REG_R11D, R_R11 },
		{ X86_REG_R12, X86_REG_R12D, R_R12 }, { X86_REG_R13, X86_REG_R13D, R_R13 },
		{ X86_REG_R14, X86_REG_R14D, R_R14 }, { X86_REG_R15, X86_REG_R15D, R_R15 },
	};
	size_t i;

	if (reg == X86_REG_INVALID || reg == X86_REG_RIZ || reg == X86_REG_EIZ)
		return 0;
	if (reg == X86_REG_RIP)
		return next;
	for (i = 0; i < ARRAY_SIZE(map); i++) {
		if (reg == map[i].r64)
			return reg_get(r, map[i].n);
		if (reg == map[i].r32)
			return (u32)reg_get(r, map[i].n);
	}
	die("an address by register %s", cs_reg_name(handle, reg));
}

static u64 address(const struct regs *r, const x86_op_mem *m, u64 next)
{
	u64 addr = reg_of(r, m->base, next) + m->scale * reg_of(r, m->index, next) +
		   m->disp;

	if (m->segment == X86_REG_GS)
		addr += reg_get(r, R_GS_BASE);
	else if (m->segment == X86_REG_FS)
		addr += reg_get(r, R_FS_BASE);
	return addr;
}

static void add(struct insn *in, u64 addr, int size, bool load, bool store)
{
	if (in->nr == MAX_ACCESS)
		die("%s: more than %d accesses", in->text, MAX_ACCESS);
	in->mem[in->nr].addr = addr;
	in->mem[in->nr].size = size;
	in->mem[in->nr].load = load;
	in->mem[in->nr++].store = store;
}

/* An explicit memory operand: the first is the destination, in AT&T's terms the last. */
static void add_operand(struct insn *in, unsigned int id, int n, u64 addr, int size)
{
	switch (id) {
	case X86_INS_LEA:
	case X86_INS_NOP:
	case X86_INS_PREFETCHW:
	case X86_INS_PREFETCHNTA:
	case X86_INS_PREFETCHT0:
	case X86_INS_PREFETCHT1:
	case X86_INS_PREFETCHT2:
	case X86_INS_INVLPG:
	case X86_INS_CLFLUSH:
		return;
	case X86_INS_CMP:
	case X86_INS_TEST:
	case X86_INS_BT:
	case X86_INS_PUSH:
	case X86_INS_CALL:
	case X86_INS_JMP:
	case X86_INS_LJMP:
	case X86_INS_VERW:
	case X86_INS_MUL:
	case X86_INS_IMUL:
	case X86_INS_DIV:
	case X86_INS_IDIV:
	case X86_INS_LGDT:
	case X86_INS_LIDT:
		add(in, addr, size, true, false);
		return;
	case X86_INS_XCHG:
	case X86_INS_XADD:
	case X86_INS_CMPXCHG:
	case X86_INS_CMPXCHG16B:
		add(in, addr, size, true, true);
		return;
	case X86_INS_MOV:
	case X86_INS_MOVABS:
	case X86_INS_MOVSX:
	case X86_INS_MOVSXD:
	case X86_INS_MOVZX:
	case X86_INS_MOVNTI:
	case X86_INS_POP:
		add(in, addr, size, n > 0, n == 0);
		return;
	case X86_INS_STOSB:
	case X86_INS_STOSD:
	case X86_INS_STOSQ:
	case X86_INS_MOVSB:
	case X86_INS_MOVSQ:
		add(in, addr, size, n > 0, n == 0);
		return;
	}
	/* SETcc writes only; arithmetic reads what it writes. */
	if (id >= X86_INS_SETAE && id <= X86_INS_SETS)
		add(in, addr, size, false, true);
	else
		add(in, addr, size, true, n == 0);
}

/* What the instruction does to the stack. */
static void add_stack(struct insn *in, unsigned int id, const struct regs *r)
{
	u64 rsp = reg_get(r, R_RSP);
	int i;

	switch (id) {
	case X86_INS_PUSH:
	case X86_INS_PUSHFQ:
	case X86_INS_CALL:
		add(in, rsp - 8, 8, false, true);
		break;
	case X86_INS_POP:
	case X86_INS_POPFQ:
	case X86_INS_RET:
		add(in, rsp, 8, true, false);
		break;
	case X86_INS_LEAVE:
		add(in, reg_get(r, R_RBP), 8, true, false);
		break;
	case X86_INS_IRETQ:
		for (i = 0; i < FRAME_WORDS; i++)
			add(in, rsp + 8 * i, 8, true, false);
		break;
	}
}

/* Volume 3 of Intel's manual, "Serializing Instructions". */
static bool is_serialising(const cs_insn *c)
{
	const cs_x86 *x = &c->detail->x86;

	switch (c->id) {
	case X86_INS_IRETQ:
	case X86_INS_CPUID:
	case X86_INS_WRMSR:
	case X86_INS_INVLPG:
	case X86_INS_INVPCID:
	case X86_INS_LGDT:
	case X86_INS_LIDT:
	case X86_INS_LTR:
	case X86_INS_LLDT:
	case X86_INS_WBINVD:
		return true;
	case X86_INS_MOV:
		return x->op_count && x->operands[0].type == X86_OP_REG &&
		       ((x->operands[0].reg >= X86_REG_CR0 &&
			 x->operands[0].reg <= X86_REG_CR7) ||
			(x->operands[0].reg >= X86_REG_DR0 &&
			 x->operands[0].reg <= X86_REG_DR7));
	}
	return false;
}

static void decode(struct insn *in, const cs_insn *c, const struct regs *r)
{
	const cs_x86 *x = &c->detail->x86;
	u64 next = in->addr + c->size;
	int i;

	snprintf(in->text, sizeof(in->text), "%s %s", c->mnemonic, c->op_str);
	in->len = c->size;
	in->is_iret = c->id == X86_INS_IRETQ;
	in->is_nop = c->id == X86_INS_NOP;
	in->serialising = is_serialising(c);
	in->begins_save = c->id == X86_INS_PUSH && x->operands[0].type == X86_OP_IMM &&
			  x->operands[0].imm == -1;
	in->ends_restore = c->id == X86_INS_POP && x->operands[0].type == X86_OP_REG &&
			   x->operands[0].reg == X86_REG_RSI;
	for (i = 0; i < x->op_count; i++) {
		if (x->operands[i].type == X86_OP_MEM)
			add_operand(in, c->id, i, address(r, &x->operands[i].mem, next),
				    x->operands[i].size);
	}
	add_stack(in, c->id, r);
}

void insn_decode(struct insn *in, u64 addr, const u8 *code, size_t len,
		 const struct regs *r)
{
	cs_insn *c;

	if (!handle) {
		if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
			die("capstone does not start");
		cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
	}
	memset(in, 0, sizeof(*in));
	in->addr = addr;
	if (!cs_disasm(handle, code, len, addr, 1, &c)) {
		/* What capstone is too old for touches no memory: ENDBR64, say. */
		snprintf(in->text, sizeof(in->text), "(unknown to capstone)");
		return;
	}
	decode(in, c, r);
	cs_free(c, 1);
}
