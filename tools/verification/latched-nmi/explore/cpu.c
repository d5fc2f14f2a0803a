// SPDX-License-Identifier: GPL-2.0
/*
 * The CPU: the instructions that the entry
 * text and the C on its path are made of. Any other instruction ends the run.
 */
#include <capstone/capstone.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

static s64 sign_extend(u64 v, int size)
{
	int shift = 64 - 8 * size;

	return (s64)(v << shift) >> shift;
}

/* ---------------------------------------------------------- operands */

/* What is computed from these. */
static u64 mixed(u64 a, u64 b)
{
	return a == DEAD || b == DEAD ? DEAD : ANY;
}

static u64 get_reg(const struct opnd *o)
{
	u64 v = GPR(o->reg);

	if (o->size == 8)
		return v;
	if (IS_SYM(v))
		return part_of(v);
	return (o->high ? v >> 8 : v) & size_mask(o->size);
}

static void set_reg(const struct opnd *o, u64 v)
{
	u64 old = GPR(o->reg), m;

	if (IS_SYM(v) || o->size == 8) {
		set(W_GPR + o->reg, IS_SYM(v) && o->size != 8 ? part_of(v) : v);
		return;
	}
	if (o->size == 4) {
		set(W_GPR + o->reg, v & 0xffffffff);
		return;
	}
	if (IS_SYM(old)) {
		/* The upper part stays unknown. */
		set(W_GPR + o->reg, ANY);
		return;
	}
	m = size_mask(o->size) << (o->high ? 8 : 0);
	set(W_GPR + o->reg, (old & ~m) | ((v << (o->high ? 8 : 0)) & m));
}

static u64 effective(const struct insn *i, const struct opnd *o)
{
	u64 a = o->val;

	if (o->base == REG_IP)
		a += i->addr + i->len;
	else if (o->base != NO_REG) {
		if (IS_SYM(GPR(o->base)))
			return ANY;
		a += GPR(o->base);
	}
	if (o->index != NO_REG) {
		if (IS_SYM(GPR(o->index)))
			return ANY;
		a += GPR(o->index) * o->scale;
	}
	if (o->gs) {
		if (IS_SYM(w[W_GS]))
			return ANY;
		a += w[W_GS];
	}
	return a;
}

static bool get(const struct insn *i, const struct opnd *o, u64 *v)
{
	switch (o->kind) {
	case O_REG:
		*v = get_reg(o);
		return true;
	case O_IMM:
		*v = o->val & size_mask(o->size ? o->size : 8);
		return true;
	case O_MEM:
		return read_mem(effective(i, o), o->size, v);
	case O_SPECIAL:
		switch (o->special) {
		case X86_REG_CR3:
			*v = w[W_CR3];
			return true;
		case X86_REG_CR2:
			*v = w[W_CR2];
			return true;
		case X86_REG_DR6:
			*v = ANY;
			return true;
		case X86_REG_DR7:
			*v = w[W_DR7];
			return true;
		case X86_REG_DS:
		case X86_REG_ES:
		case X86_REG_FS:
		case X86_REG_GS:
			*v = 0;
			return true;
		}
		/* fall through */
	default:
		return violate(P_CRASH, "an operand that the tool does not know");
	}
}

/*
 * With PCID, the user's page table is loaded with a flush if one is due, and nothing
 * else is flushed.
 */
static bool flush_tlb(bool flush)
{
	bool due = w[W_STALE] && user_cr3();

	if (flush == due) {
		if (due)
			set(W_STALE, 0);
		return true;
	}
	return violate(P_CRASH, flush ? "loads CR3 with a flush that is not due" :
		       "loads the user's page table without the flush that is due");
}

