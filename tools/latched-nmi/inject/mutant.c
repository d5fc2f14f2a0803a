// SPDX-License-Identifier: GPL-2.0
/*
 * Mutants: changes to the running kernel's text, each found by scanning a
 * range of it for the instruction that it is about.
 *
 * A patch line is an operation and its arguments. BEGIN and END bound the
 * range: symbol[+-offset], or end:symbol. N is the number of the match to change,
 * or * for all of them.
 *
 *   nop-jump BEGIN END TARGET N	no jump or call to TARGET
 *   force-jump BEGIN END TARGET N	a conditional jump to TARGET always jumps
 *   move-jump BEGIN END TARGET N TO	a jump to TARGET goes to TO
 *   nop-jump-after-imm BEGIN END IMM N	no jump right after the comparison with
 *					the 32-bit immediate IMM
 *   force-jump-after-imm BEGIN END IMM N	a jump there always jumps
 *   nop-jump-after-bytes BEGIN END HEX N	no jump right after these bytes
 *   imm BEGIN END OLD N NEW		another 32-bit immediate
 *   nop-bytes BEGIN END HEX N		no such instruction; ?? is any byte
 *   ret SYMBOL				the function returns at once
 *   expect ADDRESS HEX			no change: fail if other bytes are there
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "mutant.h"
#include "progress.h"
#include "result.h"
#include "sweep.h"

#define MAX_RANGE	8192

struct scan {
	struct guest *guest;
	const char *mutant;
	const char *op;
	u64 begin;
	size_t len;
	u8 text[MAX_RANGE];
	struct patch *out;
	int nr, max;
};

static void __attribute__((noreturn)) fail(struct scan *s, const char *what)
{
	die("mutant %s: %s: %s", s->mutant, s->op, what);
}

static u64 addr_of(struct scan *s, const char *name)
{
	return sym_addr(s->guest->ksym, name);
}

static void read_text(struct scan *s)
{
	size_t at, n;

	for (at = 0; at < s->len; at += n) {
		n = s->len - at > 1024 ? 1024 : s->len - at;
		gdb_read(&s->guest->vm.gdb, kernel_phys(s->begin + at), s->text + at, n);
	}
}

static void open_range(struct scan *s, const char *begin, const char *end)
{
	u64 e;

	s->begin = addr_of(s, begin);
	e = addr_of(s, end);
	if (e <= s->begin || e - s->begin > MAX_RANGE)
		fail(s, "bad range");
	s->len = e - s->begin;
	read_text(s);
}

static struct patch *add(struct scan *s, size_t off, size_t len)
{
	struct patch *p = &s->out[s->nr++];

	if (s->nr > s->max)
		fail(s, "too many changes");
	p->addr = s->begin + off;
	p->len = len;
	memcpy(p->new, s->text + off, len);
	return p;
}

static void add_nop(struct scan *s, size_t off, size_t len)
{
	memset(add(s, off, len)->new, 0x90, len);
}

/* Length of a direct jump or call at @off, and where it goes; 0 if none. */
static size_t jump_at(struct scan *s, size_t off, u64 *target)
{
	const u8 *t = s->text + off;
	size_t left = s->len - off;
	int32_t rel;

	if (left >= 2 && (t[0] == 0xeb || (t[0] & 0xf0) == 0x70)) {
		*target = s->begin + off + 2 + (int8_t)t[1];
		return 2;
	}
	if (left >= 5 && (t[0] == 0xe8 || t[0] == 0xe9)) {
		memcpy(&rel, t + 1, 4);
		*target = s->begin + off + 5 + rel;
		return 5;
	}
	if (left >= 6 && t[0] == 0x0f && (t[1] & 0xf0) == 0x80) {
		memcpy(&rel, t + 2, 4);
		*target = s->begin + off + 6 + rel;
		return 6;
	}
	return 0;
}

static void force_jump(struct scan *s, size_t off, size_t len)
{
	struct patch *p = add(s, off, len);

	if (len == 2) {
		p->new[0] = 0xeb;
	} else if (len == 6) {
		p->new[0] = 0x90;
		p->new[1] = 0xe9;
	}
}

static void move_jump(struct scan *s, size_t off, size_t len, u64 to)
{
	struct patch *p = add(s, off, len);
	int64_t rel = to - (s->begin + off + len);
	int32_t rel32 = rel;

	if (len == 2) {
		if (rel != (int8_t)rel)
			fail(s, "the new target is too far away");
		p->new[1] = rel;
	} else {
		memcpy(p->new + len - 4, &rel32, 4);
	}
}

static void do_jumps(struct scan *s, char **a, int n)
{
	u64 target = addr_of(s, a[3]), to;
	size_t off, len;
	int hits = 0;

	open_range(s, a[1], a[2]);
	for (off = 0; off < s->len; off++) {
		len = jump_at(s, off, &to);
		if (!len || to != target)
			continue;
		hits++;
		if (n && hits != n)
			continue;
		if (!strcmp(a[0], "nop-jump"))
			add_nop(s, off, len);
		else if (!strcmp(a[0], "force-jump"))
			force_jump(s, off, len);
		else
			move_jump(s, off, len, addr_of(s, a[5]));
	}
	if (hits < (n ? n : 1))
		fail(s, "no such jump");
}

