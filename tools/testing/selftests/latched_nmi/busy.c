// SPDX-License-Identifier: GPL-2.0
/*
 * busy PERIOD_NS ROUNDS: what a storm of NMIs costs the CPU that is hit.
 *
 * Times ROUNDS of the same work in user mode on CPU 0, which sends itself an NMI each
 * PERIOD_NS meanwhile, or none if that is 0. Prints the cycles of the TSC that a round
 * took, minimum and median, and the number of NMIs. Exits with KSFT_SKIP if less than
 * half of the NMIs came that were due: the timer is too late for such a storm.
 */
#include "common.h"

#define MAX_ROUNDS	1000
#define WORK		2000000

static uint64_t tsc(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a" (low), "=d" (high));
	return (uint64_t)high << 32 | low;
}

static uint64_t nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static uint64_t work(void)
{
	uint64_t start = tsc();
	unsigned int i;

	for (i = 0; i < WORK; i++)
		asm volatile("");
	return tsc() - start;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static unsigned long argument(const char *name, const char *text, unsigned long max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (!*text || *end || value > max) {
		fprintf(stderr, "busy: %s is a number up to %lu, not %s\n", name, max, text);
		exit(KSFT_FAIL);
	}
	return value;
}

int main(int argc, char **argv)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.config = EVENT_SELF,
	};
	uint64_t cycles[MAX_ROUNDS], start;
	unsigned long i, rounds, nmis, due = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: busy PERIOD_NS ROUNDS\n");
		return KSFT_FAIL;
	}
	attr.sample_period = argument("PERIOD_NS", argv[1], 1000000000);
	rounds = argument("ROUNDS", argv[2], MAX_ROUNDS);
	attr.type = read_number(PMU "type");
	pin(0);

	nmis = read_stat("samples");
	if (attr.sample_period && perf_event_open(&attr) < 0) {
		fprintf(stderr, "busy: perf_event_open: %s\n", strerror(errno));
		return KSFT_FAIL;
	}
	start = nanoseconds();
	for (i = 0; i < rounds; i++)
		cycles[i] = work();
	if (attr.sample_period)
		due = (nanoseconds() - start) / attr.sample_period;
	nmis = read_stat("samples") - nmis;
	if (!rounds || !due != !nmis) {
		fprintf(stderr, "busy: %lu rounds, %lu NMIs, %lu were due\n", rounds, nmis, due);
		return KSFT_FAIL;
	}
	if (nmis < due / 2) {
		fprintf(stderr, "busy: %lu NMIs, %lu were due\n", nmis, due);
		return KSFT_SKIP;
	}
	qsort(cycles, rounds, sizeof(*cycles), compare);
	printf("%lu %lu %lu\n", cycles[0], cycles[rounds / 2], nmis);
	return KSFT_PASS;
}
