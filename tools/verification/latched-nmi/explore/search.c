// SPDX-License-Identifier: GPL-2.0
/*
 * The search: depth first, every choice in every state, a state being known by
 * a 64-bit hash of all its words. Where nothing but the next instruction can
 * come, a state is not worth remembering.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "explore.h"

#define MAX_STRETCH	200000

struct frame {
	size_t mark;
	u64 hash;
	u32 chain;	/* frames from here on: no event has come */
	u8 choice[NR_EVENTS], nr, next;
};

static struct frame *stack;
static size_t nr_stack, max_stack;

static u64 *table;
static u64 table_size, table_used;

static bool table_add(u64 h)
{
	u64 i;

	if (!h)
		h = 1;
	if (table_used * 4 >= table_size * 3) {
		u64 *old = table, n = table_size, k;

		table_size = n ? 2 * n : 1 << 20;
		table = calloc(table_size, sizeof(*table));
		if (!table)
			die("no memory for %llu states", (unsigned long long)table_size);
		for (k = 0; k < n; k++) {
			if (!old[k])
				continue;
			for (i = old[k] & (table_size - 1); table[i]; i = (i + 1) & (table_size - 1))
				;
			table[i] = old[k];
		}
		free(old);
	}
	for (i = h & (table_size - 1); table[i]; i = (i + 1) & (table_size - 1)) {
		if (table[i] == h)
			return false;
	}
	table[i] = h;
	table_used++;
	return true;
}

static int choices(const struct search *s, u8 *c)
{
	int n = 0, ev;

	c[n++] = EV_STEP;
	/* Left alone, the interrupted context has nothing to do. */
	if (!w[W_AWAY])
		n = 0;
	for (ev = EV_NMI; ev < NR_EVENTS; ev++) {
		if (s->events & (1 << ev) && machine_may(ev))
			c[n++] = ev;
	}
	if (w[W_AWAY] && w[W_BUDGET] > 1 && machine_outcomes() == 2)
		c[n++] = EV_FORK;
	return n;
}

static bool take(u8 c)
{
	/* A short way is to have events rather than these: they cost two. */
	if (c == EV_FORK && w[W_BUDGET] != UNLIMITED)
		set(W_BUDGET, w[W_BUDGET] - 2);
	if (c == EV_STEP || c == EV_FORK)
		return machine_step(c == EV_FORK);
	return machine_event(c);
}

