# shellcheck shell=bash
# The driver for systemd-nspawn: the host's kernel, everything else the machine's own.

# Namespaces of the machine that a command inside has to be in; user and time are the
# host's.
NSPAWN_NAMESPACES=(--mount --uts --ipc --net --pid --cgroup --root --wd)

# driver_create: an overlay over the image; containerd's own overlays cannot be on one, and
# the kubelet should measure a real file system.
driver_create() {
	mkdir -p "$M_DIR"/{upper,work,root,containerd,kubelet}
	driver_mount
	echo "$M_NAME" >"$M_ROOT/etc/hostname"
	printf '127.0.0.1 localhost\n%s %s\n' "$M_IP" "$M_NAME" >"$M_ROOT/etc/hosts"
	tr -d - </proc/sys/kernel/random/uuid >"$M_ROOT/etc/machine-id"
}

driver_mount() {
	mount -t overlay "machine-$M_NAME" "$M_ROOT" \
		-o "lowerdir=$(machine_image),upperdir=$M_DIR/upper,workdir=$M_DIR/work"
}

driver_destroy() {
	! mountpoint -q "$M_ROOT" || wait_until 10 umount -q "$M_ROOT" || die "cannot unmount $M_ROOT"
}

# driver_boot: one boot, in the foreground. The options say what they are for where that
# is not their name's meaning.
driver_boot() {
	local mount options
	options=(
		--quiet --boot --directory="$M_ROOT" --machine="$C_NAME-$M_NAME" --hostname="$M_NAME"
		# No machined, no unit: the cgroup is the one it is started in.
		--register=no --keep-unit
		--network-namespace-path="$M_NETNS"
		# As on a machine: containers may get any capability, keyrings and bpf.
		--capability=all --system-call-filter=@known
		--console=read-only --kill-signal=SIGRTMIN+4 --resolv-conf=off --timezone=off
		--bind="$M_DIR/containerd:/var/lib/containerd" --bind="$M_DIR/kubelet:/var/lib/kubelet"
	)
	# The kubelet's look-out for the kernel's out-of-memory killer reads it.
	[[ ! -e /dev/kmsg ]] || options+=(--bind=/dev/kmsg)
	if [[ $(cgroup_mode) == v1 ]]; then
		# nspawn would mount the controllers read-only; those of systemd's own it mounts well.
		options+=(--tmpfs=/sys/fs/cgroup:mode=755)
		for mount in $(cgroup_mounts cgroup); do
			[[ $mount == */systemd ]] || options+=(--bind="$mount$C_CGROUP/machines/$M_NAME:$mount")
		done
	fi
	(
		# Before the exec: it becomes the root of the machine's cgroup namespace.
		machine_cgroup_enter
		# portmap and the service proxy write sysctls of the network; the others stay read-only.
		export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
		# A /run of its own: nspawn leaves directories in it, and on a host with systemd
		# it would look for that one's services.
		# shellcheck disable=SC2016
		exec unshare --mount --propagation slave -- \
			sh -ec 'mount -t tmpfs -o mode=755 machine-run /run; exec "$@"' machine \
			systemd-nspawn "${options[@]}"
	) </dev/null >>"$M_DIR/console.log" 2>&1 &
	echo "$! $(process_start $!)" >"$M_DIR/nspawn.pid"
	wait $!
}

# driver_leader: the host's pid of the machine's PID 1.
driver_leader() {
	local pid start child status
	{ read -r pid start <"$M_DIR/nspawn.pid"; } 2>/dev/null && [[ -n $start ]] || return 1
	[[ $start == "$(process_start "$pid")" ]] || return 1
	for child in $(cat "/proc/$pid/task"/*/children 2>/dev/null); do
		status=$(awk '$1 == "NSpid:" { print $NF }' "/proc/$child/status" 2>/dev/null) || continue
		if [[ $status == 1 ]]; then
			echo "$child"
			return
		fi
	done
	return 1
}

# driver_exec COMMAND…: there is no D-Bus between host and machine, so into its namespaces
# it is, and into its cgroups first: the cgroup namespace shows nothing else.
driver_exec() {
	local leader dir
	leader=$(driver_leader) || {
		warn "machine $M_NAME does not run"
		return 1
	}
	(
		for dir in $(machine_cgroup_dirs); do
			nspawn_cgroup_join "$dir"
		done
		exec nsenter --target "$leader" "${NSPAWN_NAMESPACES[@]}" -- \
			env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" container=systemd-nspawn "$@" 9>&-
	)
}

# nspawn_cgroup_join DIR: where a process of the machine may be: in hierarchies that systemd
# itself uses, nspawn makes the machine's root one level further down; and v2 with its
# controllers takes processes into leaves only.
nspawn_cgroup_join() {
	local dir=$1
	[[ ! -d $dir/payload ]] || dir+=/payload
	[[ $(cgroup_mode) == v1 ]] || dir+=/init.scope
	{ echo "$BASHPID" >"$dir/cgroup.procs"; } 2>/dev/null || true
}

driver_power_cut() {
	local leader
	leader=$(driver_leader) || return 0
	kill -KILL "$leader" 2>/dev/null || true
}
