# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034
#
# KTAP for test scripts: the names of the file that later kernels have in this
# place, as far as the tests of the latched NMI entry use them.

KSFT_PASS=0
KSFT_FAIL=1
KSFT_SKIP=4

KTAP_TESTNO=1
KTAP_CNT_PASS=0
KTAP_CNT_FAIL=0
KTAP_CNT_SKIP=0
KSFT_NUM_TESTS=0

ktap_print_header()
{
	echo "TAP version 13"
}

# ktap_set_plan NUMBER
ktap_set_plan()
{
	KSFT_NUM_TESTS=$1
	echo "1..$1"
}

# ktap_skip_all REASON
ktap_skip_all()
{
	echo "1..0 # SKIP $*"
}

# __ktap_test RESULT NAME [DIRECTIVE]
__ktap_test()
{
	echo "$1 $KTAP_TESTNO $2${3:+ # $3}"
	KTAP_TESTNO=$((KTAP_TESTNO + 1))
}

ktap_test_pass()
{
	__ktap_test ok "$1"
	KTAP_CNT_PASS=$((KTAP_CNT_PASS + 1))
}

ktap_test_fail()
{
	__ktap_test "not ok" "$1"
	KTAP_CNT_FAIL=$((KTAP_CNT_FAIL + 1))
}

ktap_print_totals()
{
	printf '# Totals: pass:%d fail:%d xfail:0 xpass:0 skip:%d error:0\n' \
		"$KTAP_CNT_PASS" "$KTAP_CNT_FAIL" "$KTAP_CNT_SKIP"
}

ktap_exit_fail_msg()
{
	echo "Bail out! $*"
	ktap_print_totals
	exit $KSFT_FAIL
}

ktap_finished()
{
	ktap_print_totals
	[ $((KTAP_CNT_PASS + KTAP_CNT_SKIP)) = "$KSFT_NUM_TESTS" ] || exit $KSFT_FAIL
	exit $KSFT_PASS
}
