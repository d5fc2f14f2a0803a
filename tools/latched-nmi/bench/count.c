// SPDX-License-Identifier: GPL-2.0
/*
 * Count what an NMI costs: step a booted kernel from the delivery of an event to
 * the return to what it interrupted, C included, and add up instructions and
 * accesses, by phase and by function.
 *
 * Lines on standard output, all of them counts of one row of the table:
 *
 *   total ROW INSTRUCTIONS LOADS STORES STACK DATA TEXT SERIALISING
 *   phase ROW PHASE INSTRUCTIONS LOADS STORES
 *   function ROW PHASE FUNCTION INSTRUCTIONS LOADS STORES
 *   skip ROW REASON
 *
 * STACK is the bytes of stack that are written, DATA and TEXT are distinct cache
 * lines. What the CPU itself pushes at delivery is in STACK and DATA only.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "access.h"
#include "case.h"
#include "context.h"
#include "options.h"

#define MAX_STEPS_TOTAL	50000
#define MAX_TRIES	6
#define MAX_WORDS	4096
#define MAX_FUNCTIONS	256
#define LINE		64
#define FRAME_SIZE	40

/*
 * A phase lasts until an instruction or a function begins the next: see
 * phase_of(). What is left out is not stepped and not counted.
 */
enum phase { ENTRY, SAVE, DISPATCH, RESTORE, RETURN, NR_PHASE };

static const char * const phase_name[NR_PHASE] = {
	"entry", "save", "dispatch", "restore", "return",
};

/*
 * The functions that do an event's own work, which no entry saves. nmi_handle() is
 * made to return 1 at once: a handler has handled the NMI.
 */
static const struct {
	const char *name;
	bool skip;
} own_work[] = {
	{ "nmi_handle", true },
	{ "do_machine_check", false },
	{ "notify_die", false },
	{ "send_sigtrap", false },
	{ "arch_do_signal_or_restart", false },
};

enum kind {
	/* The event alone. */
	PLAIN,
	/* An NMI that comes while the handlers of another run. */
	NESTED,
	/* What such an NMI makes the outer one do more. */
	REPEAT,
};

static const struct row {
	const char *name;
	enum kind kind;
	/* A context of the injector's table. */
	const char *context;
	/* The event is injected, or comes of what the context runs. */
	const char *event;
} rows[] = {
	{ "kernel",		PLAIN,	"kernel",	"nmi" },
	{ "module",		PLAIN,	"module",	"nmi" },
	{ "user",		PLAIN,	"user",		"nmi" },
	{ "nested",		NESTED,	"kernel",	"nmi" },
	{ "nested-module",	NESTED,	"module",	"nmi" },
	{ "nested-user",	NESTED,	"user",		"nmi" },
	{ "repeat",		REPEAT,	"kernel",	"nmi" },
	{ "repeat-user",	REPEAT,	"user",		"nmi" },
	{ "mce",		PLAIN,	"kernel",	"mce" },
	{ "mce-user",		PLAIN,	"user",		"mce" },
	{ "db",			PLAIN,	"db-kernel",	"db" },
	{ "db-user",		PLAIN,	"db-user",	"db" },
};

/* #DB: a single step in the SYSENTER entry, and one in user mode. */
static const struct context db_contexts[] = {
	{ .name = "db-kernel", .load = "load_sysenter_tf" },
	{ .name = "db-user", .load = "load_db" },
};

struct cost {
	long insns, loads, stores;
};

struct function {
	char name[96];
	enum phase phase;
	struct cost cost;
};

/* A set of small numbers. */
struct set {
	u64 v[MAX_WORDS];
	int nr;
};

struct count {
	struct cost total, phase[NR_PHASE];
	long serialising;
	struct function fn[MAX_FUNCTIONS];
	int nr_fn;
	struct set stack, data, text;
};

static bool verbose;

static void set_add(struct set *s, u64 v)
{
	int i;

	for (i = 0; i < s->nr; i++) {
		if (s->v[i] == v)
			return;
	}
	if (s->nr == MAX_WORDS)
		die("more than %d words", MAX_WORDS);
	s->v[s->nr++] = v;
}

