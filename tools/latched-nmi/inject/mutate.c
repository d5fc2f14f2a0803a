// SPDX-License-Identifier: GPL-2.0
/*
 * Is every instruction of the entry needed? Each one is dropped, each conditional
 * jump inverted, each immediate made greater by one, and a case has to notice, or the
 * self-check that the kernel does at boot.
 */
#include <capstone/capstone.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "mutate.h"
#include "progress.h"
#include "result.h"
#include "sweep.h"

#define MAX_CHANGES	1024
#define MAX_CASES	256
/* The self-check waits for two NMIs, a second each. */
#define SELF_CHECK_MS	4000
#define NOP		0x90
#define INT3		0xcc

struct change {
	struct patch patch;
	char name[200];
	/* What the instruction was. */
	char text[200];
};

struct changes {
	struct change *c;
	int nr;
};

struct cases {
	struct try {
		const struct context *ctx;
		const struct event *ev;
		struct plan *plan;
		/* For each byte of entry text: is it executed in some of these cases? */
		bool *executed;
	} c[MAX_CASES];
	int nr;
	/* The same of all cases and the self-check, once all have been run; or NULL. */
	bool *executed;
};

static size_t text_len(const struct guest *g)
{
	return g->text[0].end - g->text[0].begin;
}

static struct change *add(struct guest *g, struct changes *all, const cs_insn *insn,
			  const char *what)
{
	struct change *c;
	char label[160];

	if (all->nr == MAX_CHANGES)
		die("more than %d changes", MAX_CHANGES);
	c = &all->c[all->nr++];
	label_of(g, insn->address, label, sizeof(label));
	snprintf(c->name, sizeof(c->name), "%s:%s", label, what);
	snprintf(c->text, sizeof(c->text), "%s%s%s", insn->mnemonic,
		 insn->op_str[0] ? " " : "", insn->op_str);
	c->patch.addr = insn->address;
	c->patch.len = insn->size;
	memcpy(c->patch.new, insn->bytes, insn->size);
	return c;
}

static bool is_conditional(const cs_insn *insn)
{
	return (insn->bytes[0] & 0xf0) == 0x70 ||
	       (insn->bytes[0] == 0x0f && (insn->bytes[1] & 0xf0) == 0x80);
}

static bool is_branch(const cs_insn *insn)
{
	return is_conditional(insn) || insn->bytes[0] == 0xe8 ||
	       insn->bytes[0] == 0xe9 || insn->bytes[0] == 0xeb;
}

/* Nothing that an NMI runs: it is there to be a fault, or to fill. */
static bool is_filler(const cs_insn *insn)
{
	return insn->id == X86_INS_NOP || insn->id == X86_INS_INT3 ||
	       insn->id == X86_INS_UD2;
}

/*
 * A comparison with the end of a range of text: nothing can be interrupted at the INT3
 * there, so that it makes no difference which side that is on.
 */
static bool ends_text(struct guest *g, const cs_x86 *x)
{
	u64 imm;
	u8 byte;
	int i;

	for (i = 0; i < x->op_count; i++) {
		imm = x->operands[i].imm;
		if (x->operands[i].type != X86_OP_IMM || !in_entry_text(g, imm))
			continue;
		gdb_read(&g->vm.gdb, kernel_phys(imm), &byte, sizeof(byte));
		return byte == INT3;
	}
	return false;
}

static void changes_of(struct guest *g, struct changes *all, const cs_insn *insn)
{
	const cs_x86 *x = &insn->detail->x86;
	struct change *c;
	int at;

	if (is_filler(insn))
		return;
	c = add(g, all, insn, "drop");
	memset(c->patch.new, NOP, insn->size);
	if (is_conditional(insn)) {
		c = add(g, all, insn, "invert");
		c->patch.new[insn->bytes[0] == 0x0f] ^= 1;
		return;
	}
	at = x->encoding.imm_offset;
	if (at && x->encoding.imm_size && !is_branch(insn) && !ends_text(g, x)) {
		c = add(g, all, insn, "off-by-one");
		c->patch.new[at]++;
	}
	/* A neighbouring slot of the stack. */
	at = x->encoding.disp_offset;
	if (at && x->encoding.disp_size) {
		c = add(g, all, insn, "displaced");
		c->patch.new[at] += 8;
	}
}

