#!/usr/bin/env bash
# Every check and every test, with one line of counts at the end. What it needs and
# can be installed is installed; what it starts is gone when it ends, and what an
# earlier run that was killed has left is removed first.
. "$(dirname -- "${BASH_SOURCE[0]}")/cluster/lib.sh"
# shellcheck source=lib/rust.sh
. "$REPO_DIR/hack/lib/rust.sh"
# shellcheck source=lib/parts.sh
. "$REPO_DIR/hack/lib/parts.sh"

USAGE="test.sh [unit|node|cluster|conformance|all] [--node ours|upstream] [--containerd 1.6|2|both] [FILTER]
  unit       format, lints, tests without root or anything real (seconds, once built)
  node       tests of single modules with a real kernel and a real containerd
  cluster    tests of the whole agent on a real control plane
  conformance  upstream's own suite, so far as the agent has passed it before (20 minutes at most)
  all        those, and: licences, documentation, scripts, hack/cluster, the quick start (default)
  --node     whose node agent the cluster and conformance tests run on: ours (default), or
             upstream's kubelet and kube-proxy, which tells bugs of the agent from bugs of the tests
  --containerd   which containerd the node and cluster tests run on (default: both for
             'all', otherwise 1.6, the host's package; 2 is built from source, pinned);
             conformance is on 2 alone
  FILTER     only tests whose name contains it"

# Pinned, as its findings are part of the build's result.
CARGO_DENY_VERSION=0.20.2
# Test targets that bring up a containerd, once for each version asked for; the other
# ones that need root are run once.
CONTAINERD_TARGETS=(runtime standalone)

# Specs of upstream's suite that have passed on our node.
CONFORMANCE_LIST=$REPO_DIR/tests/conformance/passing.txt

parse() {
	what='' node=ours containerd='' filter=''
	while (($#)); do
		case $1 in
		--node | --containerd)
			(($# > 1)) || usage "$USAGE"
			printf -v "${1#--}" '%s' "$2"
			shift
			;;
		-h | --help)
			echo "usage: $USAGE"
			exit
			;;
		-*) usage "$USAGE" ;;
		unit | node | cluster | conformance | all)
			[[ -z $what ]] || usage "$USAGE"
			what=$1
			;;
		*)
			[[ -z $filter ]] || usage "$USAGE"
			filter=$1
			;;
		esac
		shift
	done
	what=${what:-all}
	if [[ -z $containerd ]]; then
		case $what in
		all) containerd=both ;;
		conformance) containerd=2 ;;
		*) containerd=1.6 ;;
		esac
	fi
	case $containerd in
	1.6 | 2) containerds=("$containerd") ;;
	both) containerds=(1.6 2) ;;
	*) usage "$USAGE" ;;
	esac
	[[ $node =~ ^(ours|upstream)$ ]] || usage "$USAGE"
}

wants() { [[ $what == all || $what == "$1" ]]; }
uses_containerd_2() { [[ " ${containerds[*]} " == *" 2 "* ]]; }

# --- before ----------------------------------------------------------------------

prepare() {
	say "$what on $(host_facts)"
	need_packages jq=jq
	need_rust
	need_build_packages
	[[ $what == unit ]] && return
	need_root
	need_packages curl=curl ip=iproute2 nsenter=util-linux iptables=iptables nft=nftables conntrack=conntrack \
		runc=runc /usr/bin/containerd=containerd /usr/lib/cni/ptp=containernetworking-plugins
	[[ $what != all ]] || need_packages shellcheck=shellcheck
	need_go kubernetes
	"$LIB_DIR/down" --stale || warn "something of an earlier run is left, see above"
	remove_old_traces
}

# remove_old_traces: what tests that were killed have left outside clusters. Anything
# younger may be another run's.
remove_old_traces() {
	local path mount
	for mount in $(cgroup_mounts cgroup cgroup2); do
		while read -r path; do
			find "$path" -depth -type d -exec rmdir {} + 2>/dev/null || true
		done < <(find "$mount" -mindepth 1 -maxdepth 1 -type d -name 'kubelet-rs-*' -mmin +60)
	done
	while read -r path; do
		[[ -n $(mounts_below "$path") ]] || rm -rf --one-file-system "$path"
	done < <(find "${TMPDIR:-/tmp}" -mindepth 1 -maxdepth 1 -type d -name 'kubelet-rs-*' -mmin +180)
}

# start_tools: in the background, as it takes minutes the first time and the checks
# before the first cluster do not need them.
start_tools() {
	local sets=(kubernetes etcd crictl)
	! uses_containerd_2 || sets+=(containerd cni)
	# For one test each; a filter that picks one has the test build it.
	! wants cluster || [[ -n $filter ]] || sets+=(coredns skipper)
	! wants conformance || [[ ! -s $CONFORMANCE_LIST ]] || sets+=(e2e coredns)
	TOOLS_LOG=$LOG_DIR/tools.log
	nice "$LIB_DIR/build-tools" "${sets[@]}" >"$TOOLS_LOG" 2>&1 9>&- &
	TOOLS_PID=$!
}

