#!/usr/bin/env bash
# Upstream's end-to-end suite, as the judge of a node: ours or upstream's, on a cluster
# made for it, or whatever node a given cluster has.
. "$(dirname -- "${BASH_SOURCE[0]}")/cluster/lib.sh"
# shellcheck source=conformance/cluster.sh
. "$REPO_DIR/hack/conformance/cluster.sh"
# shellcheck source=conformance/specs.sh
. "$REPO_DIR/hack/conformance/specs.sh"
# shellcheck source=conformance/run.sh
. "$REPO_DIR/hack/conformance/run.sh"
# shellcheck source=conformance/report.sh
. "$REPO_DIR/hack/conformance/report.sh"

# Within which --passing has to be done, as continuous integration waits for it.
PASSING_LIMIT=20m

USAGE="conformance.sh [OPTION…] [FOCUS]
  FOCUS          NodeConformance (default), Conformance, a SIG's [Conformance] specs (node,
                 network, storage, apps, api-machinery, auth, cli, scheduling, …), or a
                 regular expression (Go's) for specs' full text
  --skip REGEX   leaves these out (default: $DEFAULT_SKIP)
  --passing      just the specs of tests/conformance/passing.txt, each tried again once if it
                 fails, in at most $PASSING_LIMIT; what does not pass is a regression
  --update       adds the specs that pass to passing.txt (our node only)
  --list         prints the specs that would run, and ends
  --procs N      specs at once (default: 8 a core, at most 16)
  --report DIR   log, results and Junit report go there (default: one of target/conformance)
 the cluster, made for the run and removed after it:
  --node         whose node: ours (default) or upstream
  --kubelet      our binary (default: the newest of target/{release,debug}/kubelet)
  --containerd   1.6, or 2 (default): built from source, as some specs want what 1.6 lacks
  --cluster NAME a cluster of hack/cluster of that name, made if it is not there, and kept
  --kubeconfig FILE  any other cluster: its node pulls the suite's images itself"

parse() {
	focus='' skip=$DEFAULT_SKIP mode=run update='' procs='' report='' kubeconfig=''
	node=ours kubelet=${KUBELET_RS_KUBELET:-} containerd=2 cluster=''
	while (($#)); do
		case $1 in
		--skip | --procs | --report | --kubeconfig | --node | --kubelet | --containerd | --cluster)
			(($# > 1)) || usage "$USAGE"
			printf -v "${1#--}" '%s' "$2"
			shift
			;;
		--passing | --list) mode=${1#--} ;;
		--update) update=1 ;;
		-h | --help)
			echo "usage: $USAGE"
			exit
			;;
		-*) usage "$USAGE" ;;
		*)
			[[ -z $focus ]] || usage "$USAGE"
			focus=$1
			;;
		esac
		shift
	done
	[[ $node =~ ^(ours|upstream)$ && $containerd =~ ^(1\.6|2)$ ]] || usage "$USAGE"
	[[ $procs =~ ^([1-9][0-9]*)?$ ]] || usage "$USAGE"
	[[ $mode != passing || -z $focus ]] || die "--passing runs the specs of passing.txt: no FOCUS"
	[[ -z $update || ($node == ours && -z $kubeconfig) ]] || die "--update: passing.txt is about our own node"
	procs=${procs:-$(($(nproc) > 1 ? 16 : 8))}
	focus=${focus:-NodeConformance}
}

# prepare: tools and lists; everything that can be wrong before a
# cluster is brought up for nothing.
prepare() {
	local set
	if [[ -n $kubeconfig ]]; then
		kubeconfig=$(realpath -e -- "$kubeconfig" 2>/dev/null) || die "--kubeconfig: no such file"
	else
		need_root
		[[ $node != ours ]] || kubelet=$(our_kubelet "$kubelet")
	fi
	need_packages jq=jq
	for set in kubernetes e2e; do build_set "$set"; done
	[[ -n $kubeconfig ]] || build_set coredns
	lists_check
	selection
}

