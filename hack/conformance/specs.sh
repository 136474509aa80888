# shellcheck shell=bash
# Which specs: groups by name, lists in files, and what the suite itself has.
# Sourced after hack/cluster/lib.sh, never run.
#
# A list (tests/conformance/*.txt) has one spec a line by its full text, sorted as by
# LC_ALL=C sort; in expected.txt ` # ` and a reason follow it.

EXPECTED_FILE=$REPO_DIR/tests/conformance/expected.txt
PASSING_FILE=$REPO_DIR/tests/conformance/passing.txt

# Left out unless asked for: what needs a cluster for itself, hurts it, or takes long.
DEFAULT_SKIP='\[(Flaky|Serial|Slow|Disruptive)\]'

# focus_regex FOCUS: a group's regular expression; anything else is one already.
focus_regex() {
	case $1 in
	NodeConformance | Conformance) echo "\\[$1\\]" ;;
	api-machinery | apps | architecture | auth | autoscaling | cli | instrumentation | network | node | scheduling | storage)
		echo "\\[sig-$1\\].*\\[Conformance\\]"
		;;
	*) echo "$1" ;;
	esac
}

# suite_specs: the full text of every spec that e2e.test has.
suite_specs() {
	"$(tools_dir e2e)/e2e.test" --list-tests 2>/dev/null | sed -nE 's/^ +[^ ]+\.go:[0-9]+: //p' | LC_ALL=C sort -u
}

# list_specs FILE: the specs in a list, without comments and reasons.
list_specs() { sed -E '/^(#|$)/d; s/ # .*//' "$1"; }

# list_check FILE: dies if it is not what a list should be.
list_check() {
	local file=$1 unknown
	list_specs "$file" | LC_ALL=C sort -C -u || die "$file is not sorted, or has a spec twice (LC_ALL=C sort -u)"
	unknown=$(LC_ALL=C comm -23 <(list_specs "$file") <(echo "$SUITE"))
	[[ -z $unknown ]] || die "$file has specs that e2e.test $(kubernetes_version) does not have:
$unknown"
}

# lists_check: SUITE becomes all specs' text; dies if the lists do not go with it.
lists_check() {
	local both line
	SUITE=$(suite_specs)
	[[ -n $SUITE ]] || die "$(tools_dir e2e)/e2e.test lists no specs"
	list_check "$EXPECTED_FILE"
	list_check "$PASSING_FILE"
	both=$(LC_ALL=C comm -12 <(list_specs "$EXPECTED_FILE") <(list_specs "$PASSING_FILE"))
	[[ -z $both ]] || die "specs are both in expected.txt and in passing.txt:
$both"
	while read -r line; do
		[[ $line == '#'* || -z $line || $line == *' # '?* ]] || die "expected.txt gives no reason for: $line"
	done <"$EXPECTED_FILE"
}

# exact_focus FILE: ginkgo arguments for just the specs in that list. What ginkgo
# matches is the name of the suite, a blank and the spec's text.
exact_focus() {
	list_specs "$1" | sed -E 's/[][\\.*^$+?(){}|]/\\&/g; s/^/--focus=^Kubernetes e2e suite /; s/$/$/'
}