static bool put(const struct insn *i, const struct opnd *o, u64 v)
{
	switch (o->kind) {
	case O_REG:
		set_reg(o, v);
		return true;
	case O_MEM:
		return write_mem(effective(i, o), o->size, v);
	case O_SPECIAL:
		switch (o->special) {
		case X86_REG_CR3:
			/* Bit 63 asks for no flush, and is not stored. */
			if (IS_SYM(v))
				return violate(P_CRASH, "loads CR3 with a value that is not known");
			if (v >> 63 && !has_pcid)
				return violate(P_CRASH, "#GP: loads CR3 with bit 63, without PCID");
			set(W_CR3, v & ~(1ULL << 63));
			return !has_pcid || flush_tlb(!(v >> 63));
		case X86_REG_CR2:
			set(W_CR2, v);
			return true;
		case X86_REG_DR6:
			return true;
		case X86_REG_DR7:
			/* Bit 10 is always set. */
			set(W_DR7, IS_SYM(v) ? v : v | 0x400);
			return true;
		}
		/* fall through */
	default:
		return violate(P_CRASH, "an operand that the tool does not know");
	}
}

/* ------------------------------------------------------------- flags */

static void set_arith(u64 bits)
{
	set(W_FLAGS, (w[W_FLAGS] & ~(FL_ARITH | FL_UNKNOWN | FL_DEAD)) | bits);
}

/* They depend on @v, which is no number. */
static void unknown_flags(u64 v)
{
	set_arith(FL_UNKNOWN | (v == DEAD ? FL_DEAD : 0));
}

static u64 result_bits(u64 r, int size)
{
	u64 f = 0;

	r &= size_mask(size);
	if (!r)
		f |= FL_ZF;
	if (r >> (8 * size - 1))
		f |= FL_SF;
	if (!(__builtin_popcount(r & 0xff) & 1))
		f |= FL_PF;
	return f;
}

static u64 flags_add(u64 a, u64 b, u64 r, int size)
{
	u64 m = size_mask(size), f = result_bits(r, size);

	if ((r & m) < (a & m))
		f |= FL_CF;
	if ((~(a ^ b) & (a ^ r)) >> (8 * size - 1) & 1)
		f |= FL_OF;
	if ((a ^ b ^ r) & 0x10)
		f |= 0x10;
	return f;
}

static u64 flags_sub(u64 a, u64 b, u64 r, int size)
{
	u64 m = size_mask(size), f = result_bits(r, size);

	if ((a & m) < (b & m))
		f |= FL_CF;
	if (((a ^ b) & (a ^ r)) >> (8 * size - 1) & 1)
		f |= FL_OF;
	if ((a ^ b ^ r) & 0x10)
		f |= 0x10;
	return f;
}

static bool condition(int cc)
{
	u64 f = w[W_FLAGS];
	bool r;

	switch (cc >> 1) {
	case 0:
		r = f & FL_OF;
		break;
	case 1:
		r = f & FL_CF;
		break;
	case 2:
		r = f & FL_ZF;
		break;
	case 3:
		r = f & (FL_CF | FL_ZF);
		break;
	case 4:
		r = f & FL_SF;
		break;
	case 5:
		r = f & FL_PF;
		break;
	case 6:
		r = !(f & FL_SF) != !(f & FL_OF);
		break;
	default:
		r = (f & FL_ZF) || !(f & FL_SF) != !(f & FL_OF);
		break;
	}
	return r ^ (cc & 1);
}

static bool is_ud2(u64 addr)
{
	u8 b[2];

	return image_read(image, addr, b, 2) && b[0] == 0x0f && b[1] == 0x0b;
}

int cpu_outcomes(void)
{
	const struct insn *i;

	if (!(w[W_FLAGS] & FL_UNKNOWN) || w[W_FLAGS] & FL_DEAD)
		return 1;
	i = decode(RIP);
	return i && i->cc < 16 ? 2 : 1;
}

/*
 * Outcome 0 of a condition that is not known: what is usual. That is to fall
 * through, but not into a WARN().
 */
static bool decide(const struct insn *i, int outcome)
{
	bool usual = is_ud2(i->addr + i->len);

	if (w[W_FLAGS] & FL_UNKNOWN)
		return outcome ? !usual : usual;
	return condition(i->cc);
}

