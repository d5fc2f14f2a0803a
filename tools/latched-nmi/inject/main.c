// SPDX-License-Identifier: GPL-2.0
/*
 * Options, and the distribution of the work over QEMUs.
 */
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inject.h"

void die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	fprintf(stderr, "inject: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(2);
}

void *xalloc(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		die("out of memory");
	return p;
}

void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		die("out of memory");
	return p;
}

char *xstrdup(const char *s)
{
	char *p = strdup(s ? s : "");

	if (!p)
		die("out of memory");
	return p;
}

/* One QEMU's worth of work: a booted machine and what runs on it. */
struct job {
	const struct machine *machine;
	const char *entry;
	/* Lists. */
	const char *contexts, *events;
	bool mutants;
	char out[300];
	int pid;
	bool failed;
};

struct jobs {
	struct job *job;
	int nr;
};

static const char * const entries[] = { "classic", "latched" };

static void add_job(struct jobs *js, const struct machine *m, const char *entry,
		    const char *contexts, const char *events, bool mutants)
{
	struct job *j;

	js->job = xrealloc(js->job, (js->nr + 1) * sizeof(*js->job));
	j = &js->job[js->nr++];
	memset(j, 0, sizeof(*j));
	j->machine = m;
	j->entry = entry;
	j->contexts = contexts;
	j->events = events;
	j->mutants = mutants;
}

static void run_job(const struct options *opt, const struct config *cfg,
		    const struct job *j)
{
	struct guest *g = guest_boot(opt, cfg, j->machine, j->entry);
	FILE *out = fopen(j->out, "w");
	int i;

	if (!out)
		die("%s: cannot write", j->out);
	for (i = 0; i < cfg->nr_context && j->contexts; i++) {
		if (list_has(j->contexts, cfg->context[i].name))
			guest_context(g, &cfg->context[i], j->events, out);
	}
	for (i = 0; i < cfg->nr_mutant && j->mutants; i++) {
		if (list_has(opt->mutants, cfg->mutant[i].name) &&
		    !strcmp(cfg->mutant[i].machine, j->machine->name))
			guest_mutant(g, &cfg->mutant[i], out);
	}
	fclose(out);
	guest_end(g);
}

static void reap(struct jobs *js)
{
	int i, st, pid = wait(&st);

	for (i = 0; i < js->nr; i++) {
		if (js->job[i].pid != pid)
			continue;
		js->job[i].pid = 0;
		js->job[i].failed = st != 0;
		if (st)
			fprintf(stderr, "# %s/%s: the worker failed\n",
				js->job[i].entry, js->job[i].machine->name);
	}
}

static int run_jobs(const struct options *opt, const struct config *cfg,
		    struct jobs *js, struct report *rep)
{
	int i, running = 0, failed = 0;

	for (i = 0; i < js->nr; i++) {
		struct job *j = &js->job[i];

		snprintf(j->out, sizeof(j->out), "%s/out.%d", opt->workdir, i);
		if (running == opt->jobs) {
			reap(js);
			running--;
		}
		fflush(stdout);
		j->pid = fork();
		if (j->pid < 0)
			die("fork: %s", strerror(errno));
		if (!j->pid) {
			run_job(opt, cfg, j);
			exit(0);
		}
		running++;
	}
	for (; running; running--)
		reap(js);
	for (i = 0; i < js->nr; i++) {
		FILE *in = fopen(js->job[i].out, "r");

		if (in) {
			report_read(rep, in);
			fclose(in);
			unlink(js->job[i].out);
		}
		failed += js->job[i].failed;
	}
	return failed;
}

static const struct machine *find_machine(const struct config *cfg, const char *name)
{
	int i;

	for (i = 0; i < cfg->nr_machine; i++) {
		if (!strcmp(cfg->machine[i].name, name))
			return &cfg->machine[i];
	}
	die("no machine %s", name);
}

static void suite_jobs(const struct options *opt, const struct config *cfg,
		       struct jobs *js)
{
	bool found = false;
	int i, m;
	size_t e;

