// SPDX-License-Identifier: GPL-2.0
/*
 * The words of a state, with undo and hash, and those of them that are memory.
 */
#include <stdlib.h>
#include <string.h>

#include "memory.h"

/* ------------------------------------------------------------- state */

u64 w[W_MAX];
u64 state_hash[2];

struct undo {
	u64 old;
	u32 i;
};

static struct undo *undo;
static size_t nr_undo, max_undo;

static inline u64 mix(u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 29;
	x *= 0x9fb21c651e98df25ULL;
	return x ^ (x >> 32);
}

static inline u64 hash_word(int i, u64 v)
{
	return mix(v ^ mix((i + 1) * 0x9e3779b97f4a7c15ULL));
}

void set(int i, u64 v)
{
	if (w[i] == v)
		return;
	if (nr_undo == max_undo) {
		max_undo = max_undo ? 2 * max_undo : 1 << 16;
		undo = xrealloc(undo, max_undo * sizeof(*undo));
	}
	undo[nr_undo].old = w[i];
	undo[nr_undo++].i = i;
	state_hash[0] ^= hash_word(i, w[i]) ^ hash_word(i, v);
	w[i] = v;
}

size_t undo_mark(void)
{
	return nr_undo;
}

void undo_to(size_t mark)
{
	while (nr_undo > mark) {
		const struct undo *u = &undo[--nr_undo];

		state_hash[0] ^= hash_word(u->i, w[u->i]) ^ hash_word(u->i, u->old);
		w[u->i] = u->old;
	}
}

void rehash(void)
{
	int i;

	state_hash[0] = 0;
	for (i = 0; i < W_MAX; i++)
		state_hash[0] ^= hash_word(i, w[i]);
	nr_undo = 0;
}

/* ------------------------------------------------------------ memory */

bool user_cr3(void)
{
	return pti && ((w[W_CR3] ^ kernel_cr3) & ~0xfffULL) == USER_CR3_BIT;
}

/* Is @addr mapped, and the one who asks entitled to it? */
static bool mapped(u64 addr)
{
	if (!((w[W_CR3] ^ kernel_cr3) & ~0xfffULL))
		return true;
	if (!user_cr3())
		return false;
	/* With the user's page table: the cpu entry area and the ESPFIX stack. */
	return (addr >> 39) == (0xfffffe0000000000ULL >> 39) ||
	       (addr >> 39) == (0xffffff0000000000ULL >> 39);
}

/*
 * If some bytes are written of a word that is no number, the others stay what they
 * are: PART(i) is then the mask of those that were written, and 0 if all are known.
 */
#define PART(i)		((i) - W_MEM + W_PART)
#define PART_OF_DEAD	0x100

static u64 byte_mask(int off, int size)
{
	return ((1ULL << size) - 1) << off;
}

static void set_part(int i, int off, int size, u64 v)
{
	u64 m = size_mask(size) << (8 * off), part;

	if (IS_SYM(v)) {
		set_word(i, part_of(v));
		return;
	}
	part = w[PART(i)];
	if (IS_SYM(w[i]))
		part = w[i] == DEAD ? PART_OF_DEAD : 0;
	else if (!part)
		part = 0xff;
	part |= byte_mask(off, size);
	set(i, ((IS_SYM(w[i]) ? 0 : w[i]) & ~m) | ((v << (8 * off)) & m));
	set(PART(i), (part & 0xff) == 0xff ? 0 : part);
}

void set_word(int i, u64 v)
{
	set(i, v);
	set(PART(i), 0);
}

/* May a watchpoint be there? On the thread stack, or elsewhere. */
static void touch(u64 addr)
{
	const struct stack_info *s = &stacks[THREAD];

	if (addr >= s->bottom && addr < s->top)
		set(W_TOUCHED, TOUCHED_STACK);
	else if (watchable(addr))
		set(W_TOUCHED, TOUCHED_DATA);
}

bool read_mem(u64 addr, int size, u64 *v)
{
	int i, off = addr & 7;

	if (addr == ANY && follows_pointers(executing)) {
		*v = ANY;
		return true;
	}
	if (IS_SYM(addr))
		return violate(P_CRASH, "reads at an address that is not known");
	if (!mapped(addr))
		return violate(P_CRASH, "reads 0x%llx with the wrong page table",
			       (unsigned long long)addr);
	touch(addr);
	i = find_word(addr);
	if (i < 0) {
		if (i == -1) {
			*v = ANY;
			pinned(addr, size, v);
			return true;
		}
		return false;
	}
	if (off + size > 8)
		return violate(P_CRASH, "reads across words at 0x%llx",
			       (unsigned long long)addr);
	if (w[PART(i)] && ~w[PART(i)] & byte_mask(off, size))
		*v = w[PART(i)] & PART_OF_DEAD ? DEAD : ANY;
	else if (size == 8)
		*v = w[i];
	else if (IS_SYM(w[i]))
		*v = part_of(w[i]);
	else
		*v = (w[i] >> (8 * off)) & size_mask(size);
	return true;
}

bool write_mem(u64 addr, int size, u64 v)
{
	int i, off = addr & 7;
	if (addr == ANY && follows_pointers(executing))
		return true;
	if (IS_SYM(addr))
		return violate(P_CRASH, "writes at an address that is not known");
	if (!mapped(addr))
		return violate(P_CRASH, "writes 0x%llx with the wrong page table",
			       (unsigned long long)addr);
	touch(addr);
	i = find_word(addr);
	if (i < 0)
		return i == -1;
	if (size == 8) {
		set_word(i, v);
		return true;
	}
	if (off + size > 8)
		return violate(P_CRASH, "writes across words at 0x%llx",
			       (unsigned long long)addr);
	set_part(i, off, size, v);
	return true;
}

bool push(u64 v)
{
	if (IS_SYM(GPR(SP)))
		return violate(P_CRASH, "pushes to a stack that is not known");
	set(W_GPR + SP, GPR(SP) - 8);
	return write_mem(GPR(SP), 8, v);
}

bool pop(u64 *v)
{
	u64 sp = GPR(SP);

	if (!read_mem(sp, 8, v))
		return false;
	kill_word(sp);
	set(W_GPR + SP, sp + 8);
	return true;
}

