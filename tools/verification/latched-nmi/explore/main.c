// SPDX-License-Identifier: GPL-2.0
/*
 * Options, the distribution of the runs over processes, and the tables.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "explore.h"

static struct {
	const char *vmlinux, *features, *linux_version, *config, *cases, *guests, *more;
	const char *run, *machines, *entries, *contexts, *events;
	const char *compare, *mutants, *text;
	int jobs;
	bool verbose, ktap, list, two, whole;
} opt = {
	.more = ".", .run = "full", .machines = "*", .entries = "*", .contexts = "*",
};

static struct explore_config cfg;

/* ------------------------------------------------------------- events */

u32 events_of(const char *list)
{
	u32 mask = 0;
	int e;

	for (e = EV_NMI; e < NR_EVENTS; e++) {
		if (list_has(list, event_name[e]))
			mask |= 1 << e;
	}
	if (!mask)
		die("no event in %s; there are nmi, mce, db, watch, iret, smi", list);
	return mask;
}

/* --------------------------------------------------------------- jobs */

/* One context, or all instances of a window, in one process. */
struct job {
	const struct run_desc *run;
	const struct machine_desc *machine;
	const struct context_desc *ctx;
	pid_t pid;
	FILE *out;
	int status;
	bool done;
};

/* What a run that looks for changes goes by. */
static const struct context_desc changes = { .name = "changes" };

static struct job *jobs;
static int nr_jobs;

void prepare(const struct machine_desc *m, const char *entry, struct image **im)
{
	struct features *f = features_load(opt.features);

	features_set(f, m->features);
	*im = image_load(opt.vmlinux);
	image_patch(*im, f);
	if (strcmp(entry, "latched") && strcmp(entry, "classic")) {
		char path[4096];

		/* rfc, rfc-count1 */
		snprintf(path, sizeof(path), "%s/%s.elf", opt.more, entry);
		image_add(*im, path);
	}
	count_to_two = opt.two;
	explored_already = !opt.whole;
	machine_init(*im, f, entry);
}

/* The fewest events that show it: they are what a reader can follow. */
static void shortest(struct search *s)
{
	u64 budget;

	for (budget = 1; budget < 8; budget++) {
		struct search t = {
			.ctx = s->ctx, .behind = s->behind, .events = s->events,
			.budget = budget, .first = true, .max_states = 4000000,
		};

		search(&t);
		if (t.path) {
			free(s->path);
			s->budget = budget;
			s->path = t.path;
			s->nr_path = t.nr_path;
			s->property = t.property;
			memcpy(s->text, t.text, sizeof(s->text));
			return;
		}
	}
}

static void describe(const struct job *j, struct search *s, FILE *out)
{
	char schedule[4000], where[160] = "";

	if (s->behind) {
		machine_start(s->ctx, s->behind);
		label(RIP, where, sizeof(where));
	}
	search_replay(s, schedule, sizeof(schedule), opt.verbose ? out : NULL);
	fprintf(out, "    %s: %s\n    %s%s%s %s\n", property_name[s->property], s->text,
		j->ctx->name, *where ? "@" : "", where, schedule);
}

