# shellcheck shell=bash
# The images that upstream's end-to-end suite starts, under the names and tags that
# `e2e.test --list-images` prints: made here of Debian's programs and of the Go
# module's own, so that the suite needs no registry. What only a cloud, another
# kernel or another project could give (CSI drivers, NFS, iSCSI) is not among them.
#
#   e2e-busybox   busybox without a change of Debian's that two specs trip over
#   e2e-agnhost   the whole of agnhost: with curl, dig, nc and ip, as its users expect
#   the others    one test program each

E2E_IMAGES=(pause e2e-busybox e2e-agnhost e2e-tools e2e-nonroot e2e-nonewprivs e2e-nginx
	e2e-kitten e2e-nautilus e2e-etcd e2e-sample-apiserver e2e-resource-consumer
	e2e-regression-issue-74839)

# Debian packages of what upstream's agnhost has from its base image.
E2E_PACKAGES=(bash libc-bin curl bind9-dnsutils netcat-openbsd iproute2 util-linux)

e2e_image_names() {
	local name names=()
	case $1 in
	e2e-busybox) names=(busybox:1.37.0-1 busybox:1.36.1-1) ;;
	e2e-agnhost) names=(agnhost:2.63.0 agnhost:2.55) ;;
	e2e-tools) names=(glibc-dns-testing:2.0.0 ipc-utils:1.4) ;;
	e2e-nonroot) names=(nonroot:1.5) ;;
	e2e-nonewprivs) names=(nonewprivs:1.4) ;;
	e2e-nginx) names=(nginx:1.15-4 nginx:1.27-0) ;;
	e2e-kitten | e2e-nautilus) names=("${1#e2e-}:1.8") ;;
	e2e-sample-apiserver) names=(sample-apiserver:1.29.2) ;;
	e2e-resource-consumer) names=(resource-consumer:1.14) ;;
	e2e-regression-issue-74839) names=(regression-issue-74839:1.4) ;;
	e2e-etcd)
		echo registry.k8s.io/etcd:3.6.8-0
		return
		;;
	*) die "no image '$1'; there are: ${IMAGES[*]} ${SERVER_IMAGES[*]} ${E2E_IMAGES[*]}" ;;
	esac
	for name in "${names[@]}"; do echo "registry.k8s.io/e2e-test-images/$name"; done
}

# e2e_image_programs IMAGE: the files it is made of, in the order of its fill
# function's arguments.
e2e_image_programs() {
	local tools
	case $1 in
	e2e-etcd)
		build_set etcd || return
		echo "$(tools_dir etcd)/etcd"
		return
		;;
	e2e-tools)
		debian_busybox
		debian_tree "${E2E_PACKAGES[@]}"
		return
		;;
	esac
	build_set e2e || return
	tools=$(tools_dir e2e)
	case $1 in
	e2e-regression-issue-74839 | e2e-sample-apiserver)
		echo "$tools/${1#e2e-}"
		return
		;;
	esac
	debian_busybox
	case $1 in
	e2e-nonewprivs) echo "$tools/nonewprivs" ;;
	e2e-resource-consumer) printf '%s\n' "$tools"/{resource-consumer,consume-cpu} ;;
	e2e-kitten | e2e-nautilus)
		build_set kubernetes || return
		echo "$(tools_dir kubernetes)/agnhost"
		;;
	e2e-agnhost)
		build_set kubernetes || return
		echo "$(tools_dir kubernetes)/agnhost"
		debian_tree "${E2E_PACKAGES[@]}"
		printf '%s\n' "$tools"/localhost.{crt,key}
		image_archive pause
		;;
	esac
}

e2e_image_process() {
	local path='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]'
	case $1 in
	e2e-busybox | e2e-tools) echo "{$path,\"Cmd\":[\"sh\"]}" ;;
	e2e-agnhost) echo "{$path,\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"pause\"]}" ;;
	e2e-kitten | e2e-nautilus) echo "{$path,\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"test-webserver\"]}" ;;
	e2e-nonroot) echo "{$path,\"User\":\"1234\",\"Cmd\":[\"sh\"]}" ;;
	e2e-nonewprivs) echo "{$path,\"Cmd\":[\"nnp\"]}" ;;
	e2e-nginx) echo "{$path,\"Cmd\":[\"nginx\",\"-g\",\"daemon off;\"]}" ;;
	e2e-etcd) echo "{$path,\"Cmd\":[\"etcd\"]}" ;;
	e2e-resource-consumer) echo '{"Entrypoint":["/consumer"]}' ;;
	e2e-regression-issue-74839 | e2e-sample-apiserver) echo "{\"Entrypoint\":[\"/${1#e2e-}\"]}" ;;
	esac
}

# --- what is inside ----------------------------------------------------------

image_fill_e2e_busybox() {
	image_fill_busybox "$1" "$2"
	image_wrap_ip "$1" "busybox ip"
}

