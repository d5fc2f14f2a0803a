// SPDX-License-Identifier: GPL-2.0
/*
 * NMIs that interrupt user mode, and the system calls and page faults of user mode
 *
 * A zone is a few bytes of code and a machine context: registers, flags, segments,
 * FS and GS base, FPU state. sigreturn(2) enters it, a signal leaves it, and in
 * between nothing but the kernel can have changed the context that the signal
 * finds. Each zone is run twice: with an NMI handler that takes no fault, and with
 * one that takes all that it can.
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

#include "common.h"

/*
 * One NMI each period, until there were enough or, if there were a few, the time
 * is over; a loaded host makes them rare.
 */
#define PERIOD_NS	50000
#define ENOUGH		300
#define TOO_FEW		30
#define ROUND_US	50000
#define LIMIT_S		1
#define HARD_LIMIT_S	8

#define USER_CS32	0x23
#define USER_CS64	0x33
#define USER_SS		0x2b
#define LDT_CODE16	0
#define LDT_DATA16	1
#define LDT_SELECTOR(n)	(((n) << 3) | 7)

/* Of the flags, what user mode owns and sigreturn(2) restores. */
#define FLAGS_MASK	0x40cd5
#define FLAGS_FIXED	0x202
#define FLAG_AC		0x40000

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE	2
#endif
#ifndef UC_STRICT_RESTORE_SS
#define UC_STRICT_RESTORE_SS	4
#endif

struct zone {
	const char	*name;
	unsigned char	code[12];
	unsigned char	len;
	/* Only user mode is interrupted; if not, the kernel as well. */
	bool		user_only;
	unsigned char	bits;
	unsigned short	cs;
	unsigned short	ss;
	unsigned long	rsp;
	/* Bits by REG_*: what the code itself changes. */
	unsigned int	volatile_regs;
};

#define REG(r)		(1u << REG_##r)
#define SYSCALL_REGS	(REG(RAX) | REG(RCX) | REG(R11))
#define INT80_REGS	REG(RAX)

static const struct zone zones[] = {
	{ "user64",		{ 0xeb, 0xfe }, 2, true, 64,
	  USER_CS64, USER_SS, 0x1234567 },
	/* RSP proves nothing: this one is in the CPU entry area. */
	{ "user64_kernel_rsp",	{ 0xeb, 0xfe }, 2, true, 64,
	  USER_CS64, USER_SS, 0xfffffe0000009fd8 },
	{ "user32",		{ 0xeb, 0xfe }, 2, true, 32,
	  USER_CS32, USER_SS, 0x7654321 },
	/* IRET to a 16-bit stack goes through ESPFIX. */
	{ "user16_espfix",	{ 0xeb, 0xfe }, 2, true, 16,
	  LDT_SELECTOR(LDT_CODE16), LDT_SELECTOR(LDT_DATA16), 0x7654321 },
	/* mov $__NR_getppid, %eax; syscall; jmp */
	{ "syscall64",		{ 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7 }, 9, false, 64,
	  USER_CS64, USER_SS, 0x1234567, SYSCALL_REGS },
	/* mov $__NR_getppid, %eax; int $0x80; jmp */
	{ "int80_64",		{ 0xb8, 64, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7 }, 9, false, 64,
	  USER_CS64, USER_SS, 0x1234567, INT80_REGS },
	{ "int80_32",		{ 0xb8, 64, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7 }, 9, false, 32,
	  USER_CS32, USER_SS, 0x7654321, INT80_REGS },
};

static const struct {
	const char *name;
	bool compat;
} regs[] = {
	[REG_RAX] = { "ax", true }, [REG_RBX] = { "bx", true },
	[REG_RCX] = { "cx", true }, [REG_RDX] = { "dx", true },
	[REG_RSI] = { "si", true }, [REG_RDI] = { "di", true },
	[REG_RBP] = { "bp", true }, [REG_RSP] = { "sp", true },
	[REG_R8]  = { "r8" },  [REG_R9]  = { "r9" },  [REG_R10] = { "r10" },
	[REG_R11] = { "r11" }, [REG_R12] = { "r12" }, [REG_R13] = { "r13" },
	[REG_R14] = { "r14" }, [REG_R15] = { "r15" },
};

#define NR_REGS		ARRAY_SIZE(regs)

