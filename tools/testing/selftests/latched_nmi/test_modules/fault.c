// SPDX-License-Identifier: GPL-2.0
/* The faults that the handler takes. */
#include <linux/hw_breakpoint.h>
#include <linux/kprobes.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <asm/asm.h>
#include <asm/debugreg.h>
#include <asm/processor.h>
#include <asm/sync_core.h>

#include "lnt.h"

/* The kinds, in the order in which they are taken; lnt_kinds[] tells of them. */
enum {
	LNT_INT3,
	LNT_PAGE,
	LNT_VMALLOC,
	LNT_USER,
	LNT_GP,
	LNT_DB,
	LNT_IRET,
	LNT_NR_KINDS,
};

const unsigned int lnt_nr_kinds = LNT_NR_KINDS;

u64 lnt_user_addr;

/* Counted where the fault was handled, or by the result of the fixed-up access. */
static __always_inline void lnt_count(int kind)
{
	this_cpu_inc(lnt_cpu.fault[kind]);
}

static noinline notrace unsigned long lnt_probed(unsigned long arg)
{
	barrier();
	return arg + 1;
}

static int lnt_kprobe_pre(struct kprobe *p, struct pt_regs *regs)
{
	lnt_count(LNT_INT3);
	return 0;
}

NOKPROBE_SYMBOL(lnt_kprobe_pre);

/* A kprobe with a post handler is never optimized into a jump. */
static void lnt_kprobe_post(struct kprobe *p, struct pt_regs *regs, unsigned long flags)
{
}

NOKPROBE_SYMBOL(lnt_kprobe_post);

static struct kprobe lnt_kprobe = {
	.addr		= (kprobe_opcode_t *)lnt_probed,
	.pre_handler	= lnt_kprobe_pre,
	.post_handler	= lnt_kprobe_post,
};

static bool lnt_take_int3(const struct pt_regs *regs)
{
	lnt_probed(0);
	return true;
}

/* In NMI context page faults are not handled, only fixed up. */
static bool lnt_take_page(const struct pt_regs *regs)
{
	u64 val;

	if (__copy_from_user_inatomic(&val, (void __user *)8, sizeof(val)))
		lnt_count(LNT_PAGE);
	return true;
}

static void *lnt_vmalloc;

static bool lnt_take_vmalloc(const struct pt_regs *regs)
{
	u64 val;

	if (copy_from_kernel_nofault(&val, lnt_vmalloc + PAGE_SIZE, sizeof(val)))
		lnt_count(LNT_VMALLOC);
	return true;
}

static bool lnt_take_user(const struct pt_regs *regs)
{
	u64 addr = READ_ONCE(lnt_user_addr);
	u64 buf[4];

	if (!current->mm || current->flags & PF_KTHREAD)
		return false;

	if (!addr)
		addr = task_pt_regs(current)->sp;

	if (copy_from_user_nmi(buf, (void __user *)addr, sizeof(buf)))
		lnt_count(LNT_USER);
	else
		lnt_inc(LNT_USER_COPIED);
	return true;
}

static bool lnt_take_gp(const struct pt_regs *regs)
{
	unsigned long val;
	int faulted = 1;

	/* The fix-up skips the second instruction. */
	asm volatile("1: mov (%[addr]), %[val]\n"
		     "   xor %[faulted], %[faulted]\n"
		     "2:\n"
		     _ASM_EXTABLE(1b, 2b)
		     : [val] "=&r" (val), [faulted] "+r" (faulted)
		     : [addr] "r" (0x8000000000000000ul)
		     : "cc");
	if (faulted)
		lnt_count(LNT_GP);
	return true;
}

/*
 * Nothing but the handler writes here, and only there DR7 is armed. It has a page of
 * its own because QEMU's TCG now and then tells of a hit late, at the next access to
 * the page, when DR7 is armed again.
 */
static u64 lnt_watched[PAGE_SIZE / sizeof(u64)] __aligned(PAGE_SIZE);
static struct perf_event * __percpu *lnt_bp;

static void lnt_bp_handler(struct perf_event *bp, struct perf_sample_data *data,
			   struct pt_regs *regs)
{
	lnt_count(LNT_DB);
}

static bool lnt_hit_db(const struct pt_regs *regs)
{
	unsigned long top = this_cpu_read(cpu_tss_rw.x86_tss.ist[IST_INDEX_DB]);

	return top - regs->sp <= EXCEPTION_STKSZ;
}

/*
 * exc_nmi() has cleared DR7. What it has saved is what belongs there, so there is
 * nothing to put back: the handler only must leave DR7 cleared as it found it.
 *
 * One reason to clear it is that a second #DB overwrites the frame of the first. So
 * an NMI in the midst of a #DB takes none.
 */
