// SPDX-License-Identifier: GPL-2.0
/*
 * Cycles of what the two entries do differently, on the processor at hand and without
 * a hypervisor: the frame handling of both, assembled into this program from the
 * kernel's source with the privileged instructions left out. IRETQ to the same
 * privilege is legal in user mode.
 *
 * What this shows is the difference between two instruction sequences on warm caches.
 * It does not show the delivery of an NMI, swapgs, CR3 or GS base, cold caches, or the
 * handlers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include "cycles.h"

/* An exception stack, and its distance from the next. */
#define STACK		8192
#define DISTANCE	(STACK + 4096)
#define STACKS		5

/* Pairs of measurements, each the time of so many NMIs. */
#define PAIRS		2000
#define BATCH		16

/* What the entries name for cases that do not come up here. */
void *pcpu_hot, *cpu_current_top_of_stack, *pcpu_unit_offsets;

void swapgs_restore_regs_and_return_to_usermode(void)
{
	abort();
}

void asm_exc_machine_check(void)
{
	abort();
}

void asm_exc_debug(void)
{
	abort();
}

static char *real_top;
static const char *entry;
static int nests;
static unsigned long long nested_cycles;

static unsigned long long now(void)
{
	unsigned int aux;
	unsigned long long t;

	_mm_lfence();
	t = __rdtscp(&aux);
	_mm_lfence();
	return t;
}

/* What the hardware does: five words on the REAL stack, and on at the entry. */
static void deliver(void)
{
	asm volatile("movq %%rsp, %%rax\n\t"
		     "movq %[top], %%rsp\n\t"
		     "pushq $0x2b\n\t"
		     "pushq %%rax\n\t"
		     "pushfq\n\t"
		     "pushq $0x33\n\t"
		     "pushq $1f\n\t"
		     "jmp *%[entry]\n"
		     "1:"
		     : : [top] "r" (real_top), [entry] "r" (entry)
		     : "rax", "memory", "cc");
}

/* The handlers: they do nothing, but may be interrupted by the next NMI. */
void handlers(void)
{
	unsigned long long t;

	if (!nests)
		return;
	nests--;
	t = now();
	deliver();
	nested_cycles += now() - t;
}

enum { FIRST, NESTED, REPEAT, NR_WHAT };

/* Cycles of one NMI in the mean over a batch, and the @none that reading them takes. */
static void measure(const char *which, unsigned int i, double *out[NR_WHAT], double none)
{
	unsigned long long t = now(), first, both;
	int n;

	entry = which;
	t = now();
	for (n = 0; n < BATCH; n++)
		deliver();
	first = now() - t;
	nested_cycles = 0;
	t = now();
	for (n = 0; n < BATCH; n++) {
		nests = 1;
		deliver();
	}
	both = now() - t;
	out[FIRST][i] = (first - none) / BATCH;
	out[NESTED][i] = nested_cycles / (double)BATCH - none;
	/* What the nested NMI did itself is read inside of it: twice the clock. */
	out[REPEAT][i] = (both - none - (nested_cycles + BATCH * none)) / BATCH - out[FIRST][i];
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double quantile(const double *sorted, double q)
{
	return sorted[(unsigned int)(q * (PAIRS - 1))];
}

/* The time that now() takes to read. */
static double overhead(void)
{
	static double t[PAIRS];
	unsigned int i;

	for (i = 0; i < PAIRS; i++) {
		unsigned long long begin = now();

		t[i] = now() - begin;
	}
	qsort(t, PAIRS, sizeof(*t), compare);
	return quantile(t, 0.5);
}

static double out[2][NR_WHAT][PAIRS];

int main(void)
{
	static const char * const name[NR_WHAT] = { "first NMI", "nested NMI", "repeat" };
	const char * const which[2] = { asm_exc_nmi, asm_exc_nmi_latched };
	static double ratio[PAIRS];
	double none = overhead();
	unsigned int i, w, e;
	char *stacks = mmap(NULL, STACKS * DISTANCE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (stacks == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	real_top = stacks + 2 * DISTANCE;
	/* In pairs, so that a change of the clock meets both; each is first in turn. */
	for (i = 0; i < PAIRS; i++) {
		for (e = 0; e < 2; e++) {
			unsigned int k = (i + e) & 1;
			double *to[NR_WHAT] = { out[k][0], out[k][1], out[k][2] };

			measure(which[k], i, to, none);
		}
	}
	printf("%-12s %24s %24s %22s\n", "", "classic", "latched", "latched / classic");
	for (w = 0; w < NR_WHAT; w++) {
		for (i = 0; i < PAIRS; i++)
			ratio[i] = out[1][w][i] / out[0][w][i];
		qsort(ratio, PAIRS, sizeof(*ratio), compare);
		printf("%-12s", name[w]);
		for (e = 0; e < 2; e++) {
			qsort(out[e][w], PAIRS, sizeof(double), compare);
			printf("   %5.0f (%5.0f to %5.0f)", quantile(out[e][w], 0.5),
			       quantile(out[e][w], 0.25), quantile(out[e][w], 0.75));
		}
		printf("   %.2f (%.2f to %.2f)\n", quantile(ratio, 0.5),
		       quantile(ratio, 0.25), quantile(ratio, 0.75));
	}
	printf("Cycles of the time stamp counter: median (middle half), and of the ratio of each pair.\n");
	return 0;
}