/* In the signal frame, behind the part that fxsave has written. */
#define XSAVE_MAX	8192
#define XSAVE_SW	464
#define XSAVE_SW_MAGIC	0x46505853
#define XSAVE_HEADER	512
#define XSAVE_YMM	576
#define XFEATURE_YMM	4

static const struct zone *zone;
static unsigned char *code;
static unsigned long flags;
static unsigned long fs_base, gs_base, fs_found, gs_found, fs_libc;
static bool fsgsbase;
static bool in_zone;
static gregset_t outside, expected, found;
static unsigned char fp_outside[XSAVE_MAX], fp_expected[XSAVE_MAX], fp_found[XSAVE_MAX];
static unsigned int fp_size;
static bool fp_ymm;
static bool use_espfix;

/* While FS is not libc's there is no errno: no calls into libc. */
static long raw_arch_prctl(long op, unsigned long arg)
{
	long ret;

	asm volatile("syscall" : "=a" (ret)
		     : "0" (SYS_arch_prctl), "D" (op), "S" (arg)
		     : "rcx", "r11", "memory");
	return ret;
}

static void set_bases(unsigned long fs, unsigned long gs)
{
	if (fsgsbase) {
		asm volatile("wrfsbase %0" : : "r" (fs) : "memory");
		asm volatile("wrgsbase %0" : : "r" (gs) : "memory");
	} else {
		raw_arch_prctl(ARCH_SET_FS, fs);
		raw_arch_prctl(ARCH_SET_GS, gs);
	}
}

static void get_bases(unsigned long *fs, unsigned long *gs)
{
	if (fsgsbase) {
		asm volatile("rdfsbase %0" : "=r" (*fs));
		asm volatile("rdgsbase %0" : "=r" (*gs));
	} else {
		raw_arch_prctl(ARCH_GET_FS, (unsigned long)fs);
		raw_arch_prctl(ARCH_GET_GS, (unsigned long)gs);
	}
}

static void copy(void *to, const void *from, unsigned long n)
{
	asm volatile("rep movsb" : "+D" (to), "+S" (from), "+c" (n) : : "memory");
}

static void fill_fpu(unsigned char *fp)
{
	struct _libc_fpstate *f = (struct _libc_fpstate *)fp;
	unsigned int i, j;

	fp_size = sizeof(*f);
	f->cwd = 0x27f;
	f->swd = 0;
	f->ftw = 0xff;
	f->mxcsr = 0x7f80;
	for (i = 0; i < 8; i++) {
		for (j = 0; j < 4; j++)
			f->_st[i].significand[j] = 0x8001 + 0x111 * i + j;
		f->_st[i].exponent = 0x3fff + i;
	}
	for (i = 0; i < 16; i++) {
		for (j = 0; j < 4; j++)
			f->_xmm[i].element[j] = 0x10203040 + 0x1000 * i + j;
	}

	if (*(unsigned int *)(fp + XSAVE_SW) == XSAVE_SW_MAGIC &&
	    *(unsigned long *)(fp + XSAVE_SW + 8) & XFEATURE_YMM) {
		fp_ymm = true;
		fp_size = XSAVE_YMM + 256;
		*(unsigned long *)(fp + XSAVE_HEADER) |= 3 | XFEATURE_YMM;
		for (i = 0; i < 256; i++)
			fp[XSAVE_YMM + i] = 0xa0 ^ i;
	}
}

/* Enters the zone when it returns. */
static void enter(int sig, siginfo_t *info, void *uc)
{
	ucontext_t *ctx = uc;
	greg_t *g = ctx->uc_mcontext.gregs;
	unsigned char *fp = (unsigned char *)ctx->uc_mcontext.fpregs;
	unsigned int i;

	copy(outside, g, sizeof(outside));
	copy(fp_outside, fp, sizeof(struct _libc_fpstate));
	fill_fpu(fp);
	copy(fp_expected, fp, fp_size);

	for (i = 0; i < NR_REGS; i++)
		g[i] = zone->bits == 64 ? 0x0101010101010101 * (0x41 + i) :
					  0x01010101 * (0x41 + i);
	g[REG_RSP] = zone->rsp;
	g[REG_RIP] = zone->bits == 16 ? 0 : (unsigned long)code;
	g[REG_EFL] = FLAGS_FIXED | flags;
	g[REG_CSGSFS] = zone->cs | (unsigned long)zone->ss << 48;
	ctx->uc_flags |= UC_STRICT_RESTORE_SS;
	copy(expected, g, sizeof(expected));

	in_zone = true;
	set_bases(fs_base, gs_base);
}