/* Returns 0 if what is found is what is declared. */
static int do_job(const struct job *j, FILE *out)
{
	struct search sum = { .ctx = j->ctx, .complete = true };
	struct image *im;
	struct search worst = { 0 };
	bool found = false;
	int behind;
	bool wrong;

	if (j->run->changes)
		return mutate_sample(&cfg, j->machine, j->run->changes, out) != 0;
	prepare(j->machine, j->run->entry, &im);
	for (behind = 0; machine_start(j->ctx, behind); behind++) {
		struct search s = {
			.ctx = j->ctx, .behind = behind, .progress = true,
			.events = events_of(opt.events ? opt.events : j->run->events),
			.budget = j->run->at_most,
			/* How many more there are does not matter. */
			.first = true,
		};

		search(&s);
		sum.states += s.states;
		sum.instructions += s.instructions;
		sum.seconds += s.seconds;
		if (s.depth > sum.depth)
			sum.depth = s.depth;
		if (s.path && !found) {
			found = true;
			worst = s;
		}
		if (!j->ctx->until) {
			behind++;
			break;
		}
	}
	if (!behind) {
		fprintf(out, "%-8s %-15s %-15s %-18s not in this kernel\n", j->run->entry,
			j->machine->name, j->ctx->name, j->run->events);
		return 3;
	}
	wrong = found != j->run->loss;
	if (found)
		shortest(&worst);
	fprintf(out, "%-8s %-15s %-15s %-18s %9llu %7u %10llu %7.1f  %-8s%s\n", j->run->entry,
		j->machine->name, j->ctx->name, opt.events ? opt.events : j->run->events,
		(unsigned long long)sum.states, sum.depth, (unsigned long long)sum.instructions,
		sum.seconds, found ? property_name[worst.property] : "nothing",
		wrong ? "  NOT AS DECLARED" : "");
	if (found)
		describe(j, &worst, out);
	return wrong;
}

static void start_job(struct job *j)
{
	j->out = tmpfile();
	if (!j->out)
		die("no temporary file: %s", strerror(errno));
	fflush(stdout);
	j->pid = fork();
	if (j->pid < 0)
		die("fork: %s", strerror(errno));
	if (!j->pid) {
		int status = do_job(j, j->out);

		fflush(j->out);
		_exit(status);
	}
}

static void show_job(struct job *j)
{
	char line[4096];

	rewind(j->out);
	while (fgets(line, sizeof(line), j->out)) {
		if (opt.ktap)
			printf("# ");
		fputs(line, stdout);
	}
	fclose(j->out);
	fflush(stdout);
}

static int run_jobs(void)
{
	int next = 0, shown = 0, running = 0, bad = 0, skipped = 0, i, status;

	while (shown < nr_jobs) {
		while (running < opt.jobs && next < nr_jobs) {
			start_job(&jobs[next++]);
			running++;
		}
		while (shown < next && jobs[shown].done) {
			struct job *j = &jobs[shown++];
			bool ok = j->status == 0 || j->status == 3;

			show_job(j);
			bad += !ok;
			skipped += j->status == 3;
			if (opt.ktap)
				printf("%sok %d %s-%s-%s-%s%s\n", ok ? "" : "not ", shown,
				       j->run->entry, j->machine->name, j->ctx->name,
				       j->run->changes ? "found" :
				       j->run->loss ? "finds-loss" : "finds-nothing",
				       j->status == 3 ? " # SKIP not in this kernel" : "");
		}
		if (!running)
			continue;
		pid_t pid = wait(&status);

		for (i = 0; i < next; i++) {
			if (jobs[i].pid != pid || jobs[i].done)
				continue;
			jobs[i].done = true;
			jobs[i].status = WIFEXITED(status) ? WEXITSTATUS(status) : 99;
			if (jobs[i].status != 0 && jobs[i].status != 1 && jobs[i].status != 3)
				fprintf(jobs[i].out, "%-8s %-15s %-15s %-18s DID NOT RUN\n",
					jobs[i].run->entry, jobs[i].machine->name,
					jobs[i].ctx->name, jobs[i].run->events ?: "");
			running--;
		}
	}
	if (!opt.ktap)
		printf("%d explorations, %d not as declared, %d skipped\n", nr_jobs, bad, skipped);
	return bad != 0 || nr_jobs == skipped;
}

static void add_job(const struct run_desc *r, int machine, const struct context_desc *ctx)
{
	jobs = xrealloc(jobs, (nr_jobs + 1) * sizeof(*jobs));
	jobs[nr_jobs++] = (struct job) {
		.run = r, .machine = &cfg.machine[machine], .ctx = ctx,
	};
}

