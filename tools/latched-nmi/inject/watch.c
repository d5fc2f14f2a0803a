// SPDX-License-Identifier: GPL-2.0
/*
 * The watchpoint sweep: which memory do NMI, #MC and #DB access while breakpoints
 * are armed, does the kernel refuse a watchpoint there, and if not, what happens to
 * the machine?
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "access.h"
#include "options.h"

#define PATH_MAX_INSNS	6000
#define MAX_TO_DR7	16
/* NMIs that are sent into the #DBs of one case. */
#define MAX_DB		4
#define MAX_ALL_DB	500
#define WATCH_MS	800
#define PT_REGS_SIZE	168
#define EFLAGS_RF	0x10000ULL

struct options {
	struct guest_config guest;
	const char *cases;
	const char *machines;
	const char *machine;
	const char *entry;
	const char *word;
	bool list;
	bool all;
};

#define MEMBER(m)	offsetof(struct options, m)

static const struct option_def options[] = {
	{ "kernel", "BZIMAGE", OPT_TEXT, MEMBER(guest.kernel), "what is booted; needed" },
	{ "vmlinux", "FILE", OPT_TEXT, MEMBER(guest.vmlinux), "its symbols; needed" },
	{ "initrd", "FILE", OPT_TEXT, MEMBER(guest.initrd),
	  "an initramfs with inject-init as /init; needed" },
	{ "init", "FILE", OPT_TEXT, MEMBER(guest.init), "symbols of /init (inject-init beside this program)" },
	{ "machines", "FILE", OPT_TEXT, MEMBER(machines), "the table of machines (machines beside this program)" },
	{ "cases", "FILE", OPT_TEXT, MEMBER(cases), "the case table (cases.cfg beside this program)" },
	{ "machine", "LIST", OPT_TEXT, MEMBER(machine), "on these machines: skylake, call-depth, epyc, nofsgsbase (all)" },
	{ "entry", "LIST", OPT_TEXT, MEMBER(entry), "with this entry, classic or latched (both)" },
	{ "word", "NAME", OPT_TEXT, MEMBER(word), "watch only the words whose name has this in it" },
	{ "all", NULL, OPT_FLAG, MEMBER(all), "watch each word of the thread stack on each machine, not only some on the first" },
	{ "list", NULL, OPT_FLAG, MEMBER(list), "print the words and what the kernel says, watch none" },
	{ "qemu", "PROGRAM", OPT_TEXT, MEMBER(guest.qemu), "QEMU (what the machine's table says)" },
	{ "serial", "FILE", OPT_TEXT, MEMBER(guest.serial), "write the guest's console there" },
	{ "verbose", NULL, OPT_FLAG, MEMBER(guest.verbose), "tell each step on standard error" },
};

static const char doc[] =
	"Trace which memory the handlers of NMI, #MC and #DB access before they have "
	"cleared DR7 and after they have restored it. Then set a watchpoint on each word, "
	"by perf_event_open(2) in the guest, for writes and for accesses. Where the kernel "
	"does not refuse it, have each of the exceptions hit user mode and the kernel, NMI "
	"and #MC hit #DB, and an NMI hit each #DB that the watchpoint raises. KTAP goes to "
	"standard output, one test a word.";

