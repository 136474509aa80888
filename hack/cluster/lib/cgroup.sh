# shellcheck shell=bash
# /kubelet-rs/NAME in every hierarchy of the host. Below it:
#
#   daemons/    the cluster's own processes and containerd's shims (one hierarchy
#               is enough for that: it serves to find them all)
#   kubepods/   made by the node agent, whose cgroupRoot is /kubelet-rs/NAME

# cgroup_mode: v2, or v1 (which includes v1 with an empty v2 beside it).
cgroup_mode() {
	[[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] && echo v2 || echo v1
}

# cgroup_mounts TYPE…: mount points of hierarchies of these types.
cgroup_mounts() {
	local type
	for type; do
		# shellcheck disable=SC2016
		awk -v type="$type" '{ for (i = 7; $i != "-"; i++); if ($(i + 1) == type) print $5 }' /proc/self/mountinfo |
			grep '^/sys/fs/cgroup' | sort -u || true
	done
}

cgroup_up() {
	local mount
	if [[ $(cgroup_mode) == v2 ]]; then
		mkdir -p "/sys/fs/cgroup$C_CGROUP/daemons"
		cgroup_delegate /sys/fs/cgroup
		cgroup_delegate /sys/fs/cgroup/kubelet-rs
		cgroup_delegate "/sys/fs/cgroup$C_CGROUP"
		return
	fi
	for mount in $(cgroup_mounts cgroup); do
		mkdir -p "$mount$C_CGROUP"
		if [[ -e $mount/cpuset.cpus ]]; then
			cgroup_inherit_cpuset "$mount" "$mount/kubelet-rs"
			cgroup_inherit_cpuset "$mount" "$mount$C_CGROUP"
		fi
	done
	mkdir -p "$(cgroup_daemons)"
}

# cgroup_delegate DIR: makes available to its children the controllers that a
# kubelet wants. One by one, as a refused one would take the others along.
cgroup_delegate() {
	local controller
	for controller in $(<"$1/cgroup.controllers"); do
		[[ $controller =~ ^(cpuset|cpu|io|memory|hugetlb|pids)$ ]] || continue
		echo "+$controller" >"$1/cgroup.subtree_control" ||
			warn "cgroup controller $controller is not available below $1"
	done
}

# A cpuset cgroup of v1 starts empty, and takes no process until it has CPUs.
cgroup_inherit_cpuset() {
	local file
	for file in cpuset.cpus cpuset.mems; do
		[[ -n $(<"$2/$file") ]] || cat "$1/$file" >"$2/$file"
	done
}

# cgroup_daemons: the directory whose cgroup.procs lists the cluster's processes.
cgroup_daemons() {
	local controller
	if [[ $(cgroup_mode) == v2 ]]; then
		echo "/sys/fs/cgroup$C_CGROUP/daemons"
		return
	fi
	for controller in pids systemd freezer; do
		if cgroup_mounts cgroup | grep -qx "/sys/fs/cgroup/$controller"; then
			echo "/sys/fs/cgroup/$controller$C_CGROUP/daemons"
			return
		fi
	done
	die "no pids, systemd or freezer cgroup hierarchy is mounted at /sys/fs/cgroup"
}

# cgroup_dirs: the cluster's directory in every hierarchy that has one.
cgroup_dirs() {
	local mount
	for mount in $(cgroup_mounts cgroup cgroup2); do
		[[ ! -d $mount$C_CGROUP ]] || echo "$mount$C_CGROUP"
	done
}

cgroup_cluster_names() {
	local mount dir
	for mount in $(cgroup_mounts cgroup cgroup2); do
		for dir in "$mount"/kubelet-rs/*/; do
			basename "$dir"
		done
	done
}

cgroup_pids() {
	local dir
	for dir in $(cgroup_dirs); do
		find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null || true
	done
}

# A frozen process does not die before it is thawed.
cgroup_thaw() {
	local dir file
	for dir in $(cgroup_dirs); do
		while read -r file; do
			case $file in
			*/freezer.state) echo THAWED >"$file" ;;
			*) echo 0 >"$file" ;;
			esac 2>/dev/null || true
		done < <(find "$dir" -name freezer.state -o -name cgroup.freeze)
	done
}

# cgroup_remove DIR: it and everything below; the kernel may need a moment after
# the last process has gone.
cgroup_remove() {
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
	[[ ! -d $1 ]]
}

cgroup_down() {
	local dir
	for dir in $(cgroup_dirs); do
		wait_until 10 cgroup_remove "$dir" ||
			warn "cgroup $dir does not go away; processes in it: $(find "$dir" -name cgroup.procs -exec cat {} + | tr '\n' ' ')"
		rmdir --ignore-fail-on-non-empty "${dir%/*}" 2>/dev/null || true
	done
}
