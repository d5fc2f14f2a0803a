// SPDX-License-Identifier: GPL-2.0
/*
 * Options: what to run, and what becomes of the results.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "html.h"
#include "jobs.h"
#include "ktap.h"
#include "options.h"
#include "svg.h"

struct options {
	struct guest_config guest;
	const char *cases;
	const char *machines;
	const char *suite;
	const char *machine;
	const char *entry;
	const char *only_case;
	const char *at;
	const char *mutants;
	const char *replay;
	const char *changes;
	int sample;
	bool mutate;
	const char *context;
	const char *svg;
	const char *html;
	const char *results;
	const char *render;
	int jobs;
	bool trace;
	bool list;
	bool dry_run;
};

#define MEMBER(m)	offsetof(struct options, m)

static const struct option_def options[] = {
	{ "kernel", "BZIMAGE", OPT_TEXT, MEMBER(guest.kernel), "what is booted; needed" },
	{ "vmlinux", "FILE", OPT_TEXT, MEMBER(guest.vmlinux), "its symbols; needed" },
	{ "initrd", "FILE", OPT_TEXT, MEMBER(guest.initrd),
	  "an initramfs with inject-init as /init and a module as /module.ko; needed" },
	{ "init", "FILE", OPT_TEXT, MEMBER(guest.init), "symbols of /init (inject-init beside this program)" },
	{ "cases", "FILE", OPT_TEXT, MEMBER(cases), "the case table (cases.cfg beside this program)" },
	{ "machines", "FILE", OPT_TEXT, MEMBER(machines), "the table of machines (machines beside this program)" },
	{ "suite", "NAME", OPT_TEXT, MEMBER(suite), "run this suite of the table (quick); \"none\" for mutants alone" },
	{ "case", "CONTEXT/EVENT", OPT_TEXT, MEMBER(only_case), "run only this case" },
	{ "at", "BOUNDARY", OPT_TEXT, MEMBER(at), "run --case only at this boundary, symbol+0xoffset as a result shows it" },
	{ "machine", "LIST", OPT_TEXT, MEMBER(machine), "only on these machines, also on those that only stand in for one of the suite (\"like\" in the table); --case and --replay run on the first" },
	{ "entry", "LIST", OPT_TEXT, MEMBER(entry), "only with this entry, classic or latched; --case and --replay run with latched" },
	{ "replay", "SCHEDULE", OPT_TEXT, MEMBER(replay), "run this schedule of events, see below, or those of a file that has one in each line" },
	{ "context", "NAME", OPT_TEXT, MEMBER(context), "where a schedule starts that does not say it (kernel)" },
	{ "mutants", "LIST", OPT_TEXT, MEMBER(mutants), "also run these mutants; * is all" },
	{ "mutate", NULL, OPT_FLAG, MEMBER(mutate), "change each instruction of the entry in turn and run the suite \"mutate\" until a case notices" },
	{ "sample", "N", OPT_NUMBER, MEMBER(sample), "with --mutate: only one of N changes, always the same" },
	{ "changes", "LIST", OPT_TEXT, MEMBER(changes), "with --mutate: only these, SYMBOL+0xOFFSET:CHANGE" },
	{ "trace", NULL, OPT_FLAG, MEMBER(trace), "run nothing, print the NMI's path in each context" },
	{ "dry-run", NULL, OPT_FLAG, MEMBER(dry_run), "check the names and run nothing" },
	{ "list", NULL, OPT_FLAG, MEMBER(list), "print the names of the table" },
	{ "svg", "FILE", OPT_TEXT, MEMBER(svg), "draw the picture of the first machine" },
	{ "html", "FILE", OPT_TEXT, MEMBER(html), "write the whole matrix as a page" },
	{ "results", "FILE", OPT_TEXT, MEMBER(results), "also write the results for --render" },
	{ "render", "FILE", OPT_TEXT, MEMBER(render), "run nothing, report what --results wrote" },
	{ "jobs", "N", OPT_NUMBER, MEMBER(jobs), "QEMUs at a time (online CPUs)" },
	{ "qemu", "PROGRAM", OPT_TEXT, MEMBER(guest.qemu), "QEMU (what the machine's table says)" },
	{ "serial", "FILE", OPT_TEXT, MEMBER(guest.serial), "write the guest's console there" },
	{ "verbose", NULL, OPT_FLAG, MEMBER(guest.verbose), "tell each step on standard error" },
};

static const char doc[] =
	"Put an NMI or a machine check on each instruction of the NMI path of a built "
	"kernel and judge the outcome from outside the guest. KTAP goes to standard "
	"output, progress to standard error."
	"\v"
	"A schedule is a context and events, each at the interrupted instruction or where "
	"the guest comes to next:\n"
	"\n"
	"  CONTEXT[@SYMBOL+0xOFFSET] EVENT[@SYMBOL[+0xOFFSET][#PASS]]...\n"
	"\n"
	"CONTEXT is kernel, user, module or another of the table, with an address if it has "
	"many instructions. EVENT is nmi, mce (a "
	"machine check that Linux survives) or iret (an IRET in place, as a fault in the "
	"handler would end with). SYMBOL is the kernel's or /init's; the event is injected "
	"before the instruction there is executed, when the guest comes to it for the "
	"PASS-th time since the event before. For example, a second NMI in the machine "
	"check that hit the first one's prologue:\n"
	"\n"
	"  --replay 'user nmi mce@__nmi_user_prologue_begin+0x3 nmi@do_machine_check'\n"
	"\n"
	"Exit status: 0 all is as declared, 1 something is not, 2 the run itself failed or "
	"there was nothing to run.";

static void list_names(const struct config *cfg)
{
	int i;

	for (i = 0; i < cfg->nr_machine; i++)
		printf("machine  %-18s %s\n", cfg->machine[i].name, cfg->machine[i].cpu);
	for (i = 0; i < cfg->nr_context; i++)
		printf("context  %-18s %s\n", cfg->context[i].name, cfg->context[i].at);
	for (i = 0; i < cfg->nr_event; i++)
		printf("event    %-18s %s\n", cfg->event[i].name,
		       cfg->event[i].title ?: "");
	for (i = 0; i < cfg->nr_mutant; i++)
		printf("mutant   %s\n", cfg->mutant[i].name);
	for (i = 0; i < cfg->nr_suite; i++) {
		if (!i || strcmp(cfg->suite[i - 1].name, cfg->suite[i].name))
			printf("suite    %s\n", cfg->suite[i].name);
	}
}

static void suite_jobs(const struct options *opt, const struct config *cfg,
		       struct jobs *js)
{
	int i, m;
	size_t e;

	for (i = 0; i < cfg->nr_suite; i++) {
		const struct suite *s = &cfg->suite[i];

		if (strcmp(s->name, opt->suite))
			continue;
		for (m = 0; m < cfg->nr_machine; m++) {
			if (!list_has(s->machines, cfg->machine[m].suite_of) ||
			    !list_has(opt->machine, cfg->machine[m].name))
				continue;
			for (e = 0; e < ARRAY_SIZE(entries); e++) {
				struct job *j;

				if (!list_has(s->entries, entries[e]) ||
				    !list_has(opt->entry, entries[e]))
					continue;
				j = jobs_add(js, &cfg->machine[m], entries[e]);
				j->contexts = s->contexts;
				j->wish.events = s->events;
				j->wish.trace = opt->trace;
			}
		}
	}
}

static bool suite_has(const struct config *cfg, const char *suite, const char *machine)
{
	int i;

	for (i = 0; i < cfg->nr_suite; i++) {
		if (!strcmp(cfg->suite[i].name, suite) &&
		    list_has(cfg->suite[i].machines, machine))
			return true;
	}
	return false;
}

static void mutant_jobs(const struct options *opt, const struct config *cfg,
			struct jobs *js)
{
	int m, i;

	for (m = 0; m < cfg->nr_machine; m++) {
		if (!list_has(opt->machine, cfg->machine[m].name))
			continue;
		for (i = 0; i < cfg->nr_mutant; i++) {
			if (list_has(opt->mutants, cfg->mutant[i].name) &&
			    !strcmp(cfg->mutant[i].machine, cfg->machine[m].mutants_of))
				break;
		}
		if (i < cfg->nr_mutant)
			jobs_add(js, &cfg->machine[m], "latched")->mutants = opt->mutants;
	}
}

/* The machines and entries for --case and --replay, which take one if none is named. */
static bool takes(const struct options *opt, const struct config *cfg, int m, int e)
{
	return list_has(opt->machine ?: cfg->machine[0].name, cfg->machine[m].name) &&
	       list_has(opt->entry ?: "latched", entries[e]);
}

