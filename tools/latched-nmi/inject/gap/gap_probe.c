// SPDX-License-Identifier: GPL-2.0
/* What the kernel's headers say of an instruction pointer. */
#include <asm/ptrace.h>

bool gap_probe(unsigned long ip);

bool gap_probe(unsigned long ip)
{
	struct pt_regs regs = { .ip = ip };

	return ip_within_syscall_gap(&regs);
}