static void add_jobs(const struct run_desc *r)
{
	int m, c;

	for (m = 0; m < cfg.nr_machine; m++) {
		if (!list_has(r->machines, cfg.machine[m].name) ||
		    !list_has(opt.machines, cfg.machine[m].name))
			continue;
		if (r->changes && list_has(opt.contexts, changes.name))
			add_job(r, m, &changes);
		for (c = 0; !r->changes && c < cfg.nr_context; c++) {
			if (!list_has(r->contexts, cfg.context[c].name) ||
			    !list_has(opt.contexts, cfg.context[c].name))
				continue;
			add_job(r, m, &cfg.context[c]);
		}
	}
}

static void check_names(const char *what, const char *list, bool (*known)(const char *))
{
	char *copy = xstrdup(list), *save, *p;

	for (p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		if (strcmp(p, "*") && !known(p))
			die("there is no %s %s", what, p);
	}
	free(copy);
}

static bool is_machine(const char *name)
{
	int i;

	for (i = 0; i < cfg.nr_machine && strcmp(cfg.machine[i].name, name); i++)
		;
	return i < cfg.nr_machine;
}

static bool is_context(const char *name)
{
	int i;

	for (i = 0; i < cfg.nr_context && strcmp(cfg.context[i].name, name); i++)
		;
	return i < cfg.nr_context || !strcmp(name, changes.name);
}

static void list(void)
{
	int i;

	for (i = 0; i < cfg.nr_machine; i++)
		printf("machine %-15s %s\n", cfg.machine[i].name, cfg.machine[i].features);
	for (i = 0; i < cfg.nr_context; i++)
		printf("context %s\n", cfg.context[i].name);
	for (i = 0; i < cfg.nr_run; i++) {
		if (cfg.run[i].changes) {
			printf("run     %-8s %-8s %s: one of %d changes\n", cfg.run[i].name,
			       cfg.run[i].entry, cfg.run[i].machines, cfg.run[i].changes);
			continue;
		}
		printf("run     %-8s %-8s %s: %s, %s: finds %s\n", cfg.run[i].name,
		       cfg.run[i].entry, cfg.run[i].machines, cfg.run[i].contexts,
		       cfg.run[i].events, cfg.run[i].loss ? "loss" : "nothing");
	}
}

static const char usage[] =
"usage: explore [OPTION...] VMLINUX\n"
"\n"
"Executes the NMI entry of a built kernel with every event at every instruction.\n"
"\n"
"  --cpufeatures FILE   arch/x86/include/asm/cpufeatures.h of that kernel\n"
"  --linux VERSION      which it is: explore.cfg may have machines for some only\n"
"  --more DIR           where the entries are that are not the kernel's: rfc.elf, ...\n"
"  --config FILE        machines, contexts and runs            (explore.cfg)\n"
"  --run NAME           which runs of it: quick, full, mutate  (full)\n"
"  --machine LIST       only these machines\n"
"  --context LIST       only these contexts\n"
"  --entry LIST         only classic or latched\n"
"  --events LIST        instead of the declared ones: nmi,mce,iret,db,watch,smi\n"
"  --compare FILE       do what the injector did, and compare: what it wrote by\n"
"                       --results\n"
"  --cases FILE         the injector's case table, for --compare\n"
"  --guests FILE        and its table of machines\n"
"  --mutate LIST        change one instruction after the other, or those named as\n"
"                       SYMBOL+0xN:drop, :invert, :off-by-one, :displaced; * is all\n"
"  --text FILE          compare the text with that of a guest: see README\n"
"  --whole              explore each NMI anew, wherever it comes\n"
"  --two                count nested NMIs to two, not to one\n"
"  --ktap               one test per exploration\n"
"  --jobs N             processes at a time                    (online CPUs)\n"
"  --list               what there is\n"
"  --verbose            each instruction of the way to a violation\n";

