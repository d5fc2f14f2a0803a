#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# The kernel has nothing to complain about. Runs last.

. "$(dirname "$0")/lib.sh"

log=$(mktemp)
dmesg >"$log"

# absent PATTERN: nothing in the log matches. Advice about the CPU model is called a
# WARNING too.
absent()
{
	! grep -v admin-guide/hw-vuln "$log" | grep -E -A 3 "$1" | comment | grep .
}

# The log is only complete if its first line is still there.
complete()
{
	grep -q 'Linux version' "$log"
}

ktap_print_header
ktap_set_plan 5

test_result log-complete complete
test_result log-warn absent 'WARNING: |BUG: |BUG |Oops|general protection|cut here'
test_result log-lockdep absent \
	'possible (circular|recursive|irq|deadlock)|inconsistent lock|suspicious RCU|DEBUG_LOCKS_WARN|turning off the locking'
test_result log-stall absent 'rcu: INFO|self-detected stall|soft lockup|hard LOCKUP|blocked for more'
test_result log-unwind absent 'unwind stack type|stack guard page|bad frame|missing regs|Unknown NMI|Dazed'

rm -f "$log"
ktap_finished
