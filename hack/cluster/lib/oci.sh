# shellcheck shell=bash
# Container images without a registry: OCI archives over static programs, named
# exactly as users of the real images name them. Reproducible (sorted, no times)
# and cached by content.
#
#   pause     catatonit as the process that holds a pod's namespaces
#   busybox   a shell and the usual small programs
#   agnhost   Kubernetes' test server, over busybox; it needs Go
#   coredns   the cluster's DNS server, and
#   skipper   an ingress controller: not among IMAGES, as only single tests want them

IMAGES=(pause busybox agnhost)
# shellcheck disable=SC2034
SERVER_IMAGES=(coredns skipper)

# The names each image is imported under. The second busybox names are for people
# who type `--image=busybox` (with `--image-pull-policy` other than Always).
image_names() {
	case $1 in
	pause) echo registry.k8s.io/pause:3.10.2 ;;
	busybox) printf '%s\n' registry.k8s.io/e2e-test-images/busybox:1.37.0-1 \
		docker.io/library/busybox:1.37 docker.io/library/busybox:latest ;;
	agnhost) echo registry.k8s.io/e2e-test-images/agnhost:2.63.0 ;;
	coredns) echo registry.k8s.io/coredns/coredns:v1.14.7 ;;
	skipper) echo registry.opensource.zalan.do/teapot/skipper:v0.23.0 ;;
	*) e2e_image_names "$1" ;;
	esac
}

# image_archive IMAGE: builds it if need be and prints the path of its archive.
image_archive() (
	image=$1
	names=$(image_names "$image")
	# The programs it is made of, in the order of its fill function's arguments.
	programs=() recipes=("$LIB_DIR/lib/oci.sh")
	case $image in
	pause) programs=("$(debian_file catatonit /usr/bin/catatonit)") ;;
	busybox) programs=("$(debian_file busybox-static /bin/busybox)") ;;
	agnhost)
		build_set kubernetes
		programs=("$(debian_file busybox-static /bin/busybox)" "$(tools_dir kubernetes)/agnhost")
		;;
	coredns | skipper)
		build_set "$image"
		programs=("$(tools_dir "$image")/$image")
		;;
	*)
		programs=$(e2e_image_programs "$image")
		mapfile -t programs <<<"$programs"
		recipes+=("$LIB_DIR/lib/e2e-images.sh")
		;;
	esac
	hash=$(cat "${recipes[@]}" "${programs[@]}" | sha256sum)
	archive=$CACHE_DIR/images/$image-${hash:0:16}.tar
	if [[ ! -e $archive ]]; then
		say "image $image: building"
		mkdir -p "$CACHE_DIR/images"
		tmp=$(mktemp -d "$CACHE_DIR/images/.$image.tmp.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		mkdir -p "$tmp/rootfs" "$tmp/oci/blobs/sha256"
		"image_fill_${image//-/_}" "$tmp/rootfs" "${programs[@]}"
		image_pack "$tmp" "$(image_process "$image")" "$names"
		mv -T "$tmp/image.tar" "$archive"
	fi
	echo "$archive"
)

# --- what is inside ----------------------------------------------------------

# The "config" object of an image: what runs, and how.
image_process() {
	local path='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]'
	case $1 in
	pause) echo '{"Entrypoint":["/pause","-P"],"User":"65535:65535"}' ;;
	busybox) echo "{$path,\"Cmd\":[\"sh\"]}" ;;
	agnhost) echo "{$path,\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"pause\"]}" ;;
	coredns) echo '{"Entrypoint":["/coredns"]}' ;;
	# As Zalando's: not an entry point, so whoever has arguments names the program too.
	skipper) echo '{"Env":["PATH=/usr/bin"],"Cmd":["/usr/bin/skipper"]}' ;;
	*) e2e_image_process "$1" ;;
	esac
}

# image_fill_IMAGE ROOT PROGRAM…: fills the directory ROOT.
image_fill_pause() {
	install -m 755 "$2" "$1/pause"
}

