# shellcheck shell=bash
# What makes a running machine a node: container images, an agent as a service of its
# systemd, credentials and configuration where kubeadm has them, and the pod network.

# node_put DIR: the tree in DIR over the machine's own file system.
node_put() {
	tar -C "$1" -c --owner=0 --group=0 . | driver_exec tar -C / -x --no-overwrite-dir --keep-directory-symlink
}

# node_images NAME ARCHIVE…: into the machine's containerd.
node_images() {
	machine_open "$1"
	local archive
	for archive in "${@:2}"; do
		driver_exec ctr --namespace k8s.io images import - <"$archive" >/dev/null ||
			die "machine $M_NAME: $archive could not be imported"
	done
}

# --- the agent -------------------------------------------------------------------

# node_kubelet ours|upstream PATH: PATH if given, else cargo's newest or the pinned one.
node_kubelet() {
	if [[ $1 == ours ]]; then
		our_kubelet "$2"
	else
		realpath -e -- "${2:-$(tools_dir kubernetes)/kubelet}"
	fi
}

# node_stage ours|upstream KUBELET DIR: below DIR, program and units of the agent.
node_stage() {
	if [[ $1 == ours ]]; then
		"$REPO_DIR/hack/install.sh" --root "$3" --kubelet "$2" >/dev/null || die "hack/install.sh failed"
	else
		node_stage_upstream "$3" "$2"
	fi
}

# node_stage_upstream DIR KUBELET: what upstream's packages install, and kube-proxy as a
# service, where kubeadm would have a DaemonSet.
node_stage_upstream() {
	local stage=$1 units=$1/usr/lib/systemd/system
	mkdir -p "$stage/usr/bin" "$units/kubelet.service.d" "$stage/etc/kubernetes"
	cp "$2" "$stage/usr/bin/kubelet"
	cp "$(tools_dir kubernetes)/kube-proxy" "$stage/usr/bin/"
	cat >"$units/kubelet.service" <<-'END'
		[Unit]
		Description=Upstream's kubelet
		Wants=network-online.target
		After=network-online.target

		[Service]
		ExecStart=/usr/bin/kubelet
		Restart=always
		RestartSec=10

		[Install]
		WantedBy=multi-user.target
	END
	# As kubeadm's package has it. StartLimitIntervalSec=0: it restarts for ever before
	# `kubeadm join`.
	cat >"$units/kubelet.service.d/10-kubeadm.conf" <<-'END'
		[Unit]
		StartLimitIntervalSec=0

		[Service]
		Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
		Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
		EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
		EnvironmentFile=-/etc/default/kubelet
		ExecStart=
		ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
	END
	cat >"$units/kube-proxy.service" <<-'END'
		[Unit]
		Description=Upstream's kube-proxy
		Wants=network-online.target
		After=network-online.target

		[Service]
		ExecStart=/usr/bin/kube-proxy --config=/etc/kubernetes/kube-proxy.yaml
		Restart=always
		RestartSec=1

		[Install]
		WantedBy=multi-user.target
	END
}

# --- configuration and credentials -------------------------------------------------

# machines_kubelet_config: of every machine's agent, whosever it is. No image garbage
# collection and low eviction thresholds: the host's disk is not what is under test.
machines_kubelet_config() {
	cat <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		staticPodPath: /etc/kubernetes/manifests
		cgroupDriver: $J_CGROUP_DRIVER
		failCgroupV1: false
		failSwapOn: false
		rotateCertificates: true
		clusterDomain: cluster.local
		clusterDNS: [$C_DNS_IP]
		healthzBindAddress: 127.0.0.1
		healthzPort: 10248
		authentication:
		  anonymous: { enabled: false }
		  webhook: { enabled: true }
		  x509: { clientCAFile: /etc/kubernetes/pki/ca.crt }
		authorization:
		  mode: Webhook
		imageGCHighThresholdPercent: 100
		evictionHard:
		  memory.available: 100Mi
		  nodefs.available: 1%
		  nodefs.inodesFree: 1%
		  imagefs.available: 1%
		  imagefs.inodesFree: 1%
	END
}

# node_configure_proxy DIR: below DIR, the service proxy's configuration for both agents.
node_configure_proxy() {
	mkdir -p "$1/etc/kubernetes" "$1/etc/default"
	cp "$C_PKI/kube-proxy.conf" "$1/etc/kubernetes/kube-proxy.conf"
	cat >"$1/etc/kubernetes/kube-proxy.yaml" <<-END
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: iptables
		clientConnection: { kubeconfig: /etc/kubernetes/kube-proxy.conf }
		clusterCIDR: $C_POD_CIDR
		# nf_conntrack_max cannot be written inside a network namespace.
		conntrack: { maxPerCore: 0 }
	END
	[[ $(<"$M_DIR/node") == upstream ]] ||
		echo 'KUBELET_EXTRA_ARGS=--proxy-config=/etc/kubernetes/kube-proxy.yaml' >"$1/etc/default/kubelet"
}

# node_join_by_kubeconfig: leaves what `kubeadm join` would, and starts the agent.
node_join_by_kubeconfig() {
	local stage
	stage=$(mktemp -d "$M_DIR/stage.XXXXXX")
	chmod 755 "$stage"
	mkdir -p "$stage/etc/kubernetes/pki" "$stage/var/lib/kubelet"
	machines_kubelet_config >"$stage/var/lib/kubelet/config.yaml"
	echo 'KUBELET_KUBEADM_ARGS=' >"$stage/var/lib/kubelet/kubeadm-flags.env"
	cp "$C_PKI/ca.crt" "$stage/etc/kubernetes/pki/"
	"$(tools_dir kubernetes)/kubeadm" kubeconfig user --config "$C_DIR/kubeadm.yaml" \
		--client-name "system:node:$M_NAME" --org system:nodes \
		>"$stage/etc/kubernetes/kubelet.conf" 2>>"$C_DIR/log/kubeadm.log" ||
		die "machine $M_NAME: kubeadm made no kubeconfig (see $C_DIR/log/kubeadm.log)"
	node_put "$stage"
	rm -rf "$stage"
	driver_exec systemctl --quiet enable --now kubelet
}

