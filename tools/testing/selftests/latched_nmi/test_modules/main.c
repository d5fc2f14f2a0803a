// SPDX-License-Identifier: GPL-2.0
/* latched_nmi_test: the module. */
#include <linux/module.h>
#include <linux/smp.h>

#include <asm/cpufeature.h>

#include "lnt.h"

/* See lnt.h. */
DEFINE_MUTEX(lnt_mutex);

static int __init lnt_init(void)
{
	int ret;

	if (!boot_cpu_has(X86_FEATURE_APIC))
		return -ENODEV;

	ret = lnt_fault_init();
	if (ret)
		return ret;
	ret = lnt_handler_init();
	if (ret)
		goto fault_exit;
	ret = lnt_pmu_init();
	if (ret)
		goto handler_exit;
	lnt_files_init();
	return 0;

handler_exit:
	lnt_handler_exit();
fault_exit:
	lnt_fault_exit();
	return ret;
}
module_init(lnt_init);

/*
 * In this order: nobody sends NMIs any more; all that were sent have been handled,
 * as a CPU serves a pending NMI before the function call; nobody handles them.
 */
static void __exit lnt_exit(void)
{
	lnt_files_exit();
	lnt_pmu_exit();
	kick_all_cpus_sync();
	lnt_handler_exit();
	lnt_fault_exit();
}
module_exit(lnt_exit);

MODULE_DESCRIPTION("Test PMU and fault triggers for the x86-64 NMI entry");
MODULE_LICENSE("GPL");