static void leave(int sig, siginfo_t *info, void *uc)
{
	ucontext_t *ctx = uc;
	greg_t *g = ctx->uc_mcontext.gregs;
	static const struct itimerval soon = { .it_value.tv_usec = 10000 };

	/* The kernel leaves AC to the signal handler. */
	asm volatile("pushfq; andl %0, (%%rsp); popfq" : : "i" (~FLAG_AC) : "memory", "cc");

	if (!in_zone) {
		setitimer(ITIMER_REAL, &soon, NULL);
		return;
	}

	get_bases(&fs_found, &gs_found);
	set_bases(fs_libc, 0);
	copy(found, g, sizeof(found));
	copy(fp_found, ctx->uc_mcontext.fpregs, fp_size);

	copy(g, outside, sizeof(outside));
	copy(ctx->uc_mcontext.fpregs, fp_outside, sizeof(struct _libc_fpstate));
	ctx->uc_flags |= UC_STRICT_RESTORE_SS;
	in_zone = false;
}

static void handle(int sig, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction sa = {
		.sa_sigaction = handler,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};

	sigfillset(&sa.sa_mask);
	if (sigaction(sig, &sa, NULL))
		ksft_exit_fail_msg("sigaction: %s\n", strerror(errno));
}

static bool differs(const char *what, unsigned long is, unsigned long should)
{
	if (is == should)
		return false;
	ksft_print_msg("%s: %s is %#lx, was %#lx\n", zone->name, what, is, should);
	return true;
}

static bool compare(void)
{
	const struct _libc_fpstate *f = (void *)fp_found, *e = (void *)fp_expected;
	unsigned long mask = zone->bits == 64 ? ~0ul : 0xffffffff;
	unsigned long ip = expected[REG_RIP];
	bool bad = false;
	unsigned int i;

	for (i = 0; i < NR_REGS; i++) {
		if (!regs[i].name || (zone->bits != 64 && !regs[i].compat))
			continue;
		if (zone->volatile_regs & 1u << i)
			continue;
		bad |= differs(regs[i].name, found[i] & mask, expected[i] & mask);
	}

	if (zone->user_only)
		bad |= differs("ip", found[REG_RIP], ip);
	else if (found[REG_RIP] - ip >= zone->len)
		bad |= differs("ip", found[REG_RIP], ip);
	bad |= differs("flags", found[REG_EFL] & FLAGS_MASK, flags);
	bad |= differs("cs", found[REG_CSGSFS] & 0xffff, zone->cs);
	bad |= differs("ss", (unsigned long)found[REG_CSGSFS] >> 48, zone->ss);
	bad |= differs("fsbase", fs_found, fs_base);
	bad |= differs("gsbase", gs_found, gs_base);

	bad |= differs("x87 control", f->cwd, e->cwd);
	bad |= differs("mxcsr", f->mxcsr, e->mxcsr);
	for (i = 0; i < 8; i++) {
		if (memcmp(&f->_st[i], &e->_st[i], 10))
			bad |= differs("x87 register", ~i, i);
	}
	for (i = 0; i < 16; i++) {
		if (memcmp(&f->_xmm[i], &e->_xmm[i], 16))
			bad |= differs("xmm register", ~i, i);
		if (fp_ymm && memcmp(fp_found + XSAVE_YMM + 16 * i,
				     fp_expected + XSAVE_YMM + 16 * i, 16))
			bad |= differs("ymm register", ~i, i);
	}
	return !bad;
}

static bool go_on(unsigned long nmis, double start)
{
	return nmis < ENOUGH &&
	       now() - start < (nmis < TOO_FEW ? HARD_LIMIT_S : LIMIT_S);
}

/* True if there were enough NMIs to tell something. */
static bool enough(const char *name, unsigned long nmis, unsigned long faults,
		   bool faulting)
{
	if (nmis < TOO_FEW) {
		ksft_print_msg("%s: only %lu NMIs\n", name, nmis);
		return false;
	}
	if (faulting && faults < nmis * 9 / 10) {
		ksft_print_msg("%s: only %lu faults in %lu NMIs\n", name, faults, nmis);
		return false;
	}
	return true;
}

