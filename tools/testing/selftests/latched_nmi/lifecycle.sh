#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# CPUs and the module come and go while NMIs arrive.

. "$(dirname "$0")/lib.sh"

online=/sys/devices/system/cpu/cpu1/online

record_start()
{
	local before i

	before=$(stat samples)
	perf record -q -B -N -o /dev/null -e latched_nmi_test/ipi/ -c "$1" -a -- sleep 60 \
		>/dev/null 2>&1 &
	recorder=$!
	for i in $(seq 100); do
		[ "$(stat samples)" -gt $((before + 50)) ] && return
		sleep 0.1
	done
	echo "# perf takes no samples"
	return 1
}

record_stop()
{
	kill "$recorder"
	wait "$recorder" 2>/dev/null
}

# CPU 1 leaves while it samples itself and sends to CPU 0.
hotplug()
{
	local i status=0

	record_start 200000 || return
	for i in 1 2 3; do
		echo 0 >$online || status=1
		[ "$(cat $online)" = 0 ] || status=1
		echo "100 1" >$debugfs/offline || status=1
		echo "1 1 0 1" 2>/dev/null >$debugfs/storm && status=1
		echo 1 >$online || status=1
		[ "$(cat $online)" = 1 ] || status=1
	done
	record_stop
	[ $status = 0 ] || return

	for i in 0 1; do
		set -- "$(op storm 200 1 1000 $i)"
		echo "# CPU $i: $1"
		[ "$(field result "$1")" = pass ] || status=1
	done
	return $status
}

reload()
{
	local i

	for i in 1 2 3; do
		record_start 100000 || return
		echo "500 10 1000" >$debugfs/storm
		# In use: it has to refuse.
		! rmmod latched_nmi_test 2>/dev/null || return
		record_stop
		rmmod latched_nmi_test || return
		insmod "$module" || return
		[ "$(field result "$(op storm 100)")" = pass ] || return
	done
}

need_two_cpus
need_module
ktap_print_header
ktap_set_plan 3

if ! perf --version >/dev/null 2>&1; then
	test_skip offline-nmi "no perf here"
	test_skip module-reload "no perf here"
else
	if [ -e $online ]; then
		test_result offline-nmi hotplug
	else
		test_skip offline-nmi "CPU 1 cannot go offline"
	fi
	if [ -f "$module" ]; then
		test_result module-reload reload
	else
		test_skip module-reload "there is no $module to load again"
	fi
fi

finish