/* ------------------------------------------------------ instructions */

/*
 * A counter that NMIs increment without bound is 0 or 1 ("or more") here: all
 * that the text does with it is to compare it with 0, which compare() watches.
 */
static bool is_state(u64 addr)
{
	return addr >= stacks[REAL].top - 56 && addr < stacks[REAL].top - 48;
}

/* @o, at @addr, is about to be changed from @old to @v, or to what that counts as. */
static bool count(const struct opnd *o, u64 addr, u64 old, u64 *v)
{
	u64 limit = count_to_two ? 2 : 1;

	if (o->kind != O_MEM || IS_SYM(addr) || !is_state(addr))
		return true;
	if (!count_latch(addr, old, *v))
		return false;
	if (*v > limit)
		*v = limit;
	return true;
}

static bool binary(const struct insn *i)
{
	const struct opnd *d = &i->op[0], *s = &i->op[1];
	int size = d->size;
	u64 a, b, r, v, m = size_mask(size), addr = 0;
	bool zero_idiom = d->kind == O_REG && s->kind == O_REG && d->reg == s->reg &&
			  !d->high == !s->high &&
			  (i->id == X86_INS_XOR || i->id == X86_INS_SUB);

	if (zero_idiom) {
		set_reg(d, 0);
		set_arith(FL_ZF | FL_PF);
		return true;
	}
	if (!get(i, d, &a) || !get(i, s, &b))
		return false;
	/* Immediates are sign-extended. */
	if (s->kind == O_IMM)
		b = s->val & m;
	if (d->kind == O_MEM)
		addr = effective(i, d);
	if (IS_SYM(a) || IS_SYM(b)) {
		if (i->id == X86_INS_CMP && a == b && a != ANY && a != DEAD && a != CLOB) {
			set_arith(FL_ZF | FL_PF);
			return true;
		}
		unknown_flags(mixed(a, b));
		if (i->id == X86_INS_CMP || i->id == X86_INS_TEST)
			return true;
		/* AND with 0, OR with ones. */
		if (i->id == X86_INS_AND && (a == 0 || b == 0)) {
			set_arith(FL_ZF | FL_PF);
			return put(i, d, 0);
		}
		return put(i, d, mixed(a, b));
	}
	switch (i->id) {
	case X86_INS_ADD:
		r = (a + b) & m;
		set_arith(flags_add(a, b, r, size));
		break;
	case X86_INS_ADC:
		if (w[W_FLAGS] & FL_UNKNOWN) {
			v = w[W_FLAGS] & FL_DEAD ? DEAD : ANY;
			unknown_flags(v);
			return put(i, d, v);
		}
		r = (a + b + !!(w[W_FLAGS] & FL_CF)) & m;
		set_arith(flags_add(a, b, r, size));
		break;
	case X86_INS_SBB:
		if (w[W_FLAGS] & FL_UNKNOWN) {
			v = w[W_FLAGS] & FL_DEAD ? DEAD : ANY;
			unknown_flags(v);
			return put(i, d, v);
		}
		r = (a - b - !!(w[W_FLAGS] & FL_CF)) & m;
		set_arith(flags_sub(a, b, r, size));
		break;
	case X86_INS_SUB:
	case X86_INS_CMP:
		r = (a - b) & m;
		set_arith(flags_sub(a, b, r, size));
		if (i->id == X86_INS_CMP) {
			if (d->kind == O_MEM && is_state(addr) && b != 0 && b != 1)
				return violate(P_CRASH, "compares the NMI state with %llu: the tool only counts to 1",
					       (unsigned long long)b);
			return true;
		}
		break;
	case X86_INS_AND:
	case X86_INS_TEST:
		r = a & b & m;
		set_arith(result_bits(r, size));
		if (i->id == X86_INS_TEST)
			return true;
		break;
	case X86_INS_OR:
		r = (a | b) & m;
		set_arith(result_bits(r, size));
		break;
	default:
		r = (a ^ b) & m;
		set_arith(result_bits(r, size));
		break;
	}
	/* C never looks below its stack pointer again: what it leaves is dead. */
	if (i->id == X86_INS_ADD && d->kind == O_REG && d->reg == SP && !i->asm_text) {
		for (; a < r; a += 8)
			kill_word(a);
	}
	return count(d, addr, a, &r) && put(i, d, r);
}

