/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _BENCH_CYCLES_H
#define _BENCH_CYCLES_H

/* The entries, and what they call or jump to. */
extern char asm_exc_nmi[], asm_exc_nmi_latched[];

extern void *pcpu_hot, *cpu_current_top_of_stack, *pcpu_unit_offsets;

void handlers(void);
void swapgs_restore_regs_and_return_to_usermode(void);
void asm_exc_machine_check(void);
void asm_exc_debug(void);

#endif