	for (i = 0; i < cfg->nr_suite; i++) {
		const struct suite *s = &cfg->suite[i];

		if (strcmp(s->name, opt->suite))
			continue;
		found = true;
		for (m = 0; m < cfg->nr_machine; m++) {
			if (!list_has(s->machines, cfg->machine[m].name) ||
			    !list_has(opt->machine, cfg->machine[m].name))
				continue;
			for (e = 0; e < ARRAY_SIZE(entries); e++) {
				if (list_has(s->entries, entries[e]) &&
				    list_has(opt->entry, entries[e]))
					add_job(js, &cfg->machine[m], entries[e],
						s->contexts, s->events, false);
			}
		}
	}
	if (!found)
		die("no suite %s", opt->suite);
}

static void mutant_jobs(const struct options *opt, const struct config *cfg,
			struct jobs *js)
{
	int m, i;

	for (m = 0; m < cfg->nr_machine; m++) {
		for (i = 0; i < cfg->nr_mutant; i++) {
			if (list_has(opt->mutants, cfg->mutant[i].name) &&
			    !strcmp(cfg->mutant[i].machine, cfg->machine[m].name))
				break;
		}
		if (i < cfg->nr_mutant)
			add_job(js, &cfg->machine[m], "latched", NULL, NULL, true);
	}
}

static int remove_one(const char *path, const struct stat *st, int flag,
		      struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

/* Whatever a worker that died left behind goes, too. */
static void remove_tree(const char *dir)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void usage(void)
{
	puts("usage: inject --kernel BZIMAGE --vmlinux VMLINUX [options]\n"
	     "\n"
	     "  --init FILE       the guest's /init        (inject-init beside inject)\n"
	     "  --cases FILE      the case table           (cases.cfg)\n"
	     "  --module FILE     a module for the module-text context\n"
	     "  --suite NAME      what to run: quick, full, ...           (quick)\n"
	     "  --quick, --full   --suite quick, --suite full\n"
	     "  --machine LIST    only these machines\n"
	     "  --entry LIST      only classic or latched\n"
	     "  --case CTX/EVENT  only this case (needs one --machine and one --entry)\n"
	     "  --at BOUNDARY     only this boundary of --case\n"
	     "  --mutants LIST    also run these mutants (* is all)\n"
	     "  --trace           only print the NMI path of each context\n"
	     "  --svg FILE        write the matrix of the first machine\n"
	     "  --results FILE    also write the raw result lines (for --render)\n"
	     "  --jobs N          QEMUs at a time                (online CPUs)\n"
	     "  --qemu PROGRAM    (qemu-system-x86_64)\n"
	     "  --serial FILE     the guest's console, for debugging\n"
	     "  --verbose         each step, to stderr\n"
	     "\n"
	     "KERNEL and VMLINUX in the environment stand for --kernel and --vmlinux.");
}

enum {
	OPT_KERNEL = 256, OPT_VMLINUX, OPT_INIT, OPT_CASES, OPT_MODULE, OPT_SUITE,
	OPT_QUICK, OPT_FULL, OPT_MACHINE, OPT_ENTRY, OPT_CASE, OPT_AT,
	OPT_MUTANTS, OPT_TRACE, OPT_SVG, OPT_JOBS, OPT_QEMU, OPT_SERIAL,
	OPT_VERBOSE, OPT_HELP,
};

static const struct option longopts[] = {
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "vmlinux", required_argument, NULL, OPT_VMLINUX },
	{ "init", required_argument, NULL, OPT_INIT },
	{ "cases", required_argument, NULL, OPT_CASES },
	{ "module", required_argument, NULL, OPT_MODULE },
	{ "suite", required_argument, NULL, OPT_SUITE },
	{ "quick", no_argument, NULL, OPT_QUICK },
	{ "full", no_argument, NULL, OPT_FULL },
	{ "machine", required_argument, NULL, OPT_MACHINE },
	{ "entry", required_argument, NULL, OPT_ENTRY },
	{ "case", required_argument, NULL, OPT_CASE },
	{ "at", required_argument, NULL, OPT_AT },
	{ "mutants", required_argument, NULL, OPT_MUTANTS },
	{ "trace", no_argument, NULL, OPT_TRACE },
	{ "svg", required_argument, NULL, OPT_SVG },
	{ "jobs", required_argument, NULL, OPT_JOBS },
	{ "qemu", required_argument, NULL, OPT_QEMU },
	{ "serial", required_argument, NULL, OPT_SERIAL },
	{ "verbose", no_argument, NULL, OPT_VERBOSE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ }
};