static void decode_range(struct guest *g, struct changes *all, u64 begin, u64 end)
{
	u64 len = end - begin, at, n;
	u8 *text = xalloc(len);
	cs_insn *insn;
	size_t i, nr;
	csh handle;

	for (at = 0; at < len; at += n) {
		n = len - at > 1024 ? 1024 : len - at;
		gdb_read(&g->vm.gdb, kernel_phys(begin + at), text + at, n);
	}
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
		die("capstone does not start");
	cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
	/* ENDBR64 is data to some versions. */
	cs_option(handle, CS_OPT_SKIPDATA, CS_OPT_ON);
	nr = cs_disasm(handle, text, len, begin, 0, &insn);
	for (i = 0; i < nr; i++) {
		if (insn[i].id)
			changes_of(g, all, &insn[i]);
	}
	cs_free(insn, nr);
	cs_close(&handle);
	free(text);
}

static void find_changes(struct guest *g, struct changes *all)
{
	int i, zones = 0;

	all->c = xalloc(MAX_CHANGES * sizeof(*all->c));
	for (i = 0; i < g->cfg->nr_zone; i++) {
		const struct zone *z = &g->cfg->zone[i];

		if (strcmp(z->name, "stub") || strcmp(z->entry, g->entry))
			continue;
		decode_range(g, all, sym_addr(g->ksym, z->begin),
			     sym_addr(g->ksym, z->end));
		zones++;
	}
	if (!zones)
		die("the table has no zone stub for %s", g->entry);
}

/* The suite "mutate": its events in the table's order, each in all of its contexts. */
static void find_cases(struct guest *g, struct cases *all)
{
	int s, e, c;

	for (s = 0; s < g->cfg->nr_suite; s++) {
		const struct suite *suite = &g->cfg->suite[s];

		if (strcmp(suite->name, "mutate") ||
		    !list_has(suite->machines, g->machine->suite_of))
			continue;
		for (e = 0; e < g->cfg->nr_event; e++) {
			for (c = 0; c < g->cfg->nr_context; c++) {
				if (!list_has(suite->events, g->cfg->event[e].name) ||
				    !list_has(suite->contexts, g->cfg->context[c].name))
					continue;
				if (all->nr == MAX_CASES)
					die("more than %d cases", MAX_CASES);
				all->c[all->nr].ctx = &g->cfg->context[c];
				all->c[all->nr++].ev = &g->cfg->event[e];
			}
		}
	}
}

/*
 * The instructions of entry text that QEMU has translated since its log was @from bytes
 * long go to @executed. Return: how long it is now.
 */
static long read_log(const struct guest *g, long from, bool *executed)
{
	const u64 begin = g->text[0].begin, end = g->text[0].end;
	FILE *log = fopen(g->vm.log, "r");
	char line[256];

	if (!log)
		die("%s: %s", g->vm.log, strerror(errno));
	fseek(log, from, SEEK_SET);
	while (fgets(line, sizeof(line), log)) {
		u64 addr = strncmp(line, "0x", 2) ? 0 : strtoull(line, NULL, 16);

		if (addr >= begin && addr < end)
			executed[addr - begin] = true;
	}
	from = ftell(log);
	fclose(log);
	return from;
}

/* Those that execute what is changed are the ones to notice. */
enum which { EXECUTES_SOME, EXECUTES_ALL, OTHERS };

/*
 * What has noticed a change comes first for the next one, which is often beside it.
 * Return: the number of cases that were run, up to the one that noticed.
 */
static int run_cases(struct guest *g, struct cases *all, enum which which, char *first,
		     size_t len)
{
	const struct patch *p = g->patch;
	int i, cases = 0;

	for (i = 0; i < all->nr && !first[0]; i++) {
		const struct try try = all->c[i];

		if (try.executed[p->addr - g->text[0].begin] == (which == OTHERS))
			continue;
		if (which == EXECUTES_SOME)
			cases += sweep_telling(g, try.ctx, try.plan, p->addr,
					       p->addr + p->len, first, len);
		else
			cases += sweep_first(g, try.ctx, try.ev, first, len);
		if (!first[0])
			continue;
		memmove(&all->c[1], &all->c[0], i * sizeof(try));
		all->c[0] = try;
	}
	return cases;
}

/*
 * Plan all cases, and run some of each kind, with nothing changed, which have to pass. A
 * snapshot is loaded before each kind, so that QEMU translates anew what is executed.
 */
static void plan_cases(struct guest *g, struct cases *all)
{
	bool *before = xalloc(text_len(g));
	long log = read_log(g, 0, before);
	char first[600] = "";
	int i;

	for (i = 0; i < all->nr; i++) {
		struct try *try = &all->c[i];

		try->plan = sweep_plan(g, try->ctx, try->ev);
		sweep_telling(g, try->ctx, try->plan, 0, 0, first, sizeof(first));
		if (first[0])
			die("%s: nothing was changed, and it fails: %s", g->machine->name, first);
		try->executed = xalloc(text_len(g));
		log = read_log(g, log, try->executed);
	}
	free(before);
}

