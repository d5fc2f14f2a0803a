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

/* As in latched_nmi.h. */
#define STACK		8192
#define DISTANCE	(STACK + 4096)
#define STACKS		5

#define PAIRS		20000

extern char asm_exc_nmi[], asm_exc_nmi_latched[];

/* What the user prologues and the #MC entry check name; never reached here. */
void *pcpu_hot, *cpu_current_top_of_stack, *pcpu_unit_offsets;

void swapgs_restore_regs_and_return_to_usermode(void);
void asm_exc_machine_check(void);
void latched_nmi_hook(void);

void swapgs_restore_regs_and_return_to_usermode(void)
{
	abort();
}

void asm_exc_machine_check(void)
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

/* The handlers: they do nothing, but may be interrupted by the next NMI once. */
void latched_nmi_hook(void)
{
	unsigned long long t;

	if (!nests)
		return;
	nests--;
	t = now();
	deliver();
	nested_cycles = now() - t;
}

enum { FIRST, NESTED, REPEAT, NR_WHAT };

static void measure(const char *which, unsigned int i, unsigned int *out[NR_WHAT])
{
	unsigned long long t, first, both;

	entry = which;
	t = now();
	deliver();
	first = now() - t;
	nests = 1;
	t = now();
	deliver();
	both = now() - t;
	out[FIRST][i] = first;
	out[NESTED][i] = nested_cycles;
	out[REPEAT][i] = both - nested_cycles > first ? both - nested_cycles - first : 0;
}

static int compare(const void *a, const void *b)
{
	unsigned int x = *(const unsigned int *)a, y = *(const unsigned int *)b;

	return x < y ? -1 : x > y;
}

static unsigned int quantile(const unsigned int *sorted, double q)
{
	return sorted[(unsigned int)(q * (PAIRS - 1))];
}

static unsigned int overhead(void)
{
	unsigned int *t = calloc(PAIRS, sizeof(*t)), i, median;

	for (i = 0; i < PAIRS; i++) {
		unsigned long long begin = now();

		t[i] = now() - begin;
	}
	qsort(t, PAIRS, sizeof(*t), compare);
	median = quantile(t, 0.5);
	free(t);
	return median;
}

int main(void)
{
	static const char * const name[NR_WHAT] = { "first NMI", "nested NMI", "repeat" };
	unsigned int *out[2][NR_WHAT], i, w, e, none = overhead();
	char *stacks = mmap(NULL, STACKS * DISTANCE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (stacks == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	real_top = stacks + DISTANCE;
	for (e = 0; e < 2; e++) {
		for (w = 0; w < NR_WHAT; w++)
			out[e][w] = calloc(PAIRS, sizeof(unsigned int));
	}
	for (i = 0; i < PAIRS; i++) {
		/* In pairs, so that a change of the clock meets both. */
		measure(i & 1 ? asm_exc_nmi : asm_exc_nmi_latched, i, out[!(i & 1)]);
		measure(i & 1 ? asm_exc_nmi_latched : asm_exc_nmi, i, out[i & 1]);
	}
	printf("%-12s %28s %28s %20s\n", "cycles", "stock", "latched", "latched/stock");
	for (w = 0; w < NR_WHAT; w++) {
		/* A repeat is a difference already. */
		unsigned int less = w == REPEAT ? 0 : none;
		double *ratio = calloc(PAIRS, sizeof(*ratio));
		unsigned int q[2][3];

		for (e = 0; e < 2; e++) {
			qsort(out[e][w], PAIRS, sizeof(unsigned int), compare);
			q[e][0] = quantile(out[e][w], 0.25) - less;
			q[e][1] = quantile(out[e][w], 0.5) - less;
			q[e][2] = quantile(out[e][w], 0.75) - less;
		}
		printf("%-12s", name[w]);
		for (e = 0; e < 2; e++)
			printf("   median %5u (%5u to %5u)", q[e][1], q[e][0], q[e][2]);
		printf("   %.2f (%.2f to %.2f)\n", (double)q[1][1] / q[0][1],
		       (double)q[1][0] / q[0][2], (double)q[1][2] / q[0][0]);
		free(ratio);
	}
	return 0;
}