# node_join_by_kubeadm: with a token, as an administrator would.
node_join_by_kubeadm() {
	local printed command
	printed=$("$(tools_dir kubernetes)/kubeadm" token create --kubeconfig "$C_KUBECONFIG" --ttl 1h \
		--print-join-command 2>>"$C_DIR/log/kubeadm.log") ||
		die "machine $M_NAME: kubeadm made no token (see $C_DIR/log/kubeadm.log)"
	read -ra command <<<"$printed"
	# On cgroup v1 it wants to be told twice: failCgroupV1 in the kubelet's configuration, and this.
	[[ $(cgroup_mode) == v2 ]] || command+=(--ignore-preflight-errors=SystemVerification)
	driver_exec systemctl --quiet enable kubelet
	driver_exec "${command[@]}" >"$M_DIR/kubeadm-join.log" 2>&1 </dev/null || {
		grep -v CONFIG_ "$M_DIR/kubeadm-join.log" | tail -n 30 >&2
		node_show_log
		die "machine $M_NAME: ${command[*]} failed"
	}
}

# control_plane_prepare_kubeadm: what `kubeadm init` would have put into the API for those
# who join.
control_plane_prepare_kubeadm() {
	local config=$C_DIR/kubeadm-join.yaml phase
	{
		# Of the machines, not of the control plane's host.
		sed 's|^certificatesDir: .*|certificatesDir: /etc/kubernetes/pki|' "$C_DIR/kubeadm.yaml"
		echo ---
		machines_kubelet_config
	} >"$config"
	for phase in 'upload-config all' bootstrap-token; do
		# shellcheck disable=SC2086
		"$(tools_dir kubernetes)/kubeadm" init phase $phase --config "$config" --kubeconfig "$C_KUBECONFIG" \
			>>"$C_DIR/log/kubeadm.log" 2>&1 </dev/null || {
			daemon_show_log kubeadm
			die "cluster $C_NAME: kubeadm init phase $phase failed"
		}
	done
}

# --- network -----------------------------------------------------------------------

node_pod_cidr() { kubectl get node "$M_NAME" -o jsonpath='{.spec.podCIDR}' 2>/dev/null; }
node_has_pod_cidr() { [[ -n $(node_pod_cidr) ]]; }

# node_network: what a network add-on does once the node has a range of addresses.
node_network() {
	local cidr stage
	wait_until 60 node_has_pod_cidr || {
		node_show_log
		die "machine $M_NAME: no Node with a podCIDR after 60 s"
	}
	cidr=$(node_pod_cidr)
	machine_route_pods "$cidr"
	stage=$(mktemp -d "$M_DIR/stage.XXXXXX")
	chmod 755 "$stage"
	mkdir -p "$stage/etc/cni/net.d"
	node_cni_config "$cidr" >"$stage/etc/cni/net.d/10-ptp.conflist"
	node_put "$stage"
	rm -rf "$stage"
}

node_cni_config() {
	cat <<-END
		{
		  "cniVersion": "0.4.0",
		  "name": "pods",
		  "plugins": [
		    {
		      "type": "ptp",
		      "ipMasq": false,
		      "ipam": {
		        "type": "host-local",
		        "ranges": [[{ "subnet": "$1" }]],
		        "routes": [{ "dst": "0.0.0.0/0" }]
		      }
		    },
		    { "type": "portmap", "capabilities": { "portMappings": true } }
		  ]
		}
	END
}

# --- both --------------------------------------------------------------------------

node_show_log() {
	printf -- '--- last lines of the kubelet of machine %s\n' "$M_NAME" >&2
	driver_exec journalctl --unit kubelet --no-pager --lines 30 --output cat >&2 || true
	printf -- '---\n' >&2
}

# node_join NAME: makes a node of the running machine; J_AGENT is what node_stage has made,
# J_NODE, J_BY and J_CGROUP_DRIVER are choices.
node_join() {
	local stage
	machine_open "$1"
	echo "$J_NODE" >"$M_DIR/node"
	node_put "$J_AGENT"
	stage=$(mktemp -d "$M_DIR/stage.XXXXXX")
	chmod 755 "$stage"
	node_configure_proxy "$stage"
	mkdir -p "$stage/etc/containerd"
	machine_containerd_config "$J_CGROUP_DRIVER" >"$stage/etc/containerd/config.toml"
	node_put "$stage"
	rm -rf "$stage"
	driver_exec systemctl daemon-reload
	[[ $J_CGROUP_DRIVER == cgroupfs ]] || driver_exec systemctl restart containerd
	"node_join_by_$J_BY"
	[[ $J_NODE != upstream ]] || driver_exec systemctl --quiet enable --now kube-proxy
	node_network
	node_await_ready
}

node_await_ready() {
	wait_until 60 machine_node_is_ready || {
		kubectl get node "$M_NAME" -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}' >&2 || true
		node_show_log
		die "node $M_NAME is not Ready after 60 s"
	}
	say "node $M_NAME Ready"
}

machine_node_is_ready() {
	[[ $(kubectl get node "$M_NAME" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) == True ]]
}