static bool unary(const struct insn *i)
{
	const struct opnd *d = &i->op[0];
	u64 a, r, f, m = size_mask(d->size), addr = 0;

	if (!get(i, d, &a))
		return false;
	if (IS_SYM(a)) {
		if (i->id != X86_INS_NOT)
			unknown_flags(a);
		return put(i, d, part_of(a));
	}
	switch (i->id) {
	case X86_INS_INC:
		r = (a + 1) & m;
		f = flags_add(a, 1, r, d->size);
		break;
	case X86_INS_DEC:
		r = (a - 1) & m;
		f = flags_sub(a, 1, r, d->size);
		break;
	case X86_INS_NEG:
		r = -a & m;
		f = flags_sub(0, a, r, d->size);
		break;
	default:
		return put(i, d, ~a & m);
	}
	if (i->id != X86_INS_NEG)
		f = (f & ~FL_CF) | (w[W_FLAGS] & FL_CF);
	set_arith(f);
	if (d->kind == O_MEM)
		addr = effective(i, d);
	return count(d, addr, a, &r) && put(i, d, r);
}

static bool shift(const struct insn *i)
{
	const struct opnd *d = &i->op[0];
	u64 a, n = 1, r;

	if (!get(i, d, &a) || (i->nr > 1 && !get(i, &i->op[1], &n)))
		return false;
	if (IS_SYM(a) || IS_SYM(n)) {
		unknown_flags(mixed(a, n));
		return put(i, d, mixed(a, n));
	}
	n &= d->size == 8 ? 63 : 31;
	if (!n)
		return true;
	switch (i->id) {
	case X86_INS_SHL:
	case X86_INS_SAL:
		r = a << n;
		break;
	case X86_INS_SHR:
		r = a >> n;
		break;
	default:
		r = sign_extend(a, d->size) >> n;
		break;
	}
	r &= size_mask(d->size);
	/* Nobody tests the carry of a shift here. */
	set_arith(result_bits(r, d->size));
	return put(i, d, r);
}

static bool bit_test(const struct insn *i)
{
	struct opnd d = i->op[0];
	u64 a, n, bit;

	if (!get(i, &i->op[1], &n))
		return false;
	if (IS_SYM(n)) {
		unknown_flags(n);
		return i->id == X86_INS_BT ||
		       violate(P_CRASH, "changes a bit whose number is not known");
	}
	if (d.kind == O_MEM) {
		/* A bit string in memory. */
		u64 addr = effective(i, &d);

		if (IS_SYM(addr))
			return violate(P_CRASH, "tests a bit at an address that is not known");
		d.base = NO_REG;
		d.index = NO_REG;
		d.gs = false;
		d.val = addr + ((s64)n >> 3);
		d.size = 1;
	}
	if (!get(i, &d, &a))
		return false;
	if (IS_SYM(a)) {
		unknown_flags(a);
		return i->id == X86_INS_BT || put(i, &d, part_of(a));
	}
	bit = 1ULL << (n & (8 * d.size - 1));
	set_arith((w[W_FLAGS] & (FL_ZF | FL_SF | FL_PF | FL_OF)) | (a & bit ? FL_CF : 0));
	if (i->id == X86_INS_BT)
		return true;
	a = i->id == X86_INS_BTS ? a | bit : i->id == X86_INS_BTR ? a & ~bit : a ^ bit;
	return put(i, &d, a);
}

