#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# The kernel has nothing to complain about. Runs last.

. "$(dirname "$0")/lib.sh"

dir=$(mktemp -d)
dmesg >"$dir/log"

# patterns KIND...: of the file "complaints".
patterns()
{
	awk -F '\t' -v kinds=" $* " '!/^#/ && index(kinds, " " $1 " ") { print $2 }' \
		"$(dirname "$0")/complaints" >"$dir/patterns"
	[ -s "$dir/patterns" ]
}

# absent KIND...: nothing in the log is such a complaint.
absent()
{
	patterns not && grep -v -E -f "$dir/patterns" "$dir/log" >"$dir/relevant"
	patterns "$@" || return
	! grep -E -A 3 -f "$dir/patterns" "$dir/relevant" | comment | grep .
}

# The log is only complete if its first line is still there.
complete()
{
	grep -q 'Linux version' "$dir/log"
}

ktap_print_header
ktap_set_plan 6

test_result log-complete complete
for kind in warn lockdep stall unwind; do
	test_result log-$kind absent $kind
done
test_result log-unknown absent unknown

rm -rf "$dir"
ktap_finished
