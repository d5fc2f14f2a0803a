/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /init of the injector's guest: no libc, no files. It stops at ready; the
 * injector then sends it to one of the load_* loops by writing RIP.
 */

#define SYS_rt_sigaction	13
#define SYS_write		1
#define SYS_madvise		28
#define SYS_pause		34
#define SYS_getppid		110
#define SYS_modify_ldt		154
#define SYS_arch_prctl		158
#define SYS_perf_event_open	298
#define SYS_finit_module	313
#define SYS_open		2
#define SYS_mount		165
#define O_WRONLY		1
#define SYS32_getppid		64
#define ARCH_SET_GS		0x1001
#define ARCH_SET_FS		0x1002
#define ARCH_GET_FS		0x1003
#define PERF_TYPE_BREAKPOINT	5
#define HW_BREAKPOINT_W		2
#define MADV_DONTNEED		4
#define SIGTRAP			5
#define SA_RESTORER		0x04000000
/* In struct ucontext. */
#define UC_RIP			168
#define UC_EFLAGS		176

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

/* One system call without detours. */
	.globl	load_gap, gap_insn
load_gap:
	leaq	stack_top(%rip), %rsp
	movl	$SYS_getppid, %eax
gap_insn:
	syscall
	jmp	load_gap

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

.macro CATCH_SIGTRAP action=sigaction
	movl	$SYS_rt_sigaction, %eax
	movl	$SIGTRAP, %edi
	leaq	\action(%rip), %rsi
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

/* With TF to where RAX says: #DB comes before the fetch there fails. */
	.globl	load_far, far_begin
load_far:
	leaq	stack_top(%rip), %rsp
	CATCH_SIGTRAP sigaction_far
	FILL_REGS
	/* One signal before, so that its pages are there. */
	pushfq
	orl	$0x100, (%rsp)
	popfq
	nop
far_begin:
	pushfq
	orl	$0x100, (%rsp)
	popfq
	jmp	*%rax

/* Back to far_begin, without TF. */
handler_far:
	leaq	far_begin(%rip), %rax
	movq	%rax, UC_RIP(%rdx)
	andl	$~0x100, UC_EFLAGS(%rdx)
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
	.globl	syscall32_insn
syscall32_insn:
	syscall
	.code64

load_int80:
	SET_BASES
	TO_COMPAT
1:	movl	$SYS32_getppid, %eax
	int	$0x80
	jmp	1b
	.code64

/*
 * CPU 1 goes offline, and online again when the host has set "go". RAX says what
 * became of it. In between and afterwards there are system calls to stop at.
 */
	.globl	load_offline, offline_done, online_done, go
load_offline:
	leaq	stack_top(%rip), %rsp
	movl	$SYS_mount, %eax
	leaq	sysfs(%rip), %rdi
	leaq	sys(%rip), %rsi
	movq	%rdi, %rdx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	syscall
	movl	$SYS_open, %eax
	leaq	online(%rip), %rdi
	movl	$O_WRONLY, %esi
	syscall
	movl	%eax, %ebx
	leaq	zero(%rip), %rsi
	call	write_digit
offline_done:
	movl	$SYS_getppid, %eax
	syscall
	cmpb	$0, go(%rip)
	je	offline_done
	leaq	one(%rip), %rsi
	call	write_digit
online_done:
1:	movl	$SYS_getppid, %eax
	syscall
	jmp	1b

write_digit:
	movl	$SYS_write, %eax
	movl	%ebx, %edi
	movl	$1, %edx
	syscall
	ret

/*
 * For the sweep of watchpoints. The first one is on what the host wants; RAX says
 * what became of it. The second one is on a word of this program, for a #DB from user
 * mode and one from kernel mode.
 */
	.globl	load_watch, watch_ready
load_watch:
	leaq	stack_top(%rip), %rsp
	leaq	watch_own(%rip), %rdi
	call	watch
	leaq	watch_attr(%rip), %rdi
	call	watch
watch_ready:
	jmp	watch_ready

watch:
	movl	$SYS_perf_event_open, %eax
	movq	$-1, %rsi		/* every task ... */
	xorl	%edx, %edx		/* ... of CPU 0 */
	movq	$-1, %r10
	xorl	%r8d, %r8d
	syscall
	ret

	.globl	load_watch_user, watch_user_end
load_watch_user:
	FILL_REGS
1:	movq	%rax, watched(%rip)
watch_user_end:
	jmp	1b

	.globl	load_watch_kernel, watch_kernel_end
load_watch_kernel:
	leaq	stack_top(%rip), %rsp
	FILL_REGS
1:	movl	$SYS_arch_prctl, %eax
	movl	$ARCH_GET_FS, %edi
	leaq	watched(%rip), %rsi
	syscall
watch_kernel_end:
	jmp	1b

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
sys:	.asciz	"/sys"
sysfs:	.asciz	"sysfs"
online:	.asciz	"/sys/devices/system/cpu/cpu1/online"
zero:	.ascii	"0"
one:	.ascii	"1"
	.balign	8
sigaction:
	.quad	handler
	.quad	SA_RESTORER
	.quad	restorer
	.quad	0
sigaction_far:
	.quad	handler_far
	.quad	SA_RESTORER
	.quad	restorer
	.quad	0

	.data
	.balign	8
ldt_entry:
	.long	0, 0, 0xfffff
	/* seg_32bit=0 contents=data, writable, limit in pages, present, useable */
	.long	(1 << 4) | (1 << 6)

/* struct perf_event_attr: a breakpoint of eight bytes. */
.macro ATTR type addr
	.long	PERF_TYPE_BREAKPOINT, 72
	.skip	44
	.long	\type
	.quad	\addr, 8
.endm

	.globl	watch_attr
watch_attr:
	ATTR	0, 0
watch_own:
	ATTR	HW_BREAKPOINT_W, watched
watched:
	.quad	0
go:	.byte	0

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
