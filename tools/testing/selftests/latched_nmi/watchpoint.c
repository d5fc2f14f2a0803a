// SPDX-License-Identifier: GPL-2.0
/*
 * NMIs from user mode while a data breakpoint watches the thread's kernel stack
 *
 * The entry code itself writes there, before the frame has left the NMI stack: #DB
 * in the middle of it, whose IRET unmasks NMIs (H6).
 */
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#include <linux/hw_breakpoint.h>

#include "common.h"

#define PERIOD_NS	50000
#define ENOUGH		150
#define TOO_FEW		20
#define LIMIT_S		3

/* Long, as system calls hit the watchpoint as well. */
#define ROUNDS		5000000

static const struct {
	const char *name;
	unsigned long offset;
} slots[] = {
	{ "ss",		offsetof(struct user_regs_struct, ss) },
	{ "sp",		offsetof(struct user_regs_struct, rsp) },
	{ "ip",		offsetof(struct user_regs_struct, rip) },
	{ "orig_ax",	offsetof(struct user_regs_struct, orig_rax) },
	{ "dx",		offsetof(struct user_regs_struct, rdx) },
	{ "r15",	offsetof(struct user_regs_struct, r15) },
};

#define NR_SLOTS	ARRAY_SIZE(slots)

static unsigned long sum(unsigned long rounds)
{
	unsigned long a = 1, b = 2, c = 3, d = 4, e = 5, f = 6;

	while (rounds--) {
		a += b; b ^= c; c += d; d ^= e; e += f; f ^= a;
		asm volatile("" : "+r" (a), "+r" (b), "+r" (c), "+r" (d), "+r" (e), "+r" (f));
	}
	return a ^ b ^ c ^ d ^ e ^ f;
}

/* Watch writes to the quadword at @addr. Return: a file, or -1 and errno. */
static int watch(unsigned long addr)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.bp_type = HW_BREAKPOINT_W,
		.bp_addr = addr,
		.bp_len = HW_BREAKPOINT_LEN_8,
	};

	return perf_event_open(&attr);
}

static unsigned long symbol(const char *name)
{
	unsigned long addr = 0, a;
	char line[512], sym[256];
	FILE *f = fopen("/proc/kallsyms", "r");

	while (f && !addr && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx %*c %255s", &a, sym) == 2 && !strcmp(sym, name))
			addr = a;
	}
	if (f)
		fclose(f);
	return addr;
}

/* Is a watchpoint on the per-CPU variable @name refused? */
static bool refused(const char *name)
{
	unsigned long offset = read_number(DEBUGFS "per_cpu_offset");
	unsigned long addr = symbol(name);
	int fd, error;

	if (!offset || !addr) {
		ksft_print_msg("%s: no address\n", name);
		return false;
	}
	fd = watch(offset + addr);
	error = fd < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	ksft_print_msg("watchpoint on %s: %s\n", name,
		       error ? strerror(error) : "accepted");
	return error == EINVAL;
}

static bool run(unsigned int slot, unsigned long regs)
{
	unsigned long before, nmis, should = sum(ROUNDS);
	double end = now() + LIMIT_S;
	__u64 hits = 0;
	bool ok = true;
	int fd;

	fd = watch(regs + slots[slot].offset);
	if (fd < 0) {
		ksft_print_msg("%s: perf_event_open: %s\n", slots[slot].name,
			       strerror(errno));
		return false;
	}

	before = read_stat("runs_user");
	do {
		ok = ok && sum(ROUNDS) == should;
		nmis = read_stat("runs_user") - before;
	} while (ok && nmis < ENOUGH && now() < end);

	if (read(fd, &hits, sizeof(hits)) != sizeof(hits))
		hits = 0;
	close(fd);

	if (!ok)
		ksft_print_msg("%s: a register has changed\n", slots[slot].name);
	ksft_print_msg("%s: %lu NMIs and %lu hits of the watchpoint\n",
		       slots[slot].name, nmis, (unsigned long)hits);
	return ok && nmis >= TOO_FEW && hits >= nmis;
}

int main(void)
{
	unsigned long regs;
	unsigned int i;

	ksft_print_header();
	if (access("/sys/kernel/tracing/events/latched_nmi", F_OK))
		ksft_exit_skip("no latched NMI entry in this kernel\n");
	if (system("dmesg | grep -q 'NMI entry: latched'"))
		ksft_exit_skip("the classic entry does not survive it\n");
	need_module();
	regs = read_number(DEBUGFS "pt_regs");
	pin(0);
	start_nmis(PERIOD_NS);
	ksft_set_plan(NR_SLOTS + 2);

	/* What the NMI entry uses with breakpoints armed, and what it does not. */
	ksft_test_result(refused("cea_exception_stacks") & !refused("latched_nmi_seen"),
			 "entry-watchpoint_refused\n");

	if (!write_file(DEBUGFS "faults", "iret"))
		ksft_exit_fail_msg("%sfaults: %s\n", DEBUGFS, strerror(errno));
	for (i = 0; i < NR_SLOTS; i++)
		ksft_test_result(run(i, regs), "user_prologue-db_%s\n", slots[i].name);
	write_file(DEBUGFS "faults", "none");
	test_nothing_lost();
	ksft_finished();
}
