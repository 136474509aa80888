# shellcheck shell=bash
# The cluster's network namespace, and a veth pair so that the host reaches node,
# pods and services by their addresses. Nothing of the host's own configuration
# changes: no forwarding, no iptables rule, so pods reach the host but no further.

# network_in_use CIDR: whether the host has a route, other than the default ones,
# into or around it.
network_in_use() {
	[[ -n $(ip -4 route show table all root "$1" type unicast) ]] ||
		ip -4 route show match "$1" | grep -qv '^default'
}

network_up() {
	ip netns add "$C_NETNS_NAME"
	ip link add "$C_VETH" type veth peer name eth0 netns "$C_NETNS_NAME"
	ip addr add "$C_HOST_IP/24" dev "$C_VETH"
	ip link set "$C_VETH" up
	ip -netns "$C_NETNS_NAME" -batch - <<-END
		link set lo up
		addr add $C_NODE_IP/24 dev eth0
		link set eth0 up
		route add default via $C_HOST_IP
	END
	echo 1 | in_netns tee /proc/sys/net/ipv4/ip_forward >/dev/null
	ip route add "$C_POD_CIDR" via "$C_NODE_IP" dev "$C_VETH"
	ip route add "$C_SERVICE_CIDR" via "$C_NODE_IP" dev "$C_VETH"
}

network_down() {
	[[ -z ${C_VETH:-} || ! -e /sys/class/net/$C_VETH ]] || ip link del "$C_VETH" 2>/dev/null || true
	if [[ -e $C_NETNS ]]; then
		ip netns del "$C_NETNS_NAME" || rm -f "$C_NETNS"
	fi
}
