#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# The kernel patches its text while NMIs come whose handlers take all faults:
# kprobes, the function tracers, static keys.

. "$(dirname "$0")/lib.sh"

# NMIs that have to come during each test.
least=50

# Each NMI waits for the one before, and between bursts the CPU is left alone: on a
# machine on which a handler takes long, NMIs from a timer would leave no time for
# anything else.
storms()
{
	while :; do
		op storm 20 1 0 0 >/dev/null
		op storm 20 1 0 1 >/dev/null
		sleep 0.02
	done
}

# Left behind if the script is stopped for its time.
undo()
{
	[ -z "$storms" ] || kill "$storms"
	echo none >$debugfs/faults
	echo nop >$tracefs/current_tracer
	echo >$tracefs/set_ftrace_filter
	echo 0 >$tracefs/events/enable
	echo >$tracefs/kprobe_events
}
storms=

# under_nmis COMMAND ARGS...
under_nmis()
{
	local runs status

	kinds | xargs >$debugfs/faults
	runs=$(stat runs)
	storms &
	storms=$!
	"$@"
	status=$?
	kill $storms
	wait $storms 2>/dev/null
	storms=
	echo none >$debugfs/faults
	runs=$(($(stat runs) - runs))
	echo "# $runs runs of the handler"
	[ $status = 0 ] && [ $runs -ge $least ]
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
	echo "p:latched_nmi_text lnt_take" >$tracefs/kprobe_events || return
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
