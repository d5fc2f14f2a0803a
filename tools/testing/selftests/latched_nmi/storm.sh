#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# Storms of NMIs: a microsecond apart, in bursts, while the handler runs, and at
# its exit path. None may be lost, none may enter a running handler.

. "$(dirname "$0")/lib.sh"

# storm FAULTS HOLD_NS NMIS BURST GAP_NS
storm()
{
	local line

	echo "$1" >$debugfs/faults || return
	echo "$2" >$debugfs/hold_ns
	line=$(op storm "$3" "$4" "$5" 0)
	echo "# $line"
	echo none >$debugfs/faults
	echo 0 >$debugfs/hold_ns
	[ "$(field result "$line")" = pass ] &&
		[ "$(field sent "$line")" = "$3" ] &&
		[ "$(field runs "$line")" -gt 0 ]
}

on_zone()
{
	local zone=$1 result

	shift
	spin "$zone" 0
	storm "$@"
	result=$?
	stop_spin
	return $result
}

# NMIs that arrive while a handler with unmasked NMIs spins: the latch has to run.
# On the classic path, too, but there nothing counts it.
handler_storm()
{
	local nested

	nested=$(nmi_count nested)
	storm iret 200000 500 10 20000 || return
	[ "$(entry)" = latched ] || return 0
	nested=$(($(nmi_count nested) - nested))
	echo "# nested: $nested"
	[ "$nested" -gt 0 ]
}

# Few rounds hit an epilogue of a few instructions: some in ten thousand with a host
# thread for each vCPU, none if the vCPUs take turns on one.
chase()
{
	local before line round

	before=$(nmi_count restarted)
	echo iret >$debugfs/faults
	for round in 1 2 3 4 5; do
		line=$(op chase 4000 50000 0)
		echo "# round $round: $line"
		[ "$(field result "$line")" = pass ] || break
		restarted=$(($(nmi_count restarted) - ${before:-0}))
		[ $restarted = 0 ] || break
	done
	echo none >$debugfs/faults
	echo "# restarted: $restarted"
	[ "$(field result "$line")" = pass ]
}

# roundtrip FAULTS KIND HANDLERS BURST NMIS: 50 rounds, of NMIs each.
roundtrip()
{
	local line nested sent

	sent=$(stat sent)
	nested=$(nmi_count nested)
	echo "$1" >$debugfs/faults || return
	line=$(op roundtrip "$2" 50 "$3" "$4" 0)
	echo none >$debugfs/faults
	echo "# $line"
	sent=$(($(stat sent) - sent))
	nested=$(($(nmi_count nested) - ${nested:-0}))
	echo "# sent: $sent, nested: $nested"
	[ "$(field result "$line")" = pass ] && [ $sent = $((50 * $5)) ] &&
		[ "$(field min "$line")" -gt 0 ] &&
		[ "$(field median "$line")" -ge "$(field min "$line")" ] || return
	# All but the first of a burst.
	[ "$1" != iret ] || [ "$(entry)" = classic ] || [ $nested -ge $((50 * ($4 - 1))) ]
}

# Of the entry in use; the classic one has none.
counters()
{
	comment <$counters
	grep -qx "entry: $(entry)" $counters || return
	if [ "$(entry)" = latched ]; then
		[ -n "$(nmi_count nested)" ] && [ -n "$(nmi_count restarted)" ]
	else
		[ -z "$(nmi_count nested)" ]
	fi
}

tracepoint()
{
	local event=$tracefs/events/latched_nmi/latched_nmi_run nested

	echo >$tracefs/trace
	echo 1 >$event/enable
	nested=$(nmi_count nested)
	op nested page 20 0 >/dev/null
	nested=$(($(nmi_count nested) - nested))
	echo 0 >$event/enable
	grep latched_nmi_run $tracefs/trace | head -n 3 | comment
	runs=$(grep -c latched_nmi_run: $tracefs/trace)
	echo "# nested: $nested, traced: $runs"
	[ "$runs" -ge 20 ] && [ "$nested" -ge 20 ]
}

need_two_cpus
need_module
ktap_print_header
ktap_set_plan 15

all=$(kinds)

test_result kernel-nmi_storm on_zone kernel none 0 400 5 1000
test_result idle-nmi_storm storm none 0 10000 10 1000
test_result user-nmi_storm on_zone user none 0 400 5 1000
test_result kernel-nmi_storm_faults on_zone kernel "$all" 0 300 5 1000
test_result user-nmi_storm_faults on_zone user "$all" 0 300 5 1000
test_result handler-nmi_storm handler_storm

test_result roundtrip-self roundtrip none self 64 1 1
test_result roundtrip-ipi roundtrip none ipi 0 1 1
test_result roundtrip-sample roundtrip none sample 0 1 1
test_result roundtrip-all roundtrip none all 0 1 "$(cpus)"
test_result roundtrip-nested roundtrip iret self 0 8 8

restarted=0
if chase; then
	if [ $restarted -gt 0 ] || [ "$(entry)" = classic ]; then
		ktap_test_pass epilogue-nmi
	else
		test_skip epilogue-nmi "no NMI has hit the epilogue"
	fi
else
	ktap_test_fail epilogue-nmi
fi

if [ -e $counters ]; then
	test_result counters counters
else
	test_skip counters "no latched NMI entry in this kernel"
fi

if [ "$(entry)" = latched ]; then
	test_result handler-tracepoint tracepoint
else
	test_skip handler-tracepoint "the classic entry has no latch to trace"
fi

finish