/* What happens, and where: at the gate of #DB or where the guest spins. */
static const struct scenario {
	const char *name;
	const char *load;
	/* Made a jump to itself if it is in the kernel. NULL: the gate of #DB. */
	const char *at;
	enum { NOTHING, NMI, MCE } event;
	/* Where all is over, if it is not where it was interrupted. */
	const char *end;
	/* The C function that saves DR7, in parts, or the one on the thread stack. */
	const char *c[3], *noist;
} scenarios[] = {
	{ "nmi-user", "load_user", "user_spin", NMI, NULL, { "exc_nmi" }, NULL },
	{ "nmi-kernel", "load_syscall", "__x64_sys_getppid", NMI, NULL, { "exc_nmi" }, NULL },
	{ "mce-user", "load_user", "user_spin", MCE, NULL, { NULL }, "noist_exc_machine_check" },
	{ "mce-kernel", "load_syscall", "__x64_sys_getppid", MCE, NULL,
	  { "exc_machine_check", "exc_machine_check_kernel" }, NULL },
	{ "db-user", "load_watch_user", NULL, NOTHING, "watch_user_end", { NULL }, "noist_exc_debug" },
	{ "db-kernel", "load_watch_kernel", NULL, NOTHING, "watch_kernel_end",
	  { "exc_debug", "exc_debug_kernel" }, NULL },
	{ "db-user-nmi", "load_watch_user", NULL, NMI, "watch_user_end", { NULL }, NULL },
	{ "db-kernel-nmi", "load_watch_kernel", NULL, NMI, "watch_kernel_end", { NULL }, NULL },
	{ "db-user-mce", "load_watch_user", NULL, MCE, "watch_user_end", { NULL }, NULL },
	{ "db-kernel-mce", "load_watch_kernel", NULL, MCE, "watch_kernel_end", { NULL }, NULL },
};

/* Eight bytes that are accessed. */
struct word {
	u64 addr;
	char name[80];
	bool read, write;
	/* The first instruction that does it, and in which scenario. */
	u64 rip;
	const char *scenario;
};

struct words {
	struct word *word;
	int nr;
};

static bool run_to(struct guest *g, u64 addr)
{
	struct regs r;
	bool there;

	gdb_bp_set(&g->vm.gdb, addr);
	there = vm_cont(&g->vm, WATCH_MS) == STOP_TRAP && guest_rip(g, &r) == addr;
	gdb_bp_clear(&g->vm.gdb, addr);
	return there;
}

/* The snapshot "armed" has a watchpoint of @type on @addr. Return: 0, or an error. */
static int arm(struct guest *g, u64 addr, u32 type)
{
	int err = guest_watch(g, addr, type);

	if (!err)
		vm_savevm(&g->vm, "armed");
	return err;
}

/* Bring the armed guest to where @s begins. */
static bool begin(struct guest *g, const struct scenario *s)
{
	static const u8 spin[2] = { 0xeb, 0xfe };
	u64 at = g->gate_db;
	struct regs r;

	vm_loadvm(&g->vm, "armed");
	gdb_reg_set(&g->vm.gdb, R_RIP, sym_addr(g->isym, s->load));
	if (s->at && !guest_find(g, s->at, &at))
		die("there is no %s", s->at);
	if (!s->at) {
		/* The first may be that of the swept watchpoint. */
		return run_to(g, at);
	}
	/* The load makes system calls, which may hit the watchpoint: all is well. */
	if (!run_to(g, at))
		return false;
	if (at >> 63)
		gdb_write(&g->vm.gdb, vm_translate(&g->vm, at), spin, sizeof(spin));
	gdb_regs(&g->vm.gdb, &r);
	return true;
}

static void trigger(struct guest *g, const struct scenario *s)
{
	if (s->event == NMI)
		vm_inject_nmi(&g->vm);
	else if (s->event == MCE)
		free(vm_hmp(&g->vm, g->machine->mce));
}

static u64 gate_of(const struct guest *g, const struct scenario *s)
{
	return s->event == NMI ? g->gate_nmi : s->event == MCE ? g->gate_mce : g->gate_db;
}

/* Names */

static const char * const stack_name[NR_IST] = {
	NULL, "#DF stack", "NMI stack", "#DB stack", "#MC stack",
};

#define CPU_ENTRY_AREA	0xfffffe0000000000ULL
#define ESTACK_SIZE	0x8000

