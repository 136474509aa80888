#!/usr/bin/env bash
# Puts the agent on a machine as the service `kubelet`: the binary, systemd's unit with
# kubeadm's drop-in, and the settings of kernel and boot that pods' networks need. On
# the machine itself, or with --root into an image or a package. Run again, it upgrades:
# only the agent is started anew, and no container notices.
#
# What it has put where is recorded; --uninstall removes that, and nothing else. It
# needs bash, coreutils, and systemd/ beside hack/.

set -euo pipefail
umask 022

USAGE="install.sh [--root DIR] [--no-start] --kubelet PATH
       install.sh [--root DIR] --uninstall
  --kubelet    the agent's binary
  --root       install into this directory tree; nothing is started there
  --no-start   do not start or restart the service now
  --uninstall  stop the service and remove what was installed; containers keep running"

SOURCE_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../systemd" && pwd)
UNIT=kubelet.service
UNIT_DIR=usr/lib/systemd/system
# What `systemctl enable` makes; by hand, as a tree below --root may have no systemctl.
WANTS=etc/systemd/system/multi-user.target.wants/$UNIT
# A line for each file: its checksum (of a link: where it leads), and its path.
RECORD=usr/lib/kubelet-rs/installed

say() { printf '%s\n' "$*" >&2; }
warn() { say "warning: $*"; }
die() {
	say "error: $*"
	exit 1
}
usage() {
	say "usage: $USAGE"
	exit 2
}

parse() {
	root='' kubelet='' action=install start=yes
	while (($#)); do
		case $1 in
		--root | --kubelet)
			[[ -n ${2:-} ]] || usage
			printf -v "${1#--}" '%s' "$2"
			shift
			;;
		--no-start) start=no ;;
		--uninstall) action=uninstall ;;
		-h | --help)
			echo "usage: $USAGE"
			exit
			;;
		*) usage ;;
		esac
		shift
	done
	if [[ $action == install ]]; then
		[[ -n $kubelet ]] || usage
	else
		[[ -z $kubelet ]] || usage
	fi
	# "/" is the machine itself, written with care.
	root=${root%/}
}

check() {
	if [[ -n $root ]]; then
		[[ -d $root ]] || die "there is no directory $root"
	else
		[[ $EUID -eq 0 ]] || die "must run as root (or install elsewhere, with --root)"
		[[ -d /run/systemd/system ]] ||
			die "systemd does not run this machine; --root DIR installs into an image of one that it does"
	fi
	[[ $action == install ]] || return 0
	[[ -f $kubelet ]] || die "there is no binary $kubelet"
	kubelet=$(realpath -- "$kubelet")
	"$kubelet" --version >/dev/null || die "$kubelet does not run here"
	local owner
	if owner=$(package_of usr/bin/kubelet); then
		die "/usr/bin/kubelet belongs to the package $owner: remove that first, or install ours (hack/package.sh)"
	fi
}

# package_of PATH: which Debian package has put it there; false if none has.
package_of() {
	[[ -e $root/var/lib/dpkg/status ]] && command -v dpkg-query >/dev/null || return 1
	dpkg-query --admindir="$root/var/lib/dpkg" --search "/$1" 2>/dev/null | sed 's/: .*//'
}

# --- the record ----------------------------------------------------------------

# Path to checksum: as the last run recorded it, and as this one will.
declare -A OLD=() NEW=()
CHANGED=no

read_record() {
	local sum path
	[[ -e $root/$RECORD ]] || return 0
	while read -r sum path; do
		OLD[$path]=$sum
	done <"$root/$RECORD"
}

write_record() {
	local path lines=''
	for path in "${!NEW[@]}"; do
		lines+="${NEW[$path]} $path"$'\n'
	done
	place "$RECORD" 644 <(sort -k 2 <<<"${lines%$'\n'}")
}

# sum_of PATH: nothing if it is not there.
sum_of() {
	local file=$root/$1
	if [[ -L $file ]]; then
		readlink "$file"
	elif [[ -f $file ]]; then
		sha256sum <"$file" | cut -d ' ' -f 1
	fi
}

# --- files -----------------------------------------------------------------------

# place PATH MODE SOURCE: whole or not at all, also when the power fails; a program that
# runs keeps the file it was started from.
place() {
	local file=$root/$1 new
	mkdir -p "${file%/*}"
	new=$(mktemp "${file%/*}/.${file##*/}.XXXXXX")
	if ! { cat "$3" >"$new" && chmod "$2" "$new" && sync "$new" && mv -fT "$new" "$file"; }; then
		rm -f "$new"
		die "cannot write $file"
	fi
}

