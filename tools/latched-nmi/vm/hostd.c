// SPDX-License-Identifier: GPL-2.0
/*
 * The host's side of NMIs and machine checks in the guest.
 *
 *   hostd QMP-SOCKET GUEST-SOCKET CPUS MCE-COMMAND
 *
 * GUEST-SOCKET is the serial line on which the guest asks, QMP-SOCKET where QEMU
 * carries it out. MCE-COMMAND is HMP's, with '#' for the number of the CPU. A
 * request is a line of words, and is answered by a line:
 *
 *   nmi COUNT              COUNT NMIs, 2 ms apart
 *   mce COUNT              COUNT machine checks, 100 ms apart
 *   random NMIS MCES SECS  NMIS and MCES a second at random times, for SECS
 *                          seconds; a further line from the guest ends it
 *
 *   seed NUMBER            what "random" does is repeated by the same number
 *
 *   done NMIS MCES         how many of each have been injected
 *   error TEXT
 *
 * What has been injected is told on standard output too, for the case that the
 * guest is in no state to read the answer.
 */
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "qmp.h"

#define MAX_COUNT	100000
#define MAX_RATE	5000
#define MAX_SECS	600

static struct qmp qmp;
static int guest, cpus, vcpu_thread;
static const char *mce_command;
static unsigned long nmis, mces;

/* When the last machine check was injected. */
static double mce_time;

static void end(const char *why)
{
	printf("hostd: %s after %lu NMIs, %lu machine checks\n", why, nmis, mces);
	exit(0);
}

/* One line from @fd without its end; false at the end of file. */
static bool read_line(int fd, char *line, size_t size)
{
	size_t n = 0;
	char c;

	while (read(fd, &c, 1) == 1) {
		if (c == '\n') {
			line[n] = '\0';
			return true;
		}
		if (c != '\r' && n < size - 1)
			line[n++] = c;
	}
	return false;
}

static void event(const char *name)
{
	if (!strcmp(name, "SHUTDOWN") || !strcmp(name, "RESET"))
		end("the guest went down");
}

/* What @result is, if the command was carried out; a guest that is gone is the end. */
static bool done(const void *result)
{
	if (!result && !strcmp(qmp.error, "QEMU went away"))
		end("the guest is gone");
	if (!result)
		printf("hostd: QEMU: %s\n", qmp.error);
	return result;
}

/* With single-threaded TCG all CPUs are one thread. */
static int find_vcpu_thread(void)
{
	json_t *cpus = qmp_execute(&qmp, "query-cpus-fast", NULL);
	int thread = 0;

	if (done(cpus))
		json_unpack(cpus, "[{s:i}]", "thread-id", &thread);
	json_decref(cpus);
	return thread;
}

/*
 * How long the thread that runs the guest's CPUs has run, and how long it has waited
 * for a CPU of the host, in seconds; 0 if that is not known.
 */
struct times {
	double ran, waited;
};

/* What they were when the last machine check was injected. */
static struct times mce_guest_times;

static struct times guest_times(void)
{
	struct times t = { 0 };
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", vcpu_thread);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%lf %lf", &t.ran, &t.waited) != 2)
			t = (struct times) { 0 };
		fclose(f);
	}
	t.ran *= 1e-9;
	t.waited *= 1e-9;
	return t;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void nmi(void)
{
	json_t *result = qmp_execute(&qmp, "inject-nmi", NULL);

	done(result);
	json_decref(result);
	nmis++;
}

static void mce(void)
{
	const char *cpu = strchr(mce_command, '#');
	char *command = xasprintf("%.*s%ld%s", (int)(cpu - mce_command), mce_command,
				  random() % cpus, cpu + 1);
	char *text = qmp_human(&qmp, command);

	done(text);
	free(command);
	free(text);
	mces++;
	mce_time = now();
	mce_guest_times = guest_times();
}

/*
 * One machine check that arrives while another is being handled shuts an x86 CPU
 * down. Has the guest had the time to handle the last one? Only what it has run tells,
 * since a loaded host may let it wait; but a guest that idles does neither.
 */
static bool mce_done(void)
{
	struct times t = guest_times();
	double ran = t.ran - mce_guest_times.ran;
	double waited = t.waited - mce_guest_times.waited;

	return ran > 0.06 || now() - mce_time - ran - waited > 0.5;
}

/* The distance to the next of @rate events a second: half to 1.5 of the mean. */
static double gap(double rate)
{
	return (0.5 + drand48()) / rate;
}

static void at_random(double nmi_rate, double mce_rate, double secs)
{
	double finish = now() + secs;
	double next_nmi = nmi_rate ? now() + gap(nmi_rate) : finish;
	double next_mce = mce_rate ? now() + gap(mce_rate) : finish;
	/* NMIs that are late are made up for, as long as that makes no burst. */
	const double late = 0.005;
	struct pollfd request = { .fd = guest, .events = POLLIN };

	while (now() < finish) {
		double next = next_nmi < next_mce ? next_nmi : next_mce;
		double wait = next - now();

		if (wait > 0)
			usleep(wait * 1e6);
		if (next >= finish)
			continue;
		if (next == next_nmi) {
			nmi();
			next_nmi += gap(nmi_rate);
			if (next_nmi < now() - late)
				next_nmi = now() - late;
		} else {
			if (mce_done())
				mce();
			next_mce = now() + gap(mce_rate);
		}
		if (poll(&request, 1, 0) > 0)
			break;
	}
}

static void answer(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (vdprintf(guest, format, args) < 0)
		end("the guest is gone");
	va_end(args);
}

static void serve(const char *line)
{
	unsigned long nmis_before = nmis, mces_before = mces;
	double nmi_rate, mce_rate, secs;
	unsigned long i, count;

	if (sscanf(line, "nmi %lu", &count) == 1 && count <= MAX_COUNT) {
		for (i = 0; i < count; i++) {
			nmi();
			usleep(2000);
		}
	} else if (sscanf(line, "mce %lu", &count) == 1 && count <= MAX_COUNT) {
		for (i = 0; i < count; i++) {
			mce();
			usleep(100000);
		}
	} else if (sscanf(line, "seed %lu", &count) == 1) {
		srandom(count);
		srand48(count);
	} else if (sscanf(line, "random %lf %lf %lf", &nmi_rate, &mce_rate, &secs) == 3 &&
		   nmi_rate >= 0 && nmi_rate <= MAX_RATE &&
		   mce_rate >= 0 && mce_rate <= MAX_RATE &&
		   secs >= 0 && secs <= MAX_SECS) {
		at_random(nmi_rate, mce_rate, secs);
	} else {
		answer("error what is \"%s\"?\n", line);
		return;
	}
	printf("hostd: %s: %lu NMIs, %lu machine checks\n", line,
	       nmis - nmis_before, mces - mces_before);
	answer("done %lu %lu\n", nmis - nmis_before, mces - mces_before);
}

int main(int argc, char **argv)
{
	char line[256];

	if (argc != 5 || atoi(argv[3]) < 1 || !strchr(argv[4], '#')) {
		fprintf(stderr, "usage: hostd QMP-SOCKET GUEST-SOCKET CPUS MCE-COMMAND\n");
		return 2;
	}
	cpus = atoi(argv[3]);
	mce_command = argv[4];
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	srandom(time(NULL));
	srand48(time(NULL));

	qmp.event = event;
	qmp_open(&qmp, argv[1], 0);
	guest = sock_connect(argv[2], 0);
	vcpu_thread = find_vcpu_thread();
	while (read_line(guest, line, sizeof(line))) {
		if (line[0])
			serve(line);
	}
	end("the guest is gone");
}