static void name_word(struct guest *g, u64 addr, u64 thread_top, char *buf, size_t len)
{
	u64 per_cpu = guest_u64(g, kernel_phys(sym_addr(g->ksym, "__per_cpu_offset")));
	u64 per_cpu_end = sym_addr(g->ksym, "__per_cpu_end");
	u64 best = ~0ULL;
	int i, stack = 0;

	for (i = 1; i < NR_IST; i++) {
		if (addr < g->ist_top[i] && g->ist_top[i] - addr < best) {
			best = g->ist_top[i] - addr;
			stack = i;
		}
	}
	if (best < ESTACK_SIZE)
		snprintf(buf, len, "%s-0x%llx", stack_name[stack], (unsigned long long)best);
	else if (addr >= CPU_ENTRY_AREA && addr < CPU_ENTRY_AREA + (1ULL << 39))
		snprintf(buf, len, "cpu entry area+0x%llx",
			 (unsigned long long)(addr - CPU_ENTRY_AREA));
	else if (addr < thread_top && thread_top - addr < ESTACK_SIZE)
		snprintf(buf, len, "thread stack-0x%llx", (unsigned long long)(thread_top - addr));
	else if (addr >= per_cpu && addr - per_cpu < per_cpu_end)
		sym_label(g->ksym, addr - per_cpu, buf, len);
	else
		label_of(g, addr, buf, len);
}

/* Tracing */

static void add_word(struct guest *g, struct words *w, u64 addr, const struct access *a,
		     u64 rip, u64 thread_top, const char *scenario)
{
	struct word *word;
	int i;

	for (i = 0; i < w->nr && w->word[i].addr != addr; i++)
		;
	if (i == w->nr) {
		w->word = xrealloc(w->word, (w->nr + 1) * sizeof(*w->word));
		word = &w->word[w->nr++];
		memset(word, 0, sizeof(*word));
		word->addr = addr;
		word->rip = rip;
		word->scenario = scenario;
		name_word(g, addr, thread_top, word->name, sizeof(word->name));
	}
	w->word[i].read |= a->read;
	w->word[i].write |= a->write;
}

/* One step, its accesses noted. Return: did it load DR7? */
static bool step(struct guest *g, struct words *w, u64 thread_top, const char *scenario)
{
	struct insn insn;
	struct regs r;
	u64 addr;
	int i;

	gdb_regs(&g->vm.gdb, &r);
	insn_decode(g, &r, &insn);
	for (i = 0; i < insn.nr; i++) {
		const struct access *a = &insn.access[i];

		for (addr = a->addr & ~7ULL; addr < a->addr + a->len; addr += 8) {
			if (addr >> 63)
				add_word(g, w, addr, a, reg_get(&r, R_RIP), thread_top,
					 scenario);
		}
	}
	gdb_step(&g->vm.gdb);
	return insn.to_dr7;
}

/* From where DR7 is restored back to what was interrupted. */
static void trace_exit(struct guest *g, const struct scenario *s, struct words *w,
		       u64 thread_top, u64 rip, u64 rsp)
{
	u64 to_dr7[MAX_TO_DR7];
	struct regs r;
	int i, n, nr = 0;
	bool stopped;

	for (i = 0; s->c[i]; i++)
		nr += insn_find_to_dr7(g, s->c[i], to_dr7 + nr, MAX_TO_DR7 - nr);
	for (i = 0; i < nr; i++)
		gdb_bp_set(&g->vm.gdb, to_dr7[i]);
	stopped = vm_cont(&g->vm, WATCH_MS) == STOP_TRAP;
	for (i = 0; i < nr; i++)
		gdb_bp_clear(&g->vm.gdb, to_dr7[i]);
	if (!stopped)
		die("%s: DR7 is not restored", s->name);
	for (n = 0; n < PATH_MAX_INSNS; n++) {
		gdb_regs(&g->vm.gdb, &r);
		if (reg_get(&r, R_RIP) == rip && reg_get(&r, R_RSP) == rsp)
			return;
		step(g, w, thread_top, s->name);
	}
	die("%s: the way back does not end", s->name);
}

/* The top of the thread stack, below which an exception from user mode has pt_regs. */
static u64 find_thread_top(struct guest *g)
{
	const struct scenario user = { .load = "load_watch_user" };
	struct regs r;

	if (!begin(g, &user) || !run_to(g, sym_addr(g->ksym, "noist_exc_debug")))
		die("#DB from user mode does not get to the thread stack");
	gdb_regs(&g->vm.gdb, &r);
	return reg_get(&r, R_RDI) + PT_REGS_SIZE;
}