static void cost_add(struct cost *c, const struct cost *d)
{
	c->insns += d->insns;
	c->loads += d->loads;
	c->stores += d->stores;
}

static struct function *function_of(struct count *c, const char *name, enum phase p)
{
	int i;

	for (i = 0; i < c->nr_fn; i++) {
		if (c->fn[i].phase == p && !strcmp(c->fn[i].name, name))
			return &c->fn[i];
	}
	if (c->nr_fn == MAX_FUNCTIONS)
		die("more than %d functions", MAX_FUNCTIONS);
	snprintf(c->fn[c->nr_fn].name, sizeof(c->fn[0].name), "%s", name);
	c->fn[c->nr_fn].phase = p;
	return &c->fn[c->nr_fn++];
}

static void set_add_range(struct set *s, u64 addr, u64 size, u64 unit)
{
	u64 v;

	for (v = addr / unit; v <= (addr + size - 1) / unit; v++)
		set_add(s, v);
}

/* @in is executed with @r in the phase @p; an IRET's phase is always the return. */
static void count_insn(struct guest *g, struct count *c, const struct insn *in,
		       const struct regs *r, enum phase p)
{
	struct cost one = { .insns = 1 };
	u64 rsp = reg_get(r, R_RSP);
	char label[160];
	int i;

	for (i = 0; i < in->nr; i++) {
		u64 addr = in->mem[i].addr;

		one.loads += in->mem[i].load;
		one.stores += in->mem[i].store;
		set_add_range(&c->data, addr, in->mem[i].size, LINE);
		/* Within a page of the stack pointer, and at no per-CPU address. */
		if (in->mem[i].store && addr + 4096 > rsp && addr < rsp + 4096)
			set_add_range(&c->stack, addr, in->mem[i].size, 1);
	}
	set_add_range(&c->text, in->addr, in->len ?: 1, LINE);
	label_of(g, in->addr, label, sizeof(label));
	if (verbose)
		printf("# %-8s %-44s %s\n", phase_name[p], label, in->text);
	label[strcspn(label, "+")] = 0;
	cost_add(&function_of(c, label, p)->cost, &one);
	cost_add(&c->phase[p], &one);
	cost_add(&c->total, &one);
	c->serialising += in->serialising;
}

/* The phase of @in, which comes after an instruction of the phase @p. */
static enum phase phase_of(struct guest *g, const struct insn *in, enum phase p)
{
	if (in->is_iret)
		return RETURN;
	if (!in_asm(g, in->addr))
		return DISPATCH;
	if (p == DISPATCH && in_entry_text(g, in->addr))
		return RESTORE;
	if (in->begins_save)
		return SAVE;
	return p;
}

static bool is_function(struct guest *g, u64 addr, const char *name)
{
	size_t len = strlen(name);
	char label[160];

	label_of(g, addr, label, sizeof(label));
	/* The compiler may have appended ".constprop.0" or its like. */
	return !strncmp(label, name, len) && (label[len] == '+' || label[len] == '.') &&
	       !strcmp(strchr(label, '+'), "+0x0");
}

static void inject(struct guest *g, const char *event)
{
	if (!strcmp(event, "nmi"))
		vm_inject_nmi(&g->vm);
	else
		free(vm_hmp(&g->vm, g->machine->mce));
}

struct walk {
	/* The NMI that is to nest, counted there; NULL for none. */
	struct count *nested;
	/* Where the nested NMI comes: at @at, or if it is 0 in the handlers. */
	u64 at;
};

static void walk(struct guest *g, struct count *c, const struct walk *w);