static bool run_zone(bool faulting)
{
	static const struct itimerval round = { .it_value.tv_usec = ROUND_US };
	const char *stat = zone->user_only ? "runs_user" : "runs";
	unsigned long before = read_stat(stat), faults = read_stat("gp"), nmis;
	double start = now();

	memcpy(code, zone->code, zone->len);
	do {
		setitimer(ITIMER_REAL, &round, NULL);
		raise(SIGUSR1);
		if (!compare())
			return false;
		nmis = read_stat(stat) - before;
	} while (go_on(nmis, start));

	return enough(zone->name, nmis, read_stat("gp") - faults, faulting);
}

/* A page fault whose CR2 an NMI has replaced kills, or maps the wrong page. */
static bool run_pagefault(bool faulting)
{
	enum { PAGES = 64, SIZE = 4096 };
	unsigned long before = read_stat("runs"), faults = read_stat("gp"), nmis;
	double start = now();
	unsigned char *p;
	unsigned int i;
	bool ok = true;

	p = mmap(NULL, PAGES * SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));

	do {
		madvise(p, PAGES * SIZE, MADV_DONTNEED);
		for (i = 0; i < PAGES; i++) {
			if (p[i * SIZE + i])
				ok = false;
			p[i * SIZE + i] = i + 1;
		}
		asm volatile("" : : : "memory");
		for (i = 0; i < PAGES; i++) {
			if (p[i * SIZE + i] != i + 1)
				ok = false;
		}
		nmis = read_stat("runs") - before;
	} while (ok && go_on(nmis, start));

	if (!ok)
		ksft_print_msg("pagefault: wrong contents of page %u\n", i);
	munmap(p, PAGES * SIZE);
	return ok && enough("pagefault", nmis, read_stat("gp") - faults, faulting);
}

static void set_up_ldt(void)
{
	struct user_desc desc = {
		.entry_number = LDT_CODE16,
		.base_addr = (unsigned long)code,
		.limit = 4095,
		.contents = MODIFY_LDT_CONTENTS_CODE,
	};

	if (syscall(SYS_modify_ldt, 1, &desc, sizeof(desc)))
		return;
	desc.entry_number = LDT_DATA16;
	desc.contents = MODIFY_LDT_CONTENTS_DATA;
	use_espfix = !syscall(SYS_modify_ldt, 1, &desc, sizeof(desc));
}

static void set_up(void)
{
	stack_t stack = { .ss_size = 65536 };

	pin(0);
	fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	raw_arch_prctl(ARCH_GET_FS, (unsigned long)&fs_libc);
	fs_base = 0x123456789ab8;
	/* With FSGSBASE user mode may have what looks like the kernel's GS base. */
	gs_base = fsgsbase ? 0xffff888012345678 : 0x765432198760;

	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED || stack.ss_sp == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	sigaltstack(&stack, NULL);
	handle(SIGUSR1, enter);
	handle(SIGALRM, leave);
	set_up_ldt();
	start_nmis(PERIOD_NS);
}

int main(void)
{
	const unsigned int nr_zones = ARRAY_SIZE(zones);
	unsigned int i, faulting;

	ksft_print_header();
	need_module();
	set_up();
	ksft_set_plan(2 * (nr_zones + 1) + 1);

	for (faulting = 0; faulting < 2; faulting++) {
		const char *event = faulting ? "nmi_faults" : "nmi";

		if (!write_file(DEBUGFS "faults", faulting ? all_faults() : "none"))
			ksft_exit_fail_msg("%sfaults: %s\n", DEBUGFS, strerror(errno));

		for (i = 0; i < nr_zones; i++) {
			zone = &zones[i];
			/* Every second flag, then the others. */
			flags = faulting ? 0x40cd5 & ~0x855 : 0x855;

			if (zone->bits == 16 && !use_espfix)
				ksft_test_result_skip("%s-%s modify_ldt: %s\n", zone->name,
						      event, strerror(errno));
			else
				ksft_test_result(run_zone(faulting), "%s-%s\n",
						 zone->name, event);
		}
		ksft_test_result(run_pagefault(faulting), "pagefault-%s\n", event);
	}

	write_file(DEBUGFS "faults", "none");
	test_nothing_lost();
	ksft_finished();
}
