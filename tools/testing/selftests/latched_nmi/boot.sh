#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# What the kernel has said at boot: who serves NMIs, and its own tests of them.

. "$(dirname "$0")/lib.sh"

log=$(mktemp)
dmesg >"$log"

words=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^nmi_entry=//p')
known=$(echo "$words" | grep -x -e latched -e classic | tail -n 1)
unknown=$(echo "$words" | grep -v -x -e latched -e classic -e '')

# A kernel without the entry points, or with fred=off, does not use what the CPU has.
fred_is_on()
{
	grep -q '^flags.* fred\( \|$\)' /proc/cpuinfo &&
		grep -q ' asm_fred_entrypoint_kernel$' /proc/kallsyms
}

# With FRED neither entry is in use, whatever the command line wants.
server=${known:-latched}
! fred_is_on || server=FRED

entry_line()
{
	grep "NMI entry:" "$log" | comment
	grep -q "NMI entry: ${server}[;,]" "$log"
}

unknown_warned()
{
	local word

	for word in $unknown; do
		grep "nmi_entry=$word: unknown" "$log" | comment
		grep -q "nmi_entry=$word: unknown" "$log" || return
	done
}

nmi_selftest()
{
	sed -n '/NMI testsuite/,/---$/p' "$log" | grep -E 'ok|FAIL|TIMEOUT|ERROR' | comment
	grep -q 'Good, all .* testcases passed' "$log"
}

# The lines of the suite, to the one that closes it.
kunit_suite()
{
	sed -n "/KTAP version 1/,\$p" "$log" | sed 's/^\[[^]]*\] *//' |
		grep -E "^(not )?ok .*[ :]$1( |\$)|^# $1: "
}

# What failed in it is told further up in the log, in lines of its own.
kunit_passed()
{
	kunit_suite "$1" | comment
	kunit_suite "$1" | grep -q '^ok' || {
		sed -n "s/^\[[^]]*\] *//; /Subtest: $1\$/,/^not ok .* $1\$/p" "$log" |
			grep -v '^ok' | comment
		return 1
	}
}

# kunit SUITE OPTION: the suite that OPTION builds into the kernel.
kunit()
{
	if grep -q "Subtest: $1\$" "$log"; then
		test_result "boot-${1%_test}_kunit" kunit_passed "$1"
	else
		test_skip "boot-${1%_test}_kunit" "no CONFIG_$2 or no kunit.enable=1"
	fi
}

ktap_print_header
ktap_set_plan 5

if ! grep -q "NMI entry:" "$log" && [ -z "$words" ]; then
	test_skip boot-entry_line "no latched NMI entry in this kernel"
else
	test_result boot-entry_line entry_line
fi

if [ -n "$unknown" ]; then
	test_result boot-unknown_entry unknown_warned
else
	test_skip boot-unknown_entry "no unknown nmi_entry= on the command line"
fi

if grep -q 'NMI testsuite' "$log"; then
	test_result boot-nmi_selftest nmi_selftest
else
	test_skip boot-nmi_selftest "no CONFIG_DEBUG_NMI_SELFTEST"
fi

kunit kprobes_test KPROBES_SANITY_TEST
kunit latched_nmi X86_LATCHED_NMI_KUNIT_TEST

rm -f "$log"
ktap_finished
