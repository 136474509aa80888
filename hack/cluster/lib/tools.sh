# shellcheck shell=bash
# Pinned Go tools. Every directory under tools/ is a "set": a go.mod whose `tool`
# lines name the programs and whose go.sum fixes every byte of them; a set can have
# test packages too (tool_tests), each built as a program NAME.test. A set is built
# once into CACHE_DIR/tools/SET-HASH, where HASH covers go.mod, go.sum and
# the build flags; a directory that is there is complete.

# shellcheck disable=SC2034
TOOL_SETS=(kubernetes etcd containerd cni crictl metrics-server e2e coredns skipper)

# The version stamped into Kubernetes' programs: kubeadm and version checks refuse
# an unstamped build.
kubernetes_version() {
	awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$LIB_DIR/tools/kubernetes/go.mod"
}

tool_ldflags() {
	local flags="-s -w" version
	if [[ $1 =~ ^(kubernetes|e2e)$ ]]; then
		version=$(kubernetes_version)
		local major=${version#v} minor=${version#*.}
		flags+=" -X k8s.io/component-base/version.gitVersion=$version"
		flags+=" -X k8s.io/component-base/version.gitMajor=${major%%.*}"
		flags+=" -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
	fi
	echo "$flags"
}

# tools_dir SET: the directory of its programs, built or not.
tools_dir() {
	local set=$1 hash
	hash=$({
		cat "$LIB_DIR/tools/$set/go.mod" "$LIB_DIR/tools/$set/go.sum"
		echo "CGO_ENABLED=0 -trimpath $(tool_ldflags "$set")"
		tool_tests "$set"
		tool_files "$set"
	} | sha256sum)
	echo "$CACHE_DIR/tools/$set-${hash:0:16}"
}

# tool_tests SET: its test packages. No `tool` line can name one, as what it needs
# beyond the package itself would be missing from go.mod.
tool_tests() { [[ $1 != e2e ]] || echo k8s.io/kubernetes/test/e2e; }

# tool_files SET: files of its modules that are wanted beside the programs, each as
# MODULE PATH. These two are a web server's in the image agnhost.
tool_files() {
	[[ $1 != e2e ]] || printf 'k8s.io/kubernetes test/images/agnhost/porter/%s\n' localhost.crt localhost.key
}

# A package's program is named by its last path element, but for a version suffix.
tool_name() {
	case $1 in
	go.etcd.io/etcd/server/v3) echo etcd ;;
	*) echo "${1##*/}" ;;
	esac
}

# need_go SET: a Go at least as new as the set's go.mod asks for.
need_go() {
	local wanted have
	wanted=$(awk '$1 == "go" { print $2; exit }' "$LIB_DIR/tools/$1/go.mod")
	command -v go >/dev/null ||
		die "Go $wanted or newer is needed to build the cluster's tools, and there is none in PATH (https://go.dev/dl)"
	have=$(go env GOVERSION)
	have=${have#go}
	if [[ $(printf '%s\n' "$wanted" "${have%%[!0-9.]*}" | sort -V | head -n 1) != "$wanted" ]]; then
		[[ $(go env GOTOOLCHAIN) != local ]] ||
			die "tool set $1 needs Go $wanted or newer, but $(command -v go) is $have and GOTOOLCHAIN=local"
		say "Go $have is older than $wanted: the go command will fetch the newer toolchain itself"
	fi
}

# build_set SET: makes tools_dir SET exist. Two callers at once build once.
build_set() (
	set=$1
	dir=$(tools_dir "$set")
	[[ ! -d $dir ]] || return 0
	need_go "$set"
	mkdir -p "$CACHE_DIR/tools"
	exec 9>"$CACHE_DIR/tools/.$set.lock"
	if ! flock -n 9; then
		say "tools $set: another build is running, waiting for it"
		flock 9
	fi
	[[ ! -d $dir ]] || return 0

	# Only a killed build leaves these, and we hold the lock.
	rm -rf "$CACHE_DIR/tools/.$set.tmp."*
	tmp=$(mktemp -d "$CACHE_DIR/tools/.$set.tmp.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	chmod 755 "$tmp"
	cd "$LIB_DIR/tools/$set"
	say "tools $set: modules"
	packages=$(go list tool) || die "tools $set: go list failed (does the Go module proxy answer?)"
	count=0 total=$(wc -l <<<"$packages")
	while read -r package; do
		name=$(tool_name "$package")
		count=$((count + 1))
		say "tools $set: $count/$total $name"
		CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "$(tool_ldflags "$set")" -o "$tmp/$name" "$package" ||
			die "tools $set: building $package failed"
	done <<<"$packages"
	for package in $(tool_tests "$set"); do
		name=$(tool_name "$package").test
		say "tools $set: $name"
		CGO_ENABLED=0 go test -c -mod=readonly -trimpath -ldflags "$(tool_ldflags "$set")" -o "$tmp/$name" "$package" ||
			die "tools $set: building the tests of $package failed"
	done
	while read -r module path; do
		install -m 644 "$(go list -m -f '{{.Dir}}' "$module")/$path" "$tmp/${path##*/}" ||
			die "tools $set: module $module has no $path"
	done < <(tool_files "$set")
	mv -T "$tmp" "$dir"
	say "tools $set: in $dir"
)
