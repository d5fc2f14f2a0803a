// SPDX-License-Identifier: GPL-2.0
/* The files in debugfs; ../README says what each of them does. */
#include <linux/debugfs.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/sched/task_stack.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "lnt.h"

#define LNT_MAX_HOLD_NS		NSEC_PER_MSEC
#define LNT_MAX_DELAY_NS	NSEC_PER_MSEC
#define LNT_MAX_BURST		1000
#define LNT_MAX_ROUNDS		100000

static const char * const lnt_stat_names[LNT_NR_STATS] = {
	[LNT_RUNS]		= "runs",
	[LNT_RUNS_USER]		= "runs_user",
	[LNT_LATE]		= "late",
	[LNT_FOREIGN]		= "foreign",
	[LNT_LOST]		= "lost",
	[LNT_REENTERED]		= "reentered",
	[LNT_NESTED]		= "nested",
	[LNT_SAMPLES]		= "samples",
	[LNT_USER_COPIED]	= "user_copied",
	[LNT_SENT]		= "sent",
	[LNT_UNSEEN]		= "unseen",
};

/* The counters as they were at the last reset; they themselves only count up. */
struct lnt_base {
	unsigned long stat[LNT_NR_COUNTERS];
	unsigned long fault[LNT_MAX_KINDS];
	unsigned long sent;
};

static DEFINE_PER_CPU(struct lnt_base, lnt_base);

static ssize_t lnt_storm_parse(char *buf)
{
	unsigned int nmis, burst = 1, gap_ns = 0;
	int cpu = -1;

	if (sscanf(buf, "%u %u %u %d", &nmis, &burst, &gap_ns, &cpu) < 1)
		return -EINVAL;
	if (!nmis || !burst || burst > LNT_MAX_BURST || gap_ns > LNT_MAX_DELAY_NS)
		return -EINVAL;

	return lnt_storm(nmis, burst, gap_ns, cpu);
}

static ssize_t lnt_chase_parse(char *buf)
{
	unsigned int rounds, max_delay_ns = 20000;
	int cpu = -1;

	if (sscanf(buf, "%u %u %d", &rounds, &max_delay_ns, &cpu) < 1)
		return -EINVAL;
	if (!rounds || max_delay_ns > LNT_MAX_DELAY_NS)
		return -EINVAL;

	return lnt_chase(rounds, max_delay_ns, cpu);
}

static ssize_t lnt_nested_parse(char *buf)
{
	unsigned int rounds = 1;
	int cpu = -1, kind, ret;
	char name[16];

	if (sscanf(buf, "%15s %u %d", name, &rounds, &cpu) < 1 || !rounds)
		return -EINVAL;

	kind = lnt_parse_kind(name);
	if (kind < 0)
		return kind;

	ret = lnt_claim(lnt_faults | BIT(kind));
	if (!ret)
		ret = lnt_nested(kind, rounds, cpu);
	lnt_claim(lnt_faults);
	return ret;
}

static ssize_t lnt_roundtrip_parse(char *buf)
{
	unsigned int rounds, handlers, burst;
	char name[16];
	int cpu;

	if (sscanf(buf, "%15s %u %u %u %d", name, &rounds, &handlers, &burst, &cpu) != 5)
		return -EINVAL;
	if (!rounds || rounds > LNT_MAX_ROUNDS || handlers > LNT_MAX_DECLINING ||
	    !burst || burst > LNT_MAX_BURST || cpu < 0)
		return -EINVAL;

	return lnt_roundtrip(name, rounds, handlers, burst, cpu);
}

static ssize_t lnt_panic_parse(char *buf)
{
	int cpu = -1, kind, ret;
	char name[16];

	if (sscanf(buf, "%15s %d", name, &cpu) < 1)
		return -EINVAL;

	kind = lnt_parse_kind(name);
	if (kind < 0)
		return kind;

	ret = lnt_claim(lnt_faults | BIT(kind));
	return ret ?: lnt_panic(kind, cpu);
}

static ssize_t lnt_offline_parse(char *buf)
{
	unsigned int nmis;
	int cpu;

	if (sscanf(buf, "%u %d", &nmis, &cpu) != 2 || !nmis)
		return -EINVAL;

	return lnt_offline(nmis, cpu);
}

