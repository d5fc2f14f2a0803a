#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# An NMI that nests after each kind of fault in the handler, which had interrupted
# kernel or user mode: it does not enter the handler, it is not lost, the run for
# it begins after it. The module verifies that.

. "$(dirname "$0")/lib.sh"

rounds=50

# nested ZONE KIND
nested()
{
	local zone=$1 kind=$2 latched line user

	latched=$(nmi_count nested)
	line=$(op nested "$kind" $rounds 0) || return
	echo "# $line"

	[ "$(field result "$line")" = pass ] || return
	[ "$(field begun_after "$line")" = $rounds ] || return

	# The spinning program has to have been hit where it says it is.
	user=$(field user "$line")
	case $zone in
	user)	[ "$user" -gt $((rounds / 2)) ] || return ;;
	kernel)	[ "$user" -lt $((rounds / 2)) ] || return ;;
	esac

	# Only an IRET in the handler lets an NMI nest. The latch has served it, or
	# in an NMI from user mode the state in nmi.c, which counts nothing.
	[ "$kind" != none ] && [ -n "$latched" ] || return 0
	latched=$(($(nmi_count nested) - latched))
	echo "# latched: $latched"
	[ $latched -ge $((rounds - user)) ]
}

need_two_cpus
need_module
ktap_print_header
all="none $(kinds)"
ktap_set_plan $((2 * $(echo "$all" | wc -w) + 1))

for zone in kernel user; do
	spin $zone 0
	for kind in $all; do
		test_result "$zone-nmi_nested_$kind" nested "$zone" "$kind"
	done
	stop_spin
done

finish
