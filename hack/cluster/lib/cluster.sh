# shellcheck shell=bash
# A cluster as seen from outside: its name, its addresses, its paths, its owner.
#
# Everything of cluster NAME is under CLUSTERS_DIR/NAME, in network namespace
# kubelet-rs-NAME and in cgroup /kubelet-rs/NAME. A number, unique on the host,
# gives it one /16 of addresses:
#
#   10.X.0.0/24     host .1 — node .2, a veth pair
#   10.X.64.0/18    pods, a /24 for each node
#   10.X.128.0/17   services
#
# DIR/env holds all of it as KEY=VALUE lines, for scripts and tests to read.

FIRST_OCTET=10
FIRST_NETWORK=200
MAX_CLUSTERS=50

# There while the host's /var/lib/kubelet is an empty directory made by us.
VAR_LIB_KUBELET_IS_OURS=$CLUSTERS_DIR/.var-lib-kubelet

# cluster_names: all that there is a trace of, complete or not.
cluster_names() {
	{
		local path
		for path in "$CLUSTERS_DIR"/*/ /run/netns/kubelet-rs-*; do
			path=${path%/}
			path=${path##*/}
			echo "${path#kubelet-rs-}"
		done
		cgroup_cluster_names
	} | sort -u
}

# cluster_set NAME: the C_ variables that follow from the name alone.
cluster_set() {
	[[ $1 =~ ^[a-z][a-z0-9-]{0,19}$ ]] ||
		die "'$1' is no cluster name: a letter, then at most 19 of a-z, 0-9 and -"
	C_NAME=$1
	C_DIR=$CLUSTERS_DIR/$1
	C_LOCK=$CLUSTERS_DIR/.locks/$1
	C_NETNS_NAME=kubelet-rs-$1
	C_NETNS=/run/netns/$C_NETNS_NAME
	C_NODE_NAME=$1-node
	C_CGROUP=/kubelet-rs/$1
	C_SOCKET=$C_DIR/run/containerd.sock
	C_PKI=$C_DIR/pki
	C_KUBECONFIG=$C_DIR/admin.kubeconfig
	C_KUBELET_ROOT=$C_DIR/kubelet
	# The longest socket path of the kubelet; sun_path has 108 bytes with its NUL.
	local longest=$C_KUBELET_ROOT/device-plugins/kubelet.sock
	((${#longest} < 100)) ||
		die "$C_DIR is too long for the unix sockets in it: choose a shorter KUBELET_RS_STATE or name"
}

# cluster_set_network INDEX: the C_ variables that follow from the number.
cluster_set_network() {
	C_INDEX=$1
	local net=$FIRST_OCTET.$((FIRST_NETWORK + C_INDEX))
	C_VETH=kubelet-rs$C_INDEX
	C_SUPERNET=$net.0.0/16
	C_HOST_IP=$net.0.1
	C_NODE_IP=$net.0.2
	C_POD_CIDR=$net.64.0/18
	C_NODE_POD_CIDR=$net.64.0/24
	C_SERVICE_CIDR=$net.128.0/17
	C_DNS_IP=$net.128.10
}

# cluster_open NAME: all C_ variables of an existing cluster.
cluster_open() {
	cluster_set "$1"
	[[ -e $C_DIR/env ]] || die "there is no cluster '$1' (hack/cluster/status lists them)"
	cluster_load
}

# cluster_load: what was chosen at `up` and recorded, so far as it came.
cluster_load() {
	[[ ! -e $C_DIR/index ]] || cluster_set_network "$(<"$C_DIR/index")"
	C_CONTAINERD=$(<"$C_DIR/containerd-choice")
	containerd_select "$C_CONTAINERD"
}

# cluster_allocate: takes the lowest free number. Free means: no other cluster's,
# no link of that name, and none of its addresses routed by this host already.
cluster_allocate() {
	local index taken=' ' file
	exec 8<"$CLUSTERS_DIR"
	flock 8
	for file in "$CLUSTERS_DIR"/*/index; do
		taken+="$(<"$file") "
	done
	for ((index = 0; index < MAX_CLUSTERS; index++)); do
		[[ $taken != *" $index "* ]] || continue
		cluster_set_network "$index"
		if ! [[ -e /sys/class/net/$C_VETH ]] && ! network_in_use "$C_SUPERNET"; then
			echo "$index" >"$C_DIR/index"
			exec 8>&-
			return
		fi
	done
	die "no free network: $MAX_CLUSTERS clusters exist, or their addresses are used on this host"
}

# cluster_create 1.6|2: directory, owner, addresses, cgroup and network of the cluster that
# cluster_set named; nothing runs yet. The caller holds its lock.
cluster_create() {
	[[ ! -e $C_DIR ]] || die "cluster $C_NAME exists already (hack/cluster/status; hack/cluster/down $C_NAME)"
	cluster_make_directories
	owner_set $$
	C_CONTAINERD=$1
	echo "$1" >"$C_DIR/containerd-choice"
	containerd_select "$1"
	cluster_allocate
	cgroup_up
	network_up
}

# cluster_make_directories: on a mount of its own.
cluster_make_directories() {
	mkdir -p "$CLUSTERS_DIR"
	host_directories_note
	[[ $(stat -fc %T "$CLUSTERS_DIR") != overlayfs ]] ||
		die "$CLUSTERS_DIR is on overlayfs, which containerd cannot stack its own on: set KUBELET_RS_STATE to a directory on another file system"
	mkdir -p "$C_DIR"
	# A mount of its own, with a peer group of its own: volumes propagate into
	# containers, and not to the rest of the host.
	mount --bind "$C_DIR" "$C_DIR"
	mount --make-private "$C_DIR"
	mount --make-shared "$C_DIR"
	mkdir -p "$C_DIR"/{bin,cmd,run,log,pki,cni,certs.d,etcd,manifests,pod-logs,volume-plugins,containerd,kubelet/pki}
	chmod 711 "$C_DIR"
	chmod 700 "$C_PKI" "$C_DIR/etcd"
}

# --- owner -------------------------------------------------------------------
# A cluster may belong to a process (a test run); while `up` runs, to `up`. If that
# process is gone, the cluster is stale. A cluster without an owner is stale only
# when none of its daemons runs, say after a reboot.

owner_set() {
	if [[ -n $1 ]]; then
		local start
		start=$(process_start "$1") || die "--owner $1: no such process"
		echo "$1 $start" >"$C_DIR/owner"
	else
		rm -f "$C_DIR/owner"
	fi
}

cluster_is_stale() {
	local pid start name
	if [[ -e $C_DIR/owner ]]; then
		read -r pid start <"$C_DIR/owner" && [[ -n $start ]] || return 0
		[[ $start != "$(process_start "$pid")" ]]
	elif [[ -e $C_DIR/bare ]]; then
		# Machines of hack/workers without a control plane may all be off. Only a host
		# that was booted since has not the mount.
		! mountpoint -q "$C_DIR"
	else
		for name in "${COMPONENTS[@]}"; do
			! daemon_pid "$name" >/dev/null || return 1
		done
		return 0
	fi
}

# clusters_remove_stale: removes every stale cluster nobody is working on.
clusters_remove_stale() {
	local name
	for name in $(cluster_names); do
		[[ $name =~ ^[a-z][a-z0-9-]{0,19}$ ]] || continue
		(
			cluster_set "$name"
			lock "$C_LOCK" 0 || exit 0
			if cluster_is_stale; then
				say "cluster $name: its owner is gone, removing what it left"
				cluster_teardown
			fi
			unlock_and_forget "$C_LOCK"
		) || warn "cluster $name is stale, and cannot be removed"
	done
}

# Directories of the host in which containerd, CNI and ip(8) leave things, whatever
# their configuration. Parents first.
HOST_DIRECTORIES=(/run/containerd /run/containerd/s /run/netns /var/lib/cni /var/lib/cni/results
	/var/log/containers)

# host_directories_note: remembers which of them are not there yet.
host_directories_note() {
	local dir
	for dir in "${HOST_DIRECTORIES[@]}"; do
		[[ -e $dir ]] || echo "$dir"
	done >>"$CLUSTERS_DIR/.host-directories"
}

# host_directories_remove: those, if they are empty.
host_directories_remove() {
	local dir
	[[ -e $CLUSTERS_DIR/.host-directories ]] || return 0
	while read -r dir; do
		# `ip netns` makes its directory a mount point.
		[[ $dir != /run/netns || -n $(ls -A "$dir" 2>/dev/null) ]] || umount "$dir" 2>/dev/null || true
		rmdir "$dir" 2>/dev/null || true
	done < <(sort -ru "$CLUSTERS_DIR/.host-directories")
	rm -f "$CLUSTERS_DIR/.host-directories"
}

# clusters_dir_remove: the directories that all clusters share, if none is left.
clusters_dir_remove() {
	local file
	for file in "$CLUSTERS_DIR"/.locks/*; do
		[[ ! -d $CLUSTERS_DIR/${file##*/} ]] || continue
		(lock "$file" 0 && unlock_and_forget "$file") || true
	done
	[[ -z $(cluster_names) ]] || return 0
	if [[ -e $VAR_LIB_KUBELET_IS_OURS ]]; then
		rmdir /var/lib/kubelet 2>/dev/null || true
		rm -f "$VAR_LIB_KUBELET_IS_OURS"
	fi
	host_directories_remove
	rmdir "$CLUSTERS_DIR/.locks" "$CLUSTERS_DIR" 2>/dev/null || true
	[[ -n ${KUBELET_RS_STATE:-} ]] || rmdir "$STATE_DIR" 2>/dev/null || true
}

