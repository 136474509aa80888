# shellcheck shell=bash
# Every component: its configuration, its command line (a script DIR/cmd/NAME that
# anyone can read and run again) and the question that tells whether it is ready.

# In starting order.
COMPONENTS=(containerd etcd apiserver controller-manager scheduler kubelet kube-proxy)

# command_write NAME PROGRAM ARG…: DIR/cmd/NAME. It joins the cluster's cgroup and
# becomes the program.
command_write() {
	local name=$1 program=$2
	shift 2
	{
		printf '#!/bin/bash\n# %s of cluster %s; run it in the network namespace: hack/cluster/exec %s %s\n' \
			"$name" "$C_NAME" "$C_NAME" "$C_DIR/cmd/$name"
		printf 'echo $$ >%q\n' "$(cgroup_daemons)/cgroup.procs"
		printf 'export PATH=%q\n' "$(cluster_path)"
		printf 'exec %q' "$program"
		(($# == 0)) || printf ' \\\n\t%q' "$@"
		printf '\n'
	} >"$C_DIR/cmd/$name.new"
	chmod 755 "$C_DIR/cmd/$name.new"
	mv "$C_DIR/cmd/$name.new" "$C_DIR/cmd/$name"
}

# cluster_path: the PATH of daemons and of hack/cluster/exec. What a test puts into
# the cluster's bin comes before all else, even while daemons run. Then the containerd
# that was chosen: it finds its shim there.
cluster_path() {
	local dir path=''
	for dir in "$C_DIR/bin" "$C_CONTAINERD_BIN" "$(tools_dir kubernetes)" "$(tools_dir crictl)" "$(tools_dir etcd)"; do
		[[ -z $dir || ! -d $dir ]] || path+=$dir:
	done
	echo "${path}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

ask() { in_netns curl --fail --silent --show-error --max-time 2 "$@"; }

# --- containerd ----------------------------------------------------------------

# containerd_select 1.6|2|host: which programs that means. "host" is for those who
# take what there is: whatever version is in PATH, Debian's or Docker's.
containerd_select() {
	case $1 in
	1.6) C_CONTAINERD_BIN='' C_CNI_BIN=/usr/lib/cni ;;
	2) C_CONTAINERD_BIN=$(tools_dir containerd) C_CNI_BIN=$(tools_dir cni) ;;
	host)
		C_CONTAINERD_BIN=$(command -v containerd) || die "there is no containerd in PATH"
		C_CONTAINERD_BIN=${C_CONTAINERD_BIN%/*} C_CNI_BIN=/usr/lib/cni
		;;
	*) die "--containerd $1: it is 1.6 (the host's package) or 2 (built from tools/)" ;;
	esac
	C_CTR=${C_CONTAINERD_BIN:-/usr/bin}/ctr
}

containerd_configure() {
	local program=${C_CONTAINERD_BIN:-/usr/bin}/containerd version
	version=$("$program" --version | awk '{ print $3 }')
	case $C_CONTAINERD:${version#v} in
	1.6:1.* | host:1.*)
		need_packages /usr/lib/cni/ptp=containernetworking-plugins
		containerd_config_v2 >"$C_DIR/containerd.toml"
		;;
	2:2.* | host:2.*) containerd_config_v3 >"$C_DIR/containerd.toml" ;;
	*) die "--containerd $C_CONTAINERD, but $program is $version" ;;
	esac
	cni_config >"$C_DIR/cni/10-ptp.conflist"
	printf '%s: unix://%s\n' runtime-endpoint "$C_SOCKET" image-endpoint "$C_SOCKET" >"$C_DIR/crictl.yaml"
	command_write containerd "$program" --config "$C_DIR/containerd.toml" --log-level info
}

# restrict_oom_score_adj: without CAP_SYS_RESOURCE no process can get a lower
# oom_score_adj than its parent, and runc fails on every sandbox that asks for one.
oom_score_adj_restricted() {
	local caps
	caps=$(awk '$1 == "CapEff:" { print $2 }' /proc/self/status)
	((0x$caps >> 24 & 1)) && echo false || echo true
}

containerd_config_v2() {
	cat <<-END
		version = 2
		root = "$C_DIR/containerd"
		state = "$C_DIR/run/containerd"
		disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
		[grpc]
		  address = "$C_SOCKET"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$C_DIR/containerd-opt"
		[plugins."io.containerd.grpc.v1.cri"]
		  restrict_oom_score_adj = $(oom_score_adj_restricted)
		  sandbox_image = "$(image_names pause)"
		  netns_mounts_under_state_dir = true
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "$C_CNI_BIN"
		    conf_dir = "$C_DIR/cni"
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		      Root = "$C_DIR/run/runc"
		      SystemdCgroup = false
		  [plugins."io.containerd.grpc.v1.cri".registry]
		    config_path = "$C_DIR/certs.d"
	END
}

containerd_config_v3() {
	cat <<-END
		version = 3
		root = "$C_DIR/containerd"
		state = "$C_DIR/run/containerd"
		imports = []
		disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs"]
		[grpc]
		  address = "$C_SOCKET"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$C_DIR/containerd-opt"
		[plugins."io.containerd.cri.v1.runtime"]
		  restrict_oom_score_adj = $(oom_score_adj_restricted)
		  netns_mounts_under_state_dir = true
		  [plugins."io.containerd.cri.v1.runtime".cni]
		    bin_dirs = ["$C_CNI_BIN"]
		    conf_dir = "$C_DIR/cni"
		  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
		      Root = "$C_DIR/run/runc"
		      SystemdCgroup = false
		[plugins."io.containerd.cri.v1.images".pinned_images]
		  sandbox = "$(image_names pause)"
		[plugins."io.containerd.cri.v1.images".registry]
		  config_path = "$C_DIR/certs.d"
	END
}

# ptp rather than bridge: with a bridge the host may hold an old neighbour entry
# for a new pod's address, and cannot reach that pod for seconds.
cni_config() {
	cat <<-END
		{
		  "cniVersion": "0.4.0",
		  "name": "kubelet-rs-$C_NAME",
		  "plugins": [
		    {
		      "type": "ptp",
		      "ipMasq": false,
		      "ipam": {
		        "type": "host-local",
		        "dataDir": "$C_DIR/run/ipam",
		        "ranges": [[{ "subnet": "$C_NODE_POD_CIDR" }]],
		        "routes": [{ "dst": "0.0.0.0/0" }]
		      }
		    },
		    { "type": "portmap", "capabilities": { "portMappings": true } }
		  ]
		}
	END
}

ready_containerd() { timeout 5 "$C_CTR" --address "$C_SOCKET" version; }

# --- control plane -------------------------------------------------------------

# credentials_make: certificates and kubeconfigs as kubeadm makes them.
credentials_make() {
	local kubeadm
	kubeadm=$(tools_dir kubernetes)/kubeadm
	cat >"$C_DIR/kubeadm.yaml" <<-END
		apiVersion: kubeadm.k8s.io/v1beta4
		kind: InitConfiguration
		localAPIEndpoint:
		  advertiseAddress: $C_NODE_IP
		  bindPort: 6443
		nodeRegistration:
		  name: $C_NODE_NAME
		  criSocket: unix://$C_SOCKET
		---
		apiVersion: kubeadm.k8s.io/v1beta4
		kind: ClusterConfiguration
		kubernetesVersion: $(kubernetes_version)
		clusterName: $C_NAME
		certificatesDir: $C_PKI
		encryptionAlgorithm: ECDSA-P256
		networking:
		  serviceSubnet: $C_SERVICE_CIDR
		  podSubnet: $C_POD_CIDR
		  dnsDomain: cluster.local
	END
	{
		"$kubeadm" init phase certs all --config "$C_DIR/kubeadm.yaml" &&
			"$kubeadm" init phase kubeconfig all --config "$C_DIR/kubeadm.yaml" --kubeconfig-dir "$C_PKI" &&
			"$kubeadm" kubeconfig user --config "$C_DIR/kubeadm.yaml" --client-name system:kube-proxy \
				>"$C_PKI/kube-proxy.conf"
	} >"$C_DIR/log/kubeadm.log" 2>&1 </dev/null || {
		daemon_show_log kubeadm
		die "cluster $C_NAME: kubeadm could not make the credentials"
	}
	# admin.conf's group has no rights before kubeadm's own bootstrap; this one has.
	cp -p "$C_PKI/super-admin.conf" "$C_KUBECONFIG"
	cp -p "$C_PKI/kubelet.conf" "$C_DIR/kubelet.kubeconfig"
}

# The controller manager gets a higher rate of requests than its default, which
# alone would take 5 s of its start.
control_plane_configure() {
	local bin
	bin=$(tools_dir kubernetes)
	command_write etcd "$(tools_dir etcd)/etcd" \
		--name=default --data-dir="$C_DIR/etcd" --unsafe-no-fsync --log-level=warn \
		--listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
		--listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
		--initial-cluster=default=http://127.0.0.1:2380
	command_write apiserver "$bin/kube-apiserver" \
		--advertise-address="$C_NODE_IP" --secure-port=6443 \
		--etcd-servers=http://127.0.0.1:2379 \
		--service-cluster-ip-range="$C_SERVICE_CIDR" \
		--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
		--enable-bootstrap-token-auth=true --allow-privileged=true \
		--client-ca-file="$C_PKI/ca.crt" \
		--tls-cert-file="$C_PKI/apiserver.crt" --tls-private-key-file="$C_PKI/apiserver.key" \
		--kubelet-client-certificate="$C_PKI/apiserver-kubelet-client.crt" \
		--kubelet-client-key="$C_PKI/apiserver-kubelet-client.key" \
		--kubelet-preferred-address-types=InternalIP,Hostname \
		--service-account-issuer=https://kubernetes.default.svc.cluster.local \
		--service-account-key-file="$C_PKI/sa.pub" --service-account-signing-key-file="$C_PKI/sa.key" \
		--proxy-client-cert-file="$C_PKI/front-proxy-client.crt" \
		--proxy-client-key-file="$C_PKI/front-proxy-client.key" \
		--requestheader-client-ca-file="$C_PKI/front-proxy-ca.crt" \
		--requestheader-allowed-names=front-proxy-client \
		--requestheader-username-headers=X-Remote-User \
		--requestheader-group-headers=X-Remote-Group \
		--requestheader-extra-headers-prefix=X-Remote-Extra-
	command_write controller-manager "$bin/kube-controller-manager" \
		--kubeconfig="$C_PKI/controller-manager.conf" \
		--authentication-kubeconfig="$C_PKI/controller-manager.conf" \
		--authorization-kubeconfig="$C_PKI/controller-manager.conf" \
		--bind-address=127.0.0.1 --leader-elect=false --kube-api-qps=500 --kube-api-burst=1000 \
		--controllers='*,bootstrapsigner,tokencleaner' --use-service-account-credentials=true \
		--allocate-node-cidrs=true --cluster-cidr="$C_POD_CIDR" --node-cidr-mask-size=24 \
		--service-cluster-ip-range="$C_SERVICE_CIDR" \
		--root-ca-file="$C_PKI/ca.crt" --client-ca-file="$C_PKI/ca.crt" \
		--cluster-signing-cert-file="$C_PKI/ca.crt" --cluster-signing-key-file="$C_PKI/ca.key" \
		--service-account-private-key-file="$C_PKI/sa.key" \
		--requestheader-client-ca-file="$C_PKI/front-proxy-ca.crt"
	command_write scheduler "$bin/kube-scheduler" \
		--kubeconfig="$C_PKI/scheduler.conf" \
		--authentication-kubeconfig="$C_PKI/scheduler.conf" \
		--authorization-kubeconfig="$C_PKI/scheduler.conf" \
		--bind-address=127.0.0.1 --leader-elect=false
}

ready_etcd() { ask http://127.0.0.1:2379/health; }
ready_apiserver() { ask --cacert "$C_PKI/ca.crt" "https://$C_NODE_IP:6443/readyz"; }
ready_controller_manager() { ask --insecure https://127.0.0.1:10257/healthz; }
ready_scheduler() { ask --insecure https://127.0.0.1:10259/healthz; }

kubectl() { "$(tools_dir kubernetes)/kubectl" --kubeconfig "$C_KUBECONFIG" "$@"; }

# control_plane_grant: what kubeadm's later phases or an administrator would bind.
# system:nodes gets the proxier's role because our agent does kube-proxy's work
# with the node's own credentials.
control_plane_grant() {
	kubectl apply -f - >/dev/null <<-END
		apiVersion: rbac.authorization.k8s.io/v1
		kind: ClusterRoleBinding
		metadata: { name: kubelet-rs:apiserver-to-kubelet }
		roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:kubelet-api-admin }
		subjects:
		- { apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client }
		---
		apiVersion: rbac.authorization.k8s.io/v1
		kind: ClusterRoleBinding
		metadata: { name: kubelet-rs:nodes-as-proxiers }
		roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node-proxier }
		subjects:
		- { apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:nodes }
	END
}

default_service_account_exists() { kubectl -n default get serviceaccount default >/dev/null 2>&1; }

# --- node ----------------------------------------------------------------------

# our_kubelet PATH: PATH if given, else the binary that cargo built last.
our_kubelet() {
	local path=$1 candidate target=${CARGO_TARGET_DIR:-$REPO_DIR/target}
	if [[ -z $path ]]; then
		for candidate in "$target"/{release,debug}/kubelet; do
			[[ -z $path || $candidate -nt $path ]] && path=$candidate
		done
		[[ -n $path && -e $path ]] || die "there is no kubelet of ours in $target: run 'cargo build --release', or pass --kubelet PATH"
	fi
	[[ -x $path ]] || die "--kubelet $path: not an executable file"
	realpath "$path"
}

# node_configure ours|upstream KUBELET CONFIG-DIR ARG…: the same configuration file
# and flags whoever's kubelet it is. CONFIG-DIR may be empty.
node_configure() {
	local kind=$1 kubelet=$2 config_dir=$3
	shift 3
	local command=("$kubelet")
	[[ $kind != upstream ]] || hide_var_lib_kubelet command
	# Without it upstream's statistics know no containers: a deprecated flag, but the
	# only way to tell where containerd listens.
	[[ $kind != upstream ]] || set -- --containerd="$C_SOCKET" "$@"
	kubelet_config >"$C_DIR/kubelet.yaml"
	kube_proxy_config >"$C_DIR/kube-proxy.yaml"
	[[ $kind == upstream ]] || set -- --proxy-config="$C_DIR/kube-proxy.yaml" "$@"
	command_write kubelet "${command[@]}" \
		--config="$C_DIR/kubelet.yaml" ${config_dir:+--config-dir="$config_dir"} \
		--kubeconfig="$C_DIR/kubelet.kubeconfig" \
		--hostname-override="$C_NODE_NAME" --node-ip="$C_NODE_IP" \
		--root-dir="$C_KUBELET_ROOT" --cert-dir="$C_KUBELET_ROOT/pki" "$@"
	command_write kube-proxy "$(tools_dir kubernetes)/kube-proxy" --config="$C_DIR/kube-proxy.yaml"
	echo "$kind" >"$C_DIR/node"
}

# node_configure_standalone KUBELET ARG…: our agent alone, without an API server: the
# manifests' folder is all that is wanted of it.
node_configure_standalone() {
	local kubelet=$1
	shift
	kubelet_config_standalone >"$C_DIR/kubelet.yaml"
	command_write kubelet "$kubelet" --config="$C_DIR/kubelet.yaml" \
		--hostname-override="$C_NODE_NAME" --node-ip="$C_NODE_IP" \
		--root-dir="$C_KUBELET_ROOT" --cert-dir="$C_KUBELET_ROOT/pki" "$@"
	echo standalone >"$C_DIR/node"
}

# node_configure_none: for a node agent that someone else starts.
node_configure_none() {
	kubelet_config >"$C_DIR/kubelet.yaml"
	rm -f "$C_DIR/cmd/kubelet" "$C_DIR/cmd/kube-proxy"
	echo none >"$C_DIR/node"
}

# hide_var_lib_kubelet COMMAND: prefixes the command line in that array. Whatever
# its root directory, upstream's kubelet clears /var/lib/kubelet/device-plugins and
# listens there: two of them would fight, and one beside the host's own kubelet
# would break that. So it gets another directory there, in a mount namespace that
# otherwise shares mounts with the host's.
hide_var_lib_kubelet() {
	local -n command_ref=$1
	if [[ ! -d /var/lib/kubelet ]]; then
		mkdir /var/lib/kubelet
		: >"$VAR_LIB_KUBELET_IS_OURS"
	fi
	mkdir -p "$C_DIR/var-lib-kubelet"
	# shellcheck disable=SC2016
	command_ref=(unshare --mount --propagation unchanged --
		sh -ec 'mount --make-private "$1"; mount --bind "$2" /var/lib/kubelet; shift 2; exec "$@"' hide
		"$(findmnt --noheadings --output TARGET --target /var/lib)" "$C_DIR/var-lib-kubelet" "${command_ref[@]}")
}

# kubelet_config: of a node with an API server.
kubelet_config() {
	kubelet_config_common
	cat <<-END
		clusterDomain: cluster.local
		clusterDNS: [$C_DNS_IP]
		healthzBindAddress: 127.0.0.1
		authentication:
		  anonymous: { enabled: false }
		  webhook: { enabled: true }
		  x509: { clientCAFile: $C_PKI/ca.crt }
		authorization:
		  mode: Webhook
	END
}

# kubelet_config_standalone: nobody could be authenticated, so there is no server; and
# health and metrics are for the host's user to see, whose own network reaches the node's.
kubelet_config_standalone() {
	kubelet_config_common
	cat <<-END
		enableServer: false
		healthzBindAddress: 0.0.0.0
		authentication:
		  webhook: { enabled: false }
		authorization:
		  mode: AlwaysAllow
	END
}

# No image garbage collection and low eviction thresholds: the host's disk is not
# what is under test.
kubelet_config_common() {
	cat <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		containerRuntimeEndpoint: unix://$C_SOCKET
		staticPodPath: $C_DIR/manifests
		podLogsDir: $C_DIR/pod-logs
		volumePluginDir: $C_DIR/volume-plugins
		cgroupDriver: cgroupfs
		cgroupRoot: $C_CGROUP
		failCgroupV1: false
		failSwapOn: false
		healthzPort: 10248
		imageGCHighThresholdPercent: 100
		evictionHard:
		  memory.available: 100Mi
		  nodefs.available: 1%
		  nodefs.inodesFree: 1%
		  imagefs.available: 1%
		  imagefs.inodesFree: 1%
	END
}

kube_proxy_config() {
	cat <<-END
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: iptables
		clientConnection: { kubeconfig: $C_PKI/kube-proxy.conf }
		clusterCIDR: $C_POD_CIDR
		hostnameOverride: $C_NODE_NAME
		# nf_conntrack_max cannot be written inside a network namespace.
		conntrack: { maxPerCore: 0 }
	END
}

ready_kubelet() { ask http://127.0.0.1:10248/healthz; }
ready_kube_proxy() { ask http://127.0.0.1:10256/healthz; }

# node_needs_kube_proxy: upstream's kubelet does. Beside our agent it stays at rest
# until `ctl NAME start kube-proxy`.
node_needs_kube_proxy() { [[ $(<"$C_DIR/node") == upstream ]]; }

# node_launch: starts kubelet, and kube-proxy if the node needs it.
node_launch() {
	node_was_renewed=$(node_lease_renewal)
	daemon_start kubelet
	! node_needs_kube_proxy || daemon_start kube-proxy
}

# node_await: until what node_launch started is ready, and the node too.
node_await() {
	daemon_await kubelet 60
	! node_needs_kube_proxy || daemon_await kube-proxy 60
	if ! wait_until 60 node_is_ready; then
		kubectl get node "$C_NODE_NAME" -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}' >&2 || true
		daemon_show_log kubelet
		die "cluster $C_NAME: node $C_NODE_NAME is not Ready after 60 s"
	fi
	say "node $C_NODE_NAME Ready"
}

# The Ready condition may be a previous agent's; if there was one, a Lease renewed
# since tells that this one lives. (A new node's first Lease can take 10 s.)
node_is_ready() {
	[[ $(kubectl get node "$C_NODE_NAME" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) == True ]] &&
		[[ -z $node_was_renewed || $(node_lease_renewal) != "$node_was_renewed" ]]
}

node_lease_renewal() {
	kubectl -n kube-node-lease get lease "$C_NODE_NAME" -o jsonpath='{.spec.renewTime}' 2>/dev/null || true
}

# node_stop: the node's daemons and their iptables rules; containers stay.
node_stop() {
	daemon_stop kube-proxy
	daemon_stop kubelet
	[[ $(<"$C_DIR/node") == none ]] ||
		in_netns "$(tools_dir kubernetes)/kube-proxy" --cleanup >>"$C_DIR/log/kube-proxy.log" 2>&1 ||
		warn "kube-proxy --cleanup failed (see $C_DIR/log/kube-proxy.log)"
	node_configure_none
}
