#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# usage: verify.sh [NAME...]
#        verify.sh explain NAME PROPERTY
#
# Checks the models against the declared verdicts: all runs of the file "verdicts",
# or those of these names. "explain" shows the shortest way to a violation.
#
# DEEP=1	also the long run (a minute more)
# JOBS=2	runs at a time
# O=DIR		where to build; a temporary directory if not set
set -eu

PROPERTIES="REENTRY FRAMES RETURN ARRIVAL REST COUNT STACK CLEAN EXACT JUDGED"

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
self=$here/$(basename -- "$0")
# Where a search ends soon, compiling takes longer than searching.
optimize=-O0
: "${DEEP:=0}" "${JOBS:=2}" "${MEMLIM:=11000}"

die() {
	echo "verify.sh: $*" >&2
	exit 1
}

usage() {
	sed -n '/^# usage:/,/^[^#]/s/^# \{0,1\}//p' "$self"
}

# "verdicts" as tab-separated lines: kind, name, model, defines, violated. A mutant
# is the model with MUTANT=NAME.
entries() {
	awk -F'|' -v OFS='\t' '
		/^[[:space:]]*(#|$)/	{ next }
		{
			for (i = 1; i <= NF; i++)
				gsub(/^[[:space:]]+|[[:space:]]+$/, "", $i)
			print $1, $2, $3, ($1 == "mutant" ? "MUTANT=" $2 " " : "") $4, $5
		}' "$here/verdicts"
}

# field N of the entry $entry
field() {
	printf '%s\n' "$entry" | cut -f"$1"
}

number_of() {
	n=0
	for p in $PROPERTIES; do
		n=$((n + 1))
		if [ "$p" = "$1" ]; then
			echo $n
			return
		fi
	done
	return 1
}

# The names of all runs, each once.
names() {
	entries | cut -f2 | awk '!seen[$0]++'
}

need_name() {
	names | grep -qxF -e "$1" ||
		die "there is no run $1; there are: $(names | tr '\n' ' ')"
}

# entry_of NAME PROPERTY: the entry that explains this violation.
entry_of() {
	case $2 in
	CALM)	entries | awk -F'\t' -v name="$1" '$2 == name && ($1 ~ /calm/ || $5 ~ /CALM/)' ;;
	STORM)	entries | awk -F'\t' -v name="$1" '$2 == name && $1 ~ /storm/' ;;
	*)	entries | awk -F'\t' -v name="$1" '$2 == name && $1 !~ /calm|storm/' ;;
	esac | head -n 1
}

# build MODEL "DEFINES" CFLAGS...: spin and gcc in the current directory
build() {
	model=$1
	defines=
	for d in $2; do
		defines="$defines -D$d"
	done
	shift 2
	# shellcheck disable=SC2086
	spin -a $defines "$here/$model.pml" >spin.log 2>&1 ||
		{ cat spin.log >&2; die "spin does not accept $model.pml $defines"; }
	gcc "$optimize" -DNOREDUCE -DNOFAIR -DMEMLIM="$MEMLIM" "$@" -o pan pan.c 2>gcc.log ||
		{ cat gcc.log >&2; die "gcc does not accept what spin made of $model.pml"; }
}

# Of the output of pan: which properties were violated, each once.
violated() {
	for p in $PROPERTIES; do
		if grep -q "assertion violated ($p|" "$1"; then
			echo "$p"
		fi
	done
}

is_complete() {
	grep -q '^State-vector' "$1" &&
		! grep -q -e 'max search depth too small' -e 'reached -DMEMLIM' -e 'out of memory' "$1"
}

statistics() {
	awk '/states, stored/		{ states = $1 }
	     /depth reached/		{ sub(",", "", $6); depth = $6 }
	     /elapsed time/		{ time = $4 }
	     END			{ printf "%s %s %s", states, depth, time }' "$1"
}

# One line of the table. The last word is the judgement.
row() {
	# shellcheck disable=SC2086
	set -- "$@" $stats
	verdict=ok
	[ "$3" = "$4" ] || verdict=FAIL
	printf '%-26s %-8s %-8s %-8s %10s %7s %7s  %s\n' "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$verdict"
}

