# shellcheck shell=bash
# Daemons: started in the cluster's network namespace and cgroup, known by pid and
# start time, never signalled without a look at what runs under the pid.

# process_stat PID: REPLY becomes /proc/PID/stat from field 3, the state, on. False
# if there is no such process; one that ends meanwhile reads as nothing.
process_stat() {
	{ REPLY=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
	# Field 2 is the name in parentheses, which may itself hold spaces and those.
	REPLY=${REPLY##*) }
	[[ -n $REPLY ]]
}

# process_start PID: when it started, in clock ticks since boot; empty and false
# if there is no such process or only its zombie.
process_start() {
	local -a fields
	process_stat "$1" || return 1
	read -ra fields <<<"$REPLY"
	[[ ${fields[0]} != [ZX] ]] || return 1
	echo "${fields[19]}"
}

# process_state PID: running or paused.
process_state() {
	process_stat "$1" || return 1
	[[ $REPLY == T* ]] && echo paused || echo running
}

# daemon_pid NAME: its pid, if it runs. Every daemon has the cluster's directory
# somewhere in its command line, which with the start time rules out a stranger. In
# the middle of an exec the command line reads as empty.
daemon_pid() {
	local pid start args
	[[ -e $C_DIR/run/$1.pid ]] || return 1
	read -r pid start <"$C_DIR/run/$1.pid" && [[ -n $start ]] || return 1
	[[ $start == "$(process_start "$pid")" ]] || return 1
	{ args=$(tr '\0' ' ' <"/proc/$pid/cmdline"); } 2>/dev/null || return 1
	[[ -z $args || $args == *"$C_DIR/"* ]] || return 1
	echo "$pid"
}

in_netns() { nsenter --net="$C_NETNS" -- "$@"; }

# daemon_start NAME: runs DIR/cmd/NAME unless it runs already.
daemon_start() {
	local name=$1
	! daemon_pid "$name" >/dev/null || return 0
	[[ -x $C_DIR/cmd/$name ]] || die "cluster $C_NAME has no $name"
	# Its own session, so that a terminal's Ctrl-C does not reach it. nsenter
	# directly, as `ip netns exec` would remount /sys and hide the cgroups.
	setsid nsenter --net="$C_NETNS" -- "$C_DIR/cmd/$name" \
		</dev/null >>"$C_DIR/log/$name.log" 2>&1 9>&- &
	echo "$! $(process_start $!)" >"$C_DIR/run/$name.pid" || true
}

# daemon_await NAME SECONDS: until it answers as ready. Ends the script, with the
# last lines of its log, if it dies or the time is over.
daemon_await() {
	local name=$1 deadline=$((SECONDS + $2)) reason
	until "ready_${name//-/_}" >/dev/null 2>&1; do
		if ! daemon_pid "$name" >/dev/null; then
			reason="has ended"
		elif ((SECONDS >= deadline)); then
			reason="is not ready after $2 s"
		else
			sleep 0.1
			continue
		fi
		say "cluster $C_NAME: $name $reason (hack/cluster/down $C_NAME removes the rest)"
		daemon_show_log "$name"
		exit 1
	done
	say "$name ready"
}

daemon_show_log() {
	printf -- '--- last lines of %s\n' "$C_DIR/log/$1.log" >&2
	tail -n 20 "$C_DIR/log/$1.log" >&2 || true
	printf -- '---\n' >&2
}

daemon_signal() {
	local pid
	pid=$(daemon_pid "$2") || return 0
	kill -s "$1" "$pid" 2>/dev/null || true
}

daemon_is_gone() { ! daemon_pid "$1" >/dev/null; }

# daemon_stop NAME: TERM, and KILL if that takes too long: the API server would wait
# a minute for its watchers. A paused process gets its TERM only when it continues.
daemon_stop() {
	local seconds=20
	[[ $1 != apiserver ]] || seconds=5
	daemon_signal TERM "$1"
	daemon_signal CONT "$1"
	if ! wait_until "$seconds" daemon_is_gone "$1"; then
		say "$1 did not end within $seconds s of SIGTERM, killing it"
		daemon_kill "$1"
	fi
}

# daemon_kill NAME: the process that there is now. One that starts meanwhile is left alone
# with its pid file; a file of no process is of no harm.
daemon_kill() {
	local pid
	pid=$(daemon_pid "$1") || return 0
	kill -s KILL "$pid" 2>/dev/null || true
	wait_until 10 daemon_is_another "$1" "$pid" || die "$1 (pid $pid) survives SIGKILL"
}

# daemon_is_another NAME PID: it is not, or no longer, that process.
daemon_is_another() { [[ $(daemon_pid "$1") != "$2" ]]; }