/* A file beside this program. */
static char *beside(const char *name)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 64);

	if (n < 0)
		die("/proc/self/exe: %s", strerror(errno));
	path[n] = 0;
	strcpy(strrchr(path, '/') + 1, name);
	return xstrdup(path);
}

int main(int argc, char **argv)
{
	struct options opt = {
		.qemu = "qemu-system-x86_64",
		.kernel = getenv("KERNEL"),
		.vmlinux = getenv("VMLINUX"),
		.suite = "quick",
		.jobs = sysconf(_SC_NPROCESSORS_ONLN),
	};
	const char *tmp = getenv("TMPDIR");
	struct report rep = { 0 };
	struct jobs js = { 0 };
	struct config cfg;
	char dir[200];
	int c, failed, bad;

	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case OPT_KERNEL: opt.kernel = optarg; break;
		case OPT_VMLINUX: opt.vmlinux = optarg; break;
		case OPT_INIT: opt.init = optarg; break;
		case OPT_CASES: opt.cases = optarg; break;
		case OPT_MODULE: opt.module = optarg; break;
		case OPT_SUITE: opt.suite = optarg; break;
		case OPT_QUICK: opt.suite = "quick"; break;
		case OPT_FULL: opt.suite = "full"; break;
		case OPT_MACHINE: opt.machine = optarg; break;
		case OPT_ENTRY: opt.entry = optarg; break;
		case OPT_CASE: opt.only_case = optarg; break;
		case OPT_AT: opt.at = optarg; break;
		case OPT_MUTANTS: opt.mutants = optarg; break;
		case OPT_TRACE: opt.trace = true; break;
		case OPT_SVG: opt.svg = optarg; break;
		case OPT_JOBS: opt.jobs = atoi(optarg); break;
		case OPT_QEMU: opt.qemu = optarg; break;
		case OPT_SERIAL: opt.serial = optarg; break;
		case OPT_VERBOSE: opt.verbose = true; break;
		case OPT_HELP: usage(); return 0;
		default: usage(); return 2;
		}
	}
	if (!opt.kernel || !opt.vmlinux || opt.jobs < 1 || optind < argc) {
		usage();
		return 2;
	}
	if (!opt.init)
		opt.init = beside("inject-init");
	if (!opt.cases)
		opt.cases = beside("cases.cfg");
	cfg_load(&cfg, opt.cases);

	snprintf(dir, sizeof(dir), "%s/inject.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		die("%s: %s", dir, strerror(errno));
	opt.workdir = dir;

	if (opt.only_case) {
		char *ctx = xstrdup(opt.only_case), *ev = strrchr(ctx, '/');

		if (!ev || !opt.machine || !opt.entry)
			die("--case CTX/EVENT goes with --machine and --entry");
		*ev++ = 0;
		if (strchr(ctx, '@'))
			opt.instance = xstrdup(ctx);
		ctx[strcspn(ctx, "@")] = 0;
		add_job(&js, find_machine(&cfg, opt.machine), opt.entry, ctx, ev, false);
	} else if (!opt.mutants || strcmp(opt.suite, "none")) {
		suite_jobs(&opt, &cfg, &js);
	}
	if (opt.mutants)
		mutant_jobs(&opt, &cfg, &js);

	failed = run_jobs(&opt, &cfg, &js, &rep);
	remove_tree(dir);
	bad = report_ktap(&rep, &cfg, stdout);
	if (opt.svg)
		report_svg(&rep, &cfg, rep.nr ? rep.res[0].machine : "", opt.svg);
	return failed ? 2 : bad != 0;
}
