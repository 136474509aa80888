# shellcheck shell=bash
# What every script of this directory shares. Machines belong to a cluster of
# hack/cluster: its number gives them addresses, its network namespace routes for
# them, its directory and cgroup hold all that they consist of, and its teardown
# removes it. So all of hack/cluster/lib.sh is here too, and on top of it in lib/:
#
#   image.sh    the machines' file system, built once into the cache
#   machine.sh  a machine's name, addresses, paths; create, boot, end, destroy
#   network.sh  the bridge, and each machine's network card and cable
#   cgroup.sh   a machine's part of every hierarchy
#   nspawn.sh   the driver: one boot, and how to get inside
#   node.sh     what makes a machine a node: agent, credentials, pod network
#
# Sourced, never run.

WORKERS_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/lib.sh
. "$WORKERS_DIR/../cluster/lib.sh"

# workers_prepare_host: what machines need of this host, and their image.
workers_prepare_host() {
	need_root
	need_packages systemd-nspawn=systemd-container debootstrap=debootstrap \
		/usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring \
		ip=iproute2 nsenter=util-linux curl=curl
	local setting
	for setting in vm.overcommit_memory=1 kernel.panic=10 kernel.panic_on_oops=1; do
		[[ $(sysctl -n "${setting%=*}") == "${setting#*=}" ]] ||
			warn "a kubelet wants $setting, and cannot set it in a machine: sysctl -w $setting"
	done
	machine_image_build
}

# in_parallel FUNCTION ARG…: FUNCTION for each ARG, all at once; false if one fails.
in_parallel() {
	local function=$1 arg pid pids=() failed=0
	shift
	for arg; do
		("$function" "$arg") &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || failed=1
	done
	return "$failed"
}

# shellcheck source=lib/image.sh
. "$WORKERS_DIR/lib/image.sh"
# shellcheck source=lib/machine.sh
. "$WORKERS_DIR/lib/machine.sh"
# shellcheck source=lib/network.sh
. "$WORKERS_DIR/lib/network.sh"
# shellcheck source=lib/cgroup.sh
. "$WORKERS_DIR/lib/cgroup.sh"
# shellcheck source=lib/nspawn.sh
. "$WORKERS_DIR/lib/nspawn.sh"
# shellcheck source=lib/node.sh
. "$WORKERS_DIR/lib/node.sh"