image_fill_busybox() {
	local root=$1 busybox=$2 applet
	mkdir -p "$root"/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,usr/sbin,sbin,var/www}
	chmod 1777 "$root/tmp"
	chmod 700 "$root/root"
	install -m 755 "$busybox" "$root/bin/busybox"
	for applet in $("$busybox" --list); do
		[[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
	done
	ln -s /bin/env "$root/usr/bin/env"
	image_users "$root"
}

image_users() {
	local root=$1
	printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:1:1:daemon:/usr/sbin:/bin/false \
		nobody:x:65534:65534:nobody:/home:/bin/false >"$root/etc/passwd"
	printf '%s\n' root:x:0: daemon:x:1: tty:x:5: nobody:x:65534: >"$root/etc/group"
}

image_fill_agnhost() {
	image_fill_busybox "$1" "$2"
	image_add_agnhost "$1" "$3"
}

image_fill_coredns() {
	install -m 755 "$2" "$1/coredns"
}

image_fill_skipper() {
	install -D -m 755 "$2" "$1/usr/bin/skipper"
}

# Upstream's tests count on the user, the groups, the link and /uploads.
image_add_agnhost() {
	local root=$1 agnhost=$2
	install -m 755 "$agnhost" "$root/agnhost"
	ln -s agnhost "$root/agnhost-2"
	mkdir "$root/uploads"
	echo user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh >>"$root/etc/passwd"
	printf '%s\n' user-defined-in-image:x:1000: \
		group-defined-in-image:x:50000:user-defined-in-image >>"$root/etc/group"
}

# --- the archive -------------------------------------------------------------

# image_pack DIR CONFIG NAMES: writes DIR/image.tar, an OCI layout with one
# uncompressed layer made of DIR/rootfs, listed once under every name.
image_pack() {
	local dir=$1 process=$2 names=$3 arch diff layer config manifest name entries=()
	case $(uname -m) in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	*) arch=$(uname -m) ;;
	esac
	tar_reproducibly "$dir/layer" -C "$dir/rootfs" .
	# Uncompressed, so the layer's digest is also the digest of its content.
	diff=$(sha256sum <"$dir/layer")
	layer=$(oci_blob "$dir" "$dir/layer" application/vnd.oci.image.layer.v1.tar)
	printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
		"$arch" "$process" "${diff%% *}" >"$dir/config"
	config=$(oci_blob "$dir" "$dir/config" application/vnd.oci.image.config.v1+json)
	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
		"$config" "$layer" >"$dir/manifest"
	manifest=$(oci_blob "$dir" "$dir/manifest" application/vnd.oci.image.manifest.v1+json)
	while read -r name; do
		entries+=("${manifest%\}},\"annotations\":{\"io.containerd.image.name\":\"$name\",\"org.opencontainers.image.ref.name\":\"${name##*:}\"}}")
	done <<<"$names"
	printf '{"schemaVersion":2,"manifests":[%s]}' "$(
		IFS=,
		echo "${entries[*]}"
	)" >"$dir/oci/index.json"
	printf '{"imageLayoutVersion":"1.0.0"}' >"$dir/oci/oci-layout"
	tar_reproducibly "$dir/image.tar" -C "$dir/oci" oci-layout index.json blobs
}

# oci_blob DIR FILE MEDIATYPE: moves FILE among the blobs, prints its descriptor.
oci_blob() {
	local size digest
	size=$(stat -c %s "$2")
	digest=$(sha256sum <"$2")
	digest=${digest%% *}
	mv "$2" "$1/oci/blobs/sha256/$digest"
	printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$3" "$digest" "$size"
}

tar_reproducibly() {
	local out=$1
	shift
	tar --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$out" "$@"
}

# --- into containerd ---------------------------------------------------------

# images_import CTR SOCKET IMAGE…: into namespace k8s.io, where CRI looks.
images_import() {
	local ctr=$1 socket=$2 image archive output
	shift 2
	for image; do
		archive=$(image_archive "$image")
		output=$("$ctr" --address "$socket" --namespace k8s.io images import "$archive" 2>&1) ||
			die "image $image: import into containerd at $socket failed: $output"
	done
}