/* On to the next state with a choice. */
static bool advance(const struct search *s, u8 *c, int *n, u64 *steps)
{
	int k;

	for (k = 0; k < MAX_STRETCH; k++) {
		*n = choices(s, c);
		if (*n != 1 || c[0] != EV_STEP)
			return true;
		++*steps;
		if (!machine_step(0))
			return false;
	}
	return violate(P_HANG, "no end after %d instructions", MAX_STRETCH);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void show(const struct search *s, double start)
{
	double t = now() - start;

	fprintf(stderr, "# %s%s: %llu states, depth %zu, %llu violations, %.0f s, %.0f states/s\n",
		s->ctx->name, entry_latched ? "" : " (classic)",
		(unsigned long long)table_used, nr_stack,
		(unsigned long long)s->violations, t, table_used / (t > 0 ? t : 1));
}

static void found(struct search *s)
{
	size_t i;

	s->violations++;
	s->count[violation]++;
	if (s->path)
		return;
	s->property = violation;
	snprintf(s->text, sizeof(s->text), "%s", violation_text);
	s->nr_path = nr_stack;
	s->path = xalloc(nr_stack + 1);
	for (i = 0; i < nr_stack; i++)
		s->path[i] = stack[i].choice[stack[i].next - 1];
}

static bool start(const struct search *s)
{
	if (!machine_start(s->ctx, s->behind))
		return false;
	w[W_BUDGET] = s->budget ? s->budget : UNLIMITED;
	rehash();
	return true;
}

static void enter(struct search *s, const u8 *c, int n, bool event)
{
	struct frame *f;

	if (nr_stack == max_stack) {
		max_stack = max_stack ? 2 * max_stack : 1 << 12;
		stack = xrealloc(stack, max_stack * sizeof(*stack));
	}
	f = &stack[nr_stack];
	f->mark = undo_mark();
	f->hash = state_hash[0];
	f->chain = event || !nr_stack ? nr_stack : stack[nr_stack - 1].chain;
	memcpy(f->choice, c, n);
	f->nr = n;
	f->next = 0;
	nr_stack++;
	if (nr_stack > s->depth)
		s->depth = nr_stack;
}

/* Does the way from the last event to here lead back to itself? */
static bool loops(void)
{
	size_t i;

	for (i = stack[nr_stack - 1].chain; i < nr_stack; i++) {
		if (stack[i].hash == state_hash[0])
			return true;
	}
	return false;
}

void search(struct search *s)
{
	double begin = now(), shown = begin;
	u8 c[NR_EVENTS];
	int n;

	free(table);
	table = NULL;
	table_size = table_used = 0;
	nr_stack = 0;
	if (!start(s))
		return;
	s->complete = true;
	n = choices(s, c);
	table_add(state_hash[0]);
	enter(s, c, n, true);

	while (nr_stack) {
		struct frame *f = &stack[nr_stack - 1];
		bool event;
		u8 ch;

		undo_to(f->mark);
		if (f->next == f->nr) {
			nr_stack--;
			continue;
		}
		ch = f->choice[f->next++];
		event = ch >= EV_NMI;
		s->instructions++;
		if (!take(ch) || !advance(s, c, &n, &s->instructions)) {
			found(s);
			if (s->first)
				break;
			continue;
		}
		if (!table_add(state_hash[0])) {
			if (!event && loops()) {
				violate(P_HANG, "without a further event it goes round for ever");
				found(s);
				if (s->first)
					break;
			}
			continue;
		}
		if (s->max_states && table_used > s->max_states) {
			s->complete = false;
			break;
		}
		enter(s, c, n, event);
		if (!(table_used & 0x3ffff) && s->progress && now() - shown > 10) {
			shown = now();
			show(s, begin);
		}
	}
	s->states = table_used;
	s->seconds = now() - begin;
}

/* ------------------------------------------------------------ replay */

struct arrivals {
	u64 *rip;
	size_t nr, max;
};

static int pass(struct arrivals *a, u64 rip)
{
	size_t i;
	int n = 0;

	for (i = 0; i < a->nr; i++)
		n += a->rip[i] == rip;
	return n;
}

static void arrive(struct arrivals *a, FILE *out)
{
	char where[160], what[160];

	if (a->nr == a->max) {
		a->max = a->max ? 2 * a->max : 1024;
		a->rip = xrealloc(a->rip, a->max * sizeof(*a->rip));
	}
	a->rip[a->nr++] = RIP;
	if (!out)
		return;
	label(RIP, where, sizeof(where));
	if (is_fault(RIP))
		snprintf(what, sizeof(what), "(the handler of a fault) iretq");
	else if (is_summary(RIP))
		snprintf(what, sizeof(what), w[W_AWAY] ? "(a C function)" : "(the interrupted context)");
	else
		decode_text(RIP, what, sizeof(what));
	fprintf(out, "  %s  %-44s %s\n", w[W_MASKED] ? "masked" : "open  ", where, what);
}

void search_replay(const struct search *s, char *schedule, size_t len, FILE *out)
{
	struct arrivals a = { 0 };
	u8 c[NR_EVENTS];
	size_t i, used = 0;
	char where[160];
	int n, k;

	schedule[0] = 0;
	if (!start(s))
		return;
	for (i = 0; i < s->nr_path; i++) {
		u8 ch = s->path[i];

		arrive(&a, out);
		if (ch != EV_STEP) {
			label(RIP, where, sizeof(where));
			k = pass(&a, RIP);
			used += snprintf(schedule + used, used < len ? len - used : 0,
					 "%s%s%s%s", used ? " " : "", event_name[ch],
					 w[W_AWAY] ? "@" : "", w[W_AWAY] ? where : "");
			if (k > 1 && w[W_AWAY])
				used += snprintf(schedule + used, used < len ? len - used : 0,
						 "#%d", k);
			if (used >= len)
				used = len - 1;
			if (out)
				fprintf(out, "---- %s\n", event_name[ch]);
			a.nr = 0;
		}
		if (!take(ch))
			break;
		for (k = 0; k < MAX_STRETCH; k++) {
			n = choices(s, c);
			if (n != 1 || c[0] != EV_STEP)
				break;
			if (k < 2000)
				arrive(&a, out);
			if (!machine_step(0)) {
				k = -1;
				break;
			}
		}
		if (k < 0)
			break;
	}
	if (out) {
		label(RIP, where, sizeof(where));
		fprintf(out, "  *** %s at %s: %s\n", property_name[s->property], where, s->text);
	}
	free(a.rip);
}
