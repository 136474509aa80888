# shellcheck shell=bash
# The file system of a worker machine: Debian 12 with systemd, containerd and the tools
# that Kubernetes' installation guides ask for, and no node agent. A directory in
# CACHE_DIR/machines, named by the hash of all that it is made of; machines put an
# overlay over it.

MACHINE_SUITE=bookworm
MACHINE_PACKAGES=(systemd systemd-sysv dbus kmod procps
	iproute2 iptables conntrack ethtool socat iputils-ping curl jq ca-certificates
	containerd runc)

# Timers and terminals that a machine without a person or a package mirror has no use for.
MACHINE_MASKED=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
	e2scrub_reap.service fstrim.timer console-getty.service getty.target systemd-networkd.service)

# machine_base: the path of Debian alone, which takes the time; built or not.
machine_base() {
	local hash
	hash=$({
		declare -f machine_base_fill
		echo "${MACHINE_PACKAGES[*]}"
	} | sha256sum)
	echo "$CACHE_DIR/machines/$MACHINE_SUITE-${hash:0:16}"
}

# machine_image: the path of the whole of it, built or not.
machine_image() {
	local hash
	hash=$({
		declare -f machine_image_fill machine_containerd_config
		oom_score_adj_restricted
		echo "${MACHINE_MASKED[*]} $(image_names pause)"
		machine_base && tools_dir cni && tools_dir crictl && tools_dir kubernetes
	} | sha256sum)
	echo "$CACHE_DIR/machines/worker-${hash:0:16}"
}

# machine_image_build: makes it exist. Two callers at once build once.
machine_image_build() (
	for set in kubernetes cni crictl; do build_set "$set"; done
	image=$(machine_image)
	[[ ! -d $image ]] || return 0
	mkdir -p "$CACHE_DIR/machines"
	exec 9>"$CACHE_DIR/machines/.lock"
	flock 9
	# Only a killed build leaves these, and we hold the lock.
	for tmp in "$CACHE_DIR/machines/.tmp."*; do machine_image_abandon "$tmp"; done
	tmp=$(mktemp -d "$CACHE_DIR/machines/.tmp.XXXXXX")
	trap 'machine_image_abandon "$tmp"' EXIT
	if [[ ! -d $(machine_base) ]]; then
		say "machine image: installing Debian $MACHINE_SUITE (a minute or two, once)"
		machine_base_fill "$tmp/base" >"$tmp/log" 2>&1 </dev/null || {
			tail -n 20 "$tmp/log" "$tmp"/base/debootstrap/debootstrap.log >&2 || true
			die "machine image: debootstrap failed"
		}
		mv -T "$tmp/base" "$(machine_base)"
	fi
	[[ ! -d $image ]] || return 0
	cp -a --reflink=auto "$(machine_base)" "$tmp/image"
	machine_image_fill "$tmp/image"
	mv -T "$tmp/image" "$image"
	say "machine image: in $image"
)

# machine_image_abandon DIR: debootstrap leaves its mounts behind when it fails.
machine_image_abandon() {
	local path
	mounts_below "$1" | tac | while read -r path; do umount -- "$path" || true; done
	rm -rf --one-file-system "$1"
}

# machine_base_fill ROOT: from where this host gets its own packages, if it is the same
# Debian. Called where a failure of a single command would go unnoticed.
machine_base_fill() {
	local root=$1 uri=http://deb.debian.org/debian packages=${MACHINE_PACKAGES[*]}
	if (. /etc/os-release && [[ $VERSION_CODENAME == "$MACHINE_SUITE" ]]); then
		uri=$(apt-cache policy systemd | awk -v suite="$MACHINE_SUITE/main" '$3 == suite { print $2; exit }')
	fi
	debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
		--include="${packages// /,}" "$MACHINE_SUITE" "$root" "$uri" &&
		rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}/*
}

machine_image_fill() {
	local root=$1 unit program
	# This host's own, which debootstrap copied. Nothing in a machine's network resolves names.
	rm -f "$root"/etc/{resolv.conf,hostname}
	echo '# no name server' >"$root/etc/resolv.conf"
	: >"$root/etc/machine-id"
	for unit in "${MACHINE_MASKED[@]}"; do
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
	ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
	# The journal survives a reboot only if this directory exists.
	mkdir -p "$root/var/log/journal" "$root"/etc/systemd/{system.conf.d,journald.conf.d} "$root/opt/cni/bin" \
		"$root/etc/cni/net.d" "$root/etc/containerd" "$root"/etc/kubernetes/{pki,manifests}
	# A container that ignores SIGTERM would hold up a reboot for 90 s.
	printf '[Manager]\nDefaultTimeoutStopSec=5s\n' >"$root/etc/systemd/system.conf.d/stop.conf"
	# Drills make many lines in a short time, and none may be missing.
	printf '[Journal]\nRateLimitIntervalSec=0\nSystemMaxUse=200M\n' >"$root/etc/systemd/journald.conf.d/journal.conf"
	printf 'net.ipv4.ip_forward = 1\n' >"$root/etc/sysctl.d/90-kubernetes.conf"
	printf '%s: unix:///run/containerd/containerd.sock\n' runtime-endpoint image-endpoint >"$root/etc/crictl.yaml"
	machine_containerd_config cgroupfs >"$root/etc/containerd/config.toml"
	cp "$(tools_dir cni)"/* "$root/opt/cni/bin/"
	for program in kubeadm kubectl; do cp "$(tools_dir kubernetes)/$program" "$root/usr/bin/"; done
	cp "$(tools_dir crictl)/crictl" "$root/usr/bin/"
}

# machine_containerd_config cgroupfs|systemd: which the kubelet's configuration has to name too.
machine_containerd_config() {
	local systemd=false
	[[ $1 != systemd ]] || systemd=true
	cat <<-END
		version = 2
		disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
		[plugins."io.containerd.grpc.v1.cri"]
		  restrict_oom_score_adj = $(oom_score_adj_restricted)
		  sandbox_image = "$(image_names pause)"
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/opt/cni/bin"
		    conf_dir = "/etc/cni/net.d"
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		      SystemdCgroup = $systemd
	END
}
