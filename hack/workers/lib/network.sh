# shellcheck shell=bash
# The machines' network: a bridge in the cluster's network namespace, which is their
# router, so that no two sets of machines meet and nothing of the host's own changes.
#
#   10.X.1.0/24     router .1 (the control plane's other address is 10.X.0.2), machines .10 on
#   10.X.64.0/18    pods: each node's /24 is routed to its machine
#
# A machine's card is the one end of a veth pair, its cable the other: an interface of
# the machine's name in the cluster's namespace. The machine's own namespace is made
# anew for each boot; address and MAC stay.

MACHINES_BRIDGE=machines

# machines_network_up: bridge and route, unless they are there.
machines_network_up() {
	! in_netns ip link show "$MACHINES_BRIDGE" >/dev/null 2>&1 || return 0
	in_netns ip link add "$MACHINES_BRIDGE" type bridge mcast_snooping 0
	in_netns ip addr add "$C_MACHINES_ROUTER/24" dev "$MACHINES_BRIDGE"
	in_netns ip link set "$MACHINES_BRIDGE" up
	# The router is the one way to another machine's pods, however direct another is:
	# a machine that took its advice would keep it when the pods are elsewhere.
	printf 'net.ipv4.conf.%s.send_redirects = 0\n' all "$MACHINES_BRIDGE" | in_netns sysctl -q -p -
	ip route add "$C_MACHINES_NET" via "$C_NODE_IP" dev "$C_VETH"
}

# machine_network_up: a new network namespace at M_NETNS, with a card.
machine_network_up() {
	machine_network_down
	: >"$M_NETNS"
	unshare --net="$M_NETNS" true
	in_netns ip link add "$M_NAME" type veth peer name eth0 address "$M_MAC" netns "$M_NETNS"
	nsenter --net="$M_NETNS" ip -batch - <<-END
		link set lo up
		addr add $M_IP/24 dev eth0
		link set eth0 up
		route add default via $C_MACHINES_ROUTER
	END
	in_netns ip link set "$M_NAME" master "$MACHINES_BRIDGE"
	# A cable that was cut stays so.
	[[ -e $M_DIR/cut ]] || in_netns ip link set "$M_NAME" up
}

machine_network_down() {
	in_netns ip link del "$M_NAME" 2>/dev/null || true
	umount "$M_NETNS" 2>/dev/null || true
	rm -f "$M_NETNS"
}

machine_cut() {
	: >"$M_DIR/cut"
	in_netns ip link set "$M_NAME" down 2>/dev/null || true
}

machine_heal() {
	rm -f "$M_DIR/cut"
	in_netns ip link set "$M_NAME" up 2>/dev/null || true
}

# machine_route_pods CIDR: to this machine, and no longer what was routed there before.
machine_route_pods() {
	in_netns ip route flush root "$C_POD_CIDR" via "$M_IP"
	in_netns ip route replace "$1" via "$M_IP"
}

# services_route MACHINE: the host and the control plane, which have no service proxy,
# reach services through this machine's.
services_route() {
	machine_open "$1"
	in_netns ip route replace "$C_SERVICE_CIDR" via "$M_IP"
}
