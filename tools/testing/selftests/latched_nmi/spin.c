// SPDX-License-Identifier: GPL-2.0
/*
 * spin user|kernel [CPU]: keeps a CPU in one mode, for NMIs to interrupt it there.
 *
 * The functions that loop have names that a backtrace can be searched for. Prints
 * a line once it is there; ends with the signal that ends it, or after ten
 * minutes.
 */
#include <sys/mman.h>

#include "common.h"

static char zeros[1 << 20];

static unsigned long count;

static void latched_nmi_spin_user(void)
{
	for (;;)
		asm volatile("incq %0" : "+m" (count));
}

static void latched_nmi_spin_kernel(void)
{
	int fd = open("/dev/zero", O_RDONLY);

	for (;;)
		count += read(fd, zeros, sizeof(zeros));
}

int main(int argc, char **argv)
{
	char address[32];
	void *absent;

	if (argc < 2)
		return KSFT_FAIL;
	pin(argc > 2 ? atoi(argv[2]) : 0);
	alarm(600);

	/* Mapped but never touched: what the handler's fault "user" reads. */
	absent = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	snprintf(address, sizeof(address), "%#lx", (unsigned long)absent);
	write_file(DEBUGFS "user_addr", address);

	memset(zeros, 1, sizeof(zeros));
	puts("spinning");
	fflush(stdout);

	if (!strcmp(argv[1], "user"))
		latched_nmi_spin_user();
	latched_nmi_spin_kernel();
}
