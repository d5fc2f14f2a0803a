/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For entry code that is assembled into a program: what is privileged, or belongs to
 * the kernel's own tools, is nothing; the rest comes from the kernel's calling.h.
 */
#define CONFIG_X86_LATCHED_NMI	1
#define CONFIG_X86_MCE		1
#define CONFIG_X86_64		1

#define SYM_CODE_START(name)	.globl name; name:
#define SYM_CODE_END(name)
#define SYM_FUNC_START(name)	.globl name; name:
#define SYM_FUNC_END(name)
#define SYM_INNER_LABEL(name, linkage) .globl name; name:
#define SYM_L_GLOBAL

#define ENDBR			endbr64
#define RET			ret
#define ASM_CLAC
#define ANNOTATE_NOENDBR
#define UNTRAIN_RET
#define UNTRAIN_RET_FROM_CALL
#define PER_CPU_VAR(var)	var

/* Selectors of user mode: IRETQ to the same privilege takes no other. */
#define __KERNEL_CS		0x33
#define __KERNEL_DS		0x2b
#define X86_EFLAGS_DF		0x400
#define MSR_GS_BASE		0xc0000101
#define PAGE_SIZE		4096
#define EXCEPTION_STKSZ		(2 * PAGE_SIZE)
#define X86_top_of_stack	0

/* struct pt_regs */
#define R15		0
#define R14		8
#define R13		16
#define R12		24
#define RBP		32
#define RBX		40
#define R11		48
#define R10		56
#define R9		64
#define R8		72
#define RAX		80
#define RCX		88
#define RDX		96
#define RSI		104
#define RDI		112
#define ORIG_RAX	120
#define RIP		128
#define CS		136
#define EFLAGS		144
#define RSP		152
#define SS		160

#define X86_FEATURE_FSGSBASE	X86_FEATURE_FSGSBASE_IS_THERE

	.macro UNWIND_HINT_IRET_ENTRY
	.endm
	.macro UNWIND_HINT_IRET_REGS base, offset
	.endm
	.macro UNWIND_HINT_REGS
	.endm
	.macro UNWIND_HINT_FUNC
	.endm
	.macro UNWIND_HINT_END_OF_STACK
	.endm
	.macro ENCODE_FRAME_POINTER args:vararg
	.endm
	.macro HANDLE_INTR_SAFERET args:vararg
	.endm
	.macro swapgs
	.endm
	.macro rdgsbase reg
	.endm
	.macro wrgsbase reg
	.endm
	.macro rdmsr
	.endm
/* Of alternatives FSGSBASE's is taken; no other feature's. */
	.macro ALTERNATIVE oldinstr, newinstr, feature
	.ifc \feature, X86_FEATURE_FSGSBASE_IS_THERE
	\newinstr
	.else
	\oldinstr
	.endif
	.endm
	.macro ALTERNATIVE_2 oldinstr, args:vararg
	\oldinstr
	.endm
