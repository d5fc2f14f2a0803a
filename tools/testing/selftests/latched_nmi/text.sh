#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# The kernel patches its text while NMIs come whose handlers take all faults:
# kprobes, the function tracers, static keys.

. "$(dirname "$0")/lib.sh"

# NMIs that have to come during each test.
least=50
# NMIs per second and CPU. Each takes all faults, through kprobes and tracers: where
# they come faster than an emulator serves them, nothing else gets done.
rate=200

# Left behind if the script is stopped for its time.
undo()
{
	[ -z "$recorder" ] || kill "$recorder" 2>/dev/null
	echo none >$debugfs/faults
	echo nop >$tracefs/current_tracer
	echo >$tracefs/set_ftrace_filter
	echo 0 >$tracefs/events/enable
	echo >$tracefs/kprobe_events
}
recorder=

# under_nmis COMMAND ARGS...: with each CPU sampled by the test PMU.
under_nmis()
{
	local before status

	kinds | xargs >$debugfs/faults
	before=$(stat samples)
	perf record -q -B -N -o /dev/null -e latched_nmi_test/ipi/ -F $rate -a -- sleep 60 \
		>/dev/null 2>&1 &
	recorder=$!
	while [ "$(stat samples)" = "$before" ] && kill -0 $recorder 2>/dev/null; do
		sleep 0.1
	done
	"$@"
	status=$?
	sleep 0.3
	kill $recorder
	wait $recorder 2>/dev/null
	recorder=
	echo none >$debugfs/faults
	before=$(($(stat samples) - before))
	echo "# $before samples"
	[ $status = 0 ] && [ $before -ge $least ]
}

# traced PATTERN: the trace has lines like this.
traced()
{
	local lines

	lines=$(grep -c "$1" $tracefs/trace)
	echo "# $lines lines of the trace with $1"
	[ "$lines" -gt 0 ]
}

kprobe()
{
	local event=$tracefs/events/kprobes/latched_nmi_text

	echo >$tracefs/trace
	echo "p:latched_nmi_text lnt_overflow" >$tracefs/kprobe_events || return
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		echo 1 >$event/enable && sleep 0.1 && echo 0 >$event/enable || return
	done
	op storm 100 >/dev/null
	traced latched_nmi_text:
	set -- $?
	echo >$tracefs/kprobe_events
	return "$1"
}

# tracer NAME
tracer()
{
	echo >$tracefs/trace
	echo ':mod:latched_nmi_test' >$tracefs/set_ftrace_filter
	for _ in 1 2 3 4 5; do
		echo "$1" >$tracefs/current_tracer || return
		sleep 0.1
		traced lnt_ >/dev/null && traced=$(traced lnt_)
		echo nop >$tracefs/current_tracer || return
	done
	echo >$tracefs/set_ftrace_filter
	echo "$traced"
	[ -n "$traced" ]
}

static_keys()
{
	echo >$tracefs/trace
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		for value in 1 0; do
			echo $value >$tracefs/events/nmi/enable || return
			echo $value >$tracefs/events/irq_vectors/enable || return
			sleep 0.05
		done
	done
	traced nmi_handler:
}

perf --version >/dev/null 2>&1 || skip_all "no perf here"
need_two_cpus
need_module
ktap_print_header
ktap_set_plan 5

test_result text-kprobe under_nmis kprobe
for name in function function_graph; do
	traced=
	if grep -qw $name $tracefs/available_tracers; then
		test_result text-$name under_nmis tracer $name
	else
		test_skip text-$name "no tracer $name in this kernel"
	fi
done
test_result text-static_keys under_nmis static_keys

finish
