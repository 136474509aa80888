# shellcheck shell=bash
# Debian's packages as material for images: unpacked together with what they depend on,
# or built from source. Kept in CACHE_DIR/debian.

# debian_tree PACKAGE…: prints the path of an archive of these packages and all that
# they depend on, unpacked and not configured: enough for their programs to run.
debian_tree() (
	hash=$(printf '%s\n' "$@" | sha256sum)
	archive=$CACHE_DIR/debian/tree-${hash:0:16}.tar
	if [[ ! -e $archive ]]; then
		say "unpacking Debian packages: $* and what they depend on"
		mkdir -p "$CACHE_DIR/debian"
		tmp=$(mktemp -d "$CACHE_DIR/debian/.tmp.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		debian_download "$tmp" "$@"
		mkdir -p "$tmp/root/usr"/{bin,sbin,lib,lib64}
		ln -s usr/{bin,sbin,lib,lib64} "$tmp/root"
		for package in "$tmp"/archives/*.deb; do
			dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$tmp/root" \
				--exclude='./usr/share/*' --exclude='./var/*'
		done
		tar_reproducibly "$tmp/tree.tar" -C "$tmp/root" .
		mv -T "$tmp/tree.tar" "$archive"
	fi
	echo "$archive"
)

# debian_download DIR PACKAGE…: into DIR/archives, as for a system without a package.
debian_download() {
	local dir=$1
	shift
	mkdir -p "$dir/archives/partial"
	: >"$dir/status"
	local fetch=(apt-get -q -y -o Dir::State::status="$dir/status" -o Dir::Cache::archives="$dir/archives"
		-o APT::Sandbox::User=root --no-install-recommends --download-only install "$@")
	{ "${fetch[@]}" || { apt-get update -q && "${fetch[@]}"; }; } >"$dir/log" 2>&1 </dev/null || {
		tail -n 20 "$dir/log" >&2
		die "cannot download Debian packages: $*"
	}
}

# --- busybox -------------------------------------------------------------------

# With these patches, busybox's shell drops variables with names such as `data-1` from
# the environment of what it starts: two specs of the suite look for such a name.
BUSYBOX_PATCHES_LEFT_OUT='^(revert-9c143ce52da11ec3d21a3491c3749841d3dc10f0|temp-deb-installer-hack)\.patch$'

# debian_busybox: prints the path of a static busybox, made of Debian's source package
# with Debian's configuration but for those patches.
debian_busybox() (
	hash=$({ declare -f busybox_build; echo "$BUSYBOX_PATCHES_LEFT_OUT"; } | sha256sum)
	program=$CACHE_DIR/debian/busybox-${hash:0:16}
	if [[ ! -e $program ]]; then
		need_packages gcc=gcc make=make patch=patch bzip2=bzip2 xz=xz-utils /usr/include/stdio.h=libc6-dev
		say "building busybox from Debian's source package"
		mkdir -p "$CACHE_DIR/debian"
		tmp=$(mktemp -d "$CACHE_DIR/debian/.tmp.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		debian_source "$tmp" busybox-static busybox
		busybox_build "$tmp" >"$tmp/log" 2>&1 || {
			tail -n 20 "$tmp/log" >&2
			die "busybox cannot be built from Debian's source package"
		}
		mv -T "$tmp/busybox" "$program"
	fi
	echo "$program"
)

# busybox_build DIR: DIR/busybox of the source package in DIR. Called where a failure
# of a single command would go unnoticed.
busybox_build() {
	cd "$1" && mkdir source && tar -xf ./*.orig.tar.* --strip-components=1 -C source &&
		tar -xf ./*.debian.tar.* && cd source || return
	local patch
	while read -r patch; do
		[[ -z $patch || $patch == '#'* || $patch =~ $BUSYBOX_PATCHES_LEFT_OUT ]] ||
			patch -sp1 <"../debian/patches/$patch" || return
	done <../debian/patches/series
	# And without what makes its shell run applets rather than programs of the same name.
	sed -E '/^CONFIG_FEATURE_(PREFER_APPLETS|SH_STANDALONE)=/d' ../debian/config/pkg/static >.config && { yes '' || true; } | make oldconfig &&
		nice make -j "$(nproc)" && mv busybox ..
}

# debian_source DIR PACKAGE SOURCE: the source package SOURCE, from where this host
# gets PACKAGE, whether or not the host's own lists name sources.
debian_source() {
	local dir=$1 uri suite log=$1/log
	read -r _ uri suite _ < <(apt-cache policy "$2" | grep -E '^ +[0-9]+ (https?|file):' | tail -n 1) ||
		die "apt knows no place to get $2 from"
	echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri ${suite%/*} ${suite#*/}" >"$dir/sources"
	mkdir -p "$dir/lists/partial"
	local options=(-q -o Dir::Etc::SourceList="$dir/sources" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::Lists="$dir/lists" -o Dir::Cache::pkgcache='' -o Dir::Cache::srcpkgcache=''
		-o APT::Sandbox::User=root)
	(
		cd "$dir"
		apt-get "${options[@]}" update && apt-get "${options[@]}" source --download-only "$3"
	) >"$log" 2>&1 </dev/null || {
		tail -n 20 "$log" >&2
		die "cannot download the source of Debian's $3"
	}
}