await_tools() {
	tail --pid="$TOOLS_PID" --lines=+1 -f "$TOOLS_LOG"
	! grep '^error: ' "$TOOLS_LOG"
}

# cleanup: whatever happened, nothing that was started stays.
cleanup() {
	parts_abort
	[[ -z ${TOOLS_PID:-} ]] || kill "$TOOLS_PID" 2>/dev/null || true
	[[ $what == unit ]] || "$LIB_DIR/down" --stale
}

# --- checks ----------------------------------------------------------------------

# The one set of features that everything is tested with, so that it is built once.
TEST_CARGO=(--locked --all-features)
# A few unit tests need root, and cargo has it only if it is root's.
unit_features() { [[ $EUID -eq 0 && ${CARGO[0]} != runuser ]] && echo --all-features || echo --features=testing; }

check_lints() { cargo_run clippy "${TEST_CARGO[@]}" --all-targets -- -D warnings; }
# As it is shipped, without what only tests use: no unsafe code, and nothing that can
# panic by itself, unless an `expect` attribute gives the reason.
check_lints_shipped() {
	cargo_run clippy --locked --lib --bin kubelet -- -D warnings -D unsafe_code \
		-D clippy::unwrap_used -D clippy::expect_used -D clippy::panic
}
check_documentation() {
	local -x RUSTDOCFLAGS='-D warnings'
	cargo_run doc "${TEST_CARGO[@]}" --no-deps --document-private-items
}

# Scripts are known by their first line.
check_scripts() {
	local scripts
	cd "$REPO_DIR"
	mapfile -t scripts < <(grep -rlE --exclude-dir=target '^#!.*\b(ba)?sh$' hack vagrant .ci)
	shellcheck "${scripts[@]}" && printf '%s\n' "${scripts[@]}"
}

# The virtual machines that vagrant/ describes, for the provider that Debian has. The
# agent may not be built yet; any file stands for it.
check_vagrantfile() {
	local status=0
	local -x VAGRANT_HOME VAGRANT_DOTFILE_PATH KUBELET_RS_KUBELET=/bin/true KUBELET_RS_WORKERS
	need_packages vagrant=vagrant /var/lib/dpkg/info/vagrant-libvirt.list=vagrant-libvirt
	VAGRANT_HOME=$(mktemp -d)
	VAGRANT_DOTFILE_PATH=$VAGRANT_HOME/machines
	cd "$REPO_DIR/vagrant"
	for KUBELET_RS_WORKERS in 1 3; do
		vagrant validate || status=1
	done
	rm -rf "$VAGRANT_HOME"
	return "$status"
}

# Licences, sources and known vulnerabilities of the crates.
check_dependencies() {
	local dir=$CACHE_DIR/tools/cargo-deny-$CARGO_DENY_VERSION
	if [[ ! -x $dir/bin/cargo-deny ]]; then
		echo "building cargo-deny, once"
		lock "$dir.lock" 1800
		[[ -x $dir/bin/cargo-deny ]] || CARGO_TARGET_DIR=$dir.tmp "${CARGO[@]}" install --locked \
			--root "$dir" "cargo-deny@$CARGO_DENY_VERSION" || return 1
		rm -rf "$dir.tmp"
		unlock_and_forget "$dir.lock"
	fi
	cd "$REPO_DIR"
	"${CARGO[@]:0:${#CARGO[@]}-1}" "$dir/bin/cargo-deny" --locked check "$@"
}

advisories_are_reachable() {
	curl --silent --head --max-time 10 --output /dev/null https://github.com/rustsec/advisory-db
}

run_checks() {
	part format cargo_run fmt --check
	part lints check_lints
	[[ $what == all ]] || return 0
	part "lints as shipped" check_lints_shipped
	part documentation check_documentation
	part scripts check_scripts
	part "installation and package" "$REPO_DIR/hack/install-selftest"
	part Vagrantfile check_vagrantfile
	part "licences and sources" check_dependencies licenses bans sources
	if advisories_are_reachable; then
		part advisories check_dependencies advisories
	else
		part_skipped advisories "their database (on github.com) cannot be reached"
	fi
}

# --- tests -----------------------------------------------------------------------