# put PATH MODE SOURCE: has it there, and in the record.
put() {
	NEW[$1]=$(sha256sum <"$3" | cut -d ' ' -f 1)
	if [[ -L $root/$1 || $(sum_of "$1") != "${NEW[$1]}" ]]; then
		place "$1" "$2" "$3"
		CHANGED=yes
	fi
}

# put_once PATH MODE SOURCE: what is there already is somebody's own, or will be.
put_once() {
	if [[ -n ${OLD[$1]:-} && $(sum_of "$1") == "${OLD[$1]}" ]]; then
		put "$@"
	elif [[ -e $root/$1 ]]; then
		[[ -z ${OLD[$1]:-} ]] || NEW[$1]=${OLD[$1]}
		say "kept: $root/$1"
	else
		put "$@"
	fi
}

put_link() {
	NEW[$1]=$2
	[[ $(sum_of "$1") != "$2" ]] || return 0
	mkdir -p "$root/$(dirname "$1")"
	ln -sfn "$2" "$root/$1"
	CHANGED=yes
}

# take_away PATH: if it is still what was put there, with directories that become empty.
take_away() {
	local now
	now=$(sum_of "$1")
	[[ -n $now ]] || return 0
	if [[ $now != "${OLD[$1]}" ]]; then
		warn "changed since, and left: $root/$1"
		return 0
	fi
	rm -f "$root/$1"
	remove_if_empty "$(dirname "$1")"
}

# Directories that only this script has a use for.
remove_if_empty() {
	case $1 in
	*/kubelet.service.d | */kubelet-rs) rmdir "$root/$1" 2>/dev/null || true ;;
	esac
}

# --- the two actions ---------------------------------------------------------------

install_all() {
	local path
	read_record
	put usr/bin/kubelet 755 "$kubelet"
	put "$UNIT_DIR/$UNIT" 644 "$SOURCE_DIR/$UNIT"
	# kubeadm's package has the same file.
	put_once "$UNIT_DIR/$UNIT.d/10-kubeadm.conf" 644 "$SOURCE_DIR/$UNIT.d/10-kubeadm.conf"
	put_once etc/default/kubelet 644 "$SOURCE_DIR/default/kubelet"
	put usr/lib/modules-load.d/kubelet.conf 644 "$SOURCE_DIR/modules-load.d/kubelet.conf"
	put usr/lib/sysctl.d/60-kubelet.conf 644 "$SOURCE_DIR/sysctl.d/60-kubelet.conf"
	put usr/lib/tmpfiles.d/kubelet.conf 644 "$SOURCE_DIR/tmpfiles.d/kubelet.conf"
	put_link "$WANTS" "/$UNIT_DIR/$UNIT"
	for path in "${!OLD[@]}"; do
		[[ -n ${NEW[$path]:-} ]] || take_away "$path"
	done
	write_record
}

uninstall_all() {
	local path
	[[ -e $root/$RECORD ]] || die "nothing of ours is recorded in $root/$RECORD"
	read_record
	for path in "${!OLD[@]}"; do
		take_away "$path"
	done
	rm -f "$root/$RECORD"
	remove_if_empty "$(dirname "$RECORD")"
}

# apply: what was written takes effect on this machine.
apply() {
	systemctl daemon-reload
	# A container that shares its host's kernel may not do either; the host has, then.
	systemctl restart systemd-modules-load.service systemd-sysctl.service ||
		warn "kernel modules or parameters could not be set: systemctl status systemd-modules-load systemd-sysctl"
	[[ $start == yes ]] || return 0
	if [[ $CHANGED == yes ]]; then
		systemctl restart "$UNIT"
	else
		systemctl start "$UNIT"
	fi
	systemctl is-active --quiet "$UNIT" ||
		say "the service waits for /var/lib/kubelet/config.yaml, which kubeadm writes"
}

parse "$@"
check
if [[ $action == install ]]; then
	install_all
	[[ -n $root ]] || apply
	say "installed in ${root:-/}: $("$kubelet" --version)"
else
	[[ -n $root ]] || systemctl stop "$UNIT" || true
	uninstall_all
	[[ -n $root ]] || systemctl daemon-reload
	say "removed from ${root:-/}"
fi
