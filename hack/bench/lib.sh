# shellcheck shell=bash
# What the benchmarks share: building, a cluster of their own, its end. Sourced after
# hack/cluster/lib.sh, never run.

# bench_parse ARGS…: the options that all benchmarks have; sets containerd, kubelet,
# output, rounds and bench_args. A benchmark's --quick adds QUICK_ARGS, and options of its
# own, which are for the program, are in BENCH_OPTIONS.
bench_parse() {
	containerd=1.6 kubelet='' output=table bench_args=() rounds=3
	while (($#)); do
		case $1 in
		--quick)
			rounds=1 bench_args+=("${QUICK_ARGS[@]}")
			shift
			;;
		--containerd | --kubelet | --output | --rounds)
			(($# > 1)) || usage "$USAGE"
			printf -v "${1#--}" '%s' "$2"
			shift 2
			;;
		*)
			[[ -n $1 && " ${BENCH_OPTIONS[*]:-} " == *" $1 "* ]] && (($# > 1)) || usage "$USAGE"
			bench_args+=("$1" "$2")
			shift 2
			;;
		esac
	done
	[[ $output =~ ^(table|json)$ && $rounds =~ ^[1-9][0-9]*$ ]] || usage "$USAGE"
}

# bench_run WHAT: builds what is needed and measures on a cluster that goes with this
# script.
bench_run() {
	need_root
	local target=${CARGO_TARGET_DIR:-$REPO_DIR/target} name=bench$$ node=(--node upstream) program=()
	say "building"
	if [[ " ${bench_args[*]} " != *' --only upstream '* ]]; then
		if [[ -z $kubelet ]]; then
			bench_build --release --bin kubelet
			kubelet=$target/release/kubelet
		fi
		kubelet=$(our_kubelet "$kubelet")
		node=(--node ours --kubelet "$kubelet") program=(--kubelet "$kubelet")
	fi
	bench_build --example bench
	# shellcheck disable=SC2064
	trap "'$LIB_DIR/down' $name" EXIT
	# Signals end the script by way of its exit.
	trap 'exit 130' INT TERM
	"$LIB_DIR/up" "$name" "${node[@]}" --containerd "$containerd" --owner $$ --images 'pause busybox'
	"$target/debug/examples/bench" --what "$1" --cluster "$name" "${program[@]}" \
		--rounds "$rounds" --output "$output" "${bench_args[@]}"
}

bench_build() { cargo build --quiet --manifest-path "$REPO_DIR/Cargo.toml" "$@" >&2; }