static bool exchange(const struct insn *i)
{
	const struct opnd *d = &i->op[0], *s = &i->op[1];
	u64 a, b, r;

	if (!get(i, d, &a) || !get(i, s, &b))
		return false;
	if (i->id == X86_INS_XCHG)
		return put(i, s, a) && put(i, d, b);
	/* XADD */
	if (IS_SYM(a) || IS_SYM(b)) {
		r = mixed(a, b);
		unknown_flags(r);
	} else {
		r = (a + b) & size_mask(d->size);
		set_arith(flags_add(a, b, r, d->size));
	}
	return put(i, s, a) && put(i, d, r);
}

/* In C, on memory that is not looked at. */
static bool compare_exchange(const struct insn *i)
{
	const struct opnd *d = &i->op[0];
	struct opnd ax = { .kind = O_REG, .size = d->size, .reg = AX };
	u64 a, b, old;

	if (!get(i, d, &old) || !get(i, &ax, &a) || !get(i, &i->op[1], &b))
		return false;
	if (IS_SYM(old) || IS_SYM(a)) {
		unknown_flags(mixed(old, a));
		return put(i, d, mixed(old, b)) && put(i, &ax, mixed(old, a));
	}
	set_arith(flags_sub(a, old, a - old, d->size));
	return a == old ? put(i, d, b) : put(i, &ax, old);
}

static bool string(const struct insn *i)
{
	int size = i->op[0].size;
	u64 n = i->rep ? GPR(CX) : 1;
	u64 v;

	if (IS_SYM(n) || IS_SYM(GPR(DI)))
		return violate(P_CRASH, "a string instruction with operands that are not known");
	if (w[W_FLAGS] & FL_DF)
		return violate(P_CLEAN, "a string instruction with DF set");
	for (; n; n--) {
		if (i->id == X86_INS_STOSB || i->id == X86_INS_STOSQ ||
		    i->id == X86_INS_STOSD) {
			v = GPR(AX);
		} else {
			if (IS_SYM(GPR(SI)))
				return violate(P_CRASH, "copies from an address that is not known");
			if (!read_mem(GPR(SI), size, &v))
				return false;
			set(W_GPR + SI, GPR(SI) + size);
		}
		if (!write_mem(GPR(DI), size, v))
			return false;
		set(W_GPR + DI, GPR(DI) + size);
	}
	if (i->rep)
		set(W_GPR + CX, 0);
	return true;
}

#define MSR_SPEC_CTRL		0x48
#define MSR_GS_BASE		0xc0000101
#define MSR_KERNEL_GS_BASE	0xc0000102

static bool msr(bool write)
{
	u64 n = GPR(CX), v;
	int i;

	if (IS_SYM(n))
		return violate(P_CRASH, "an MSR that is not known");
	switch (n & 0xffffffff) {
	case MSR_GS_BASE:
		i = W_GS;
		break;
	case MSR_KERNEL_GS_BASE:
		i = W_KGS;
		break;
	case MSR_SPEC_CTRL:
		if (!has_ibrs)
			return violate(P_CRASH, "uses SPEC_CTRL, which not every such machine has");
		i = W_SPEC;
		break;
	default:
		if (!write) {
			set(W_GPR + AX, ANY);
			set(W_GPR + DX, ANY);
		}
		return true;
	}
	if (write) {
		if (IS_SYM(GPR(AX)) || IS_SYM(GPR(DX)))
			v = mixed(GPR(AX), GPR(DX));
		else
			v = (GPR(DX) << 32) | (GPR(AX) & 0xffffffff);
		set(i, v);
		return true;
	}
	v = w[i];
	set(W_GPR + AX, IS_SYM(v) ? part_of(v) : v & 0xffffffff);
	set(W_GPR + DX, IS_SYM(v) ? part_of(v) : v >> 32);
	return true;
}

