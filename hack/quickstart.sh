#!/usr/bin/env bash
# The shortest way to see the agent at work: builds it, gives it a containerd and a
# network of its own, and lets it run the pods of examples/ without any API server.
#
# It is a cluster of hack/cluster without a control plane: the same directories,
# network namespace and clean-up, so hack/cluster/{logs,exec,ctl,status} work on it.
# Everything is started with pid files, also where systemd is PID 1, and nothing of
# the host's own containerd, kubelet, CNI or iptables configuration is touched.
. "$(dirname -- "${BASH_SOURCE[0]}")/cluster/lib.sh"
# shellcheck source=lib/rust.sh
. "$REPO_DIR/hack/lib/rust.sh"
# shellcheck source=lib/pods.sh
. "$REPO_DIR/hack/lib/pods.sh"

NAME=${KUBELET_RS_QUICKSTART:-quickstart}
SELF=hack/quickstart.sh

USAGE="quickstart.sh [up]         build, start and show the pods of examples/; run again, it repairs
       quickstart.sh show         the table of pods and containers
       quickstart.sh explain POD  why a pod is as it is, by the agent itself
       quickstart.sh down         remove everything
  KUBELET_RS_KUBELET=PATH         start this binary instead of building one
  KUBELET_RS_QUICKSTART=NAME      more than one side by side (default: quickstart)
  KUBELET_RS_OWNER=PID            it is stale once that process is gone ('hack/cluster/down --stale')"

# The clusterIP of examples/service.yaml.
SERVICE_IP=10.96.0.80

STEPS=6
step() {
	CURRENT_STEP=$((${CURRENT_STEP:-0} + 1))
	say "[$CURRENT_STEP/$STEPS] $*"
}

# --- the host, the binary ------------------------------------------------------

prepare_host() {
	step "host: $(host_facts)"
	need_packages curl=curl jq=jq ip=iproute2 nsenter=util-linux iptables=iptables \
		runc=runc containerd=containerd /usr/lib/cni/ptp=containernetworking-plugins
}

# build: KUBELET becomes the path of the agent's binary.
build() {
	if [[ -n ${KUBELET_RS_KUBELET:-} ]]; then
		step "agent: $KUBELET_RS_KUBELET"
		KUBELET=$(our_kubelet "$KUBELET_RS_KUBELET")
		return
	fi
	need_rust
	need_build_packages
	step "agent: cargo build --profile quick (minutes the first time, then nothing)"
	cargo_run build --profile quick --locked --bin kubelet 9>&- || die "the build failed, see above"
	KUBELET=$(our_kubelet "${CARGO_TARGET_DIR:-$REPO_DIR/target}/quick/kubelet")
}

# --- what it runs in -----------------------------------------------------------

# foundation_is_whole: whether the directories, network and cgroup of an earlier run
# are all there. After a reboot, say, they are not.
foundation_is_whole() {
	[[ -e $C_DIR/env && -e $C_DIR/node && -e $C_DIR/index ]] || return 1
	cluster_load
	[[ $(<"$C_DIR/node") == standalone && -e $C_NETNS && -d /sys/class/net/$C_VETH ]] &&
		[[ -n $(mounts_below "$C_DIR") && -e $(cgroup_daemons) ]] &&
		in_netns true
}

lay_foundation() {
	if [[ -d $C_DIR ]] && foundation_is_whole && ! cluster_is_stale_by_owner; then
		step "network $C_SUPERNET and directories: as they were"
		return
	fi
	if cluster_names | grep -qx "$NAME"; then
		say "there are remains of an earlier run; removing them"
		cluster_teardown
	fi
	cluster_make_directories
	owner_set $$
	C_CONTAINERD=host
	echo "$C_CONTAINERD" >"$C_DIR/containerd-choice"
	containerd_select "$C_CONTAINERD"
	cluster_allocate
	cgroup_up
	network_up
	echo standalone >"$C_DIR/node"
	step "network $C_SUPERNET in its own namespace, directories below $C_DIR"
}

# A run that was interrupted has left its pid as the owner.
cluster_is_stale_by_owner() { [[ -e $C_DIR/owner ]] && cluster_is_stale; }

