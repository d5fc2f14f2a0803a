// SPDX-License-Identifier: GPL-2.0
/*
 * Instructions, each taken apart once by capstone.
 */
#include <capstone/capstone.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

#define CACHE	(1 << 16)

static const struct image *im;
static csh cs;
static struct insn *cache[CACHE];
static struct {
	u64 begin, end;
} text[16];
static int nr_text, nr_swept;

static void add_range(u64 begin, u64 end)
{
	if (nr_text == ARRAY_SIZE(text))
		die("too many ranges of text");
	text[nr_text].begin = begin;
	text[nr_text++].end = end;
}

static void add_text(const char *begin, const char *end)
{
	u64 b, e;

	if (!sym_find(im->sym, begin, &b))
		return;
	if (!end)
		e = b + sym_size(im->sym, begin);
	else if (!sym_find(im->sym, end, &e))
		return;
	add_range(b, e);
}

void decode_flush(void)
{
	int i;

	for (i = 0; i < CACHE; i++) {
		if (cache[i])
			cache[i]->addr = 0;
	}
}

/* The ranges that the injector takes for entry text. */
void decode_init(const struct image *image)
{
	int i;

	im = image;
	for (i = 0; i < CACHE; i++) {
		free(cache[i]);
		cache[i] = NULL;
	}
	nr_text = 0;
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &cs) != CS_ERR_OK)
		die("capstone does not start");
	cs_option(cs, CS_OPT_DETAIL, CS_OPT_ON);
	add_text("__entry_text_start", "__entry_text_end");
	add_text("__indirect_thunk_start", "__indirect_thunk_end");
	add_text("srso_untrain_ret", "__x86_return_thunk");
	nr_swept = nr_text;
	/* Not swept by the injector, but asm as well. */
	add_text("srso_alias_untrain_ret", NULL);
	add_text("srso_alias_safe_ret", NULL);
	add_text("srso_alias_return_thunk", NULL);
	add_text("its_return_thunk", NULL);
	add_text("__x86_return_thunk", NULL);
	add_text("retbleed_return_thunk", NULL);
	add_text("entry_ibpb", NULL);
	add_text("write_ibpb", NULL);
	add_text("entry_untrain_ret", NULL);
	if (im->more)
		add_range(sym_addr(im->more, "rfc_text_begin"), sym_addr(im->more, "rfc_text_end"));
}

static bool in_text(u64 addr, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		if (addr >= text[i].begin && addr < text[i].end)
			return true;
	}
	return false;
}

bool in_asm(u64 addr)
{
	return in_text(addr, nr_text);
}

bool in_swept_text(u64 addr)
{
	return in_text(addr, nr_swept);
}

static const struct {
	u16 cs;
	u8 reg, size;
	bool high;
} regs[] = {
#define R(name64, name32, name16, name8, n) \
	{ X86_REG_##name64, n, 8, false }, { X86_REG_##name32, n, 4, false }, \
	{ X86_REG_##name16, n, 2, false }, { X86_REG_##name8, n, 1, false }
	R(RAX, EAX, AX, AL, AX), R(RCX, ECX, CX, CL, CX), R(RDX, EDX, DX, DL, DX),
	R(RBX, EBX, BX, BL, BX), R(RSP, ESP, SP, SPL, SP), R(RBP, EBP, BP, BPL, BP),
	R(RSI, ESI, SI, SIL, SI), R(RDI, EDI, DI, DIL, DI),
	R(R8, R8D, R8W, R8B, R8), R(R9, R9D, R9W, R9B, R9),
	R(R10, R10D, R10W, R10B, R10), R(R11, R11D, R11W, R11B, R11),
	R(R12, R12D, R12W, R12B, R12), R(R13, R13D, R13W, R13B, R13),
	R(R14, R14D, R14W, R14B, R14), R(R15, R15D, R15W, R15B, R15),
	{ X86_REG_AH, AX, 1, true }, { X86_REG_CH, CX, 1, true },
	{ X86_REG_DH, DX, 1, true }, { X86_REG_BH, BX, 1, true },
	{ X86_REG_RIP, REG_IP, 8, false },
};

static u8 gpr(unsigned int reg)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		if (regs[i].cs == reg)
			return regs[i].reg;
	}
	return NO_REG;
}

static void take_operand(struct opnd *o, const cs_x86_op *c)
{
	size_t i;

	o->size = c->size;
	o->base = o->index = NO_REG;
	switch (c->type) {
	case X86_OP_REG:
		for (i = 0; i < ARRAY_SIZE(regs); i++) {
			if (regs[i].cs != c->reg)
				continue;
			o->kind = O_REG;
			o->reg = regs[i].reg;
			o->size = regs[i].size;
			o->high = regs[i].high;
			return;
		}
		o->kind = O_SPECIAL;
		o->special = c->reg;
		return;
	case X86_OP_IMM:
		o->kind = O_IMM;
		o->val = c->imm;
		return;
	case X86_OP_MEM:
		o->kind = O_MEM;
		o->base = gpr(c->mem.base);
		o->index = gpr(c->mem.index);
		o->scale = c->mem.scale;
		o->gs = c->mem.segment == X86_REG_GS;
		o->val = c->mem.disp;
		return;
	default:
		return;
	}
}

const struct insn *decode(u64 addr)
{
	struct insn **slot = &cache[(addr * 0x9e3779b97f4a7c15ULL) >> 48], *i = *slot;
	u8 buf[16];
	const u8 *p = buf;
	size_t len = sizeof(buf);
	cs_insn *c;
	const cs_x86 *x;
	u64 a = addr;
	int k;

	if (i && i->addr == addr)
		return i;
	/* As many bytes as there are. */
	while (len && !image_read(im, addr, buf, len))
		len--;
	if (!len)
		return NULL;
	c = cs_malloc(cs);
	if (!cs_disasm_iter(cs, &p, &len, &a, c)) {
		cs_free(c, 1);
		return NULL;
	}
	i = *slot;
	if (!i)
		*slot = i = xalloc(sizeof(*i));
	memset(i, 0, sizeof(*i));
	x = &c->detail->x86;
	i->addr = addr;
	i->id = c->id;
	i->len = c->size;
	i->asm_text = in_asm(addr);
	i->rep = x->prefix[0] == X86_PREFIX_REP || x->prefix[0] == X86_PREFIX_REPNE;
	i->cc = 16;
	if ((x->opcode[0] & 0xf0) == 0x70)
		i->cc = x->opcode[0] & 15;
	else if (x->opcode[0] == 0x0f && ((x->opcode[1] & 0xf0) == 0x80 ||
					  (x->opcode[1] & 0xf0) == 0x90 ||
					  (x->opcode[1] & 0xf0) == 0x40))
		i->cc = x->opcode[1] & 15;
	i->nr = x->op_count > 3 ? 3 : x->op_count;
	for (k = 0; k < i->nr; k++)
		take_operand(&i->op[k], &x->operands[k]);
	/* A jump of 16 bytes: x->opcode of endbr and of nops says nothing of cc. */
	if (c->id == X86_INS_NOP)
		i->cc = 16;
	cs_free(c, 1);
	return i;
}

void decode_text(u64 addr, char *buf, size_t len)
{
	size_t n = 16;
	u8 raw[16];
	cs_insn *c;

	snprintf(buf, len, "?");
	while (n && !image_read(im, addr, raw, n))
		n--;
	if (!n || !cs_disasm(cs, raw, n, addr, 1, &c))
		return;
	snprintf(buf, len, "%s %s", c->mnemonic, c->op_str);
	cs_free(c, 1);
}