static void trace(struct guest *g, const struct scenario *s, struct words *w,
		  u64 thread_top)
{
	u64 rip, rsp, frame, c = 0;
	struct regs r;
	int n;

	if (!begin(g, s))
		die("%s: cannot be reached", s->name);
	trigger(g, s);
	if (s->at && !run_to(g, gate_of(g, s)))
		die("%s: the gate is not reached", s->name);
	gdb_regs(&g->vm.gdb, &r);
	frame = vm_translate(&g->vm, reg_get(&r, R_RSP));
	rip = guest_u64(g, frame);
	rsp = guest_u64(g, frame + 24);
	if (s->noist)
		c = sym_addr(g->ksym, s->noist);
	for (n = 0; n < PATH_MAX_INSNS; n++) {
		if (guest_rip(g, &r) == c)
			return;
		if (step(g, w, thread_top, s->name))
			break;
	}
	if (n == PATH_MAX_INSNS)
		die("%s: DR7 is not cleared", s->name);
	trace_exit(g, s, w, thread_top, rip, rsp);
}

/* Running */

/*
 * One scenario with the watchpoint armed. Return: NULL if all went well, else what
 * did not.
 */
static const char *run(struct guest *g, const struct scenario *s)
{
	static char why[300];
	struct regs before, r;
	char label[160];
	u64 end, rsp;
	u32 runs;
	int dbs = 0, ends = 0;
	bool nmi = s->event == NMI;

	if (!begin(g, s)) {
		label_of(g, guest_rip(g, &r), label, sizeof(label));
		snprintf(why, sizeof(why), "on the way there: %s", label);
		return why;
	}
	gdb_regs(&g->vm.gdb, &before);
	rsp = reg_get(&before, R_RSP);
	end = s->end ? sym_addr(g->isym, s->end) : reg_get(&before, R_RIP);
	runs = guest_u32(g, g->nmi_count_phys);
	trigger(g, s);
	gdb_bp_set(&g->vm.gdb, end);
	if (s->at)
		gdb_bp_set(&g->vm.gdb, g->gate_db);
	why[0] = 0;
	for (;;) {
		enum stop stop = vm_cont(&g->vm, WATCH_MS);

		if (stop != STOP_TRAP) {
			snprintf(why, sizeof(why), "%s",
				 stop == STOP_HANG ? "hangs" : "triple fault");
			break;
		}
		guest_rip(g, &r);
		if (reg_get(&r, R_RIP) == g->gate_db && s->at) {
			if (dbs++ < MAX_DB) {
				runs = guest_u32(g, g->nmi_count_phys);
				vm_inject_nmi(&g->vm);
				nmi = true;
			}
			if (dbs > MAX_ALL_DB) {
				snprintf(why, sizeof(why), "#DB without end");
				break;
			}
			/* Off the breakpoint. */
			gdb_bp_clear(&g->vm.gdb, g->gate_db);
			gdb_step(&g->vm.gdb);
			gdb_bp_set(&g->vm.gdb, g->gate_db);
			continue;
		}
		if (reg_get(&r, R_RIP) != end) {
			label_of(g, reg_get(&r, R_RIP), label, sizeof(label));
			snprintf(why, sizeof(why), "%s", label);
			break;
		}
		if (s->at && reg_get(&r, R_RSP) != rsp) {
			snprintf(why, sizeof(why), "RSP is 0x%llx",
				 (unsigned long long)reg_get(&r, R_RSP));
			break;
		}
		/* The stop may come before the pending NMI, twice. */
		if (nmi && guest_u32(g, g->nmi_count_phys) == runs && ends++ < 3)
			continue;
		if (nmi && guest_u32(g, g->nmi_count_phys) == runs) {
			snprintf(why, sizeof(why), "an NMI is lost");
			break;
		}
		if (!s->at)
			break;
		reg_put(&before, R_EFLAGS, reg_get(&before, R_EFLAGS) & ~EFLAGS_RF);
		reg_put(&r, R_EFLAGS, reg_get(&r, R_EFLAGS) & ~EFLAGS_RF);
		reg_diff(&before, &r, why, sizeof(why));
		break;
	}
	gdb_bp_clear(&g->vm.gdb, end);
	if (s->at)
		gdb_bp_clear(&g->vm.gdb, g->gate_db);
	return why[0] ? why : NULL;
}