# One more line: were all steps taken? Those in the code, less those that were taken.
reached() {
	grep -oh 'taken\[[0-9 +*()]*\]' pan.m | sort -u |
		sed 's/^taken.\(.*\).$/\1/' | while read -r sum; do
			# shellcheck disable=SC2004
			echo $(($sum))
		done | sort -u >steps
	[ -s steps ] || die "$name: the generated code has no steps"
	sed -n 's/^taken //p' out | sort >taken
	sort steps | comm -23 - taken >left
	found=holds
	[ ! -s left ] || found=violated
	row "$name" REACHED holds $found
	while read -r step; do
		# A number above 256 is the other outcome of that step.
		echo "not taken: $(grep -hE "^#define [A-Z0-9_]+[[:space:]]+$((step % 256))([[:space:]]|$)" "$here/machine.pml" "$here/$model.pml" |
			cut -d' ' -f2 | cut -f1 | tr '\n' ' ')($step)"
	done <left
}

# one LINE DIR: judge one entry, in DIR
one() {
	entry=$(entries | sed -n "$1p")
	kind=$(field 1 | sed 's/^deep-//') name=$(field 2) model=$(field 3) defines=$(field 4) expect=$(field 5)
	mkdir -p "$2"
	cd "$2"
	case $kind in
	search|reach)
		optimize=-O1
		[ "$kind" = search ] || defines="$defines REACH"
		build "$model" "$defines" -DSAFETY
		./pan -E -c0 -w24 -m2000000 >out 2>&1 || :
		is_complete out || { grep -v -e "assertion violated" -e "^Depth=" out >&2; die "$name: the search is not complete"; }
		stats=$(statistics out)
		for p in $PROPERTIES; do
			declared=holds found=holds
			case " $expect " in *" $p "*) declared=violated;; esac
			if violated out | grep -qx "$p"; then
				found=violated
			fi
			row "$name" "$p" $declared $found
		done
		[ "$kind" = search ] || reached
		;;
	calm|storm)
		live=
		[ "$kind" = calm ] || live=" STORM"
		build "$model" "$defines LIVE$live"
		./pan -a -E -w22 -m4000000 >out 2>&1 || :
		is_complete out || { grep -v -e "assertion violated" -e "^Depth=" out >&2; die "$name: the search is not complete"; }
		stats=$(statistics out)
		declared=holds found=holds
		[ "$expect" = - ] || declared=violated
		grep -q 'errors: 0' out || found=violated
		row "$name" "$(echo "$kind" | tr "[:lower:]" "[:upper:]")" $declared $found
		;;
	witness|mutant)
		found=holds declared=violated
		[ "$kind" = witness ] || found=survives declared=caught
		if [ "$expect" = CALM ]; then
			build "$model" "$defines LIVE"
			./pan -a -E -w22 -m4000000 >out 2>&1 || :
		else
			# What is to be found is not far away: breadth first.
			build "$model" "$defines ONLY=$(number_of "$expect")" -DSAFETY -DBFS
			./pan -E -w22 >out 2>&1 || :
		fi
		stats=$(statistics out)
		if grep -q -e "assertion violated ($expect|" -e 'acceptance cycle' out; then
			found=$declared
		fi
		row "$name" "$expect" $declared $found
		;;
	*)
		die "verdicts: what is a \"$kind\"?"
		;;
	esac
	rm -f pan pan.? pan.pre
}

