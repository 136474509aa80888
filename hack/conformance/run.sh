# shellcheck shell=bash
# Runs ginkgo in the background, tells of every spec that ends, and ends ginkgo and
# its children if this script ends first. Sourced after hack/cluster/lib.sh, never run.

GINKGO_PID=''

# suite_run PROCS TIMEOUT IN-NETNS KUBECONFIG ARG…: ginkgo over e2e.test, with a line
# for every spec that ends. Files in REPORT_DIR: e2e.log, report.json, junit_01.xml.
suite_run() {
	local procs=$1 timeout=$2 netns=$3 kubeconfig=$4 enter=() tools
	shift 4
	[[ -z $netns ]] || enter=(nsenter --net="$netns" --)
	tools=$(tools_dir e2e)
	: >"$REPORT_DIR/e2e.log"
	# A process group of its own: a terminal's Ctrl-C reaches this script only, which
	# then ends the group. The suite's directory is where specs put temporary files.
	set -m
	"${enter[@]}" "$tools/ginkgo" run --procs="$procs" --timeout="$timeout" --no-color -v \
		--output-dir="$REPORT_DIR" --json-report=report.json "$@" "$tools/e2e.test" -- \
		--provider=skeleton --kubeconfig="$kubeconfig" --report-dir="$REPORT_DIR" \
		--kubectl-path="$(tools_dir kubernetes)/kubectl" \
		</dev/null >"$REPORT_DIR/e2e.log" 2>&1 9>&- &
	GINKGO_PID=$!
	set +m
	suite_progress "$REPORT_DIR/e2e.log" &
	local shower=$! status=0
	wait "$GINKGO_PID" || status=$?
	wait "$shower" || true
	# Specs start kubectl, which can outlive them.
	kill -KILL -- "-$GINKGO_PID" 2>/dev/null || true
	GINKGO_PID=''
	return "$status"
}

# suite_progress LOG: ginkgo tells of a spec in a line for its end and one for its
# name, which its labels follow. Specs' own output, with any bytes, is in between.
suite_progress() {
	local line how='' name
	while IFS= read -r line; do
		if [[ -n $how ]]; then
			name=$(sed -E 's/ \[[^]]*\]$//; s/\[(It|BeforeEach|AfterEach|JustBeforeEach|DeferCleanup \(Each\))\] //' <<<"$line")
			[[ $name != '[sig-'* ]] || say "$how$name"
			how=''
		fi
		case $line in
		'• ['[0-9]*) how="ok: " ;;
		'↺ ['*) how="ok: (second attempt) " ;;
		'• ['*) how="FAILED: " ;;
		'S [SKIPPED] ['*) how="skipped: " ;;
		esac
	done < <(tail --pid="$GINKGO_PID" --sleep-interval=0.5 --lines=+1 -f "$1" 2>/dev/null |
		grep --text --line-buffered -A 1 -E '^(•|↺|S) \[')
}

# suite_abort SECONDS: ginkgo gets so long to end its specs, which then remove what
# they made. It ignores SIGINT when it was started in the background.
suite_abort() {
	[[ -n $GINKGO_PID ]] || return 0
	say "ending the suite"
	kill -TERM -- "-$GINKGO_PID" 2>/dev/null || true
	wait_until "$1" suite_is_gone || true
	kill -KILL -- "-$GINKGO_PID" 2>/dev/null || true
	GINKGO_PID=''
}

suite_is_gone() { ! kill -0 -- "-$GINKGO_PID" 2>/dev/null; }