static void case_jobs(const struct options *opt, const struct config *cfg,
		      struct jobs *js)
{
	char *context = xstrdup(opt->only_case), *event = strrchr(context, '/');
	char *instance = NULL;
	size_t e;
	int m;

	if (!event)
		die("--case=%s: it is CONTEXT/EVENT", opt->only_case);
	*event++ = 0;
	if (strchr(context, '@')) {
		instance = xstrdup(context);
		context[strcspn(context, "@")] = 0;
	}
	cfg_check_list(cfg, "context", context, "--case");
	cfg_check_list(cfg, "event", event, "--case");
	for (m = 0; m < cfg->nr_machine; m++) {
		for (e = 0; e < ARRAY_SIZE(entries); e++) {
			struct job *j;

			if (!takes(opt, cfg, m, e))
				continue;
			j = jobs_add(js, &cfg->machine[m], entries[e]);
			j->contexts = context;
			j->wish = (struct sweep_wish) {
				.events = event, .instance = instance, .at = opt->at,
				.trace = opt->trace,
			};
		}
	}
}

static void schedule_jobs(const struct options *opt, const struct config *cfg,
			  const char *line, struct jobs *js)
{
	size_t len = strcspn(line, " \t");
	char *word = xasprintf("%.*s", (int)len, line);
	char *context = xasprintf("%.*s", (int)strcspn(word, "@"), word);
	const struct context *ctx = cfg_context(cfg, context);
	const char *instance = ctx && strchr(word, '@') ? word : NULL;
	struct event ev = { .name = xstrdup("replay"), .title = xstrdup(line) };
	size_t e;
	int m;

	if (ctx)
		line += len;
	else
		ctx = cfg_context(cfg, opt->context ?: "kernel");
	cfg_schedule(&ev, line);
	for (m = 0; m < cfg->nr_machine; m++) {
		for (e = 0; e < ARRAY_SIZE(entries); e++) {
			struct job *j;

			if (!takes(opt, cfg, m, e))
				continue;
			j = jobs_add(js, &cfg->machine[m], entries[e]);
			j->replay_context = ctx;
			j->replay_instance = instance;
			j->replay = ev;
		}
	}
	free(context);
}

