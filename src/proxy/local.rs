//! What the Node object says about this node that Services depend on. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use super::model::Family;

/// Topology hints of endpoints name zones by this label's value.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Our Node, as the service proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// `None`: the node is in no zone.
    pub zone: Option<Box<str>>,
    /// Where the node's pods get their addresses from. Empty: not known.
    pub pod_cidrs: Vec<IpNet>,
    /// Internal addresses first, then external ones, each in the Node's order.
    pub addresses: Vec<IpAddr>,
}

impl NodeView {
    /// Reads the Node object; what cannot be understood is left out.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let labels = node.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get(ZONE));
        let spec = node.spec.as_ref();
        let cidrs = spec.and_then(|spec| spec.pod_cidrs.as_deref());
        // The older field has the first of them.
        let cidr = spec.and_then(|spec| spec.pod_cidr.as_ref());
        let cidrs = match cidrs {
            None | Some([]) => cidr.map(std::slice::from_ref).unwrap_or_default(),
            Some(cidrs) => cidrs,
        };
        Self {
            zone: zone
                .filter(|zone| !zone.is_empty())
                .map(|z| z.as_str().into()),
            pod_cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            addresses: addresses(node),
        }
    }

    /// The first address of a family: the one that stands for the node.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    }

    /// The first range of pod addresses of a family.
    #[must_use]
    pub fn pod_cidr(&self, family: Family) -> Option<IpNet> {
        let mut cidrs = self.pod_cidrs.iter().copied();
        cidrs.find(|cidr| Family::of(cidr.addr()) == family)
    }
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let status = node.status.as_ref();
    let all = status.and_then(|status| status.addresses.as_deref());
    let of_type = |wanted: &'static str| {
        all.unwrap_or_default()
            .iter()
            .filter(move |address| address.type_ == wanted)
            .filter_map(|address| address.address.parse().ok())
    };
    of_type("InternalIP").chain(of_type("ExternalIP")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(node: serde_json::Value) -> NodeView {
        NodeView::of(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn internal_addresses_come_first() {
        let view = view(json!({
            "metadata": {"labels": {ZONE: "z1"}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64", "?"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "192.0.2.9"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "n1.example"},
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "ExternalIP", "address": "2001:db8::1"},
            ]},
        }));
        assert_eq!(view.zone.as_deref(), Some("z1"));
        let texts: Vec<_> = view.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.1", "fd00::1", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(view.address(Family::V6), "fd00::1".parse().ok());
        assert_eq!(view.pod_cidr(Family::V4), "10.1.0.0/24".parse().ok());
        assert_eq!(view.pod_cidr(Family::V6), "fd00:1::/64".parse().ok());
    }

    #[test]
    fn a_bare_node_says_nothing() {
        assert_eq!(view(json!({"metadata": {}})), NodeView::default());
        let view = view(json!({
            "metadata": {"labels": {ZONE: ""}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": []},
        }));
        assert_eq!((view.zone.clone(), view.address(Family::V4)), (None, None));
        assert_eq!(view.pod_cidrs, ["10.1.0.0/24".parse().unwrap()]);
    }
}
