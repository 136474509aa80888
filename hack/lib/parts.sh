# shellcheck shell=bash
# A test run is a sequence of parts, each a command with a log of its own. What a part
# has to say is counted from its log: libtest's lines ("test NAME ... ok", "test
# result: …") and the selftests' ("ok: WHAT", "FAILED: WHAT"); a part with neither
# counts as one. Sourced after hack/cluster/lib.sh, never run.

PASSED=0 FAILED=0 SKIPPED=0
FAILURES=() SKIPS=() REASONS=()
PART_PID=''

# No part takes longer than this, however hung; in seconds.
PART_LIMIT=3600

# parts_begin DIR: logs go to a new directory in DIR, which keeps those of a few runs.
parts_begin() {
	local old
	mkdir -p "$1"
	LOG_DIR=$1/$(date +%Y%m%d-%H%M%S)-$$
	mkdir "$LOG_DIR"
	ln -sfn "${LOG_DIR##*/}" "$1/latest"
	while read -r old; do
		rm -rf "$1/${old:?}"
	done < <(find "$1" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort -r | tail -n +6)
	trap parts_abort EXIT
}

# If this script ends in the midst of a part, so does the part.
parts_abort() {
	[[ -z $PART_PID ]] || kill -- "-$PART_PID" 2>/dev/null || true
}

# part [--list] NAME COMMAND…: COMMAND is a program or a function. --list shows every
# test's line while it runs, as with real components one wants to see them.
part() {
	local list=''
	if [[ $1 == --list ]]; then
		list=1
		shift
	fi
	local name=$1 log status=0 began=$SECONDS
	log=$LOG_DIR/$(tr -c 'a-zA-Z0-9.\n' - <<<"$name").log
	shift
	say "=== $name"
	: >"$log"
	# A process group of its own, with everything that the part starts in it.
	set -m
	("$@") >"$log" 2>&1 9>&- </dev/null &
	PART_PID=$!
	set +m
	[[ -z $list ]] || part_show "$log" &
	local shower=$!
	while kill -0 "$PART_PID" 2>/dev/null; do
		if ((SECONDS - began > PART_LIMIT)); then
			echo "killed after $PART_LIMIT s" >>"$log"
			kill -KILL -- "-$PART_PID" 2>/dev/null || true
		fi
		sleep 0.1
	done
	wait "$PART_PID" || status=$?
	[[ -z $list ]] || wait "$shower" || true
	PART_PID=''
	part_count "$name" "$log" "$status" "$((SECONDS - began))"
}

# What counts as a line about one test. A selftest puts the time before it.
TEST_LINE='^test .* \.\.\. |^(\[[ 0-9.s]+\] )?(ok|FAILED): '

part_show() {
	tail --pid="$PART_PID" --sleep-interval=0.3 --lines=+1 -f "$1" 2>/dev/null |
		grep --line-buffered -E "$TEST_LINE" >&2 || true
}

# part_count NAME LOG STATUS SECONDS: adds up, and reports.
part_count() {
	local name=$1 log=$2 status=$3 passed failed skipped
	read -r passed failed skipped < <(awk '
		/^test result: / { passed += $4; failed += $6; skipped += $8 }
		/^(\[[ 0-9.s]+\] )?ok: / { passed++ }
		/^(\[[ 0-9.s]+\] )?FAILED: / { failed++ }
		END { print passed + 0, failed + 0, skipped + 0 }' "$log")
	# A part that ends in failure without naming a test has itself failed.
	((status == 0 || failed > 0)) || failed=1
	((passed + failed + skipped > 0)) || [[ -n ${filter:-} ]] || passed=1
	PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
	mapfile -t -O "${#SKIPS[@]}" SKIPS < <(sed -nE "s/^test (.*) \.\.\. ignored(, )?/$name: \1: /p" "$log")
	if ((failed)); then
		FAILURES+=("$name")
		printf -- '--- last lines of %s\n' "$log" >&2
		tail -n 60 "$log" >&2
		printf -- '---\n' >&2
		mapfile -t -O "${#REASONS[@]}" REASONS < <(part_reasons "$log")
	fi
	say "    $name: $passed passed, $failed failed, $skipped skipped in $4 s"
}

# part_reasons LOG: what each failed test of libtest's said first and last. Of a long run
# often only the end is at hand, and that should tell why it failed.
part_reasons() {
	awk '
		function end(  i) {
			for (i = count > 18 ? count - 12 : 6; i < count; i++) print "    " lines[i]
			count = 0
			inside = 0
		}
		/^---- .* ----$/ { end(); inside = 1; print substr($0, 6, length($0) - 10) ":"; next }
		/^failures:$|^$/ { end() }
		inside && count < 6 { print "    " substr($0, 1, 300) }
		inside { lines[count++] = substr($0, 1, 300) }
		END { end() }' "$1"
}

# part_skipped NAME REASON: a part that this host cannot run.
part_skipped() {
	SKIPPED=$((SKIPPED + 1))
	SKIPS+=("$1: $2")
	say "=== $1: skipped, $2"
}

# parts_end: the sum; false if anything failed.
parts_end() {
	say "logs: $LOG_DIR"
	((${#SKIPS[@]} == 0)) || printf 'skipped: %s\n' "${SKIPS[@]}"
	((${#FAILURES[@]} == 0)) || printf 'failed: %s\n' "${FAILURES[@]}"
	((${#REASONS[@]} == 0)) || printf '%s\n' "${REASONS[@]}"
	if [[ -n ${filter:-} ]] && ((PASSED + FAILED + SKIPPED == 0)); then
		echo "no test's name contains '$filter'"
		FAILED=1
	fi
	echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
	((FAILED == 0))
}
