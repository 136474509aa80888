# shellcheck shell=bash
# What came out: counts by SIG, and how it compares with what is known. Sourced after
# hack/conformance/specs.sh, never run.

# results_read: REPORT_DIR/results.tsv, a line for each spec that ran: state, SIG,
# seconds, full text; state is passed, failed or skipped (by the spec itself).
results_read() {
	local report=$REPORT_DIR/report.json reason
	[[ -s $report ]] || {
		tail -n 30 "$REPORT_DIR/e2e.log" >&2
		die "the suite ended without a report (its log: $REPORT_DIR/e2e.log)"
	}
	reason=$(jq --raw-output '.[].SpecReports[] | select(.LeafNodeType | test("BeforeSuite"))
		| select(.State != "passed") | .Failure.Message' "$report")
	[[ -z $reason ]] || die "the suite could not begin: $reason
its log: $REPORT_DIR/e2e.log"
	jq --raw-output '.[].SpecReports[] | select(.LeafNodeType == "It")
		| select(.State != "pending" and (.State != "skipped" or (.Failure.Message // "") != ""))
		| ((.ContainerHierarchyTexts // []) + [.LeafNodeText] | join(" ")) as $name
		| [ (if .State == "passed" or .State == "skipped" then .State else "failed" end),
			($name | capture("\\[sig-(?<sig>[^]]*)\\]").sig // "none"),
			(.RunTime / 1e9 * 10 | floor / 10), $name ] | @tsv' "$report" |
		LC_ALL=C sort -t $'\t' -k 4 >"$REPORT_DIR/results.tsv"
	jq --raw-output '.[].SpecialSuiteFailureReasons // [] | .[]' "$report" >"$REPORT_DIR/interruptions.txt"
	# It holds every spec's whole log a second time.
	rm -f "$report"
}

# results STATE: the specs that ended so, sorted.
results() { awk -F '\t' -v state="$1" '$1 == state { print $4 }' "$REPORT_DIR/results.tsv" | LC_ALL=C sort -u; }

results_by_sig() {
	awk -F '\t' '
		{ count[$2 "\t" $1]++; sigs[$2] }
		END {
			format = "%-20s %7s %7s %8s\n"
			printf format, "SIG", "passed", "failed", "skipped"
			for (sig in sigs) {
				row = sprintf(format, sig, count[sig "\tpassed"] + 0, count[sig "\tfailed"] + 0, count[sig "\tskipped"] + 0)
				printf "%s", row | "LC_ALL=C sort"
				passed += count[sig "\tpassed"]; failed += count[sig "\tfailed"]; skipped += count[sig "\tskipped"]
			}
			close("LC_ALL=C sort")
			printf format, "all", passed + 0, failed + 0, skipped + 0
		}' "$REPORT_DIR/results.tsv"
}

# suite_was_whole: false if something but specs failed, such as the time running out,
# or if a spec that was selected has no result.
suite_was_whole() {
	local whole=0
	! show "the suite was not run to its end" <"$REPORT_DIR/interruptions.txt" || whole=1
	! LC_ALL=C comm -23 <(LC_ALL=C sort <<<"$SELECTED") <(cut -f 4 "$REPORT_DIR/results.tsv" | LC_ALL=C sort -u) |
		show "did not run" || whole=1
	((whole == 0)) || echo "the suite's log: $REPORT_DIR/e2e.log"
	return "$whole"
}

# show TITLE: the lines of stdin under a title, if there are any; true if so.
show() {
	local lines
	lines=$(cat)
	[[ -n $lines ]] || return 1
	printf '%s (%s):\n' "$1" "$(wc -l <<<"$lines")"
	sed 's/^/    /' <<<"$lines"
}

# compare_with_expected: false if a spec failed of which that is not known.
compare_with_expected() {
	local -x LC_ALL=C
	results failed | comm -12 - <(list_specs "$EXPECTED_FILE") | reasons | show "failed, as expected" || true
	results passed | comm -12 - <(list_specs "$EXPECTED_FILE") | show "passed, though expected.txt says that it cannot" || true
	! results failed | comm -23 - <(list_specs "$EXPECTED_FILE") | show "failed"
}

# reasons: what expected.txt says about the specs at stdin.
reasons() {
	local spec
	while IFS= read -r spec; do
		grep -F -- "$spec # " "$EXPECTED_FILE"
	done
}

# compare_with_passing: false if a spec of passing.txt has not passed.
compare_with_passing() {
	local -x LC_ALL=C
	! comm -13 <(results passed) <(list_specs "$PASSING_FILE") | show "passed once, and do not pass now"
}

# passing_update: adds what has passed to passing.txt.
passing_update() {
	local -x LC_ALL=C
	local new
	new=$(results passed | comm -23 - <(list_specs "$PASSING_FILE") | comm -23 - <(list_specs "$EXPECTED_FILE"))
	if [[ -z $new ]]; then
		say "nothing new for ${PASSING_FILE#"$REPO_DIR"/}"
		return
	fi
	{
		list_specs "$PASSING_FILE"
		echo "$new"
	} | sort -u >"$PASSING_FILE.new"
	mv "$PASSING_FILE.new" "$PASSING_FILE"
	say "$(wc -l <<<"$new") specs added to ${PASSING_FILE#"$REPO_DIR"/}"
}
