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

static void copy_file(FILE *in, FILE *out)
{
	char buf[4096];
	size_t n;

	while ((n = fread(buf, 1, sizeof(buf), in)))
		fwrite(buf, 1, n, out);
}

/* KTAP on standard output, and the matrix if it is wanted. Return: is all well? */
static bool tell(const struct options *opt, const struct config *cfg,
		 const struct report *rep)
{
	int bad = report_ktap(rep, cfg, stdout);

	if (opt->svg)
		report_svg(rep, cfg, rep->nr ? rep->res[0].machine : "", opt->svg);
	return !bad;
}

/* Report results of before. */
static int render(const struct options *opt, const struct config *cfg)
{
	FILE *in = fopen(opt->render, "r");
	struct report rep = { 0 };

	if (!in)
		die("%s: cannot read", opt->render);
	report_read(&rep, in);
	fclose(in);
	return !tell(opt, cfg, &rep);
}

static int run_jobs(const struct options *opt, const struct config *cfg,
		    struct jobs *js, struct report *rep)
{
	FILE *results = opt->results ? fopen(opt->results, "w") : NULL;
	int i, running = 0, failed = 0;

	if (opt->results && !results)
		die("%s: cannot write", opt->results);
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
			if (results) {
				rewind(in);
				copy_file(in, results);
			}
			fclose(in);
			unlink(js->job[i].out);
		}
		failed += js->job[i].failed;
	}
	if (results && fclose(results))
		die("%s: cannot write", opt->results);
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
	     "  --results FILE    also write the results for --render\n"
	     "  --render FILE     run nothing, report what --results wrote\n"
	     "  --jobs N          QEMUs at a time                (online CPUs)\n"
	     "  --qemu PROGRAM    (qemu-system-x86_64)\n"
	     "  --serial FILE     the guest's console, for debugging\n"
	     "  --verbose         each step, to stderr\n"
	     "\n"
	     "KERNEL and VMLINUX in the environment stand for --kernel and --vmlinux.");
}

/* Each option sets one member: a string, a number or a flag. */
enum kind { TEXT, NUMBER, FLAG };

static const struct {
	const char *name;
	enum kind kind;
	size_t member;
} members[] = {
	{ "kernel", TEXT, offsetof(struct options, kernel) },
	{ "vmlinux", TEXT, offsetof(struct options, vmlinux) },
	{ "init", TEXT, offsetof(struct options, init) },
	{ "cases", TEXT, offsetof(struct options, cases) },
	{ "module", TEXT, offsetof(struct options, module) },
	{ "suite", TEXT, offsetof(struct options, suite) },
	{ "machine", TEXT, offsetof(struct options, machine) },
	{ "entry", TEXT, offsetof(struct options, entry) },
	{ "case", TEXT, offsetof(struct options, only_case) },
	{ "at", TEXT, offsetof(struct options, at) },
	{ "mutants", TEXT, offsetof(struct options, mutants) },
	{ "svg", TEXT, offsetof(struct options, svg) },
	{ "results", TEXT, offsetof(struct options, results) },
	{ "render", TEXT, offsetof(struct options, render) },
	{ "qemu", TEXT, offsetof(struct options, qemu) },
	{ "serial", TEXT, offsetof(struct options, serial) },
	{ "jobs", NUMBER, offsetof(struct options, jobs) },
	{ "trace", FLAG, offsetof(struct options, trace) },
	{ "verbose", FLAG, offsetof(struct options, verbose) },
	{ "help", FLAG, offsetof(struct options, help) },
};

static bool set_option(struct options *opt, const char *name, const char *val)
{
	size_t i;

	if (!strcmp(name, "quick") || !strcmp(name, "full")) {
		opt->suite = name;
		return true;
	}
	for (i = 0; i < ARRAY_SIZE(members); i++) {
		char *member = (char *)opt + members[i].member;

		if (strcmp(members[i].name, name))
			continue;
		if (members[i].kind == TEXT)
			*(const char **)member = val;
		else if (members[i].kind == NUMBER)
			*(int *)member = atoi(val);
		else
			*(bool *)member = true;
		return true;
	}
	return false;
}

/* False if the command line makes no sense. */
static bool parse_options(struct options *opt, int argc, char **argv)
{
	struct option longopts[ARRAY_SIZE(members) + 3] = {
		{ "quick", no_argument, NULL, 0 },
		{ "full", no_argument, NULL, 0 },
	};
	int c, index = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(members); i++) {
		longopts[i + 2].name = members[i].name;
		longopts[i + 2].has_arg = members[i].kind == FLAG ?
					  no_argument : required_argument;
	}
	while ((c = getopt_long(argc, argv, "", longopts, &index)) != -1) {
		if (c || !set_option(opt, longopts[index].name, optarg))
			return false;
	}
	return optind == argc;
}

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
	int failed, bad;

	if (!parse_options(&opt, argc, argv) || opt.help ||
	    (!opt.render && (!opt.kernel || !opt.vmlinux)) || opt.jobs < 1) {
		usage();
		return opt.help ? 0 : 2;
	}
	if (!opt.init)
		opt.init = beside("inject-init");
	if (!opt.cases)
		opt.cases = beside("cases.cfg");
	cfg_load(&cfg, opt.cases);
	if (opt.render)
		return render(&opt, &cfg);

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
	bad = !tell(&opt, &cfg, &rep);
	return failed ? 2 : bad;
}
