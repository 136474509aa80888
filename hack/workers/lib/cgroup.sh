# shellcheck shell=bash
# A machine's cgroup, /kubelet-rs/CLUSTER/machines/NAME in every hierarchy: what the
# machine sees as the root of its own.

# machine_cgroup_dirs: in every hierarchy, there or not.
machine_cgroup_dirs() {
	local mount
	for mount in $(cgroup_mounts cgroup cgroup2); do
		echo "$mount$C_CGROUP/machines/$M_NAME"
	done
}

# machine_cgroup_up: made anew for each boot, as nothing of one should be in the next.
machine_cgroup_up() {
	local mount dir
	machine_cgroup_down
	if [[ $(cgroup_mode) == v2 ]]; then
		mkdir -p "/sys/fs/cgroup$C_CGROUP/machines/$M_NAME"
		cgroup_delegate "/sys/fs/cgroup$C_CGROUP/machines"
		echo "$MACHINE_MEMORY" >"/sys/fs/cgroup$C_CGROUP/machines/$M_NAME/memory.max"
		return
	fi
	for mount in $(cgroup_mounts cgroup cgroup2); do
		dir=$mount$C_CGROUP/machines
		mkdir -p "$dir"
		if [[ -e $mount/cpuset.cpus ]]; then
			cgroup_inherit_cpuset "$mount" "$dir"
			# So that cgroups made inside have CPUs without anyone's doing.
			echo 1 >"$dir/cgroup.clone_children"
		fi
		mkdir -p "$dir/$M_NAME"
		[[ ! -e $dir/$M_NAME/memory.limit_in_bytes ]] ||
			echo "$MACHINE_MEMORY" >"$dir/$M_NAME/memory.limit_in_bytes"
	done
}

# machine_cgroup_enter: moves the calling subshell there.
machine_cgroup_enter() {
	local dir
	for dir in $(machine_cgroup_dirs); do
		echo "$BASHPID" >"$dir/cgroup.procs" || die "cannot enter cgroup $dir"
	done
}

machine_cgroup_down() {
	local dir
	for dir in $(machine_cgroup_dirs); do
		[[ ! -d $dir ]] || wait_until 10 cgroup_remove "$dir" ||
			warn "cgroup $dir does not go away; processes in it: $(find "$dir" -name cgroup.procs -exec cat {} + | tr '\n' ' ')"
	done
}