/* The guest stands at the gate of an NMI that came while handlers ran. */
static void walk_nested(struct guest *g, const struct walk *w)
{
	static const struct walk plain;
	const struct event ev = { .nr = 1, .step = { { .kind = STEP_IRET } } };
	char detail[400];
	struct regs r;

	if (w->at)
		gdb_reg_set(&g->vm.gdb, R_RIP, w->at);
	if (case_steps(g, &ev, 0, 1, NULL, detail, sizeof(detail)) != V_OK)
		die("%s: %s", g->ctx->name, detail);
	gdb_regs(&g->vm.gdb, &r);
	vm_inject_nmi(&g->vm);
	if (!guest_run_to(g, g->gate_nmi))
		die("%s: the nested NMI is not delivered", g->ctx->name);
	walk(g, w->nested, &plain);
}

/* An event's own work: not counted. Returns false if @rip is none. */
static bool leave_out(struct guest *g, u64 rip, const struct regs *r, const struct walk *w,
		      bool *nested)
{
	u64 rsp = reg_get(r, R_RSP), ret;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(own_work); i++) {
		if (is_function(g, rip, own_work[i].name))
			break;
	}
	if (i == ARRAY_SIZE(own_work))
		return false;
	if (own_work[i].skip && w->nested && !*nested) {
		*nested = true;
		walk_nested(g, w);
		/* The outer NMI goes on as if nothing had been. */
		gdb_reg_set(&g->vm.gdb, R_RIP, rip);
	}
	ret = guest_u64(g, vm_translate(&g->vm, rsp));
	if (own_work[i].skip) {
		gdb_reg_set(&g->vm.gdb, R_RAX, 1);
		gdb_reg_set(&g->vm.gdb, R_RSP, rsp + 8);
		gdb_reg_set(&g->vm.gdb, R_RIP, ret);
	} else if (!guest_run_to(g, ret)) {
		die("%s: %s does not return", g->ctx ? g->ctx->name : "#DB",
		    own_work[i].name);
	}
	return true;
}

/* From a gate, where the guest stands, to the return to what was interrupted. */
static void walk(struct guest *g, struct count *c, const struct walk *w)
{
	u64 frame[5], rip, last = 0;
	enum phase p = ENTRY;
	bool nested = false;
	struct insn in;
	struct regs r;
	u8 code[16];
	int n;

	gdb_regs(&g->vm.gdb, &r);
	gdb_read(&g->vm.gdb, vm_translate(&g->vm, reg_get(&r, R_RSP)), frame, sizeof(frame));
	set_add_range(&c->data, reg_get(&r, R_RSP), FRAME_SIZE, LINE);
	set_add_range(&c->stack, reg_get(&r, R_RSP), FRAME_SIZE, 1);

	for (n = 0; n < MAX_STEPS_TOTAL; n++) {
		rip = guest_rip(g, &r);
		if (n && rip == frame[0] && reg_get(&r, R_RSP) == frame[3])
			return;
		if (is_trap(g, rip))
			break;
		if (leave_out(g, rip, &r, w, &nested))
			continue;
		gdb_read(&g->vm.gdb, kernel_phys(rip), code, sizeof(code));
		insn_decode(&in, rip, code, sizeof(code), &r);
		p = phase_of(g, &in, p);
		/* Each round of a string instruction is a step. */
		if (rip != last)
			count_insn(g, c, &in, &r, p);
		last = rip;
		if (in.ends_restore && p == RESTORE)
			p = RETURN;
		gdb_step(&g->vm.gdb);
	}
	label_of(g, rip, (char *)code, sizeof(code));
	die("%s: the path does not end: %s", g->ctx ? g->ctx->name : "#DB", code);
}

static const struct context *context_of(struct guest *g, const struct row *row)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(db_contexts); i++) {
		if (!strcmp(db_contexts[i].name, row->context))
			return &db_contexts[i];
	}
	return cfg_context(g->cfg, row->context);
}

/* Bring the guest to the gate of the row's event. */
static bool start(struct guest *g, const struct row *row, char *why, size_t len)
{
	const struct context *ctx = context_of(g, row);

	if (!strcmp(row->event, "db")) {
		context_leave(g);
		vm_loadvm(&g->vm, "boot");
		gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, ctx->load));
		g->limit_ms = PATIENT_MS;
		snprintf(why, len, "no #DB came");
		/* In user mode #DB comes without an IST stack's gate being another. */
		return guest_run_to(g, g->gate_db);
	}
	if (!context_enter(g, ctx, why, len))
		return false;
	inject(g, row->event);
	snprintf(why, len, "the event is not delivered");
	return guest_run_to(g, strcmp(row->event, "nmi") ? g->gate_mce : g->gate_nmi);
}