# explain NAME PROPERTY: the shortest trail, by breadth-first search
explain() {
	entry=$(entry_of "$1" "$2")
	model=$(field 3)
	mkdir -p "$dir/explain"
	cd "$dir/explain"
	rm -f ./*.trail
	if [ "$2" = CALM ] || [ "$2" = STORM ]; then
		live=LIVE
		[ "$2" = CALM ] || live="LIVE STORM"
		build "$model" "$(field 4) $live"
		./pan -a -E -w22 -m4000000 >out 2>&1 || :
	else
		build "$model" "$(field 4) ONLY=$(number_of "$2")" -DSAFETY -DBFS
		./pan -E -w22 >out 2>&1 || :
	fi
	if [ ! -e "$model.pml.trail" ]; then
		cat out >&2
		die "$1: $2 is not violated"
	fi
	echo "$1: the way to the violation of $2"
	# shellcheck disable=SC2086
	spin -t -T -k "$model.pml.trail" $defines "$here/$model.pml" |
		sed -e '/^spin: trail ends/,$d' -e "s,$here/,,"
	if [ -n "${keep-}" ]; then
		echo "Replay it with any option of spin, as -p for each statement:"
		echo "  cd $PWD && spin -t -k $model.pml.trail$defines $here/$model.pml"
	else
		echo "To keep the trail and replay it: O=DIR verify.sh explain $1 $2"
	fi
}

# Everything that was asked for has to make sense before anything is done.
case ${1-} in
-h|--help)
	usage
	exit
	;;
--one)
	one "$2" "$3"
	exit
	;;
-*)
	die "there is no option $1; verify.sh --help shows the usage"
	;;
explain)
	[ $# = 3 ] || die "usage: verify.sh explain NAME PROPERTY"
	need_name "$2"
	[ "$3" = CALM ] || [ "$3" = STORM ] || number_of "$3" >/dev/null ||
		die "there is no property $3; there are: $PROPERTIES CALM STORM"
	[ -n "$(entry_of "$2" "$3")" ] || die "no run $2 looks for $3"
	;;
*)
	for name; do
		need_name "$name"
	done
	;;
esac
case $DEEP in
""|0|1)	;;
*)	die "DEEP=$DEEP: it is 0 or 1" ;;
esac
case $JOBS in
*[!0-9]*|0*)	die "JOBS=$JOBS: it is a number from 1" ;;
esac
for tool in spin gcc; do
	command -v $tool >/dev/null || die "$tool is not installed (Debian: apt install spin gcc)"
done

if [ -n "${O-}" ]; then
	mkdir -p "$O/verification"
	dir=$(CDPATH='' cd -- "$O/verification" && pwd)
	keep=1
else
	dir=$(mktemp -d "${TMPDIR:-/tmp}/latched-nmi-verify.XXXXXX")
	trap 'rm -rf "$dir"' EXIT
	trap 'exit 1' HUP INT TERM
fi

if [ "${1-}" = explain ]; then
	explain "$2" "$3"
	exit
fi

# The lines of "verdicts" to judge.
lines=$(entries | awk -F'\t' -v deep="$DEEP" -v names=" $* " '
	$1 ~ /^deep-/ && deep != 1 && names == "  "	{ next }
	names == "  " || index(names, " " $2 " ")	{ print NR }')

start=$(date +%s)
printf '%-26s %-8s %-8s %-8s %10s %7s %7s\n' protocol property declared found states depth seconds
rm -rf "$dir"/run.*
# Start the runs in the background of the loop that prints them in order.
# shellcheck disable=SC2016
for n in $lines; do
	echo "$n"
done | xargs -P "$JOBS" -I '{}' sh -c \
	'"$1" --one "$2" "$3/run.$2" >"$3/result.$2" 2>"$3/error.$2" || echo "entry $2 of verdicts FAIL" >>"$3/result.$2"
	 mv "$3/result.$2" "$3/done.$2"' \
	sh "$self" '{}' "$dir" &
runner=$!
i=0
for n in $lines; do
	i=$((i + 1))
	[ -t 2 ] || echo "# case $i of $(echo "$lines" | wc -l)" >&2
	while [ ! -e "$dir/done.$n" ]; do
		kill -0 $runner 2>/dev/null || [ -e "$dir/done.$n" ] || die "the runs were interrupted"
		sleep 0.1
	done
	cat "$dir/done.$n" "$dir/error.$n"
	cat "$dir/done.$n" >>"$dir/table"
	rm -f "$dir/done.$n" "$dir/error.$n"
done
wait $runner

total=$(grep -c -e 'ok$' -e 'FAIL$' "$dir/table")
failed=$(grep -c 'FAIL$' "$dir/table" || :)
echo "$total verdicts, $failed not as declared, $(($(date +%s) - start)) seconds"

# What was violated against its declaration: show how.
grep 'FAIL$' "$dir/table" | while read -r name property declared found rest; do
	if [ "$declared" = holds ] && [ "$found" = violated ] && [ "$property" != REACHED ]; then
		echo
		explain "$name" "$property"
	fi
done
rm -f "$dir/table"
[ "$failed" = 0 ]