# report_begin: REPORT_DIR, absolute; of the default ones, those of a few runs are kept.
report_begin() {
	local base=${CARGO_TARGET_DIR:-$REPO_DIR/target}/conformance old
	if [[ -n $report ]]; then
		mkdir -p "$report" || die "--report $report: cannot be made"
		REPORT_DIR=$(realpath -- "$report")
		rm -f "$REPORT_DIR"/{e2e.log,report.json,results.tsv,interruptions.txt,junit_01.xml}
		return
	fi
	mkdir -p "$base"
	REPORT_DIR=$(realpath -- "$base")/$(date +%Y%m%d-%H%M%S)-$$
	mkdir "$REPORT_DIR"
	ln -sfn "${REPORT_DIR##*/}" "$base/latest"
	while read -r old; do
		rm -rf "$base/${old:?}"
	done < <(find "$base" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' -printf '%f\n' | sort -r | tail -n +6)
}

# selection: SELECT becomes ginkgo's arguments, SELECTED the specs that they mean.
selection() {
	local regex
	if [[ $mode == passing ]]; then
		SELECTED=$(list_specs "$PASSING_FILE")
		mapfile -t SELECT < <(exact_focus "$PASSING_FILE")
		SELECT+=(--flake-attempts=2)
		return
	fi
	regex=$(focus_regex "$focus")
	SELECT=(--focus="$regex" ${skip:+--skip="$skip"})
	SELECTED=$(grep -P -e "$regex" <<<"$SUITE" | grep -vP -e "${skip:-^$}") || true
	[[ -n $SELECTED ]] || die "no spec matches: focus $regex, skip ${skip:-nothing}"
}

cleanup() {
	if [[ -n $kubeconfig ]]; then
		suite_abort 60
	else
		suite_abort 0
		[[ -n $cluster || -z ${name:-} ]] || "$LIB_DIR/down" "$name"
	fi
}

# run: the cluster, and the suite on it.
run() {
	local netns='' what=$kubeconfig owner used=$kubeconfig limit=6h
	[[ $mode != passing ]] || limit=$PASSING_LIMIT
	if [[ -z $kubeconfig ]]; then
		# A cluster for one run goes with it, even if it is killed.
		name=${cluster:-conf-$$} owner=$$
		[[ -z $cluster ]] || owner=''
		conformance_cluster "$name" "$node" "$containerd" "$kubelet" "$owner"
		netns=$C_NETNS used=$C_KUBECONFIG what="node $node, containerd $C_CONTAINERD"
	fi
	say "$(wc -l <<<"$SELECTED") specs of e2e.test $(kubernetes_version), $procs at once, on $what; log: $REPORT_DIR/e2e.log"
	# What failed, the report tells.
	suite_run "$procs" "$limit" "$netns" "$used" "${SELECT[@]}" || true
}

# judge: prints what came out; false if it is not as it should be.
judge() {
	local fine=0
	results_read
	[[ -s $REPORT_DIR/results.tsv ]] || {
		tail -n 30 "$REPORT_DIR/e2e.log" >&2
		die "no spec ran (the suite's log: $REPORT_DIR/e2e.log)"
	}
	printf '\n' >&2
	results_by_sig
	suite_was_whole || fine=1
	if [[ $mode == passing ]]; then
		compare_with_passing || fine=1
	else
		compare_with_expected || fine=1
		[[ -z $update ]] || passing_update
	fi
	echo "report: $REPORT_DIR (junit_01.xml, results.tsv, e2e.log)"
	return "$fine"
}

parse "$@"
if [[ $mode == passing && -z $(list_specs "$PASSING_FILE") ]]; then
	say "passing.txt names no spec yet: nothing to run"
	exit
fi
name=''
prepare
if [[ $mode == list ]]; then
	echo "$SELECTED"
	exit
fi
report_begin
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
run
judge
