#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# Stack traces in NMI context: through the NMI's stack to the interrupted code.

. "$(dirname "$0")/lib.sh"

mark=0

# What the kernel logs from here on.
begin()
{
	mark=$((mark + 1))
	mark_line="latched_nmi backtrace.sh: mark $mark of $$"
	echo "$mark_line" >/dev/kmsg
}

logged()
{
	dmesg | sed -n "/$mark_line/,\$p"
}

# lines FIRST NEXT...: these follow each other in the log, with others in between.
lines()
{
	local all="" word

	for word; do
		all="$all$word~"
	done
	logged | awk -v all="$all" '
		BEGIN { n = split(all, want, "~") - 1; i = 1 }
		i <= n && index($0, want[i]) { i++ }
		END { if (i <= n) print "# missing: " want[i]; exit i <= n }'
}

sysrq_l()
{
	begin
	echo l >/proc/sysrq-trigger
	sleep 0.3
	logged | grep -E 'NMI backtrace for cpu' | comment
	[ "$(logged | grep -c "NMI backtrace for cpu")" -ge "$(cpus)" ]
}

# The CPU that spins in the kernel is asked by an NMI, and says where it was.
sysrq_l_kernel()
{
	spin kernel 0
	begin
	taskset 2 sh -c 'echo l >/proc/sysrq-trigger'
	sleep 0.3
	stop_spin
	logged | grep -E 'backtrace for cpu 0|RIP: 0010' | comment
	lines "NMI backtrace for cpu 0" "RIP: 0010:" "<TASK>" "entry_SYSCALL_64" "</TASK>"
}

# The module's handler prints its own stack.
from_kernel()
{
	spin kernel 0
	begin
	echo 0 >$debugfs/backtrace
	stop_spin
	logged | grep -E 'NMI>|TASK>|lnt_handler|entry_SYSCALL_64|RIP:' | comment
	lines "<NMI>" "lnt_handler" "RIP: 0010:" "</NMI>" "<TASK>" \
		"entry_SYSCALL_64" "RIP: 0033:" "</TASK>"
}

from_user()
{
	spin user 0
	begin
	echo 0 >$debugfs/backtrace
	stop_spin
	logged | grep -E 'NMI>|TASK>|lnt_handler|RIP: 0033' | comment
	! logged | grep -q "<NMI>" && lines "lnt_handler" "RIP: 0033:"
}

need_two_cpus
need_module
ktap_print_header
ktap_set_plan 5

test_result kernel-sysrq_l sysrq_l
test_result kernel-sysrq_l_function retry sysrq_l_kernel
test_result user-backtrace retry from_user
test_result kernel-backtrace retry from_kernel

finish