static void subtract(struct cost *c, const struct cost *d)
{
	c->insns -= d->insns;
	c->loads -= d->loads;
	c->stores -= d->stores;
}

/* What is more in @c than in @plain; lines and bytes of a repeat are no new ones. */
static void difference(struct count *c, const struct count *plain)
{
	int i;

	subtract(&c->total, &plain->total);
	for (i = 0; i < NR_PHASE; i++)
		subtract(&c->phase[i], &plain->phase[i]);
	for (i = 0; i < plain->nr_fn; i++)
		subtract(&function_of(c, plain->fn[i].name, plain->fn[i].phase)->cost,
			 &plain->fn[i].cost);
	c->serialising -= plain->serialising;
}

static void print(const struct row *row, const struct count *c)
{
	int i;

	printf("total %s %ld %ld %ld %d %d %d %ld\n", row->name, c->total.insns,
	       c->total.loads, c->total.stores, c->stack.nr, c->data.nr, c->text.nr,
	       c->serialising);
	for (i = 0; i < NR_PHASE; i++)
		printf("phase %s %s %ld %ld %ld\n", row->name, phase_name[i],
		       c->phase[i].insns, c->phase[i].loads, c->phase[i].stores);
	for (i = 0; i < c->nr_fn; i++) {
		if (c->fn[i].cost.insns)
			printf("function %s %s %s %ld %ld %ld\n", row->name,
			       phase_name[c->fn[i].phase], c->fn[i].name,
			       c->fn[i].cost.insns, c->fn[i].cost.loads,
			       c->fn[i].cost.stores);
	}
	fflush(stdout);
}

/* Count @row once into @c; false if its event does not come. */
static bool measure(struct guest *g, const struct row *row, struct count *c, char *why,
		    size_t len)
{
	struct count *plain = xalloc(sizeof(*plain)), *nested = xalloc(sizeof(*nested));
	struct walk w = { 0 };
	bool ok;

	ok = start(g, row, why, len);
	if (ok && row->kind == REPEAT) {
		walk(g, plain, &w);
		ok = start(g, row, why, len);
	}
	if (ok && row->kind != PLAIN) {
		w.nested = nested;
		if (row->kind == NESTED && !strcmp(row->context, "module"))
			w.at = g->s0_rip;
	}
	if (ok)
		walk(g, c, &w);
	if (ok && row->kind == REPEAT)
		difference(c, plain);
	else if (ok && row->kind == NESTED)
		*c = *nested;
	free(nested);
	free(plain);
	return ok;
}

static bool same(const struct count *a, const struct count *b)
{
	return !memcmp(&a->total, &b->total, sizeof(a->total)) &&
	       !memcmp(a->phase, b->phase, sizeof(a->phase)) &&
	       a->serialising == b->serialising && a->stack.nr == b->stack.nr &&
	       a->data.nr == b->data.nr && a->text.nr == b->text.nr;
}

/*
 * A timer may interrupt what is counted, or have it schedule. So a row is counted until
 * two of its counts are the same.
 */
static void run_row(struct guest *g, const struct row *row)
{
	struct count *c[MAX_TRIES] = { };
	bool done = false;
	char why[200];
	int i, n;

	for (n = 0; n < MAX_TRIES && !done; n++) {
		c[n] = xalloc(sizeof(*c[n]));
		if (!measure(g, row, c[n], why, sizeof(why))) {
			printf("skip %s %s\n", row->name, why);
			break;
		}
		for (i = 0; i < n && !done; i++)
			done = same(c[i], c[n]);
	}
	if (done) {
		print(row, c[n - 1]);
	} else if (n == MAX_TRIES) {
		printf("skip %s counted %d times, each time another number of instructions:",
		       row->name, n);
		for (i = 0; i < n; i++)
			printf(" %ld", c[i]->total.insns);
		printf("\n");
	}
	for (i = 0; i < MAX_TRIES; i++)
		free(c[i]);
}

