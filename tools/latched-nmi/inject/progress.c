// SPDX-License-Identifier: GPL-2.0
/*
 * Progress: "case n of N" over all worker processes.
 */
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#include "progress.h"
#include "util.h"

static struct {
	int done, total;
} *shared;

void progress_init(int total)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("out of memory");
	shared->total = total;
}

void progress_more(int n)
{
	__atomic_add_fetch(&shared->total, n, __ATOMIC_RELAXED);
}

void progress(int n, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "# case %d of %d: %s\n",
		__atomic_add_fetch(&shared->done, n, __ATOMIC_RELAXED), shared->total,
		text);
}
