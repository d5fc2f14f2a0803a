// SPDX-License-Identifier: GPL-2.0
/*
 * Does the kernel know that entry code has the user's RSP there? Hexadecimal
 * addresses on standard input, 1 or 0 for each on standard output.
 */
#include <stdbool.h>
#include <stdio.h>

bool gap_probe(unsigned long ip);

int main(void)
{
	unsigned long ip;

	while (scanf("%lx", &ip) == 1) {
		printf("%d\n", gap_probe(ip));
		fflush(stdout);
	}
	return 0;
}
