// SPDX-License-Identifier: GPL-2.0
/*
 * Something to sample: user-mode work with a call chain of its own, and system
 * calls that do some work. Ends after the number of seconds that it is given.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static unsigned long sink;

__attribute__((noinline)) void leaf(unsigned long n)
{
	while (n--)
		asm volatile("addq %1, %0" : "+m" (sink) : "r" (n));
}

__attribute__((noinline)) void middle(void)
{
	leaf(50000);
	sink++;
}

__attribute__((noinline)) void work(void)
{
	char text[4096];
	int fd = open("/proc/self/status", O_RDONLY);

	middle();
	while (read(fd, text, sizeof(text)) > 0)
		sink++;
	close(fd);
}

int main(int argc, char **argv)
{
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);

	while (time(NULL) < end)
		work();
	return 0;
}
