# shellcheck shell=bash
# The Rust toolchain: found, checked against Cargo.toml, and run as the right user.
# Sourced after hack/cluster/lib.sh, never run.

# The command line that `cargo` is called with; need_rust sets it.
CARGO=()

# cargo_prefix USER HOME: CARGO for that user, if there is a cargo for them.
cargo_prefix() {
	local user=$1 home=$2 path=$2/.cargo/bin:$PATH
	local command=(env HOME="$home" PATH="$path")
	[[ $user == "$(id -un)" ]] || command=(runuser -u "$user" -- "${command[@]}")
	"${command[@]}" sh -c 'command -v cargo' >/dev/null 2>&1 || return 1
	CARGO=("${command[@]}" cargo)
}

# need_rust: a toolchain at least as new as Cargo.toml's rust-version. Under sudo it
# is the invoking user's, who also owns what is built, unless a build by root is in
# their way.
need_rust() {
	local wanted have target=${CARGO_TARGET_DIR:-$REPO_DIR/target} user=${SUDO_USER:-root}
	[[ -e $target ]] || target=$REPO_DIR
	if [[ $user == root ]] || ! runuser -u "$user" -- test -w "$target" ||
		! cargo_prefix "$user" "$(getent passwd "$user" | cut -d: -f6)"; then
		cargo_prefix root /root || true
	fi
	wanted=$(awk -F'"' '/^rust-version/ { print $2; exit }' "$REPO_DIR/Cargo.toml")
	((${#CARGO[@]})) || die "there is no Rust toolchain; $wanted or newer is needed. The usual way to get one:

    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y

then run this again. (Debian's own rustc is too old.)"
	have=$(cd "$REPO_DIR" && "${CARGO[@]}" --version) || die "this fails: ${CARGO[*]} --version"
	have=$(awk '{ print $2 }' <<<"$have")
	[[ $(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1) == "$wanted" ]] ||
		die "Rust $wanted or newer is needed, and this host's cargo is $have. With rustup: rustup update stable"
}

# need_build_packages: what the crates' build scripts call: a C compiler and protoc.
need_build_packages() {
	need_packages cc=gcc /usr/include/stdio.h=libc6-dev protoc=protobuf-compiler
}

# cargo_run ARG…: cargo in the work tree.
cargo_run() { (cd "$REPO_DIR" && "${CARGO[@]}" "$@"); }