static void do_imms(struct scan *s, char **a, int n)
{
	bool jump = strcmp(a[0], "imm");
	u32 old = addr_of(s, a[3]), val = jump ? 0 : addr_of(s, a[5]), v;
	int hits = 0;
	size_t off;

	open_range(s, a[1], a[2]);
	for (off = 0; off + 4 <= s->len; off++) {
		u64 to;

		memcpy(&v, s->text + off, 4);
		if (v != old)
			continue;
		hits++;
		if (n && hits != n)
			continue;
		if (!jump) {
			memcpy(add(s, off, 4)->new, &val, 4);
		} else {
			size_t len = jump_at(s, off + 4, &to);

			if (!len)
				fail(s, "no jump after the comparison");
			if (!strncmp(a[0], "nop", 3))
				add_nop(s, off + 4, len);
			else
				force_jump(s, off + 4, len);
		}
	}
	if (hits < (n ? n : 1))
		fail(s, "no such immediate");
}

static bool match_hex(struct scan *s, size_t off, const char *hex)
{
	for (; *hex; hex += 2, off++) {
		char b[3] = { hex[0], hex[1], 0 };

		if (off >= s->len)
			return false;
		if (hex[0] != '?' && strtoul(b, NULL, 16) != s->text[off])
			return false;
	}
	return true;
}

static void do_bytes(struct scan *s, char **a, int n)
{
	bool jump = !strcmp(a[0], "nop-jump-after-bytes");
	size_t off, len = strlen(a[3]) / 2;
	int hits = 0;
	u64 to;

	open_range(s, a[1], a[2]);
	for (off = 0; off < s->len; off++) {
		if (!match_hex(s, off, a[3]))
			continue;
		hits++;
		if (n && hits != n)
			continue;
		if (!jump) {
			add_nop(s, off, len);
			continue;
		}
		if (!jump_at(s, off + len, &to))
			fail(s, "no jump after these bytes");
		add_nop(s, off + len, jump_at(s, off + len, &to));
	}
	if (hits < (n ? n : 1))
		fail(s, "no such bytes");
}

static void do_expect(struct scan *s, const char *addr, const char *hex)
{
	s->begin = addr_of(s, addr);
	s->len = strlen(hex) / 2;
	read_text(s);
	if (!match_hex(s, 0, hex))
		fail(s, "other bytes are there");
}

/* What @mu changes in the running text; die if a pattern is not there. */
static int patches(struct guest *g, const struct mutant *mu, struct patch *out, int max)
{
	struct scan s = { .guest = g, .mutant = mu->name, .out = out, .max = max };
	int i;

	for (i = 0; i < mu->nr; i++) {
		char line[256], *a[8] = { NULL }, *save;
		int nr = 0, n;

		s.op = mu->op[i];
		snprintf(line, sizeof(line), "%s", mu->op[i]);
		for (a[0] = strtok_r(line, " \t", &save); a[nr] && nr < 7;)
			a[++nr] = strtok_r(NULL, " \t", &save);
		n = nr > 4 && strcmp(a[4], "*") ? atoi(a[4]) : 0;

		if (!strcmp(a[0], "nop-jump") && nr == 5)
			do_jumps(&s, a, n);
		else if (!strcmp(a[0], "force-jump") && nr == 5)
			do_jumps(&s, a, n);
		else if (!strcmp(a[0], "move-jump") && nr == 6)
			do_jumps(&s, a, n);
		else if (!strcmp(a[0], "nop-jump-after-imm") && nr == 5)
			do_imms(&s, a, n);
		else if (!strcmp(a[0], "force-jump-after-imm") && nr == 5)
			do_imms(&s, a, n);
		else if (!strcmp(a[0], "nop-jump-after-bytes") && nr == 5)
			do_bytes(&s, a, n);
		else if (!strcmp(a[0], "imm") && nr == 6)
			do_imms(&s, a, n);
		else if (!strcmp(a[0], "nop-bytes") && nr == 5)
			do_bytes(&s, a, n);
		else if (!strcmp(a[0], "expect") && nr == 3)
			do_expect(&s, a[1], a[2]);
		else if (!strcmp(a[0], "ret") && nr == 2) {
			s.begin = addr_of(&s, a[1]);
			add(&s, 0, 1)->new[0] = 0xc3;
		} else {
			fail(&s, "no such operation");
		}
	}
	return s.nr;
}

/* All cases of @mu up to the first that fails. */
static int run_cases(struct guest *g, const struct mutant *mu, char *first, size_t len)
{
	int c, e, cases = 0;

	for (c = 0; c < g->cfg->nr_context; c++) {
		const struct context *ctx = &g->cfg->context[c];

		for (e = 0; e < g->cfg->nr_event; e++) {
			const struct event *ev = &g->cfg->event[e];
			char name[200];

			snprintf(name, sizeof(name), "%s/%s", ctx->name, ev->name);
			if (list_has(mu->cases, name))
				cases += sweep_first(g, ctx, ev, first, len);
			if (first[0])
				return cases;
		}
	}
	return cases;
}

void mutant_run(struct guest *g, const struct mutant *mu, FILE *out)
{
	struct patch patch[32];
	char first[600] = "";
	int cases;

	context_leave(g);
	vm_loadvm(&g->vm, "boot");
	g->nr_patch = patches(g, mu, patch, ARRAY_SIZE(patch));
	g->patch = patch;

	cases = run_cases(g, mu, first, sizeof(first));
	write_mutant(out, g, mu->name, cases, first);
	fflush(out);
	progress(1, "mutant %s: %s", mu->name, first[0] ? "found" : "not found");

	g->nr_patch = 0;
	context_leave(g);
	vm_loadvm(&g->vm, "boot");
}