/* All cases have been run: what QEMU has translated by now is what is executed. */
static void complete(struct guest *g, struct cases *all)
{
	if (all->executed)
		return;
	all->executed = xalloc(text_len(g));
	read_log(g, 0, all->executed);
	free(vm_hmp(&g->vm, "log none"));
}

/* Does the kernel take another entry, or not boot on, with the patch in force? */
static bool self_check_notices(struct guest *g)
{
	u8 in_use = 0;
	struct regs r;
	bool there;
	u64 caller;

	context_leave(g);
	vm_loadvm(&g->vm, "self-check");
	guest_patch(g);
	gdb_regs(&g->vm.gdb, &r);
	caller = guest_u64(g, vm_translate(&g->vm, reg_get(&r, R_RSP)));
	g->limit_ms = SELF_CHECK_MS;
	there = guest_run_to(g, caller);
	g->limit_ms = CASE_MS;
	gdb_read(&g->vm.gdb, kernel_phys(sym_addr(g->ksym, "latched_nmi_in_use")),
		 &in_use, sizeof(in_use));
	return !there || !in_use;
}

/* Why nothing can notice this change, if the table says so. */
static const char *equivalent(const struct guest *g, const struct change *c)
{
	int i;

	for (i = 0; i < g->cfg->nr_equivalent; i++) {
		const struct equivalent *eq = &g->cfg->equivalent[i];

		if (!strcmp(eq->name, strrchr(c->name, ':') + 1) &&
		    !strncmp(eq->at, c->name, strlen(eq->at)) &&
		    !strncmp(eq->insn, c->text, strlen(eq->insn)))
			return eq->why;
	}
	return NULL;
}

/*
 * The changes that are to be tried. A sample is the same whatever the number of workers
 * is, and without what nothing can find.
 */
static bool is_wanted(const struct guest *g, const struct mutate_wish *wish,
		      const struct changes *all, int i)
{
	const struct change *c = &all->c[i];
	const struct result *before = results_change(wish->before, c->name, c->text);

	/* Another machine may find what the first did not, or have other instructions. */
	if (before)
		return !before->first[0] && !equivalent(g, c);
	if (wish->names)
		return list_has(wish->names, c->name);
	if (wish->before && wish->before->nr && wish->sample > 1)
		return false;
	return wish->sample == 1 || (!(i % wish->sample) && !equivalent(g, c));
}

static void try_change(struct guest *g, const struct change *c, struct cases *all,
		       bool thorough, FILE *out)
{
	const char *why = equivalent(g, c);
	bool self_check = false;
	char first[600] = "";
	int cases = 0;

	if (!all->executed || all->executed[c->patch.addr - g->text[0].begin]) {
		g->patch = &c->patch;
		g->nr_patch = 1;
		self_check = self_check_notices(g);
		cases = run_cases(g, all, EXECUTES_SOME, first, sizeof(first));
		if (thorough || !why) {
			cases += run_cases(g, all, EXECUTES_ALL, first, sizeof(first));
			cases += run_cases(g, all, OTHERS, first, sizeof(first));
			if (!first[0])
				complete(g, all);
		}
		g->nr_patch = 0;
	}
	write_change(out, g, c->name, cases, c->text, why ?: "", self_check, first);
	fflush(out);
	progress(1, "%s/%s (%s): %s", g->machine->name, c->name, c->text,
		 first[0] ? "found" : self_check ? "found by the self-check" :
		 why ? "equivalent" : cases ? "not found" : "not executed");
}

void mutate_run(struct guest *g, const struct mutate_wish *wish, FILE *out)
{
	struct changes all = { 0 };
	struct cases cases = { 0 };
	int i, n = 0;

	find_changes(g, &all);
	for (i = 0; i < all.nr; i++)
		n += is_wanted(g, wish, &all, i);
	/* The share of this worker. */
	n = (n - wish->worker + wish->workers - 1) / wish->workers;
	if (!n)
		return;
	progress_more(n);
	find_cases(g, &cases);
	if (self_check_notices(g))
		die("%s: the self-check fails, and nothing was changed", g->machine->name);
	plan_cases(g, &cases);
	for (i = 0, n = 0; i < all.nr; i++) {
		const struct change *c = &all.c[i];

		if (is_wanted(g, wish, &all, i) && n++ % wish->workers == wish->worker)
			try_change(g, c, &cases, wish->names, out);
	}
	free(all.c);
}