bool iret(void)
{
	u64 v[5], sp = GPR(SP);
	int i;

	for (i = 0; i < 5; i++) {
		if (!read_mem(sp + 8 * i, 8, &v[i]))
			return false;
	}
	for (i = 0; i < 5; i++) {
		if (IS_SYM(v[i]))
			return violate(P_CRASH, "IRET uses a frame that has been %s",
				       v[i] == DEAD ? "used before" : "overwritten");
		kill_word(sp + 8 * i);
	}
	set(W_MASKED, 0);
	set(W_COUNTED, 0);
	set(W_RIP, v[0]);
	set(W_CS, v[1] & 0xffff);
	set(W_FLAGS, v[2]);
	set(W_GPR + SP, v[3]);
	set(W_SS, v[4] & 0xffff);
	if (w[W_CS] != KERNEL_CS && !(w[W_CS] & 3))
		return violate(P_CRASH, "IRET loads CS with 0x%llx", (unsigned long long)w[W_CS]);
	if (w[W_CS] == KERNEL_CS ? w[W_SS] && w[W_SS] != KERNEL_SS : (w[W_SS] & 3) != 3)
		return violate(P_CRASH, "#GP: IRET loads SS with 0x%llx",
			       (unsigned long long)w[W_SS]);
	return true;
}

static bool branch(const struct insn *i, bool call)
{
	u64 to;

	if (!get(i, &i->op[0], &to))
		return false;
	if (IS_SYM(to))
		return violate(P_CRASH, "jumps to an address that is not known");
	if (call && !push(i->addr + i->len))
		return false;
	set(W_RIP, to);
	return true;
}

u64 executing;
u8 *reached;