/* --replay names a file, or is a schedule. */
static void replay_jobs(const struct options *opt, const struct config *cfg,
			struct jobs *js)
{
	FILE *f = fopen(opt->replay, "r");
	char line[2048], *begin;

	if (!f) {
		schedule_jobs(opt, cfg, opt->replay, js);
		return;
	}
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		begin = line + strspn(line, " \t");
		if (*begin && *begin != '#')
			schedule_jobs(opt, cfg, begin, js);
	}
	fclose(f);
}

static void check_options(const struct options *opt, const struct config *cfg)
{
	cfg_check_list(cfg, "machine", opt->machine, "--machine");
	cfg_check_list(cfg, "entry", opt->entry, "--entry");
	cfg_check_list(cfg, "context", opt->context, "--context");
	cfg_check_list(cfg, "mutant", opt->mutants, "--mutants");
	if (strcmp(opt->suite, "none"))
		cfg_check_list(cfg, "suite", opt->suite, "--suite");
	if (opt->at && !opt->only_case)
		die("--at goes with --case");
}

/* The directory that goes when this process does. */
static char *workdir;
static int workdir_owner;

static void remove_workdir(void)
{
	if (workdir && getpid() == workdir_owner)
		remove_tree(workdir);
}

static void interrupted(int sig)
{
	(void)sig;
	jobs_interrupted = 1;
}