# targets node|unit: names of the test targets that need the feature node-tests, or not.
targets() {
	local need
	[[ $1 == node ]] && need=true || need=false
	cargo_run metadata --locked --no-deps --format-version 1 | jq --raw-output --argjson need "$need" '
		.packages[].targets[] | select(.kind == ["test"])
		| select(((."required-features" // []) | any(. == "node-tests")) == $need) | .name'
}

run_unit_tests() {
	local name arguments=()
	while read -r name; do
		arguments+=(--test "$name")
	done < <(targets unit)
	part "unit tests" cargo_run test --locked "$(unit_features)" --no-fail-fast --lib --bins "${arguments[@]}" -- ${filter:+"$filter"}
	[[ $what != all ]] || part "examples in documentation" cargo_run test "${TEST_CARGO[@]}" --doc
}

# build_node_tests: TEST_PROGRAM[target] becomes the test's path. They are started
# without cargo, which under sudo is run as another user than root.
declare -A TEST_PROGRAM=()
build_node_tests() {
	local name path arguments=()
	while read -r name; do
		arguments+=(--test "$name")
	done < <(targets node)
	((${#arguments[@]})) || return 0
	part "build of node tests" cargo_run test "${TEST_CARGO[@]}" --no-run "${arguments[@]}"
	while IFS=$'\t' read -r name path; do
		TEST_PROGRAM[$name]=$path
	done < <(cargo_run test "${TEST_CARGO[@]}" --no-run --message-format json "${arguments[@]}" 2>/dev/null |
		jq --raw-output 'select(.executable and .profile.test) | [.target.name, .executable] | @tsv')
}

# test_program TARGET CONTAINERD: runs it as cargo would.
test_program() {
	local -x CARGO_MANIFEST_DIR=$REPO_DIR KUBELET_RS_CONTAINERD=$2
	if [[ $2 == 2 ]]; then
		local -x KUBELET_RS_CONTAINERD2
		KUBELET_RS_CONTAINERD2=$(tools_dir containerd)
	fi
	cd "$REPO_DIR"
	"${TEST_PROGRAM[$1]}" ${filter:+"$filter"}
}

run_node_tests() {
	local target version
	for target in $(printf "%s\n" "${!TEST_PROGRAM[@]}" | sort); do
		[[ $target != cluster ]] || continue
		if [[ " ${CONTAINERD_TARGETS[*]} " != *" $target "* ]]; then
			part --list "node: $target" test_program "$target" 1.6
			continue
		fi
		for version in "${containerds[@]}"; do
			[[ $version != 2 ]] || need_tools
			part --list "node: $target, containerd $version" test_program "$target" "$version"
		done
	done
}

# need_tools: waits for start_tools, once.
need_tools() {
	[[ -n $TOOLS_PID ]] || return 0
	part "tools from source" await_tools
	TOOLS_PID=''
}

run_cluster_tests() {
	local version
	need_tools
	if [[ -z ${TEST_PROGRAM[cluster]:-} ]]; then
		warn "there is no test target 'cluster'"
		return
	fi
	for version in "${containerds[@]}"; do
		KUBELET_RS_NODE=$node part --list "cluster: node $node, containerd $version" test_program cluster "$version"
	done
}

# run_conformance: on containerd 2 alone: some specs want what 1.6 does not have, and a
# second run of minutes would tell little that the cluster tests do not.
run_conformance() {
	if [[ ! -s $CONFORMANCE_LIST ]]; then
		part_skipped conformance "${CONFORMANCE_LIST#"$REPO_DIR"/} names no spec yet"
	elif ! uses_containerd_2; then
		part_skipped conformance "it is run on containerd 2, which --containerd leaves out"
	else
		need_tools
		part --list "conformance: node $node" "$REPO_DIR/hack/conformance.sh" --passing --node "$node"
	fi
}

# --- all of it -------------------------------------------------------------------

parse "$@"
prepare
parts_begin "${CARGO_TARGET_DIR:-$REPO_DIR/target}/test-logs"
trap cleanup EXIT
if [[ $what =~ ^(cluster|all)$ ]] || [[ $what == conformance && -s $CONFORMANCE_LIST ]] || { [[ $what == node ]] && uses_containerd_2; }; then
	start_tools
fi
[[ $what != all && $what != unit ]] || [[ -n $filter ]] || run_checks
[[ $what != all && $what != unit ]] || run_unit_tests
if [[ $what == all && -z $filter ]]; then
	part "release build" cargo_run build --locked --release --bin kubelet
	export KUBELET_RS_KUBELET=${CARGO_TARGET_DIR:-$REPO_DIR/target}/release/kubelet
fi
[[ $what == unit || $what == conformance ]] || build_node_tests
! wants node || run_node_tests
if [[ $what == all && -z $filter ]]; then
	part --list "quick start" "$REPO_DIR/hack/quickstart-selftest"
	need_tools
	part --list "hack/cluster itself" "$LIB_DIR/selftest"
fi
! wants cluster || run_cluster_tests
! wants conformance || [[ -n $filter ]] || run_conformance
parts_end