bool cpu_step(int outcome)
{
	const struct insn *i = decode(RIP);
	u64 v, a;

	if (!i)
		return violate(P_CRASH, "there is no instruction");
	executing = i->addr;
	if (reached)
		reached[i->addr % REACHED_SIZE] = 1;
	set(W_TOUCHED, TOUCHED_NOTHING);
	set(W_RIP, i->addr + i->len);

	switch (i->id) {
	case X86_INS_NOP:
	case X86_INS_ENDBR64:
	case X86_INS_LFENCE:
	case X86_INS_MFENCE:
	case X86_INS_SFENCE:
	case X86_INS_PAUSE:
	case X86_INS_VERW:
	case X86_INS_CLFLUSH:
		return true;
	case X86_INS_CLAC:
		set(W_FLAGS, w[W_FLAGS] & ~FL_AC);
		return true;
	case X86_INS_STAC:
		set(W_FLAGS, w[W_FLAGS] | FL_AC);
		return true;
	case X86_INS_CLD:
		set(W_FLAGS, w[W_FLAGS] & ~FL_DF);
		return true;
	case X86_INS_STD:
		set(W_FLAGS, w[W_FLAGS] | FL_DF);
		return true;
	case X86_INS_CLI:
		set(W_FLAGS, w[W_FLAGS] & ~FL_IF);
		return true;
	case X86_INS_MOV:
	case X86_INS_MOVABS:
		if (i->op[1].kind == O_IMM)
			v = i->op[1].val & size_mask(i->op[0].size);
		else if (!get(i, &i->op[1], &v))
			return false;
		return put(i, &i->op[0], v);
	case X86_INS_MOVZX:
		if (!get(i, &i->op[1], &v))
			return false;
		return put(i, &i->op[0], v);
	case X86_INS_MOVSX:
	case X86_INS_MOVSXD:
		if (!get(i, &i->op[1], &v))
			return false;
		if (!IS_SYM(v))
			v = sign_extend(v, i->op[1].size) & size_mask(i->op[0].size);
		return put(i, &i->op[0], v);
	case X86_INS_CDQE:
		v = GPR(AX);
		set(W_GPR + AX, IS_SYM(v) ? part_of(v) : (u64)sign_extend(v, 4));
		return true;
	case X86_INS_LEA:
		v = effective(i, &i->op[1]);
		/* C never looks below its stack pointer again. */
		if (i->op[0].kind == O_REG && i->op[0].reg == SP && !i->asm_text)
			for (a = GPR(SP); a < v; a += 8)
				kill_word(a);
		return put(i, &i->op[0], IS_SYM(v) ? v : v & size_mask(i->op[0].size));
	case X86_INS_PUSH:
		if (i->op[0].kind == O_IMM)
			v = i->op[0].val;
		else if (!get(i, &i->op[0], &v))
			return false;
		return push(v);
	case X86_INS_POP:
		return pop(&v) && put(i, &i->op[0], v);
	case X86_INS_PUSHFQ:
		return push(w[W_FLAGS] & ~FL_RF);
	case X86_INS_POPFQ:
		if (!pop(&v))
			return false;
		if (v == DEAD)
			return violate(P_CRASH, "POPF from dead memory");
		set(W_FLAGS, IS_SYM(v) ? FL_UNKNOWN | 2 : v);
		return true;
	case X86_INS_LEAVE:
		set(W_GPR + SP, GPR(BP));
		if (!pop(&v))
			return false;
		set(W_GPR + BP, v);
		return true;
	case X86_INS_ADD:
	case X86_INS_ADC:
	case X86_INS_SUB:
	case X86_INS_SBB:
	case X86_INS_AND:
	case X86_INS_OR:
	case X86_INS_XOR:
	case X86_INS_CMP:
	case X86_INS_TEST:
		return binary(i);
	case X86_INS_INC:
	case X86_INS_DEC:
	case X86_INS_NEG:
	case X86_INS_NOT:
		return unary(i);
	case X86_INS_SHL:
	case X86_INS_SAL:
	case X86_INS_SHR:
	case X86_INS_SAR:
		return shift(i);
	case X86_INS_BT:
	case X86_INS_BTS:
	case X86_INS_BTR:
	case X86_INS_BTC:
		return bit_test(i);
	case X86_INS_XCHG:
	case X86_INS_XADD:
		return exchange(i);
	case X86_INS_MOVSB:
	case X86_INS_MOVSQ:
	case X86_INS_STOSB:
	case X86_INS_STOSD:
	case X86_INS_STOSQ:
		return string(i);
	case X86_INS_CALL:
		return branch(i, true);
	case X86_INS_JMP:
		return branch(i, false);
	case X86_INS_RET:
		if (!pop(&v))
			return false;
		if (IS_SYM(v))
			return violate(P_CRASH, "RET to an address that is not known");
		set(W_RIP, v);
		return true;
	case X86_INS_IRETQ:
		return iret();
	case X86_INS_SWAPGS:
		v = w[W_GS];
		set(W_GS, w[W_KGS]);
		set(W_KGS, v);
		return true;
	case X86_INS_RDGSBASE:
		return put(i, &i->op[0], w[W_GS]);
	case X86_INS_WRGSBASE:
		if (!get(i, &i->op[0], &v))
			return false;
		set(W_GS, v);
		return true;
	case X86_INS_RDMSR:
		return msr(false);
	case X86_INS_WRMSR:
		return msr(true);
	case X86_INS_LSL:
		/* Of __CPUNODE_SEG: this is CPU 0 of node 0. */
		set_arith(FL_ZF);
		return put(i, &i->op[0], 0);
	case X86_INS_CMPXCHG:
		return compare_exchange(i);
	case X86_INS_UD2:
		if (i->asm_text)
			return violate(P_CRASH, "ud2");
		/* WARN(): the handler of #UD returns behind it. */
		return fault();
	}

	if (i->cc < 16) {
		bool yes = decide(i, outcome);

		if (w[W_FLAGS] & FL_DEAD)
			return violate(P_CRASH, "decides by dead memory");
		switch (i->nr) {
		case 1:
			if (i->op[0].kind == O_IMM) {
				if (yes)
					set(W_RIP, i->op[0].val);
				return true;
			}
			return put(i, &i->op[0], yes);
		case 2:
			if (!get(i, &i->op[1], &v) || !get(i, &i->op[0], &a))
				return false;
			return put(i, &i->op[0], yes ? v : a);
		}
	}
	char text[80];

	decode_text(i->addr, text, sizeof(text));
	set(W_RIP, i->addr);
	return violate(P_CRASH, "an instruction that the tool does not know: %s", text);
}