start_containerd() {
	containerd_configure
	step "$("$C_CONTAINERD_BIN/containerd" --version | awk '{ print "containerd " $3 }'), a private one at $C_SOCKET"
	daemon_start containerd
	if ! wait_until 30 ready_containerd >/dev/null 2>&1 && daemon_pid containerd >/dev/null; then
		say "containerd runs and does not answer; starting it again"
		daemon_stop containerd
		daemon_start containerd
	fi
	daemon_await containerd 30
	images_import "$C_CTR" "$C_SOCKET" pause busybox 9>&-
	say "images made on this host and imported: pause, busybox"
}

# start_agent: and again, if it runs another binary or configuration than it should;
# the pods keep running meanwhile.
start_agent() {
	local pid before after
	before=$(cat "$C_DIR/cmd/kubelet" "$C_DIR/kubelet.yaml" 2>/dev/null || true)
	node_configure_standalone "$KUBELET"
	after=$(cat "$C_DIR/cmd/kubelet" "$C_DIR/kubelet.yaml")
	copy_examples
	step "agent, standalone, with the manifests in $C_DIR/manifests"
	if pid=$(daemon_pid kubelet) && ! [[ $before == "$after" && /proc/$pid/exe -ef $KUBELET ]]; then
		say "the running agent is of another build: replacing it"
		daemon_stop kubelet
	fi
	daemon_start kubelet
	if ! wait_until 30 ready_kubelet >/dev/null 2>&1 && daemon_pid kubelet >/dev/null; then
		say "the agent runs and does not answer; starting it again"
		daemon_stop kubelet
		daemon_start kubelet
	fi
	daemon_await kubelet 30
}

# Those that are not there; what a user has changed stays.
copy_examples() {
	local file
	for file in "$REPO_DIR"/examples/*.yaml; do
		[[ ! -e $C_DIR/manifests/${file##*/} ]] || continue
		# Whole or not at all: the agent reads what appears there at once.
		install -m 644 "$file" "$C_DIR/example.new"
		mv "$C_DIR/example.new" "$C_DIR/manifests/${file##*/}"
	done
}

# --- what it shows -------------------------------------------------------------

# await_pods: until the examples do what they are there to show.
await_pods() {
	step "pods"
	local deadline=$((SECONDS + 120)) missing
	while :; do
		ROWS=$(pods_rows) || ROWS=''
		report_changes
		missing=$(examples_missing)
		[[ -n $missing ]] || return 0
		if ((SECONDS >= deadline)) || ! daemon_pid kubelet >/dev/null; then
			pods_table "$ROWS" >&2
			daemon_show_log containerd
			daemon_show_log kubelet
			die "still to come after 120 s: $missing ($SELF down removes everything)"
		fi
		sleep 0.2
	done
}

# examples_missing: which of the examples does not show yet what it is there for.
examples_missing() {
	web_answers || echo "the web pod's answer"
	service_balances || echo "answers of both web pods through their Service"
	[[ $(container_state with-init main) == Running ]] || echo "the pod with an init container"
	[[ $(container_restarts crash-loop main) -gt 0 ]] || echo "a restart in the crash loop"
}

# report_changes: a line for every container whose state changed since the last call.
declare -A REPORTED=()
report_changes() {
	local pod container state restarts
	while IFS=$'\t' read -r _ pod container state restarts _; do
		state="$state, restarts: $restarts"
		[[ -n $pod && ${REPORTED[$pod/$container]:-} != "$state" ]] || continue
		REPORTED[$pod/$container]=$state
		say "  $pod $container: $state"
	done <<<"$ROWS"
}

# From ROWS, of example pod $1 (static pods carry the node's name at the end of theirs).
pod_ip() { awk -F'\t' -v pod="$1-$C_NODE_NAME" '$2 == pod && $6 != "-" { print $6; exit }' <<<"$ROWS"; }
container_state() { awk -F'\t' -v pod="$1-$C_NODE_NAME" -v name="$2" '$2 == pod && $3 == name { print $4; exit }' <<<"$ROWS"; }
container_restarts() { awk -F'\t' -v pod="$1-$C_NODE_NAME" -v name="$2" '$2 == pod && $3 == name { print $5; exit }' <<<"$ROWS"; }

