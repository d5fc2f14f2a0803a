// SPDX-License-Identifier: GPL-2.0
/*
 * Decode an instruction: which memory does it access?
 */
#include <stdio.h>
#include <string.h>

#include <capstone/capstone.h>

#include "access.h"

/* The longest instruction, and a function that is looked through. */
#define INSN_MAX	15
#define FUNC_MAX	4096
#define REX_B		0x41

static csh handle;

static void start(void)
{
	if (handle)
		return;
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
		die("capstone does not start");
	cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
}

static const struct {
	x86_reg name;
	enum reg reg;
} regs_of[] = {
	{ X86_REG_RAX, R_RAX }, { X86_REG_RBX, R_RBX }, { X86_REG_RCX, R_RCX },
	{ X86_REG_RDX, R_RDX }, { X86_REG_RSI, R_RSI }, { X86_REG_RDI, R_RDI },
	{ X86_REG_RBP, R_RBP }, { X86_REG_RSP, R_RSP }, { X86_REG_R8, R_R8 },
	{ X86_REG_R9, R_R9 }, { X86_REG_R10, R_R10 }, { X86_REG_R11, R_R11 },
	{ X86_REG_R12, R_R12 }, { X86_REG_R13, R_R13 }, { X86_REG_R14, R_R14 },
	{ X86_REG_R15, R_R15 }, { X86_REG_RIP, R_RIP },
};

static u64 reg_value(const struct regs *r, x86_reg name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(regs_of); i++) {
		if (regs_of[i].name == name)
			return reg_get(r, regs_of[i].reg);
	}
	return 0;
}

static void add(struct insn *insn, u64 addr, u64 len, bool read, bool write)
{
	struct access *a;

	if (!len)
		return;
	if (insn->nr == MAX_ACCESSES)
		die("an instruction has too many memory operands");
	a = &insn->access[insn->nr++];
	*a = (struct access) { addr, len, read, write };
}

/* What an instruction does to the stack, which is no operand. */
static void add_stack(struct insn *insn, const cs_insn *c, const struct regs *r)
{
	u64 rsp = reg_get(r, R_RSP);

	switch (c->id) {
	case X86_INS_PUSH:
	case X86_INS_PUSHFQ:
	case X86_INS_CALL:
		add(insn, rsp - 8, 8, false, true);
		break;
	case X86_INS_POP:
	case X86_INS_POPFQ:
	case X86_INS_RET:
		add(insn, rsp, 8, true, false);
		break;
	case X86_INS_LEAVE:
		add(insn, reg_get(r, R_RBP), 8, true, false);
		break;
	case X86_INS_IRETQ:
		add(insn, rsp, 40, true, false);
		break;
	}
}

static bool has_rep(const cs_insn *c)
{
	return c->detail->x86.prefix[0] == X86_PREFIX_REP ||
	       c->detail->x86.prefix[0] == X86_PREFIX_REPNE;
}

static bool no_access(const cs_insn *c)
{
	return c->id == X86_INS_LEA || c->id == X86_INS_NOP;
}

void insn_decode(struct guest *g, const struct regs *r, struct insn *insn)
{
	u64 rip = reg_get(r, R_RIP), here = INSN_MAX, phys;
	u8 code[INSN_MAX];
	cs_insn *c;
	int i;

	start();
	memset(insn, 0, sizeof(*insn));
	/* It may go on in the next page. */
	if ((rip & 0xfff) + INSN_MAX > 0x1000)
		here = 0x1000 - (rip & 0xfff);
	phys = vm_translate(&g->vm, rip);
	gdb_read(&g->vm.gdb, phys, code, here);
	if (here < INSN_MAX) {
		phys = vm_translate(&g->vm, rip + here);
		if (phys == ~0ULL)
			memset(code + here, 0xcc, INSN_MAX - here);
		else
			gdb_read(&g->vm.gdb, phys, code + here, INSN_MAX - here);
	}
	if (!cs_disasm(handle, code, sizeof(code), rip, 1, &c)) {
		/* ENDBR and the like are too new for some versions. */
		if (code[0] == 0xf3 && code[1] == 0x0f)
			return;
		die("capstone does not know the instruction at 0x%llx",
		    (unsigned long long)rip);
	}

	insn->to_dr7 = c->id == X86_INS_MOV && c->detail->x86.op_count &&
		       c->detail->x86.operands[0].type == X86_OP_REG &&
		       c->detail->x86.operands[0].reg == X86_REG_DR7;
	for (i = 0; i < c->detail->x86.op_count && !no_access(c); i++) {
		const cs_x86_op *op = &c->detail->x86.operands[i];
		u64 addr, len = op->size;

		if (op->type != X86_OP_MEM)
			continue;
		addr = op->mem.disp + reg_value(r, op->mem.base) +
		       reg_value(r, op->mem.index) * op->mem.scale;
		if (op->mem.base == X86_REG_RIP)
			addr += c->size;
		if (op->mem.segment == X86_REG_GS)
			addr += reg_get(r, R_GS_BASE);
		if (has_rep(c))
			len *= reg_get(r, R_RCX);
		/* Some versions tell nothing of an operand: take it for both. */
		add(insn, addr, len, op->access != CS_AC_WRITE, op->access != CS_AC_READ);
	}
	add_stack(insn, c, r);
	cs_free(c, 1);
}

int insn_find_to_dr7(struct guest *g, const char *name, u64 *addr, int max)
{
	static const u8 to_dr7[] = { 0x0f, 0x23, 0xf8 };
	u64 begin, end, at;
	char last[160];
	u8 code[FUNC_MAX];
	int nr = 0;

	if (!sym_find(g->ksym, name, &begin))
		return 0;
	snprintf(last, sizeof(last), "end:%s", name);
	end = sym_addr(g->ksym, last);
	if (end - begin > FUNC_MAX)
		die("%s is longer than expected", name);
	for (at = begin; at < end; at += 256)
		gdb_read(&g->vm.gdb, kernel_phys(at), code + (at - begin),
			 end - at < 256 ? end - at : 256);
	/*
	 * MOV from any register: the last three bits of its number are in the last
	 * byte, and there is a prefix for the others.
	 */
	for (at = begin; at + 3 <= end && nr < max; at++) {
		const u8 *p = code + (at - begin);

		if (p[0] == to_dr7[0] && p[1] == to_dr7[1] && (p[2] & 0xf8) == to_dr7[2])
			addr[nr++] = at > begin && p[-1] == REX_B ? at - 1 : at;
	}
	return nr;
}
