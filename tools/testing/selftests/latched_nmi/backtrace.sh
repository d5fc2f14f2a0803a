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
	logged | awk -v all="$*" '
		BEGIN { n = split(all, want, " "); i = 1 }
		i <= n && index($0, want[i]) { i++ }
		END { if (i <= n) print "# not found in this order: " want[i]; exit i <= n }'
}

sysrq_l()
{
	begin
	echo l >/proc/sysrq-trigger
	sleep 0.3
	logged | grep -E 'NMI backtrace for cpu' | sed 's/^/# /'
	[ "$(logged | grep -c 'NMI backtrace for cpu')" -ge "$(cpus)" ] &&
		lines "NMI_backtrace_for_cpu" 2>/dev/null || lines "backtrace" "RIP:"
}

# The CPU that spins in the kernel is asked by an NMI, and says where it was.
sysrq_l_kernel()
{
	spin kernel 0
	begin
	taskset 2 sh -c 'echo l >/proc/sysrq-trigger'
	sleep 0.3
	stop_spin
	logged | grep -E 'backtrace for cpu 0|RIP: 0010' | sed 's/^/# /'
	lines "backtrace for cpu 0" 2>/dev/null
	logged | sed -n '/backtrace for cpu 0/,$p' | grep -q 'ksys_read\|read_zero\|do_syscall_64'
}

# The module's handler prints its own stack.
from_kernel()
{
	spin kernel 0
	begin
	echo 0 >$debugfs/backtrace
	stop_spin
	logged | grep -E 'NMI>|TASK>|latched_nmi_test_handler|ksys_read' | sed 's/^/# /'
	lines "<NMI>" "latched_nmi_test_handler" "</NMI>" "<TASK>" "ksys_read" "</TASK>"
}

from_user()
{
	spin user 0
	begin
	echo 0 >$debugfs/backtrace
	stop_spin
	logged | grep -E 'NMI>|TASK>|latched_nmi_test_handler|RIP: 0033' | sed 's/^/# /'
	lines "latched_nmi_test_handler" "RIP: 0033"
}

no_guessing()
{
	# "?" is a frame that the unwinder has not reached. Between the markers all
	# must be reached.
	logged | sed -n '/<NMI>/,/<\/NMI>/p' | grep ' ? ' | sed 's/^/# /' >"$tmp"
	cat "$tmp"
	! [ -s "$tmp" ]
}

need_module
need_two_cpus
tmp=$(mktemp)
ktap_print_header
ktap_set_plan 5

ktap_test_result kernel-sysrq_l sysrq_l
ktap_test_result kernel-sysrq_l_function sysrq_l_kernel
ktap_test_result user-backtrace from_user
ktap_test_result kernel-backtrace from_kernel
ktap_test_result kernel-backtrace_reliable no_guessing

rm -f "$tmp"
ktap_finished