static bool lnt_take_db(const struct pt_regs *regs)
{
	if (lnt_hit_db(regs))
		return false;

	local_db_restore(this_cpu_read(cpu_dr7));
	WRITE_ONCE(lnt_watched[0], local_clock());
	local_db_save();
	return true;
}

static bool lnt_take_iret(const struct pt_regs *regs)
{
	iret_to_self();
	lnt_count(LNT_IRET);
	return true;
}

/*
 * @name is what the files call it, @text says what it is. @take takes the fault, and
 * returns false if that is not possible in what the NMI interrupted.
 */
static const struct {
	const char	*name;
	const char	*text;
	bool		(*take)(const struct pt_regs *regs);
} lnt_kinds[LNT_NR_KINDS] = {
	[LNT_INT3] = {
		"int3", "a kprobe, not optimized, on a function of this module",
		lnt_take_int3
	},
	[LNT_PAGE] = {
		"page", "load from a user address that nothing maps (#PF)",
		lnt_take_page
	},
	[LNT_VMALLOC] = {
		"vmalloc", "load from a vmalloc guard page (#PF)",
		lnt_take_vmalloc
	},
	[LNT_USER] = {
		"user", "copy_from_user_nmi() from user_addr (#PF unless resident)",
		lnt_take_user
	},
	[LNT_GP] = {
		"gp", "load from a non-canonical address (#GP)",
		lnt_take_gp
	},
	[LNT_DB] = {
		"db", "data breakpoint, DR7 armed by the handler (#DB)",
		lnt_take_db
	},
	[LNT_IRET] = {
		"iret", "iret_to_self(), no exception: unmasks NMIs, nothing else",
		lnt_take_iret
	},
};

static_assert(LNT_NR_KINDS <= LNT_MAX_KINDS);

/* Return: the number of a kind, %LNT_NR_KINDS for "none", or -EINVAL. */
int lnt_parse_kind(const char *name)
{
	unsigned int kind;

	for (kind = 0; kind < LNT_NR_KINDS; kind++) {
		if (!strcmp(name, lnt_kinds[kind].name))
			return kind;
	}
	return strcmp(name, "none") ? -EINVAL : LNT_NR_KINDS;
}

const char *lnt_kind_name(int kind)
{
	return kind < LNT_NR_KINDS ? lnt_kinds[kind].name : "none";
}

const char *lnt_kind_text(int kind)
{
	return lnt_kinds[kind].text;
}

/**
 * lnt_take() - take a fault, in the NMI handler
 * @kind: its number; %LNT_NR_KINDS for none
 * @regs: what the NMI interrupted
 *
 * Return: false if what the NMI interrupted makes it impossible.
 */
bool lnt_take(int kind, const struct pt_regs *regs)
{
	return kind == LNT_NR_KINDS || lnt_kinds[kind].take(regs);
}

static int lnt_claim_bp(void)
{
	struct perf_event_attr attr;
	int ret;

	hw_breakpoint_init(&attr);
	attr.bp_addr = (unsigned long)lnt_watched;
	attr.bp_len = HW_BREAKPOINT_LEN_8;
	attr.bp_type = HW_BREAKPOINT_W;

	lnt_bp = register_wide_hw_breakpoint(&attr, lnt_bp_handler, NULL);
	ret = PTR_ERR_OR_ZERO((void __force *)lnt_bp);
	if (ret)
		lnt_bp = NULL;
	return ret;
}

/**
 * lnt_claim() - have what the handler needs for its faults
 * @kinds: bit mask of those that it may take from now on
 *
 * Claims the debug registers, or gives them up when no handler run can be about to
 * use them any more.
 *
 * Return: 0 or an error.
 */
int lnt_claim(unsigned long kinds)
{
	bool want = kinds & BIT(LNT_DB);

	lockdep_assert_held(&lnt_mutex);

	if (want == !!lnt_bp)
		return 0;
	if (want)
		return lnt_claim_bp();

	synchronize_rcu();
	unregister_wide_hw_breakpoint(lnt_bp);
	lnt_bp = NULL;
	return 0;
}

int lnt_fault_init(void)
{
	int ret;

	lnt_vmalloc = vmalloc(PAGE_SIZE);
	if (!lnt_vmalloc)
		return -ENOMEM;

	ret = register_kprobe(&lnt_kprobe);
	if (ret)
		vfree(lnt_vmalloc);
	return ret;
}

void lnt_fault_exit(void)
{
	mutex_lock(&lnt_mutex);
	lnt_claim(0);
	mutex_unlock(&lnt_mutex);
	unregister_kprobe(&lnt_kprobe);
	vfree(lnt_vmalloc);
}