/* Options. */

struct options {
	struct guest_config guest;
	const char *cases, *machines, *machine, *entry, *rows;
	bool steps, list;
};

#define MEMBER(m)	offsetof(struct options, m)

static const struct option_def table[] = {
	{ "kernel", "BZIMAGE", OPT_TEXT, MEMBER(guest.kernel), "what is booted; needed" },
	{ "vmlinux", "FILE", OPT_TEXT, MEMBER(guest.vmlinux), "its symbols; needed" },
	{ "initrd", "FILE", OPT_TEXT, MEMBER(guest.initrd), "the injector's initramfs; needed" },
	{ "init", "FILE", OPT_TEXT, MEMBER(guest.init), "symbols of its /init; needed" },
	{ "cases", "FILE", OPT_TEXT, MEMBER(cases), "the injector's case table; needed" },
	{ "machines", "FILE", OPT_TEXT, MEMBER(machines), "the table of machines; needed" },
	{ "machine", "NAME", OPT_TEXT, MEMBER(machine), "a machine of the table (skylake)" },
	{ "entry", "NAME", OPT_TEXT, MEMBER(entry), "nmi_entry= of the kernel (latched)" },
	{ "rows", "LIST", OPT_TEXT, MEMBER(rows), "only these rows" },
	{ "list", NULL, OPT_FLAG, MEMBER(list), "print the names of the rows" },
	{ "steps", NULL, OPT_FLAG, MEMBER(steps), "print each instruction, as a comment" },
};

static void check_rows(const char *list)
{
	char *words = xstrdup(list), *w, *save;
	size_t i;

	for (w = strtok_r(words, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		for (i = 0; i < ARRAY_SIZE(rows) && strcmp(rows[i].name, w); i++)
			;
		if (i == ARRAY_SIZE(rows))
			die("there is no row %s", w);
	}
	free(words);
}

static char *workdir;

static void remove_workdir(void)
{
	remove_tree(workdir);
}

int main(int argc, char **argv)
{
	struct options opt = {
		.machine = "skylake", .entry = "latched",
	};
	const char *tmp = getenv("TMPDIR");
	const struct machine *m;
	struct config cfg;
	struct guest *g;
	size_t i;

	options_parse(table, ARRAY_SIZE(table),
		      "Count what an NMI costs on a built kernel, instruction by "
		      "instruction, from its delivery to its return, C included and the "
		      "handlers left out.", &opt, argc, argv);
	for (i = 0; i < ARRAY_SIZE(rows) && opt.list; i++)
		printf("%s\n", rows[i].name);
	if (opt.list)
		return 0;
	if (!opt.guest.kernel || !opt.guest.vmlinux || !opt.guest.initrd ||
	    !opt.guest.init || !opt.cases || !opt.machines)
		die("--kernel, --vmlinux, --initrd, --init, --cases and --machines are needed");
	verbose = opt.steps;
	cfg_load(&cfg, opt.machines, opt.cases, NULL);
	cfg_check_list(&cfg, "machine", opt.machine, "--machine");
	cfg_check_list(&cfg, "entry", opt.entry, "--entry");
	if (opt.rows)
		check_rows(opt.rows);
	m = cfg_machine(&cfg, opt.machine);
	if (!m)
		die("--machine=%s: one is wanted", opt.machine);

	workdir = xasprintf("%s/bench.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(workdir))
		die("%s: %s", workdir, strerror(errno));
	atexit(remove_workdir);
	opt.guest.workdir = workdir;
	g = guest_boot(&opt.guest, &cfg, m, opt.entry);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		if (list_has(opt.rows, rows[i].name))
			run_row(g, &rows[i]);
	}
	guest_end(g);
	return 0;
}
