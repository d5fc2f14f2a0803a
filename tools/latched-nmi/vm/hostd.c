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
 *   done NMIS MCES         how many of each have been injected
 *   error TEXT
 *
 * What has been injected is told on standard output too, for the case that the
 * guest is in no state to read the answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_COUNT	100000
#define MAX_RATE	5000
#define MAX_SECS	600

static int qmp, guest, cpus, vcpu_thread;
static const char *mce_command;
static unsigned long nmis, mces;

/* When the last machine check was injected, by the clock and in the guest's time. */
static double mce_time, mce_guest_time;

static void end(const char *why)
{
	printf("hostd: %s after %lu NMIs, %lu machine checks\n", why, nmis, mces);
	exit(0);
}

static int open_socket(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int tries;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		fprintf(stderr, "hostd: path too long for a socket: %s\n", path);
		exit(2);
	}
	strcpy(addr.sun_path, path);
	for (tries = 0; tries < 100; tries++) {
		if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
			return fd;
		usleep(50000);
	}
	fprintf(stderr, "hostd: %s: %s\n", path, strerror(errno));
	exit(2);
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

/* Carries out a QMP command and waits for its result; events are skipped. */
static void command(const char *format, ...)
{
	const char *thread;
	char line[4096];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (write(qmp, line, n) != n)
		end("the guest is gone");

	do {
		if (!read_line(qmp, line, sizeof(line)))
			end("the guest is gone");
		if (strstr(line, "\"SHUTDOWN\"") || strstr(line, "\"RESET\""))
			end("the guest went down");
	} while (strstr(line, "\"event\"") || strstr(line, "\"QMP\""));

	thread = strstr(line, "\"thread-id\": ");
	if (thread)
		vcpu_thread = atoi(thread + strlen("\"thread-id\": "));
	if (strstr(line, "\"error\""))
		printf("hostd: QEMU: %s\n", line);
}

/* CPU time of the thread that runs the guest's CPUs, in seconds; 0 if not known. */
static double guest_time(void)
{
	char path[64];
	double ns = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", vcpu_thread);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%lf", &ns) != 1)
			ns = 0;
		fclose(f);
	}
	return ns * 1e-9;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void nmi(void)
{
	command("{\"execute\":\"inject-nmi\"}\n");
	nmis++;
}

static void mce(void)
{
	const char *cpu = strchr(mce_command, '#');

	command("{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"%.*s%ld%s\"}}\n",
		(int)(cpu - mce_command), mce_command, random() % cpus, cpu + 1);
	mces++;
	mce_time = now();
	mce_guest_time = guest_time();
}

/*
 * One machine check that arrives while another is being handled shuts an x86 CPU
 * down. Has the guest had the time to handle the last one? On a loaded host only
 * its CPU time tells; a guest that idles uses none.
 */
static bool mce_done(void)
{
	return guest_time() - mce_guest_time > 0.04 || now() - mce_time > 1;
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

	qmp = open_socket(argv[1]);
	guest = open_socket(argv[2]);
	command("{\"execute\":\"qmp_capabilities\"}\n");
	command("{\"execute\":\"query-cpus-fast\"}\n");
	while (read_line(guest, line, sizeof(line))) {
		if (line[0])
			serve(line);
	}
	end("the guest is gone");
}
