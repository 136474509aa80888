# shellcheck shell=bash
# What every script of this directory shares: where things live, how it talks to
# its user, locks, waiting, and packages of the host. The rest is in lib/, one
# concern a file:
#
#   tools.sh       pinned Go tools, built once into a cache
#   debian.sh      Debian's packages as material for images
#   oci.sh         container images made from files, without a registry
#   e2e-images.sh  those that upstream's end-to-end suite needs
#   cluster.sh     a cluster's name, addresses, paths and owner
#   process.sh     daemons: start, identify, signal, wait until ready
#   network.sh     network namespace, veth pair, routes
#   cgroup.sh      cgroup v1 and v2: our own subtree
#   components.sh  configuration and command line of every component
#   teardown.sh    leave nothing behind
#
# Sourced, never run.

set -euo pipefail
shopt -s nullglob
umask 022

LIB_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
REPO_DIR=$(cd -- "$LIB_DIR/../.." && pwd)

# Built tools and images: content-addressed, safe to delete at any time.
CACHE_DIR=$(realpath -m -- "${KUBELET_RS_CACHE:-/var/cache/kubelet-rs}")
# Running clusters.
STATE_DIR=$(realpath -m -- "${KUBELET_RS_STATE:-/var/lib/kubelet-rs}")
CLUSTERS_DIR=$STATE_DIR/clusters

# --- talking -----------------------------------------------------------------

# Everything for people goes to stderr; stdout carries results only.
say() {
	local ms=$(((${EPOCHREALTIME/./} - STARTED_AT) / 1000))
	printf '[%3d.%ds] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*" >&2
}
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}
STARTED_AT=${EPOCHREALTIME/./}

# usage TEXT: for a wrong command line.
usage() {
	printf 'usage: %s\n' "$1" >&2
	exit 2
}

need_root() {
	[[ $EUID -eq 0 ]] || die "must run as root: namespaces, mounts and cgroups are made (try: sudo $0)"
}

# host_facts: what this host has that decides how things are done.
host_facts() {
	printf '%s, cgroup %s, %s, %s CAP_SYS_RESOURCE, %s cores\n' \
		"$(. /etc/os-release && echo "$PRETTY_NAME")" "$(cgroup_mode)" \
		"$([[ -d /run/systemd/system ]] && echo systemd || echo "no systemd")" \
		"$([[ $(oom_score_adj_restricted) == true ]] && echo no || echo with)" "$(nproc)"
}

# --- waiting and locking -----------------------------------------------------

# wait_until SECONDS COMMAND…: polls until COMMAND succeeds; false at the deadline.
wait_until() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < deadline)) || return 1
		sleep 0.1
	done
}

# lock FILE SECONDS: holds FILE until this process ends, or fails after SECONDS.
# Descriptor 9 by convention: daemons are started with 9>&- lest they inherit it.
# A holder may remove the file (unlock_and_forget), so a lock that was won on a
# name that has gone since is no lock.
lock() {
	local file=$1 seconds=$2
	mkdir -p "${file%/*}"
	while :; do
		exec 9>"$file"
		flock -w "$seconds" 9 || return 1
		[[ /proc/self/fd/9 -ef $file ]] && return 0
		mkdir -p "${file%/*}"
	done
}
unlock_and_forget() {
	rm -f "$1"
	exec 9>&-
}

# --- packages of the host ----------------------------------------------------

# need_packages FILE-OR-COMMAND=PACKAGE…: installs the Debian packages of what is
# missing. A slash makes it a file, otherwise it is looked up in PATH.
need_packages() {
	local entry what missing=()
	for entry; do
		what=${entry%%=*}
		if [[ $what == */* ]]; then
			[[ -e $what ]] || missing+=("${entry#*=}")
		else
			command -v "$what" >/dev/null || missing+=("${entry#*=}")
		fi
	done
	((${#missing[@]})) || return 0
	install_packages "${missing[@]}"
}

install_packages() {
	command -v apt-get >/dev/null ||
		die "missing on this host, and there is no apt-get to install it with: $*"
	say "installing Debian packages: $*"
	local log
	log=$(mktemp)
	local -x DEBIAN_FRONTEND=noninteractive
	local install=(apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@")
	if ! { "${install[@]}" || { apt-get update && "${install[@]}"; }; } >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "apt-get could not install: $*"
	fi
	rm -f "$log"
}

# debian_file PACKAGE PATH: prints where PATH of PACKAGE is: on the host if it is
# installed, otherwise in the cache, unpacked from the package without installing.
debian_file() {
	local package=$1 path=$2 cached=$CACHE_DIR/debian/$1
	if dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' && [[ -e $path ]]; then
		echo "$path"
		return
	fi
	if [[ ! -e $cached$path ]]; then
		say "unpacking $path from Debian package $package"
		local tmp
		mkdir -p "$CACHE_DIR/debian"
		tmp=$(mktemp -d "$CACHE_DIR/debian/.tmp.XXXXXX")
		chmod 755 "$tmp"
		(
			cd "$tmp"
			{ apt-get download -q "$package" || { apt-get update -q && apt-get download -q "$package"; }; } >&2
			dpkg-deb -x ./*.deb root
		) || die "cannot download Debian package $package"
		# Another process may have been faster.
		mv -T "$tmp/root" "$cached" 2>/dev/null || [[ -e $cached$path ]] ||
			die "package $package has no $path, or $cached is in the way"
		rm -rf "$tmp"
	fi
	echo "$cached$path"
}

# shellcheck source=lib/tools.sh
. "$LIB_DIR/lib/tools.sh"
# shellcheck source=lib/debian.sh
. "$LIB_DIR/lib/debian.sh"
# shellcheck source=lib/oci.sh
. "$LIB_DIR/lib/oci.sh"
# shellcheck source=lib/e2e-images.sh
. "$LIB_DIR/lib/e2e-images.sh"
# shellcheck source=lib/cluster.sh
. "$LIB_DIR/lib/cluster.sh"
# shellcheck source=lib/process.sh
. "$LIB_DIR/lib/process.sh"
# shellcheck source=lib/network.sh
. "$LIB_DIR/lib/network.sh"
# shellcheck source=lib/cgroup.sh
. "$LIB_DIR/lib/cgroup.sh"
# shellcheck source=lib/components.sh
. "$LIB_DIR/lib/components.sh"
# shellcheck source=lib/teardown.sh
. "$LIB_DIR/lib/teardown.sh"