image_fill_e2e_nonroot() { image_fill_e2e_busybox "$@"; }

# Specs look at a web server that answers on port 80, none at which one it is.
image_fill_e2e_nginx() {
	image_fill_e2e_busybox "$@"
	mkdir -p "$1/usr/share/nginx/html"
	echo '<title>Welcome to nginx!</title>' >"$1/usr/share/nginx/html/index.html"
	printf '%s\n' '#!/bin/sh' 'exec busybox httpd -f -p 80 -h /usr/share/nginx/html' >"$1/usr/sbin/nginx"
	chmod 755 "$1/usr/sbin/nginx"
}

# image_wrap_ip ROOT COMMAND: an ip(8) that makes a bridge when a dummy link is asked
# for and the kernel has none. PrivilegedPod wants to see who may add a link, whatever
# its type.
image_wrap_ip() {
	rm -f "$1"/{bin,sbin,usr/sbin,usr/bin}/ip
	cat >"$1/bin/ip" <<-END
		#!/bin/sh
		case "\$*" in
		*" type dummy") $2 "\$@" 2>/dev/null || exec $2 \${*%dummy} bridge ;;
		*) exec $2 "\$@" ;;
		esac
	END
	chmod 755 "$1/bin/ip"
}

image_fill_e2e_tools() {
	local root=$1 busybox=$2 tree=$3 applet
	tar -xf "$tree" -C "$root"
	mkdir -p "$root"/{dev,etc,home,proc,root,sys,tmp}
	image_users "$root"
	install -m 755 "$busybox" "$root/bin/busybox"
	for applet in $("$busybox" --list); do
		[[ -e $root/bin/$applet || -e $root/sbin/$applet ]] || ln -s busybox "$root/bin/$applet"
	done
	ln -sf busybox "$root/bin/sh"
	ln -sf nc.openbsd "$root/bin/nc"
}

image_fill_e2e_agnhost() {
	local root=$1 agnhost=$3 certificate=$5 key=$6 pause=$7
	image_fill_e2e_tools "$root" "$2" "$4"
	mv "$root/usr/bin/ip" "$root/usr/lib/ip-of-iproute2"
	image_wrap_ip "$root" /usr/lib/ip-of-iproute2
	image_add_agnhost "$root" "$agnhost"
	install -m 644 "$certificate" "$root/localhost.crt"
	install -m 644 "$key" "$root/localhost.key"
	image_add_registry "$root/var/registry/pause" testing "$pause"
}

# image_add_registry DIR TAG ARCHIVE: an image in the layout that `agnhost
# fake-registry-server` serves.
image_add_registry() {
	local dir=$1 tag=$2 archive=$3 digest blob kind
	digest=$(tar -xOf "$archive" index.json | image_digests | head -n 1)
	mkdir -p "$dir/manifests"
	echo "sha256:$digest" >"$dir/manifests/$tag"
	for blob in $(tar -tf "$archive" | sed -n 's|^blobs/sha256/\(..*\)|\1|p'); do
		[[ $blob == "$digest" ]] && kind=manifests || kind=blobs
		mkdir -p "$dir/$kind/sha256/${blob:0:2}/$blob"
		tar -xOf "$archive" "blobs/sha256/$blob" >"$dir/$kind/sha256/${blob:0:2}/$blob/data"
	done
}

# image_digests: of the JSON at stdin, in order.
image_digests() { grep -o '"digest":"sha256:[0-9a-f]*' | sed 's/.*://'; }

# A spec mounts it as a volume, and looks at what distribution it is made of.
image_fill_e2e_kitten() {
	image_fill_agnhost "$@"
	echo '{ "image": "kitten.jpg" }' >"$1/data.json"
	echo 'NAME="Alpine Linux"' >"$1/etc/os-release"
}

image_fill_e2e_nautilus() {
	image_fill_agnhost "$@"
	echo '{ "image": "nautilus.jpg" }' >"$1/data.json"
}

# Setuid, as the question is whether that gives it root's rights.
image_fill_e2e_nonewprivs() {
	image_fill_busybox "$1" "$2"
	mkdir -p "$1/usr/local/bin"
	install -m 6755 "$3" "$1/usr/local/bin/nnp"
}

image_fill_e2e_etcd() {
	mkdir -p "$1/usr/local/bin" "$1/tmp"
	chmod 1777 "$1/tmp"
	install -m 755 "$2" "$1/usr/local/bin/etcd"
}

image_fill_e2e_sample_apiserver() {
	mkdir -p "$1/tmp"
	chmod 1777 "$1/tmp"
	install -m 755 "$2" "$1/sample-apiserver"
}

image_fill_e2e_resource_consumer() {
	image_fill_busybox "$1" "$2"
	install -m 755 "$3" "$1/consumer"
	install -m 755 "$4" "$1/consume-cpu"
}

image_fill_e2e_regression_issue_74839() { install -m 755 "$2" "$1/regression-issue-74839"; }