web_answers() {
	local ip
	ip=$(pod_ip web)
	[[ -n $ip ]] && curl --fail --silent --max-time 2 --output /dev/null "http://$ip:8080/"
}

# Of examples/service.yaml; on the node's network, as cluster IPs are.
service_get() { in_netns curl --fail --silent --max-time 2 "http://$SERVICE_IP/"; }

# service_balances: both pods have answered within twenty connections.
service_balances() {
	local try answers=''
	for ((try = 0; try < 20; try++)); do
		answers+=$(service_get) || return 1
		[[ $answers != *"two containers"* || $answers != *"second pod"* ]] || return 0
	done
	return 1
}

show() {
	ROWS=$(pods_rows)
	pods_table "$ROWS"
}

show_web() {
	local ip
	ip=$(pod_ip web)
	echo
	echo "\$ curl http://$ip:8080/                    # the web pod at its own address"
	curl --fail --silent --show-error --max-time 5 "http://$ip:8080/"
	echo "\$ curl http://$C_NODE_IP:8080/                      # the same by its host port, at the node's"
	wait_until 5 curl --fail --silent --max-time 2 "http://$C_NODE_IP:8080/" ||
		warn "the host port does not answer (is there an iptables that portmap can use?)"
}

show_service() {
	local try
	echo
	echo "\$ for i in 1 2 3 4 5 6; do sudo hack/cluster/exec $NAME curl -s http://$SERVICE_IP/; done   # both, by their Service"
	for try in 1 2 3 4 5 6; do
		service_get
	done
	echo "\$ curl http://$C_NODE_IP:30080/                     # the same at the node's port"
	wait_until 5 curl --fail --silent --max-time 2 "http://$C_NODE_IP:30080/" ||
		warn "the node port does not answer"
}

show_hints() {
	cat <<-END

		Look further:
		  sudo $SELF explain web         # what the agent wants, sees, does next and waits for
		  sudo $SELF explain crash-loop  # why is my pod not running?
		  sudo $SELF show                # the table above, as it is now
		  sudo hack/cluster/logs $NAME kubelet -f     # the agent's log; also: containerd
		  curl http://$C_NODE_IP:10248/metrics               # also /healthz?verbose
		Change something, and watch it follow:
		  sudo sed -i s/Hello/Goodbye/ $C_DIR/manifests/web.yaml
		The containers' logs are in
		  $C_DIR/pod-logs
		The pods' network reaches this host and no further, and no registry is asked: the
		image here, busybox:1.37, was made from Debian's busybox-static.

		Stop, and remove all of it:
		  sudo $SELF down
	END
}

# --- commands ------------------------------------------------------------------

up() {
	prepare_host
	build
	lock "$C_LOCK" 5 || die "another run of $SELF works on '$NAME'"
	lay_foundation
	cluster_write_env
	start_containerd
	start_agent
	owner_set "${KUBELET_RS_OWNER:-}"
	await_pods
	say "all of examples/ runs"
	echo
	show
	show_web
	show_service
	show_hints
}

down() {
	"$LIB_DIR/down" "$NAME"
	say "what stays makes the next run faster: Debian packages, ${CARGO_TARGET_DIR:-$REPO_DIR/target}, $CACHE_DIR"
}

# explain POD: an example by its short name, or any pod as NAMESPACE/POD.
explain() {
	local pod=$1
	[[ $pod == */* ]] || pod=default/$pod
	[[ $pod != default/* || ! -e $C_DIR/manifests/${pod#default/}.yaml ]] || pod+=-$C_NODE_NAME
	agent_explain "$pod"
}

open() {
	[[ -e $C_DIR/env ]] || die "'$NAME' is not up; '$SELF' starts it"
	cluster_open "$NAME"
	daemon_pid kubelet >/dev/null || warn "the agent does not run; '$SELF' starts it again"
}

(($# <= 2)) || usage "$USAGE"
cluster_set "$NAME"
case ${1:-up} in
up | show | down) (($# <= 1)) || usage "$USAGE" ;;
explain) (($# == 2)) || usage "$USAGE" ;;
-h | --help | help)
	echo "usage: $USAGE"
	exit
	;;
*) usage "$USAGE" ;;
esac
need_root
case ${1:-up} in
up) up ;;
down) down ;;
show) open && show ;;
explain) open && explain "$2" ;;
esac
