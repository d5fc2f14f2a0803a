// SPDX-License-Identifier: GPL-2.0
/*
 * The work, distributed over QEMUs.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobs.h"
#include "progress.h"

struct job *jobs_add(struct jobs *js, const struct machine *m, const char *entry)
{
	struct job *j;

	js->job = xrealloc(js->job, (js->nr + 1) * sizeof(*js->job));
	j = &js->job[js->nr++];
	memset(j, 0, sizeof(*j));
	j->machine = m;
	j->entry = entry;
	return j;
}

static bool job_has_mutant(const struct job *j, const struct mutant *mu)
{
	return j->mutants && list_has(j->mutants, mu->name) &&
	       !strcmp(mu->machine, j->machine->mutants_of);
}

/* How many cases the job is, as the progress line counts them. */
static int job_cases(const struct job *j, const struct config *cfg)
{
	int i, n = j->replay_context ? 1 : 0;

	for (i = 0; i < cfg->nr_context && j->contexts; i++) {
		if (list_has(j->contexts, cfg->context[i].name))
			n += sweep_count(cfg, j->entry, &j->wish);
	}
	for (i = 0; i < cfg->nr_mutant; i++)
		n += job_has_mutant(j, &cfg->mutant[i]);
	return n;
}

/* Is there such a program, where execvp() looks for it? */
static bool have_program(const char *name)
{
	char *path = xstrdup(getenv("PATH") ?: ""), *dir, *save;
	bool found = strchr(name, '/');

	for (dir = strtok_r(path, ":", &save); dir && !found; dir = strtok_r(NULL, ":", &save)) {
		char *file = xasprintf("%s/%s", dir, name);

		found = !access(file, X_OK);
		free(file);
	}
	free(path);
	return found;
}

/* Of each context, if the emulator is not installed. */
static void skip_job(const struct job *j, const struct config *cfg, FILE *out)
{
	const struct guest none = { .entry = j->entry, .machine = j->machine };
	char *why = xasprintf("%s is not installed: make machines", j->machine->program);
	int i;

	for (i = 0; i < cfg->nr_context && j->contexts; i++) {
		if (list_has(j->contexts, cfg->context[i].name))
			write_skip(out, &none, cfg->context[i].name, why);
	}
	if (!j->contexts)
		write_skip(out, &none, "all", why);
	free(why);
}

static void job_run(const struct job *j, const struct guest_config *opt,
		    const struct config *cfg)
{
	FILE *out = fopen(j->out, "w");
	struct guest *g;
	int i;

	if (!out)
		die("%s: cannot write", j->out);
	if (!opt->qemu && j->machine->program && !have_program(j->machine->program)) {
		skip_job(j, cfg, out);
		if (fclose(out))
			die("%s: cannot write", j->out);
		return;
	}
	g = guest_boot(opt, cfg, j->machine, j->entry);
	write_kernel(out, g);
	for (i = 0; i < cfg->nr_context && j->contexts; i++) {
		if (list_has(j->contexts, cfg->context[i].name))
			sweep_context(g, &cfg->context[i], &j->wish, out);
	}
	for (i = 0; i < cfg->nr_mutant; i++) {
		if (job_has_mutant(j, &cfg->mutant[i]))
			mutant_run(g, &cfg->mutant[i], out);
	}
	if (j->replay_context)
		sweep_event(g, j->replay_context, j->replay_instance, &j->replay, out);
	if (j->mutate.workers)
		mutate_run(g, &j->mutate, out);
	if (fclose(out))
		die("%s: cannot write", j->out);
	guest_end(g);
}

static void job_start(struct job *j, const struct guest_config *opt,
		      const struct config *cfg)
{
	int parent = getpid();

	fflush(stdout);
	j->pid = fork();
	if (j->pid < 0)
		die("fork: %s", strerror(errno));
	if (j->pid)
		return;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		exit(2);
	job_run(j, opt, cfg);
	exit(0);
}

volatile sig_atomic_t jobs_interrupted;

/* Wait for one of the workers; false if a signal came meanwhile, or instead. */
static bool reap(struct jobs *js)
{
	int i, st, pid = wait(&st);

	if (pid < 0)
		return false;
	for (i = 0; i < js->nr; i++) {
		if (js->job[i].pid != pid)
			continue;
		js->job[i].pid = 0;
		js->job[i].failed = st != 0;
		if (st)
			fprintf(stderr, "# %s/%s: the worker failed\n",
				js->job[i].entry, js->job[i].machine->name);
	}
	return !jobs_interrupted;
}

/* What the workers have written up to now is reported. */
static void stop(struct jobs *js)
{
	int i;

	fprintf(stderr, "# interrupted: these are the results up to now\n");
	for (i = 0; i < js->nr; i++) {
		if (!js->job[i].pid)
			continue;
		kill(js->job[i].pid, SIGKILL);
		waitpid(js->job[i].pid, NULL, 0);
		js->job[i].pid = 0;
		js->job[i].failed = true;
	}
}

static void copy_file(FILE *in, FILE *out)
{
	char buf[4096];
	size_t n;

	while ((n = fread(buf, 1, sizeof(buf), in)))
		fwrite(buf, 1, n, out);
}

int jobs_run(struct jobs *js, int parallel, const struct guest_config *opt,
	     const struct config *cfg, struct results *all, FILE *copy)
{
	int i, running = 0, failed = 0, cases = 0;
	bool stopped = false;

	for (i = 0; i < js->nr; i++)
		cases += job_cases(&js->job[i], cfg);
	progress_init(cases);
	for (i = 0; i < js->nr && !stopped; i++) {
		js->job[i].out = xasprintf("%s/out.%d", opt->workdir, i);
		if (running == parallel) {
			stopped = !reap(js);
			running--;
		}
		if (stopped)
			break;
		job_start(&js->job[i], opt, cfg);
		running++;
	}
	for (; running && !stopped; running--)
		stopped = !reap(js);
	if (stopped)
		stop(js);
	for (i = 0; i < js->nr; i++) {
		FILE *in = js->job[i].out ? fopen(js->job[i].out, "r") : NULL;

		if (in) {
			results_read(all, in);
			if (copy) {
				rewind(in);
				copy_file(in, copy);
			}
			fclose(in);
		}
		failed += js->job[i].failed;
	}
	return failed;
}
