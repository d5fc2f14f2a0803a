// SPDX-License-Identifier: GPL-2.0
/*
 * The words of a state, with undo and hash, and those of them that are memory.
 */
#include <stdlib.h>
#include <string.h>

#include "explore.h"

/* ------------------------------------------------------------- state */

u64 w[W_MAX];
int nr_w = W_MAX;
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
	for (i = 0; i < nr_w; i++)
		state_hash[0] ^= hash_word(i, w[i]);
	nr_undo = 0;
}

/* ------------------------------------------------------------ memory */

/* Is @addr mapped, and the one who asks entitled to it? */
static bool mapped(u64 addr)
{
	if (!(w[W_CR3] & 0x1000))
		return true;
	/* With the user's page table: the cpu entry area and the ESPFIX stack. */
	return (addr >> 39) == (0xfffffe0000000000ULL >> 39) ||
	       (addr >> 39) == (0xffffff0000000000ULL >> 39);
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
		return violate(P_CRASH, "reads 0x%llx with the user's page table",
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
	if (size == 8)
		*v = w[i];
	else if (IS_SYM(w[i]))
		*v = ANY;
	else
		*v = (w[i] >> (8 * off)) & size_mask(size);
	return true;
}

bool write_mem(u64 addr, int size, u64 v)
{
	int i, off = addr & 7;
	u64 m;

	if (addr == ANY && follows_pointers(executing))
		return true;
	if (IS_SYM(addr))
		return violate(P_CRASH, "writes at an address that is not known");
	if (!mapped(addr))
		return violate(P_CRASH, "writes 0x%llx with the user's page table",
			       (unsigned long long)addr);
	touch(addr);
	i = find_word(addr);
	if (i < 0)
		return i == -1;
	if (size == 8) {
		set(i, v);
		return true;
	}
	if (off + size > 8)
		return violate(P_CRASH, "writes across words at 0x%llx",
			       (unsigned long long)addr);
	if (IS_SYM(v)) {
		set(i, ANY);
		return true;
	}
	/* What else is in a DEAD word is not known, but of no use either. */
	m = size_mask(size) << (8 * off);
	set(i, ((IS_SYM(w[i]) ? 0 : w[i]) & ~m) | ((v << (8 * off)) & m));
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