static ssize_t lnt_backtrace_parse(char *buf)
{
	int cpu, ret;

	ret = kstrtoint(strim(buf), 0, &cpu);
	return ret ?: lnt_backtrace(cpu);
}

static ssize_t lnt_faults_parse(char *buf)
{
	unsigned long faults = 0;
	char *name;
	int ret;

	while ((name = strsep(&buf, " \t\n"))) {
		int kind;

		if (!*name)
			continue;
		kind = lnt_parse_kind(name);
		if (kind < 0)
			return kind;
		if (kind != lnt_nr_kinds)
			faults |= BIT(kind);
	}

	/* What is no longer needed is given up once no run begins with it. */
	ret = lnt_claim(lnt_faults | faults);
	if (ret)
		return ret;
	WRITE_ONCE(lnt_faults, faults);
	return lnt_claim(faults);
}

static ssize_t lnt_hold_ns_parse(char *buf)
{
	u64 hold_ns;
	int ret;

	ret = kstrtou64(strim(buf), 0, &hold_ns);
	if (ret)
		return ret;
	if (hold_ns > LNT_MAX_HOLD_NS)
		return -EINVAL;
	WRITE_ONCE(lnt_hold_ns, hold_ns);
	return 0;
}

/* Writers are not stopped: the counters go on, seen from a new base. */
static ssize_t lnt_reset_parse(char *buf)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		struct lnt_cpu *c = per_cpu_ptr(&lnt_cpu, cpu);
		struct lnt_base *base = per_cpu_ptr(&lnt_base, cpu);

		memcpy(base->stat, c->stat, sizeof(base->stat));
		memcpy(base->fault, c->fault, sizeof(base->fault));
		base->sent = atomic_long_read(&c->sent);
	}
	return 0;
}

static ssize_t lnt_write(const char __user *ubuf, size_t count, ssize_t (*parse)(char *buf))
{
	char *buf;
	ssize_t ret;

	if (count > PAGE_SIZE)
		return -E2BIG;

	buf = memdup_user_nul(ubuf, count);
	if (IS_ERR(buf))
		return PTR_ERR(buf);

	ret = mutex_lock_interruptible(&lnt_mutex);
	if (!ret) {
		ret = parse(buf);
		mutex_unlock(&lnt_mutex);
	}
	kfree(buf);
	return ret ?: count;
}

static void lnt_storm_show(struct seq_file *m)
{
	seq_puts(m, lnt_storm_result);
}

static void lnt_chase_show(struct seq_file *m)
{
	seq_puts(m, lnt_chase_result);
}

static void lnt_nested_show(struct seq_file *m)
{
	seq_puts(m, lnt_nested_result);
}

static void lnt_roundtrip_show(struct seq_file *m)
{
	seq_puts(m, lnt_roundtrip_result);
}

static void lnt_faults_show(struct seq_file *m)
{
	unsigned int i;

	if (!lnt_faults)
		seq_puts(m, "none");
	for_each_set_bit(i, &lnt_faults, lnt_nr_kinds)
		seq_printf(m, "%s ", lnt_kind_name(i));
	seq_putc(m, '\n');
}

static void lnt_hold_ns_show(struct seq_file *m)
{
	seq_printf(m, "%llu\n", lnt_hold_ns);
}

static void lnt_kinds_show(struct seq_file *m)
{
	unsigned int i;

	for (i = 0; i < lnt_nr_kinds; i++)
		seq_printf(m, "%-8s %s\n", lnt_kind_name(i), lnt_kind_text(i));
}

static unsigned long lnt_stat_value(unsigned int stat, unsigned int cpu)
{
	struct lnt_cpu *c = per_cpu_ptr(&lnt_cpu, cpu);
	struct lnt_base *base = per_cpu_ptr(&lnt_base, cpu);

	if (stat == LNT_SENT)
		return atomic_long_read(&c->sent) - base->sent;
	if (stat == LNT_UNSEEN)
		return atomic_long_read(&c->sent) - READ_ONCE(c->seen);
	return READ_ONCE(c->stat[stat]) - base->stat[stat];
}

static unsigned long lnt_fault_value(unsigned int kind, unsigned int cpu)
{
	return READ_ONCE(per_cpu(lnt_cpu, cpu).fault[kind]) - per_cpu(lnt_base, cpu).fault[kind];
}

