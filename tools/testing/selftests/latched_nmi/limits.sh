#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# What the module cannot do it refuses, and then nothing has changed.

. "$(dirname "$0")/lib.sh"

# refused FILE WORDS...: writing them to the file is an error, and sends no NMI.
refused()
{
	local file=$1 sent

	shift
	sent=$(stat sent)
	if (echo "$*" >"$debugfs/$file") 2>/dev/null; then
		echo "# \"$*\" was accepted"
		return 1
	fi
	[ "$(stat sent)" = "$sent" ]
}

# Each line is refused: FILE, and what is written to it.
all_refused()
{
	local file words status=0

	while read -r file words; do
		# shellcheck disable=SC2086
		refused "$file" $words || status=1
	done
	return $status
}

# Refused as well, and the setting stays as it was.
settings()
{
	echo "int3 page" >$debugfs/faults
	echo 1000 >$debugfs/hold_ns
	all_refused <<-END || return
		faults int3 nonsense
		faults $(seq 2000 | tr '\n' x)
		hold_ns 1000001
		hold_ns -1
		hold_ns soon
	END
	[ "$(cat $debugfs/faults)" = "int3 page " ] && [ "$(cat $debugfs/hold_ns)" = 1000 ]
	set -- $?
	echo none >$debugfs/faults
	echo 0 >$debugfs/hold_ns
	return "$1"
}

operations()
{
	all_refused <<-END
		storm
		storm 0
		storm many
		storm 10 0
		storm 10 1001
		storm 10 1 1000001
		storm 10 1 0 4096
		chase 0
		chase 10 1000001
		chase 10 0 4096
		nested nonsense
		nested int3 0
		nested int3 1 4096
		roundtrip
		roundtrip self 10 0 1
		roundtrip bogus 10 0 1 0
		roundtrip self 0 0 1 0
		roundtrip self 100001 0 1 0
		roundtrip self 10 65 1 0
		roundtrip self 10 0 0 0
		roundtrip self 10 0 1001 0
		roundtrip self 10 0 1 -1
		roundtrip self 10 0 1 4096
		roundtrip sample 10 0 1 4096
		backtrace
		backtrace -1
		backtrace 4096
		panic nonsense
		offline 10
		offline 10 0
		offline 10 4096
		kinds int3
		stats 0
	END
}

# An event that perf cannot have: its options.
no_event()
{
	! perf record -q -B -N -o /dev/null "$@" -- true >/dev/null 2>&1
}

events()
{
	local sent

	sent=$(stat sent)
	no_event -e latched_nmi_test/ipi/ -c 19999 &&
		no_event -e latched_nmi_test/ipi/ -F 100000 &&
		no_event -e latched_nmi_test/event=3/ -c 100000 &&
		[ "$(stat sent)" = "$sent" ]
}

need_two_cpus
need_module
ktap_print_header
ktap_set_plan 4

test_result limits-settings settings
test_result limits-operations operations
if perf --version >/dev/null 2>&1; then
	test_result limits-events events
else
	test_skip limits-events "no perf here"
fi

finish
