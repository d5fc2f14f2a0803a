#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# usage: run_tests.sh [TEST...]
#
# Runs the tests of NMI handling in this kernel, all by default, and prints one
# KTAP stream: one subtest for each program, whose tests are nested in it. Loads
# the module latched_nmi_test if it is not there: from LATCHED_NMI_TEST_MODULE, or
# wherever it finds it. Exits with 0 if nothing has failed.

cd "$(dirname "$0")" || exit 1

# Seconds after which a test hangs.
limit=120

all="boot.sh user_nmi nested.sh storm.sh perf.sh backtrace.sh watchpoint lifecycle.sh log.sh"
tests=${*:-$all}

for fs in debugfs:/sys/kernel/debug tracefs:/sys/kernel/tracing; do
	grep -q " ${fs#*:} " /proc/mounts || mount -t "${fs%%:*}" none "${fs#*:}"
done

find_module()
{
	local file

	for file in "$LATCHED_NMI_TEST_MODULE" ./latched_nmi_test.ko \
		    test_modules/latched_nmi_test.ko /modules/latched_nmi_test.ko \
		    "$(modinfo -n latched_nmi_test 2>/dev/null)"; do
		[ -f "$file" ] && realpath "$file" && return
	done
}

LATCHED_NMI_TEST_MODULE=$(find_module)
export LATCHED_NMI_TEST_MODULE

if [ ! -d /sys/kernel/debug/latched_nmi_test ] && [ -n "$LATCHED_NMI_TEST_MODULE" ]; then
	insmod "$LATCHED_NMI_TEST_MODULE"
fi

out=$(mktemp)
nr=0
pass=0
fail=0
skip=0
error=0

# count PATTERN
count()
{
	grep -cE "$1" "$out"
}

echo "KTAP version 1"
# shellcheck disable=SC2086
echo "1..$(echo $tests | wc -w)"
for test in $tests; do
	nr=$((nr + 1))
	start=$(date +%s)
	timeout -k 5 $limit "./$test" >"$out" 2>&1
	status=$?

	sed 's/^TAP version 13/KTAP version 1/; s/^/  /' "$out"
	pass=$((pass + $(grep -E '^ok' "$out" | grep -vc '# SKIP')))
	skip=$((skip + $(count '^ok .*# SKIP|^1\.\.0 # SKIP')))
	fail=$((fail + $(count '^not ok')))
	planned=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$out")
	done=$(count '^(not )?ok')

	echo "  # $test: $(($(date +%s) - start)) s"
	if grep -q '^1\.\.0 # SKIP' "$out"; then
		echo "ok $nr $test # SKIP $(sed -n 's/^1\.\.0 # SKIP *//p' "$out")"
	elif [ $status = 0 ] && [ "$planned" = "$done" ]; then
		echo "ok $nr $test"
	else
		case $status in
		124 | 137 | 143)
			echo "  # $test: still running after $limit s"
			error=$((error + 1)) ;;
		*)
			[ "$planned" = "$done" ] || error=$((error + 1)) ;;
		esac
		echo "not ok $nr $test"
	fi
done
rm -f "$out"

echo "# Totals: pass:$pass fail:$fail xfail:0 xpass:0 skip:$skip error:$error"
[ $fail = 0 ] && [ $error = 0 ]
