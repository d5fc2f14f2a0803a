// SPDX-License-Identifier: GPL-2.0
/*
 * The counters of the latched entry: do they tell what has been? Each is 0 in a state,
 * but from when it is incremented to when that is judged.
 */
#include "memory.h"

enum { NESTED, RESTARTED, FIXED_UP };

/* Where an #MC is fixed up, as the zones of the entry are declared. */
static const char * const zone_name[][2] = {
	{ "asm_exc_nmi_latched", "latched_nmi_handler" },
	{ "__nmi_prologue_begin", "__nmi_prologue_end" },
	{ "__nmi_epilogue_begin", "__nmi_epilogue_end" },
	{ "__nmi_user_prologue_begin", "__nmi_user_prologue_end" },
};

static struct range {
	u64 begin, end;
} zone[ARRAY_SIZE(zone_name)], epilogue, debug_check;

static struct range range_of(const struct image *im, const char *begin, const char *end)
{
	struct range r = { 0 };

	if (!sym_find(im->sym, begin, &r.begin) || !sym_find(im->sym, end, &r.end))
		r.begin = r.end = 0;
	return r;
}

static bool within(const struct range *r, u64 ip)
{
	return ip >= r->begin && ip < r->end;
}

void count_init(const struct image *im)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(zone); i++)
		zone[i] = range_of(im, zone_name[i][0], zone_name[i][1]);
	epilogue = range_of(im, "__nmi_epilogue_begin", "__nmi_epilogue_end");
	debug_check = range_of(im, "asm_exc_debug_latched", "__debug_latched_end");
}

/* Two of them share a word. */
static int word_of(int counter)
{
	return find_word(state_addr - (counter == FIXED_UP ? 16 : 8));
}

static u64 count_of(int counter)
{
	u64 v = w[word_of(counter)];

	return IS_SYM(v) ? v : counter == RESTARTED ? v >> 32 : v & 0xffffffff;
}

void count_start(void)
{
	if (!entry_latched)
		return;
	w[word_of(NESTED)] = 0;
	w[word_of(FIXED_UP)] = 0;
}

void count_nmi(void)
{
	set(W_COUNTED, 0);
	if (entry_latched && w[W_CS] == KERNEL_CS && within(&epilogue, RIP))
		set(W_RESTARTED, 1);
}

/* Up to the next IRET there is but one NMI to latch. */
bool count_latch(u64 addr, u64 old, u64 v)
{
	if (!entry_latched || addr != state_addr + 4 || v <= old)
		return true;
	if (v != old + 1 || w[W_COUNTED])
		return violate(P_COUNT, "one NMI is latched as two");
	set(W_COUNTED, 1);
	set(W_LATCHED, 1);
	return true;
}

static bool on_nmi_stacks(u64 sp)
{
	return sp - stacks[REAL].bottom < stacks[REAL].top - stacks[REAL].bottom ||
	       sp - stacks[LATCHED].bottom < stacks[LATCHED].top - stacks[LATCHED].bottom;
}

bool count_run(void)
{
	u64 nested, restarted, latch;

	/* What nests in an NMI from user mode is not counted. */
	if (!entry_latched || !on_nmi_stacks(GPR(SP)))
		return true;
	nested = count_of(NESTED);
	restarted = count_of(RESTARTED);
	latch = w[find_word(state_addr)] >> 32;
	if ((nested || latch) != !!w[W_LATCHED])
		return violate(P_COUNT, "%llu NMIs are counted as nested",
			       (unsigned long long)nested);
	if (restarted != w[W_RESTARTED])
		return violate(P_COUNT, "%llu NMIs are counted as restarts",
			       (unsigned long long)restarted);
	set_word(word_of(NESTED), 0);
	set(W_LATCHED, !!latch);
	set(W_RESTARTED, 0);
	return true;
}

/* In the #DB entry check, what #DB hit counts. */
static bool hit_entry(u64 ip, bool *hit)
{
	u64 frame = stacks[DB].top - 40, cs;
	size_t i;

	if (within(&debug_check, ip)) {
		if (!read_mem(frame + 8, 8, &cs))
			return false;
		if (!(cs & 3) && !read_mem(frame, 8, &ip))
			return false;
	}
	*hit = false;
	for (i = 0; i < ARRAY_SIZE(zone); i++)
		*hit |= within(&zone[i], ip);
	return true;
}

/* It counts, and tells the #MC handler, whether #MC hit the entry. */
bool count_fixup(void)
{
	u64 counted = count_of(FIXED_UP), told = GPR(AX), ip;
	bool hit;

	if (!IS_SYM(told))
		told &= 0xff;
	if (!read_mem(stacks[MCE].top - 40, 8, &ip) || !hit_entry(ip, &hit))
		return false;
	if (told != hit || w[word_of(FIXED_UP)] != hit)
		return violate(P_COUNT, "latched_nmi_fixup() returns %llu and counts %llu, not %d",
			       (unsigned long long)told, (unsigned long long)counted, hit);
	set_word(word_of(FIXED_UP), 0);
	return true;
}

bool count_rest(void)
{
	if (entry_latched && (w[word_of(NESTED)] || w[word_of(FIXED_UP)]))
		return violate(P_COUNT, "a counter tells what has not been");
	return true;
}
