/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /init of the injector's guest: no libc, no files. It stops at ready; the
 * injector then sends it to one of the load_* loops by writing RIP.
 */

#define SYS_rt_sigaction	13
#define SYS_madvise		28
#define SYS_pause		34
#define SYS_getppid		110
#define SYS_modify_ldt		154
#define SYS_arch_prctl		158
#define SYS_finit_module	313
#define SYS_open		2
#define SYS32_getppid		64
#define ARCH_SET_GS		0x1001
#define ARCH_SET_FS		0x1002
#define MADV_DONTNEED		4
#define SIGTRAP			5
#define SA_RESTORER		0x04000000

#define USER32_CS		0x23
#define USER_DS			0x2b
#define LDT_SS			7

	.text
	.globl	_start, ready
_start:
ready:
	jmp	ready

/* A value of its own in every register that a spinning load can spare. */
.macro FILL_REGS
	movq	$0x1111111111111111, %rax
	movq	$0x2222222222222222, %rbx
	movq	$0x3333333333333333, %rcx
	movq	$0x4444444444444444, %rdx
	movq	$0x5555555555555555, %rsi
	movq	$0x6666666666666666, %rdi
	movq	$0x7777777777777777, %rbp
	movq	$0x8888888888888888, %r8
	movq	$0x9999999999999999, %r9
	movq	$0xaaaaaaaaaaaaaaaa, %r10
	movq	$0xbbbbbbbbbbbbbbbb, %r11
	movq	$0xcccccccccccccccc, %r12
	movq	$0xdddddddddddddddd, %r13
	movq	$0xeeeeeeeeeeeeeeee, %r14
	movq	$0xf0f0f0f0f0f0f0f0, %r15
.endm

.macro SET_BASES
	movl	$SYS_arch_prctl, %eax
	movl	$ARCH_SET_FS, %edi
	leaq	fs_area(%rip), %rsi
	syscall
	movl	$SYS_arch_prctl, %eax
	movl	$ARCH_SET_GS, %edi
	leaq	gs_area(%rip), %rsi
	syscall
.endm

	.globl	load_user, user_spin
load_user:
	SET_BASES
	leaq	stack_top(%rip), %rsp
	/* CF PF AF SF DF OF AC ID */
	pushq	$0x240e97
	popfq
	movq	$0x123456789abcdef, %rax
	movq	%rax, %xmm0
	movq	%rax, %xmm15
	FILL_REGS
user_spin:
	jmp	user_spin

	.globl	load_syscall, syscall_insn
load_syscall:
	SET_BASES
	leaq	stack_top(%rip), %rsp
	FILL_REGS
1:	incq	%r12
	movl	$SYS_getppid, %eax
syscall_insn:
	syscall
	jmp	1b

	.globl	load_idle
load_idle:
	movl	$SYS_pause, %eax
	syscall
	jmp	load_idle

	.globl	load_pf
load_pf:
	leaq	stack_top(%rip), %rsp
	FILL_REGS
	leaq	page(%rip), %rdi
1:	incq	%r12
	movl	$SYS_madvise, %eax
	movl	$4096, %esi
	movl	$MADV_DONTNEED, %edx
	syscall
	movb	$1, (%rdi)
	jmp	1b

.macro CATCH_SIGTRAP
	movl	$SYS_rt_sigaction, %eax
	movl	$SIGTRAP, %edi
	leaq	sigaction(%rip), %rsi
	xorl	%edx, %edx
	movl	$8, %r10d
	syscall
.endm

	.globl	load_bp, load_db
load_bp:
	leaq	stack_top(%rip), %rsp
	CATCH_SIGTRAP
	FILL_REGS
1:	incq	%r12
	int3
	jmp	1b

load_db:
	leaq	stack_top(%rip), %rsp
	CATCH_SIGTRAP
	FILL_REGS
1:	incq	%r12
	pushfq
	orl	$0x100, (%rsp)
	popfq
	nop
	jmp	1b

handler:
	ret
restorer:
	movl	$15, %eax
	syscall

/* SS from the LDT, 16 bits wide: every return to here takes the ESPFIX way. */
	.globl	load_espfix, espfix_spin
load_espfix:
	movl	$SYS_modify_ldt, %eax
	movl	$0x11, %edi
	leaq	ldt_entry(%rip), %rsi
	movl	$16, %edx
	syscall
	FILL_REGS
	leaq	stack_top(%rip), %rsp
	pushq	%rax
	movl	$LDT_SS, %eax
	movl	%eax, %ss
	popq	%rax
espfix_spin:
	jmp	espfix_spin

/* A far jump: QEMU 7.2 applies SMAP to far returns within user mode. */
.macro TO_COMPAT
	leaq	stack_top(%rip), %rsp
	FILL_REGS
	ljmp	*1f(%rip)
1:	.long	2f
	.word	USER32_CS
	.code32
2:	movl	$USER_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
.endm

	.globl	load_compat, compat_spin
load_compat:
	SET_BASES
	TO_COMPAT
	movl	$0x11111111, %eax
compat_spin:
	jmp	compat_spin
	.code64

/*
 * The entries of 32-bit system calls. SYSENTER and SYSCALL return to the 32-bit
 * vDSO, which this process does not have: they are of use up to there.
 */
	.globl	load_sysenter, load_sysenter_tf, load_syscall32, load_int80
load_sysenter:
	SET_BASES
	TO_COMPAT
	movl	%esp, %ebp
	movl	$SYS32_getppid, %eax
	sysenter
	.code64

/* With TF: #DB at each instruction of the entry. */
load_sysenter_tf:
	SET_BASES
	TO_COMPAT
	movl	%esp, %ebp
	pushfl
	orl	$0x100, (%esp)
	movl	$SYS32_getppid, %eax
	popfl
	sysenter
	.code64

load_syscall32:
	SET_BASES
	TO_COMPAT
	movl	$SYS32_getppid, %eax
	syscall
	.code64

load_int80:
	SET_BASES
	TO_COMPAT
1:	movl	$SYS32_getppid, %eax
	int	$0x80
	jmp	1b
	.code64

	.globl	load_module
load_module:
	movl	$SYS_open, %eax
	leaq	module(%rip), %rdi
	xorl	%esi, %esi
	xorl	%edx, %edx
	syscall
	movl	%eax, %edi
	movl	$SYS_finit_module, %eax
	leaq	empty(%rip), %rsi
	xorl	%edx, %edx
	syscall
module_ready:
	jmp	module_ready
	.globl	module_ready

	.section .rodata
module:	.asciz	"/module.ko"
empty:	.asciz	""
	.balign	8
sigaction:
	.quad	handler
	.quad	SA_RESTORER
	.quad	restorer
	.quad	0

	.data
	.balign	8
ldt_entry:
	.long	0, 0, 0xfffff
	/* seg_32bit=0 contents=data, writable, limit in pages, present, useable */
	.long	(1 << 4) | (1 << 6)

	.bss
	.balign	4096
page:	.skip	4096
fs_area:
	.skip	256
gs_area:
	.skip	256
	.skip	8192
stack_top:
	.skip	64

	.section .note.GNU-stack, "", @progbits