int main(int argc, char **argv)
{
	enum { CPUFEATURES = 1, LINUX, CONFIG, MORE, RUN, MACHINE, CONTEXT, ENTRY, EVENTS, COMPARE, CASES, GUESTS, MUTATE,
	       TEXT, TWO, WHOLE, KTAP, JOBS, LIST };
	static const struct option options[] = {
		{ "cpufeatures", required_argument, NULL, CPUFEATURES },
		{ "linux", required_argument, NULL, LINUX },
		{ "config", required_argument, NULL, CONFIG },
		{ "more", required_argument, NULL, MORE },
		{ "run", required_argument, NULL, RUN },
		{ "machine", required_argument, NULL, MACHINE },
		{ "context", required_argument, NULL, CONTEXT },
		{ "entry", required_argument, NULL, ENTRY },
		{ "events", required_argument, NULL, EVENTS },
		{ "compare", required_argument, NULL, COMPARE },
		{ "cases", required_argument, NULL, CASES },
		{ "guests", required_argument, NULL, GUESTS },
		{ "mutate", required_argument, NULL, MUTATE },
		{ "text", required_argument, NULL, TEXT },
		{ "two", no_argument, NULL, TWO },
		{ "whole", no_argument, NULL, WHOLE },
		{ "ktap", no_argument, NULL, KTAP },
		{ "jobs", required_argument, NULL, JOBS },
		{ "list", no_argument, NULL, LIST },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool any = false;
	int c, i;

	opt.jobs = sysconf(_SC_NPROCESSORS_ONLN);
	while ((c = getopt_long(argc, argv, "hv", options, NULL)) != -1) {
		switch (c) {
		case CPUFEATURES:
			opt.features = optarg;
			break;
		case LINUX:
			opt.linux_version = optarg;
			break;
		case CONFIG:
			opt.config = optarg;
			break;
		case MORE:
			opt.more = optarg;
			break;
		case RUN:
			opt.run = optarg;
			break;
		case MACHINE:
			opt.machines = optarg;
			break;
		case CONTEXT:
			opt.contexts = optarg;
			break;
		case ENTRY:
			opt.entries = optarg;
			break;
		case EVENTS:
			opt.events = optarg;
			break;
		case COMPARE:
			opt.compare = optarg;
			break;
		case CASES:
			opt.cases = optarg;
			break;
		case GUESTS:
			opt.guests = optarg;
			break;
		case MUTATE:
			opt.mutants = optarg;
			break;
		case TEXT:
			opt.text = optarg;
			break;
		case WHOLE:
			opt.whole = true;
			break;
		case TWO:
			opt.two = true;
			break;
		case KTAP:
			opt.ktap = true;
			break;
		case JOBS:
			opt.jobs = atoi(optarg);
			break;
		case LIST:
			opt.list = true;
			break;
		case 'v':
			opt.verbose = true;
			break;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	if (!opt.config)
		opt.config = "explore.cfg";
	explore_load(&cfg, opt.config, opt.linux_version);
	if (opt.list) {
		list();
		return 0;
	}
	if (optind != argc - 1 || !opt.features || opt.jobs < 1) {
		fputs(usage, stderr);
		return 2;
	}
	opt.vmlinux = argv[optind];
	check_names("machine", opt.machines, is_machine);
	check_names("context", opt.contexts, is_context);
	if (opt.events)
		events_of(opt.events);

	if (opt.compare || opt.text)
		return compare(opt.vmlinux, opt.features, &cfg, opt.compare, opt.cases,
			       opt.guests, opt.machines, opt.text, opt.verbose);

	if (!opt.mutants && !strcmp(opt.run, "mutate"))
		opt.mutants = "*";
	if (opt.mutants)
		return mutate(&cfg, opt.machines, strcmp(opt.mutants, "*") ? opt.mutants : NULL,
			      opt.jobs, opt.verbose);

	for (i = 0; i < cfg.nr_run; i++) {
		if (strcmp(cfg.run[i].name, opt.run) || !list_has(opt.entries, cfg.run[i].entry))
			continue;
		any = true;
		add_jobs(&cfg.run[i]);
	}
	if (!any || !nr_jobs)
		die("no run %s of that in %s", opt.run, opt.config);
	if (opt.ktap)
		printf("KTAP version 1\n1..%d\n", nr_jobs);
	else
		printf("%-8s %-15s %-15s %-18s %9s %7s %10s %7s  %s\n", "entry", "machine",
		       "context", "events", "states", "depth", "executed", "seconds", "found");
	return run_jobs();
}
