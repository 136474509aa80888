# shellcheck shell=bash
# The cluster that the suite runs on: hack/cluster's, with the suite's images, a
# registry that answers as registry.k8s.io, and a DNS server. Both are daemons in the
# node's network, so that `hack/cluster/down` finds and ends them with the rest.
# Sourced after hack/cluster/lib.sh, never run.

# On the node's loopback; specs of the suite take 5000.
REGISTRY_PORT=5050
# Not the usual ones, as pods of the host network may want those.
DNS_PORT=10053 DNS_READY_PORT=10054

# conformance_cluster NAME NODE CONTAINERD KUBELET OWNER: brings it up if it is not there.
conformance_cluster() {
	local name=$1 node=$2 containerd=$3 kubelet=$4 owner=$5
	if [[ ! -e $CLUSTERS_DIR/$name/env ]]; then
		"$LIB_DIR/up" "$name" --node "$node" --containerd "$containerd" --images "${E2E_IMAGES[*]}" \
			${kubelet:+--kubelet "$kubelet"} ${owner:+--owner "$owner"}
	fi
	cluster_open "$name"
	[[ $(<"$C_DIR/node") == "$node" ]] ||
		die "cluster $name has the node '$(<"$C_DIR/node")', not '$node' (hack/cluster/node $name $node changes that)"
	# In a subshell, lest this shell tell of its children when the cluster goes.
	(
		registry_start
		dns_start
	)
}

# --- registry ------------------------------------------------------------------

# registry_start: Debian's docker-registry over the archives of the images, read-only.
# containerd looks into certs.d at every pull.
registry_start() {
	local program
	program=$(debian_file docker-registry /usr/bin/docker-registry)
	if [[ ! -d $C_DIR/registry ]]; then
		registry_fill "$C_DIR/registry.new"
		mv -T "$C_DIR/registry.new" "$C_DIR/registry"
	fi
	cat >"$C_DIR/registry.yaml" <<-END
		version: 0.1
		log: { level: warn }
		storage:
		  filesystem: { rootdirectory: $C_DIR/registry }
		  maintenance: { readonly: { enabled: true } }
		http: { addr: "127.0.0.1:$REGISTRY_PORT" }
	END
	# Every registry is this one, which says at once that it does not have an image: a
	# pull by a name that cannot be resolved here would hold up others for a minute.
	# But the one that specs start on the node is itself.
	registry_redirect _default "http://127.0.0.1:$REGISTRY_PORT"
	registry_redirect localhost:5000 http://localhost:5000
	command_write registry "$program" serve "$C_DIR/registry.yaml"
	daemon_start registry
	daemon_await registry 30
}

# registry_redirect HOST URL: where containerd finds the images of that host.
registry_redirect() {
	mkdir -p "$C_DIR/certs.d/$1"
	printf 'server = "%s"\n' "$2" >"$C_DIR/certs.d/$1/hosts.toml"
}

ready_registry() { ask "http://127.0.0.1:$REGISTRY_PORT/v2/"; }

# registry_fill DIR: the storage of a docker-registry that all images were pushed to.
registry_fill() {
	local blobs=$1/docker/registry/v2/blobs/sha256 image archive digest manifest name
	mkdir -p "$blobs"
	for image in "${E2E_IMAGES[@]}"; do
		archive=$(image_archive "$image")
		manifest=$(tar -xOf "$archive" index.json | image_digests | head -n 1)
		while read -r digest; do
			mkdir -p "$blobs/${digest:0:2}/$digest"
			tar -xOf "$archive" "blobs/sha256/$digest" >"$blobs/${digest:0:2}/$digest/data"
		done < <(tar -tf "$archive" | sed -n 's|^blobs/sha256/\(..*\)|\1|p')
		for name in $(image_names "$image"); do
			registry_tag "$1" "${name#*/}" "$manifest" <"$blobs/${manifest:0:2}/$manifest/data"
		done
	done
}

# registry_tag DIR NAME:TAG DIGEST: the links of one image, whose manifest is at stdin.
registry_tag() {
	local repository=$1/docker/registry/v2/repositories/${2%:*} tag=${2##*:} manifest=$3 digest
	registry_link "$repository/_manifests/revisions/sha256/$manifest" "$manifest"
	registry_link "$repository/_manifests/tags/$tag/index/sha256/$manifest" "$manifest"
	registry_link "$repository/_manifests/tags/$tag/current" "$manifest"
	for digest in $(image_digests); do
		registry_link "$repository/_layers/sha256/$digest" "$digest"
	done
}

registry_link() {
	mkdir -p "$1"
	printf 'sha256:%s' "$2" >"$1/link"
}

# --- DNS -----------------------------------------------------------------------

# dns_start: CoreDNS as kubeadm configures it, but for a forwarder, which would ask
# for the internet; behind the Service whose address the node gives to pods.
dns_start() {
	cat >"$C_DIR/Corefile" <<-END
		.:$DNS_PORT {
			bind $C_NODE_IP
			errors
			ready 127.0.0.1:$DNS_READY_PORT
			kubernetes cluster.local in-addr.arpa ip6.arpa {
				kubeconfig $C_KUBECONFIG
				pods insecure
				ttl 30
			}
			cache 30
			loadbalance
		}
	END
	command_write coredns "$(tools_dir coredns)/coredns" -conf "$C_DIR/Corefile"
	daemon_start coredns
	daemon_await coredns 30
	kubectl apply -f - >/dev/null <<-END
		apiVersion: v1
		kind: Service
		metadata: { name: kube-dns, namespace: kube-system, labels: { k8s-app: kube-dns } }
		spec:
		  clusterIP: $C_DNS_IP
		  ports:
		  - { name: dns, protocol: UDP, port: 53, targetPort: $DNS_PORT }
		  - { name: dns-tcp, protocol: TCP, port: 53, targetPort: $DNS_PORT }
		---
		apiVersion: discovery.k8s.io/v1
		kind: EndpointSlice
		metadata: { name: kube-dns-node, namespace: kube-system, labels: { kubernetes.io/service-name: kube-dns } }
		addressType: IPv4
		endpoints: [{ addresses: [$C_NODE_IP] }]
		ports:
		- { name: dns, protocol: UDP, port: $DNS_PORT }
		- { name: dns-tcp, protocol: TCP, port: $DNS_PORT }
	END
}

ready_coredns() { ask "http://127.0.0.1:$DNS_READY_PORT/ready"; }