# cluster_write_env: the facts about the cluster, for scripts and tests.
cluster_write_env() {
	local pair
	for pair in \
		"NAME=$C_NAME" "DIR=$C_DIR" "INDEX=$C_INDEX" \
		"NETNS=$C_NETNS" "CGROUP_ROOT=$C_CGROUP" \
		"HOST_IP=$C_HOST_IP" "NODE_IP=$C_NODE_IP" "NODE_NAME=$C_NODE_NAME" \
		"POD_CIDR=$C_POD_CIDR" "NODE_POD_CIDR=$C_NODE_POD_CIDR" "SERVICE_CIDR=$C_SERVICE_CIDR" \
		"KUBECONFIG=$C_KUBECONFIG" "APISERVER=https://$C_NODE_IP:6443" \
		"CONTAINERD=$C_CONTAINERD" "CONTAINERD_SOCKET=$C_SOCKET" "CTR=$C_CTR" \
		"KUBELET_CONFIG=$C_DIR/kubelet.yaml" "KUBELET_KUBECONFIG=$C_DIR/kubelet.kubeconfig" \
		"KUBELET_ROOT=$C_KUBELET_ROOT" "KUBELET_CERT_DIR=$C_KUBELET_ROOT/pki" \
		"MANIFEST_DIR=$C_DIR/manifests" "POD_LOGS_DIR=$C_DIR/pod-logs" "LOG_DIR=$C_DIR/log" \
		"TOOLS=$(tools_dir kubernetes)" "KUBECTL=$(tools_dir kubernetes)/kubectl"; do
		printf '%s\n' "$pair"
	done >"$C_DIR/env.new"
	mv "$C_DIR/env.new" "$C_DIR/env"
}
