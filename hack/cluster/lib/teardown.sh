# shellcheck shell=bash
# Removes every trace of a cluster, from whatever state it is in: half up, daemons
# killed, paused or gone, containers running without their containerd. Every step
# looks at what is there, so that it can be repeated.

# cluster_teardown: the cluster that cluster_set named. The caller holds its lock.
cluster_teardown() {
	[[ ! -e $C_DIR/index ]] || cluster_set_network "$(<"$C_DIR/index")"
	local containers
	containers=$(container_ids)
	cgroup_thaw
	wait_until 60 cluster_kill || die "cluster $C_NAME: these processes survive SIGKILL: $(cluster_pids | tr '\n' ' ')"
	shim_sockets_remove
	wait_until 10 mounts_remove || die "cluster $C_NAME: cannot unmount $(mounts_below "$C_DIR" | tr '\n' ' ')"
	network_down
	cgroup_down
	container_cgroups_remove "$containers"
	shared_files_remove
	if [[ -d $C_DIR ]]; then
		rm -rf --one-file-system "$C_DIR"
	fi
	local traces
	traces=$(cluster_traces)
	[[ -z $traces ]] || die "cluster $C_NAME: not everything could be removed:
$traces"
}

# cluster_traces: what is left of the cluster, a line each; nothing after a teardown.
cluster_traces() {
	local path pid
	for pid in $(cluster_pids); do
		printf 'process %s: %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-100)"
	done
	mounts_below "$C_DIR" | sed 's/^/mount /'
	cgroup_dirs | sed 's/^/cgroup /'
	for path in "$C_NETNS" "$C_DIR" ${C_VETH:+"/sys/class/net/$C_VETH"}; do
		[[ ! -e $path ]] || echo "$path"
	done
	shared_files
}

# --- processes -----------------------------------------------------------------

# cluster_pids: daemons, shims, containers, and whatever else runs in the cluster's
# network namespace or cgroup, except this script and its ancestors.
cluster_pids() {
	local -A parent=() doomed=() spared=()
	local pid dir netns='' fields args name
	if [[ -e $C_NETNS && $(stat -fLc %T "$C_NETNS") == nsfs ]]; then
		netns=net:[$(stat -Lc %i "$C_NETNS")]
		[[ $netns != "$(readlink /proc/1/ns/net)" ]] || netns=''
	fi
	for dir in /proc/[0-9]*; do
		pid=${dir#/proc/}
		process_stat "$pid" || continue
		read -ra fields <<<"$REPLY"
		parent[$pid]=${fields[1]}
		[[ ${fields[0]} != [ZX] ]] || continue
		if [[ -n $netns && $(readlink "$dir/ns/net" 2>/dev/null) == "$netns" ]]; then
			doomed[$pid]=1
			continue
		fi
		{ mapfile -d '' -t args <"$dir/cmdline"; } 2>/dev/null || continue
		[[ " ${args[*]} " != *" -address $C_SOCKET "* ]] || doomed[$pid]=1
	done
	for name in "${COMPONENTS[@]}"; do
		! pid=$(daemon_pid "$name") || doomed[$pid]=1
	done
	while read -r pid; do
		[[ -z ${parent[$pid]:-} || $(process_start "$pid") == '' ]] || doomed[$pid]=1
	done < <(cgroup_pids)
	# Containers are the shims' descendants, whatever cgroup they are in.
	local ancestor
	for pid in "${!parent[@]}"; do
		ancestor=${parent[$pid]}
		while ((ancestor > 1)); do
			if [[ -n ${doomed[$ancestor]:-} ]]; then
				doomed[$pid]=1
				break
			fi
			ancestor=${parent[$ancestor]:-0}
		done
	done
	pid=$BASHPID
	while ((pid > 0)); do
		spared[$pid]=1
		pid=${parent[$pid]:-0}
	done
	for pid in "${!doomed[@]}"; do
		[[ -n ${spared[$pid]:-} ]] || ! process_start "$pid" >/dev/null || echo "$pid"
	done
	return 0
}

# cluster_kill: kills them all; true once none is left.
cluster_kill() {
	local pids
	pids=$(cluster_pids) || return 1
	[[ -n $pids ]] || return 0
	# shellcheck disable=SC2086
	kill -KILL $pids 2>/dev/null || true
	return 1
}

# --- containerd's traces outside the cluster's directory -------------------------

container_ids() {
	local dir
	for dir in "$C_DIR"/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/; do
		basename "$dir"
	done
}

# A shim's sockets have a name that is a hash of containerd's socket and the id of
# the pod's sandbox; its bundle says which.
shim_sockets_remove() {
	local file path
	for file in "$C_DIR"/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/{address,bootstrap.json}; do
		while read -r path; do
			rm -f "$path"
		done < <(grep -o '/run/containerd/s/[0-9a-f]*' "$file")
	done
}

# Containers started without a parent cgroup, as by a bare CRI client, have theirs
# at the root of every hierarchy or in /k8s.io.
container_cgroups_remove() {
	local mount id
	for id in $1; do
		for mount in $(cgroup_mounts cgroup cgroup2); do
			[[ ! -d $mount/$id ]] || wait_until 5 cgroup_remove "$mount/$id" || true
			[[ ! -d $mount/k8s.io/$id ]] || wait_until 5 cgroup_remove "$mount/k8s.io/$id" || true
			rmdir "$mount/k8s.io" 2>/dev/null || true
		done
	done
}

# Links for log shippers and CNI's cached results are in directories of the host;
# ours are known by the cluster's directory in them.
shared_files_remove() {
	local path
	while read -r path; do
		rm -f "$path"
	done < <(shared_files)
}

shared_files() {
	local path
	for path in /var/log/containers/*.log; do
		[[ $(readlink "$path") != "$C_DIR"/* ]] || echo "$path"
	done
	grep -lsF -e "$C_DIR/" -e "\"kubelet-rs-$C_NAME\"" /dev/null /var/lib/cni/results/* || true
}

# --- mounts --------------------------------------------------------------------

mounts_below() {
	local path
	while read -r _ _ _ _ path _; do
		path=$(printf '%b' "$path")
		[[ $path != "$1" && $path != "$1"/* ]] || printf '%s\n' "$path"
	done </proc/self/mountinfo
}

# mounts_remove: true once nothing is mounted there. Latest mount first; a busy one
# is detached, its users are gone.
mounts_remove() {
	local path
	while read -r path; do
		umount -- "$path" 2>/dev/null || umount --lazy -- "$path" 2>/dev/null || true
	done < <(mounts_below "$C_DIR" | tac)
	[[ -z $(mounts_below "$C_DIR") ]]
}
