#!/usr/bin/env bash
# Builds a Debian package of the agent: what hack/install.sh installs, under dpkg's
# care. It takes the place of upstream's package kubelet.

set -euo pipefail
umask 022

USAGE="package.sh --kubelet PATH [DIR]
  --kubelet  the agent's binary
  DIR        where kubelet-rs_VERSION_ARCH.deb is put (default: here)"

HACK_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
DROP_INS=usr/lib/systemd/system/kubelet.service.d

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}
usage() {
	printf 'usage: %s\n' "$USAGE" >&2
	exit 2
}

parse() {
	kubelet='' directory=.
	while (($#)); do
		case $1 in
		--kubelet)
			[[ -n ${2:-} ]] || usage
			kubelet=$2
			shift
			;;
		-h | --help)
			echo "usage: $USAGE"
			exit
			;;
		-*) usage ;;
		*) directory=$1 ;;
		esac
		shift
	done
	[[ -n $kubelet ]] || usage
	[[ -f $kubelet ]] || die "there is no binary $kubelet"
	kubelet=$(realpath -- "$kubelet")
	command -v dpkg-deb >/dev/null || die "dpkg-deb is needed to build a Debian package"
}

# Records and the service's start are dpkg's and the scripts' work here. kubeadm's
# package has the drop-in of that name; ours, which says the same for a kubeadm that
# came without a package, is read before it.
stage_files() {
	"$HACK_DIR/install.sh" --root "$stage" --kubelet "$kubelet" 2>/dev/null || die "hack/install.sh failed"
	rm -r "$stage/usr/lib/kubelet-rs" "$stage/etc/systemd"
	mv "$stage/$DROP_INS/10-kubeadm.conf" "$stage/$DROP_INS/05-kubeadm.conf"
	install -D -m 644 "$HACK_DIR/../LICENSE" "$stage/usr/share/doc/kubelet-rs/copyright"
}

stage_control() {
	local kubernetes glibc
	kubernetes=$("$kubelet" --version | sed -n 's/^Kubernetes v//p')
	[[ -n $kubernetes ]] || die "$kubelet does not tell its version of Kubernetes"
	# The newest symbol version that the binary names.
	glibc=$(grep -ao 'GLIBC_[0-9.]*' "$kubelet" | sort -uV | tail -n 1 || true)
	mkdir "$stage/DEBIAN"
	cat >"$stage/DEBIAN/control" <<-END
		Package: kubelet-rs
		Version: $version
		Architecture: $architecture
		Maintainer: kubelet-rs <kubelet-rs@localhost>
		Section: admin
		Priority: optional
		Depends: init-system-helpers, iptables, libc6${glibc:+ (>= ${glibc#GLIBC_})}, libgcc-s1, mount, util-linux
		Recommends: conntrack, containerd | containerd.io | cri-o, containernetworking-plugins | kubernetes-cni
		Provides: kubelet (= $kubernetes)
		Conflicts: kubelet
		Replaces: kubelet
		Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f 1)
		Description: node agent for Kubernetes
		 One daemon that does on a node what kubelet and kube-proxy do together.
	END
	echo /etc/default/kubelet >"$stage/DEBIAN/conffiles"
	install -m 755 "$HACK_DIR"/debian/{postinst,prerm,postrm} "$stage/DEBIAN"
}

parse "$@"
version=$(awk -F'"' '/^version/ { print $2; exit }' "$HACK_DIR/../Cargo.toml")
architecture=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
stage_files
stage_control
package=$directory/kubelet-rs_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$stage" "$package" >/dev/null
echo "$package"
