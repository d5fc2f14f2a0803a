# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# What the test scripts share; they run in a guest with busybox.

dir=$(dirname "$0")
# shellcheck source=/dev/null
. "$dir/../kselftest/ktap_helpers.sh"

module=$dir/test_modules/latched_nmi_test.ko
module_loaded=
debugfs=/sys/kernel/debug/latched_nmi_test
# shellcheck disable=SC2034
tracefs=/sys/kernel/tracing

# Which entry serves NMIs: latched or classic.
entry()
{
	if dmesg | grep -q "NMI entry: latched"; then
		echo latched
	else
		echo classic
	fi
}

# stat NAME [CPU]: a counter of the module, of all CPUs by default.
stat()
{
	awk -v name="$1" -v col="$((${2:--2} + 4))" \
		'$1 == name { print $(col == 2 ? 2 : col - 1) }' $debugfs/stats
}

# The kinds of faults that the module's handler can take, in one line.
kinds()
{
	awk '{ printf "%s ", $1 }' $debugfs/kinds
}

counters=/sys/kernel/debug/x86/latched_nmi

# nmi_count COLUMN: of all CPUs; nested, restarted or fixed-up. Nothing if the
# latched entry is not in use.
nmi_count()
{
	awk -v name="$1" '
	$1 == "cpu" { for (i = 2; i <= NF; i++) if ($i == name) column = i; next }
	column { sum += $column }
	END { if (column) print sum + 0 }' $counters 2>/dev/null
}

# op FILE WORDS...: an operation of the module; its result line on stdout.
op()
{
	local file=$1

	shift
	echo "$*" >"$debugfs/$file" || return
	cat "$debugfs/$file"
}

# field NAME LINE: the value of NAME= in a result line.
field()
{
	echo "$2" | tr ' ' '\n' | sed -n "s/^$1=//p"
}

cpus()
{
	grep -c ^processor /proc/cpuinfo
}

# test_skip NAME REASON
test_skip()
{
	__ktap_test ok "$1" "SKIP $2"
	KTAP_CNT_SKIP=$((KTAP_CNT_SKIP + 1))
}

# skip_all REASON: skips the whole script.
skip_all()
{
	ktap_skip_all "$*"
	exit "$KSFT_SKIP"
}

# Loads the module, unless it is loaded already. Then finish has to end the script.
need_module()
{
	local fs

	[ "$(id -u)" = 0 ] || skip_all "only root can load the module"
	for fs in debugfs:/sys/kernel/debug tracefs:/sys/kernel/tracing; do
		grep -q " ${fs#*:} " /proc/mounts || mount -t "${fs%%:*}" none "${fs#*:}"
	done
	[ ! -d $debugfs ] || return 0
	[ -f "$module" ] || skip_all "there is no module $module: build it with KDIR="
	insmod "$module" || ktap_exit_fail_msg "insmod $module"
	module_loaded=1
	trap stopped TERM
}

# The runner stops a script that takes too long; the next one is to find a kernel as
# it was. A script that changes more than the module has an undo.
stopped()
{
	trap "" TERM
	! command -v undo >/dev/null || undo
	[ -z "$module_loaded" ] || rmmod latched_nmi_test
	exit 1
}

need_two_cpus()
{
	[ "$(cpus)" -ge 2 ] || skip_all "no second CPU that could send NMIs"
}

# All that was sent was seen, by handlers that were not re-entered.
nothing_lost()
{
	op storm 100 >/dev/null
	awk '{ print "# " $1, $2 }' $debugfs/stats
	[ "$(stat sent)" -gt 0 ] && [ "$(stat lost)" = 0 ] && [ "$(stat unseen)" = 0 ] &&
		[ "$(stat reentered)" = 0 ]
}

# The last test of every script that uses the module, and the end of the script.
finish()
{
	test_result all-nothing_lost nothing_lost
	[ -z "$module_loaded" ] || rmmod latched_nmi_test
	ktap_finished
}

# spin MODE [CPU]: keeps a CPU in user or kernel mode until stop_spin.
spin()
{
	spin_ready=$(mktemp)
	"$dir/spin" "$1" "${2:-0}" >"$spin_ready" &
	spin_pid=$!
	while ! [ -s "$spin_ready" ] && kill -0 $spin_pid 2>/dev/null; do
		sleep 0.05
	done
}

stop_spin()
{
	kill "$spin_pid" 2>/dev/null
	wait "$spin_pid" 2>/dev/null
	rm -f "$spin_ready"
}

# test_result NAME COMMAND ARGS...: passes if the command does.
test_result()
{
	local name=$1

	shift
	if "$@"; then
		ktap_test_pass "$name"
	else
		ktap_test_fail "$name"
	fi
}

# comment: what the command prints becomes comments of the test.
comment()
{
	sed "s/^/# /"
}

# retry COMMAND ARGS...: now and then an NMI hits the few instructions that belong
# to neither mode, or a loaded host gives the guest too little time.
retry()
{
	local try

	for try in 1 2 3 4 5; do
		"$@" && return
		echo "# try $try"
	done
	return 1
}