/* Results */

/* How the command that repeats a result begins. */
static const char *again;

struct outcome {
	int words, refused, fatal, survived;
	int bad;
	int test;
};

static bool on_thread_stack(const struct word *w)
{
	return !strncmp(w->name, "thread stack", strlen("thread stack"));
}

/*
 * #DB from user mode copies its frame from the #DB stack to the thread stack: a #DB
 * there comes over it, and nothing can be done about it here. With the classic entry
 * an NMI from user mode is lost if it is hit by #DB there (H6).
 */
static bool is_known(const struct guest *g, const struct word *w, const struct scenario *s)
{
	if (!on_thread_stack(w))
		return false;
	return !strncmp(s->name, "db-user", strlen("db-user")) ||
	       (!strcmp(g->entry, "classic") && !strcmp(s->name, "nmi-user"));
}

static void watch_word(struct guest *g, const struct word *w, const struct options *opt,
		       struct outcome *o)
{
	static const struct {
		const char *name;
		u32 type;
	} types[] = { { "rw", BP_RW }, { "w", BP_W } };
	char fatal[1200] = "", what[3] = "";
	size_t i, k, n = 0;
	bool refused = false;
	char rip[160];
	const char *known = NULL;

	label_of(g, w->rip, rip, sizeof(rip));
	snprintf(what, sizeof(what), "%s%s", w->read ? "r" : "", w->write ? "w" : "");
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		int err;

		if (types[i].type == BP_W && !w->write)
			continue;
		/* The kernel refuses an address, whatever the access. */
		err = arm(g, w->addr, types[i].type);
		refused = err == -EINVAL;
		if (refused)
			break;
		if (err) {
			n += snprintf(fatal + n, sizeof(fatal) - n, "%s%s arming fails with %d",
				      n ? "; " : "", types[i].name, err);
			continue;
		}
		for (k = 0; k < ARRAY_SIZE(scenarios) && !opt->list; k++) {
			const char *why = run(g, &scenarios[k]);

			if (!why)
				continue;
			/* A timer's interrupt in the midst of it, on a busy host? */
			if (!is_known(g, w, &scenarios[k])) {
				printf("# %s, once: %s\n", scenarios[k].name, why);
				why = run(g, &scenarios[k]);
				if (!why)
					continue;
			}
			if (is_known(g, w, &scenarios[k])) {
				known = scenarios[k].name;
				continue;
			}
			n += snprintf(fatal + n, sizeof(fatal) - n, "%s%s %s: %s",
				      n ? "; " : "", types[i].name, scenarios[k].name, why);
			/* A dead guest takes its time to show that it is. */
			break;
		}
	}
	o->words++;
	if (refused)
		o->refused++;
	else if (fatal[0] || known)
		o->fatal++;
	else
		o->survived++;
	printf("# %-2s %s, first at %s in %s%s%s\n", what,
	       refused ? "refused" : fatal[0] || known ? "FATAL" : "survived",
	       rip, w->scenario, fatal[0] ? ": " : "", fatal);
	if (fatal[0])
		printf("# to see it again: %s --machine %s --entry %s --word '%s'\n",
		       again, g->machine->name, g->entry, w->name);
	printf("%sok %d %s/%s/%s", fatal[0] || known ? "not " : "", ++o->test, g->entry,
	       g->machine->name, w->name);
	if (known && !fatal[0])
		printf(" # XFAIL known to be fatal in %s", known);
	puts("");
	fflush(stdout);
	o->bad += !!fatal[0];
}