/* Whatever ends this process, its directory goes; see jobs_interrupted for signals. */
static void make_workdir(void)
{
	const struct sigaction sa = { .sa_handler = interrupted };
	const char *tmp = getenv("TMPDIR");

	workdir = xasprintf("%s/inject.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(workdir))
		die("%s: %s", workdir, strerror(errno));
	workdir_owner = getpid();
	atexit(remove_workdir);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

/* Everything was skipped, or there was nothing: that is no success. */
static bool ran_nothing(const struct results *all)
{
	int i;

	for (i = 0; i < all->nr; i++) {
		if (all->res[i].mutant || all->res[i].nr)
			return false;
	}
	return true;
}

/* KTAP on standard output, and the picture if it is wanted. Returns what is not ok. */
static int report(const struct options *opt, const struct config *cfg,
		  const struct results *all)
{
	int bad;

	if (opt->trace) {
		ktap_paths(all, stdout);
		return 0;
	}
	bad = ktap_write(all, cfg, stdout);
	if (opt->svg)
		svg_write(all, cfg, all->nr ? all->res[0].machine : "", opt->svg);
	if (opt->html)
		html_write(all, cfg, opt->html);
	if (!ran_nothing(all))
		return bad;
	fflush(stdout);
	if (opt->at)
		die("no case was run: %s has no boundary %s", opt->only_case, opt->at);
	die("no case was run%s%s", all->nr ? ": " : "", all->nr ? all->res[0].skip : "");
}

/*
 * One machine after the other: the next is for what the ones before did not find, or
 * do not have.
 */
static int mutate(const struct options *opt, const struct config *cfg)
{
	const struct mutate_wish wish = {
		.names = opt->changes, .sample = opt->sample, .workers = opt->jobs,
	};
	struct results all = { 0 };
	int m, w, failed = 0, bad;

	for (m = 0; m < cfg->nr_machine && !jobs_interrupted; m++) {
		struct results more = { 0 };
		struct jobs js = { 0 };

		if (!list_has(opt->machine, cfg->machine[m].name) ||
		    !suite_has(cfg, "mutate", cfg->machine[m].suite_of))
			continue;
		for (w = 0; w < opt->jobs; w++) {
			struct job *j = jobs_add(&js, &cfg->machine[m], "latched");

			j->mutate = wish;
			j->mutate.worker = w;
			j->mutate.before = &all;
		}
		failed += jobs_run(&js, opt->jobs, &opt->guest, cfg, &more, NULL);
		results_merge(&all, &more);
	}
	bad = report(opt, cfg, &all);
	return failed ? 2 : bad != 0;
}

static int render(const struct options *opt, const struct config *cfg)
{
	FILE *in = fopen(opt->render, "r");
	struct results all = { 0 };

	if (!in)
		die("--render=%s: %s", opt->render, strerror(errno));
	results_read(&all, in);
	fclose(in);
	return report(opt, cfg, &all) != 0;
}

int main(int argc, char **argv)
{
	struct options opt = {
		.suite = "quick",
		.sample = 1,
		.jobs = sysconf(_SC_NPROCESSORS_ONLN),
	};
	struct results all = { 0 };
	struct jobs js = { 0 };
	struct config cfg;
	FILE *copy = NULL;
	int failed, bad;

	options_parse(options, ARRAY_SIZE(options), doc, &opt, argc, argv);
	if (!opt.guest.init)
		opt.guest.init = beside("inject-init");
	cfg_load(&cfg, opt.machines ?: beside("machines"), opt.cases ?: beside("cases.cfg"),
		 beside("mutants.cfg"));
	if (opt.list) {
		list_names(&cfg);
		return 0;
	}
	if (opt.render)
		return render(&opt, &cfg);
	check_options(&opt, &cfg);
	cfg_stand_in(&cfg, opt.mutate ? "mutate" : opt.suite, opt.machine);

	if (opt.only_case)
		case_jobs(&opt, &cfg, &js);
	else if (opt.replay)
		replay_jobs(&opt, &cfg, &js);
	else if (strcmp(opt.suite, "none") && !opt.mutate)
		suite_jobs(&opt, &cfg, &js);
	if (opt.mutants)
		mutant_jobs(&opt, &cfg, &js);
	if (!js.nr && !opt.mutate)
		die("there is nothing to run");
	if (opt.dry_run)
		return 0;

	need_file("--kernel", opt.guest.kernel);
	need_file("--vmlinux", opt.guest.vmlinux);
	need_file("--initrd", opt.guest.initrd);
	need_file("--init", opt.guest.init);
	make_workdir();
	opt.guest.workdir = workdir;
	if (opt.mutate) {
		opt.guest.changes = true;
		return mutate(&opt, &cfg);
	}
	if (opt.results) {
		copy = fopen(opt.results, "w");
		if (!copy)
			die("--results=%s: %s", opt.results, strerror(errno));
	}
	failed = jobs_run(&js, opt.jobs, &opt.guest, &cfg, &all, copy);
	if (copy && fclose(copy))
		die("--results=%s: cannot write", opt.results);
	bad = report(&opt, &cfg, &all);
	return failed ? 2 : bad != 0;
}
