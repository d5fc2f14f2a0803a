#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# perf and kprobes in NMI context.

. "$(dirname "$0")/lib.sh"

tmp=$(mktemp -d)

record()
{
	perf record -q -B -N -o "$tmp/data" "$@" >"$tmp/log" 2>&1 && return
	sed 's/^/# /' "$tmp/log"
	return 1
}

# script [FIELDS]: the samples as text, one block each.
script()
{
	perf script -i "$tmp/data" -F "${1:-comm,cpu,ip,sym}" 2>/dev/null
}

# Two programs share the CPU, one in kernel and one in user mode, and each sample
# is taken by a handler that takes all faults as well.
record_both()
{
	spin kernel 0
	kernel_pid=$spin_pid
	spin user 0
	record -C 0 "$@" -- sleep 2
	set -- $?
	stop_spin
	kill "$kernel_pid"
	wait "$kernel_pid" 2>/dev/null
	return "$1"
}

# in_callchain FUNCTION: the function is in call chains that were recorded.
in_callchain()
{
	local hits

	hits=$(grep -c "$1" "$tmp/script")
	echo "# $hits samples with $1"
	[ "$hits" -ge 20 ]
}

# exclude EVENT PATTERN: an event has samples, and all are of addresses like that.
exclude()
{
	local hits wrong

	hits=$(grep -c "$1" "$tmp/script")
	wrong=$(grep "$1" "$tmp/script" | grep -vcE "$2")
	echo "# $hits samples of $1, $wrong of the other mode"
	[ "$hits" -ge 20 ] && [ "$wrong" -eq 0 ]
}

# The frequency is kept within what a loaded host makes of it.
frequency()
{
	local before after

	before=$(stat samples)
	record -e latched_nmi_test/ipi/ -F 1000 -C 0 -- sleep 1
	after=$(stat samples)
	echo "# $((after - before)) samples in about 1 s at 1000 Hz"
	[ $((after - before)) -ge 200 ] && [ $((after - before)) -le 3000 ]
}

# The user-stack walk of perf page-faults in NMI by itself.
dwarf()
{
	local samples

	spin user 0
	record -e latched_nmi_test/ipi/ -c 5000000 -C 0 --call-graph dwarf,4096 -- sleep 1
	stop_spin
	samples=$(script comm,ip | grep -c '^spin')
	echo "# $samples samples with a copy of the user stack"
	[ "$samples" -ge 10 ]
}

# The tracepoint sees every run of the module's handler.
tracepoint()
{
	local runs counted

	runs=$(($(stat runs) + $(stat late)))
	perf stat -x, -o "$tmp/stat" -a -e nmi:nmi_handler \
		--filter "handled > 0" -- sh -c "echo 500 > $debugfs/storm"
	runs=$(($(stat runs) + $(stat late) - runs))
	counted=$(awk -F, '/nmi_handler/ { print $1 }' "$tmp/stat")
	echo "# nmi:nmi_handler counted $counted, the module $runs"
	[ "$runs" -gt 0 ] && [ "$counted" -ge "$runs" ]
}

# A true int3 in NMI context, traced there: Z in the flags of the trace. The first
# instructions are ENDBR and ftrace's: past them, whatever starts an instruction.
kprobe()
{
	local offset hits events=$tracefs/kprobe_events

	echo 0 >/proc/sys/debug/kprobes-optimization
	echo >$tracefs/trace
	for offset in 9 10 11 12 13 14 15 16 17 18; do
		echo "p:latched_nmi_probe lnt_handler+$offset" \
			2>/dev/null >>$events && break
	done
	echo 1 >$tracefs/events/kprobes/latched_nmi_probe/enable || return
	op storm 200 1 1000 0 >/dev/null
	echo 0 >$tracefs/events/kprobes/latched_nmi_probe/enable
	grep -m 2 latched_nmi_probe: $tracefs/trace | comment
	hits=$(grep latched_nmi_probe: $tracefs/trace | grep -c "\] [^ ]*Z")
	# Only now: the trace goes with the probe.
	echo >$events
	echo 1 >/proc/sys/debug/kprobes-optimization
	echo "# $hits hits in NMI"
	[ "$hits" -ge 200 ]
}

# perf samples the runs that the latch has caused.
latched_record()
{
	local samples nested

	nested=$(nmi_count nested)
	record -a -e latched_nmi:latched_nmi_run -g -- \
		sh -c "echo page 50 0 > $debugfs/nested"
	nested=$(($(nmi_count nested) - nested))
	samples=$(script comm,event,trace | grep -c latched_nmi_run)
	echo "# $samples samples, nested: $nested"
	[ "$samples" -ge 50 ]
}

perf --version >/dev/null 2>&1 || skip_all "no perf here"
need_two_cpus
need_module
ktap_print_header
ktap_set_plan 10

kinds | xargs >$debugfs/faults
record_both -e latched_nmi_test/ipi/ -c 1000000 -g
script >"$tmp/script"
echo none >$debugfs/faults
test_result kernel-perf_callchain in_callchain ksys_read
test_result user-perf_callchain in_callchain latched_nmi_spin_user

record_both -e latched_nmi_test/ipi/u -e latched_nmi_test/ipi/k -c 1000000
script event,ip >"$tmp/script"
test_result user-perf_exclude_kernel exclude ipi/u: " [0-9a-f]{1,12}\$"
test_result kernel-perf_exclude_user exclude ipi/k: " ffff[0-9a-f]{12}\$"

test_result kernel-perf_frequency retry frequency
test_result user-perf_dwarf retry dwarf
test_result handler-perf_tracepoint tracepoint
test_result handler-kprobe kprobe

if [ "$(entry)" = latched ]; then
	test_result handler-perf_latched latched_record
else
	test_skip handler-perf_latched "the classic entry has no latch to trace"
fi

rm -rf "$tmp"
finish