static int word_cmp(const void *a, const void *b)
{
	const struct word *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static void sweep(const struct options *opt, const struct config *cfg,
		  const struct machine *m, const char *entry, int thread_stack,
		  struct outcome *o)
{
	struct guest *g = guest_boot(&opt->guest, cfg, m, entry);
	struct words w = { 0 };
	struct outcome one = { .test = o->test };
	int i, nth = 0, left = 0;
	u64 thread_top;
	size_t k;

	if (arm(g, sym_addr(g->isym, "watch_attr"), BP_W))
		die("%s/%s: the guest takes no watchpoint", entry, m->name);
	thread_top = find_thread_top(g);
	for (k = 0; k < ARRAY_SIZE(scenarios); k++) {
		if (scenarios[k].c[0] || scenarios[k].noist)
			trace(g, &scenarios[k], &w, thread_top);
	}
	qsort(w.word, w.nr, sizeof(*w.word), word_cmp);
	for (i = 0; i < w.nr; i++) {
		if (opt->word && !strstr(w.word[i].name, opt->word))
			continue;
		if (!opt->word && on_thread_stack(&w.word[i]) &&
		    (!thread_stack || nth++ % thread_stack)) {
			left++;
			continue;
		}
		fprintf(stderr, "# case %d of %d\n", i + 1, w.nr);
		watch_word(g, &w.word[i], opt, &one);
	}
	fprintf(stderr, "# %s/%s: %d words are accessed: a watchpoint is refused on %d, "
		"survived on %d, fatal on %d\n", entry, m->name, one.words, one.refused,
		one.survived, one.fatal);
	if (left)
		printf("# %s/%s: %d words of the thread stack are left to --all\n", entry,
		       m->name, left);
	o->test = one.test;
	o->bad += one.bad;
	free(w.word);
	guest_end(g);
}

/* With page-table isolation, call depth tracking, untrained returns, and SWAPGS. */
static const struct {
	struct machine_variant machine;
	/* Of the thread stack one word in so many is watched, or none. */
	int thread_stack;
} machines[] = {
	{ { .name = "skylake", .base = "skylake" }, 5 },
	{ { "call-depth", "skylake", .append = "retbleed=stuff spectre_v2=retpoline" }, 0 },
	{ { .name = "epyc", .base = "epyc" }, 0 },
	{ { .name = "nofsgsbase", .base = "max-nofsgsbase" }, 0 },
};

int main(int argc, char **argv)
{
	struct options opt = { 0 };
	char dir[200];
	struct outcome o = { 0 };
	struct config cfg;
	size_t m, e;

	options_parse(options, ARRAY_SIZE(options), doc, &opt, argc, argv);
	need_file("--kernel", opt.guest.kernel);
	need_file("--vmlinux", opt.guest.vmlinux);
	need_file("--initrd", opt.guest.initrd);
	if (!opt.guest.init)
		opt.guest.init = beside("inject-init");
	again = getenv("AGAIN_WATCH") ?: argv[0];
	signal(SIGPIPE, SIG_IGN);
	cfg_load(&cfg, opt.machines ?: beside("machines"), opt.cases ?: beside("cases.cfg"),
		 NULL);
	snprintf(dir, sizeof(dir), "%s/watch.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(dir))
		die("%s: %s", dir, strerror(errno));
	opt.guest.workdir = dir;
	puts("KTAP version 1");
	fflush(stdout);
	for (m = 0; m < ARRAY_SIZE(machines); m++) {
		struct machine machine = cfg_variant(&cfg, &machines[m].machine);

		if (!list_has(opt.machine, machine.name))
			continue;
		for (e = 0; e < ARRAY_SIZE(entries); e++) {
			if (list_has(opt.entry, entries[e]))
				sweep(&opt, &cfg, &machine, entries[e],
				      opt.all ? 1 : machines[m].thread_stack, &o);
		}
	}
	printf("1..%d\n", o.test);
	remove(dir);
	if (!o.test)
		die("nothing was swept; the machines are skylake, call-depth, epyc, nofsgsbase");
	return !!o.bad;
}
