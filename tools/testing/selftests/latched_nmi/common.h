/* SPDX-License-Identifier: GPL-2.0 */
/* What the test programs share: the files of the module latched_nmi_test. */
#ifndef LATCHED_NMI_COMMON_H
#define LATCHED_NMI_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"

#define DEBUGFS		"/sys/kernel/debug/latched_nmi_test/"
#define MODULE		"test_modules/latched_nmi_test.ko"
#define PMU		"/sys/bus/event_source/devices/latched_nmi_test/"

#define EVENT_IPI	1
#define EVENT_SELF	2

static inline bool write_file(const char *name, const char *text)
{
	ssize_t len = strlen(text);
	int fd = open(name, O_WRONLY);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, len) == len;
	close(fd);
	return ok;
}

/* The first line of a file of the module as a number, 0 if there is none. */
static inline unsigned long read_number(const char *name)
{
	char line[64] = "";
	FILE *f = fopen(name, "r");

	if (!f)
		return 0;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	return strtoul(line, NULL, 0);
}

/* All kinds of faults that the module's NMI handler can take, separated by blanks. */
static inline const char *all_faults(void)
{
	static char all[256];
	char line[256], name[32];
	FILE *f = fopen(DEBUGFS "kinds", "r");

	if (!f)
		ksft_exit_fail_msg("%skinds: %s\n", DEBUGFS, strerror(errno));
	all[0] = 0;
	while (fgets(line, sizeof(line), f) && sscanf(line, "%31s", name) == 1) {
		strcat(all, name);
		strcat(all, " ");
	}
	fclose(f);
	return all;
}

/* A counter of the module, the sum over all CPUs. */
static inline unsigned long read_stat(const char *name)
{
	unsigned long value = 0, v;
	char line[256], key[32];
	FILE *f = fopen(DEBUGFS "stats", "r");

	if (!f)
		ksft_exit_fail_msg("%sstats: %s\n", DEBUGFS, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%31s %lu", key, &v) == 2 && !strcmp(key, name))
			value = v;
	}
	fclose(f);
	return value;
}

static inline int perf_event_open(struct perf_event_attr *attr)
{
	return syscall(SYS_perf_event_open, attr, 0, -1, -1, 0);
}

static int nmis_fd = -1;

static inline void unload_module(void)
{
	close(nmis_fd);
	syscall(SYS_delete_module, "latched_nmi_test", O_NONBLOCK);
}

/* Loads the module until the program exits, unless it is loaded already. */
static inline void need_module(void)
{
	int fd;

	if (geteuid())
		ksft_exit_skip("only root can load the module\n");
	if (!access(DEBUGFS, F_OK))
		return;
	fd = open(MODULE, O_RDONLY);
	if (fd < 0)
		ksft_exit_skip("%s: %s: build it with KDIR=\n", MODULE, strerror(errno));
	if (syscall(SYS_finit_module, fd, "", 0))
		ksft_exit_fail_msg("loading %s: %s\n", MODULE, strerror(errno));
	close(fd);
	atexit(unload_module);
	if (access(DEBUGFS, F_OK))
		ksft_exit_fail_msg("%s: %s\n", DEBUGFS, strerror(errno));
}

/* Has another CPU send NMIs to this thread until it exits. */
static inline void start_nmis(unsigned long period_ns)
{
	struct perf_event_attr attr = {
		.type = read_number(PMU "type"),
		.size = sizeof(attr),
		.config = EVENT_IPI,
		.sample_period = period_ns,
	};

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		ksft_exit_skip("no second CPU that could send NMIs\n");
	nmis_fd = perf_event_open(&attr);
	if (nmis_fd < 0)
		ksft_exit_fail_msg("perf_event_open: %s\n", strerror(errno));
}

/* The last test of every program: all NMIs were seen, by no re-entered handler. */
static inline void test_nothing_lost(void)
{
	write_file(DEBUGFS "storm", "100");
	ksft_test_result(read_stat("sent") && !read_stat("lost") &&
			 !read_stat("reentered"), "all-nothing_lost\n");
}

static inline void pin(unsigned int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		ksft_exit_fail_msg("sched_setaffinity: %s\n", strerror(errno));
}

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1000000000.0;
}

#endif /* LATCHED_NMI_COMMON_H */
