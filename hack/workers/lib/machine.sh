# shellcheck shell=bash
# A machine as seen from outside, whatever runs it: name, addresses, paths, life.
#
#   DIR/machines/NAME/   root, upper, work: the overlay; containerd, kubelet: what cannot
#                        or should not be on one; netns; console.log; index; boots; node
#
# What it is run by (nspawn.sh; another driver would be another such file) has to have:
#
#   driver_create            disk and identity, from the image
#   driver_boot              one boot, to its end; 133 if the machine wants another
#   driver_exec COMMAND…     inside
#   driver_power_cut         ends it at once, with nothing written or said
#   driver_destroy           what driver_create made

# A limit for the whole of a machine. What it believes to have is all of the host's.
MACHINE_MEMORY=${MACHINE_MEMORY:-4G}
# Of nspawn, for "boot me again".
MACHINE_REBOOTS=133

# machines_set: the C_ variables of a cluster's machines.
machines_set() {
	C_MACHINES=$C_DIR/machines
	C_MACHINES_NET=${C_HOST_IP%.*.*}.1.0/24
	C_MACHINES_ROUTER=${C_HOST_IP%.*.*}.1.1
}

# set_open NAME: a cluster that has or is to have machines.
set_open() {
	cluster_open "$1"
	machines_set
}

machine_names() {
	local dir
	for dir in "$C_MACHINES"/*/; do
		basename "$dir"
	done
}

# machine_set NAME: the M_ variables that follow from the name alone. It is also the
# name of an interface.
machine_set() {
	[[ $1 =~ ^[a-z][a-z0-9-]{0,11}$ && $1 != "$MACHINES_BRIDGE" && $1 != eth0 && $1 != lo ]] ||
		die "'$1' is no machine's name: a letter, then at most 11 of a-z, 0-9 and -"
	M_NAME=$1
	M_DIR=$C_MACHINES/$1
	M_ROOT=$M_DIR/root
	M_NETNS=$M_DIR/netns
	M_DAEMON=machine-$1
}

# machine_open NAME: all M_ variables of an existing machine.
machine_open() {
	machine_set "$1"
	[[ -e $M_DIR/index ]] || die "cluster $C_NAME has no machine '$1' (hack/workers/list $C_NAME)"
	local index
	index=$(<"$M_DIR/index")
	M_IP=${C_MACHINES_ROUTER%.*}.$((10 + index))
	M_MAC=$(printf '02:00:0a:%02x:01:%02x' "$((FIRST_NETWORK + C_INDEX))" "$((10 + index))")
}

# machine_create NAME: its disk and identity; not booted.
machine_create() {
	machine_set "$1"
	[[ ! -e $M_DIR ]] || die "cluster $C_NAME has a machine '$1' already"
	machines_network_up
	mkdir -p "$M_DIR"
	machine_allocate >"$M_DIR/index"
	machine_open "$1"
	echo 0 >"$M_DIR/boots"
	driver_create
	command_write "$M_DAEMON" "$WORKERS_DIR/supervise" "$C_NAME" "$M_NAME" "$M_DIR"
}

# machine_allocate: the lowest free number. The caller holds the cluster's lock.
machine_allocate() {
	local index taken=' ' file
	for file in "$C_MACHINES"/*/index; do
		taken+="$(<"$file") "
	done
	for ((index = 0; index < 200; index++)); do
		if [[ $taken != *" $index "* ]]; then
			echo "$index"
			return
		fi
	done
	die "cluster $C_NAME has 200 machines"
}

# machine_up NAME: power on, unless it is, and wait until all its services are started.
machine_up() {
	machine_open "$1"
	daemon_start "$M_DAEMON"
	machine_await 60
}

machine_is_off() { daemon_is_gone "$M_DAEMON"; }

# machine_is_running: degraded is what systemd says if any unit at all has failed.
machine_is_running() { [[ $(driver_exec systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]; }

machine_await() {
	local deadline=$((SECONDS + $1))
	until machine_is_running; do
		if machine_is_off || ((SECONDS >= deadline)); then
			printf -- '--- end of %s\n' "$M_DIR/console.log" >&2
			tail -n 20 "$M_DIR/console.log" "$C_DIR/log/$M_DAEMON.log" >&2 || true
			die "machine $M_NAME has not come up"
		fi
		sleep 0.1
	done
	say "machine $M_NAME runs ($M_IP)"
}

# machine_supervise NAME: what a hypervisor does: boots it until it powers off or loses
# power.
machine_supervise() {
	local status
	machine_open "$1"
	while :; do
		machine_cgroup_up
		machine_network_up
		machine_count_boot
		status=0
		driver_boot || status=$?
		printf '%(%FT%TZ)T machine %s: boot %s ended with %s\n' -1 "$M_NAME" "$(<"$M_DIR/boots")" "$status"
		((status == MACHINE_REBOOTS)) || break
	done
	machine_network_down
	machine_cgroup_down
}

machine_count_boot() {
	echo "$(($(<"$M_DIR/boots") + 1))" >"$M_DIR/boots.new"
	mv "$M_DIR/boots.new" "$M_DIR/boots"
}

# machine_reboot NAME: asks it to, and waits for its return.
machine_reboot() {
	machine_open "$1"
	local boots
	! machine_is_off || die "machine $M_NAME is off"
	boots=$(<"$M_DIR/boots")
	# It may be gone before the answer is.
	driver_exec systemctl reboot || true
	wait_until 120 machine_has_booted_since "$boots" || die "machine $M_NAME has not rebooted within 120 s"
	machine_await 60
}

machine_has_booted_since() { (($(<"$M_DIR/boots") > $1)); }

machine_poweroff() {
	machine_open "$1"
	! machine_is_off || return 0
	driver_exec systemctl poweroff || true
	wait_until 120 machine_is_off || die "machine $M_NAME has not powered off within 120 s"
	say "machine $M_NAME is off"
}

# machine_kill NAME: a power cut.
machine_kill() {
	machine_open "$1"
	! machine_is_off || return 0
	driver_power_cut
	wait_until 30 machine_is_off || die "machine $M_NAME survives its power cut"
	say "machine $M_NAME has no power"
}

# machine_destroy NAME: from whatever state it is in. The API's Node stays, as it would
# for a machine that burnt down.
machine_destroy() {
	machine_set "$1"
	[[ -d $M_DIR ]] || die "cluster $C_NAME has no machine '$1' (hack/workers/list $C_NAME)"
	if [[ -e $M_DIR/index ]]; then
		machine_kill "$1"
		in_netns ip route flush via "$M_IP"
	fi
	machine_network_down
	machine_cgroup_down
	driver_destroy
	rm -rf --one-file-system "$M_DIR" "$C_DIR/cmd/$M_DAEMON" "$C_DIR/run/$M_DAEMON.pid" "$C_DIR/log/$M_DAEMON.log"
	say "machine $M_NAME is gone"
}

machine_state() {
	if machine_is_off; then
		echo off
	elif [[ -e $M_DIR/cut ]]; then
		echo cut
	else
		echo on
	fi
}