static void lnt_counter_show(struct seq_file *m, const char *name,
			     unsigned long (*value)(unsigned int nr, unsigned int cpu),
			     unsigned int nr)
{
	unsigned long total = 0;
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		total += value(nr, cpu);
	seq_printf(m, "%s %lu", name, total);
	for_each_possible_cpu(cpu)
		seq_printf(m, " %lu", value(nr, cpu));
	seq_putc(m, '\n');
}

static void lnt_stats_show(struct seq_file *m)
{
	unsigned int i;

	for (i = 0; i < LNT_NR_STATS; i++)
		lnt_counter_show(m, lnt_stat_names[i], lnt_stat_value, i);
	for (i = 0; i < lnt_nr_kinds; i++)
		lnt_counter_show(m, lnt_kind_name(i), lnt_fault_value, i);
}

static void lnt_pt_regs_show(struct seq_file *m)
{
	seq_printf(m, "0x%lx\n", (unsigned long)task_pt_regs(current));
}

static void lnt_per_cpu_offset_show(struct seq_file *m)
{
	seq_printf(m, "0x%lx\n", per_cpu_offset(0));
}

/* A file is a function that parses what is written to it, one that shows it, or both. */
static const struct lnt_file {
	const char	*name;
	ssize_t		(*parse)(char *buf);
	void		(*show)(struct seq_file *m);
} lnt_files[] = {
	{ "faults",		lnt_faults_parse,	lnt_faults_show },
	{ "hold_ns",		lnt_hold_ns_parse,	lnt_hold_ns_show },
	{ "storm",		lnt_storm_parse,	lnt_storm_show },
	{ "chase",		lnt_chase_parse,	lnt_chase_show },
	{ "nested",		lnt_nested_parse,	lnt_nested_show },
	{ "roundtrip",		lnt_roundtrip_parse,	lnt_roundtrip_show },
	{ "backtrace",		lnt_backtrace_parse,	NULL },
	{ "panic",		lnt_panic_parse,	NULL },
	{ "offline",		lnt_offline_parse,	NULL },
	{ "reset",		lnt_reset_parse,	NULL },
	{ "kinds",		NULL,			lnt_kinds_show },
	{ "stats",		NULL,			lnt_stats_show },
	{ "pt_regs",		NULL,			lnt_pt_regs_show },
	{ "per_cpu_offset",	NULL,			lnt_per_cpu_offset_show },
};

static int lnt_seq_show(struct seq_file *m, void *unused)
{
	const struct lnt_file *f = m->private;

	if (!f->show)
		return 0;
	mutex_lock(&lnt_mutex);
	f->show(m);
	mutex_unlock(&lnt_mutex);
	return 0;
}

static int lnt_open(struct inode *inode, struct file *file)
{
	return single_open(file, lnt_seq_show, inode->i_private);
}

static ssize_t lnt_file_write(struct file *file, const char __user *ubuf, size_t count,
			      loff_t *ppos)
{
	const struct lnt_file *f = file_inode(file)->i_private;

	return f->parse ? lnt_write(ubuf, count, f->parse) : -EINVAL;
}

static const struct file_operations lnt_fops = {
	.owner		= THIS_MODULE,
	.open		= lnt_open,
	.read		= seq_read,
	.write		= lnt_file_write,
	.llseek		= seq_lseek,
	.release	= single_release,
};

static struct dentry *lnt_dir;

void lnt_files_init(void)
{
	unsigned int i;

	lnt_dir = debugfs_create_dir(LNT_NAME, NULL);
	for (i = 0; i < ARRAY_SIZE(lnt_files); i++)
		debugfs_create_file(lnt_files[i].name,
				    (lnt_files[i].parse ? 0200 : 0) |
				    (lnt_files[i].show ? 0400 : 0),
				    lnt_dir, (void *)&lnt_files[i], &lnt_fops);
	debugfs_create_x64("user_addr", 0600, lnt_dir, &lnt_user_addr);
	debugfs_create_bool("claim", 0600, lnt_dir, &lnt_claim_foreign);
}

void lnt_files_exit(void)
{
	debugfs_remove(lnt_dir);
}
