//! The scenarios: cluster IPs, what is local, and Services beside each other. Others are
//! in [`entrances`] and [`endpoints`].

mod endpoints;
mod entrances;

use serde_json::json;

use super::Outcome::{self, Untouched};
use super::objects::web;
use super::world::Address::{self, ClusterIp, ExternalIp, Of};
use super::world::Party::{Client, FarPod, Node, PodA, PodB};
use super::world::{Host, POD_INTERFACES, node_cidr};
use super::{Scenario, masquerades, reaches, usual};
use crate::proxy::model::Protocol;
use crate::proxy::rules::{LocalDetector, RuleSettings};

/// The first Service, at its port 80.
const WEB: Address = ClusterIp(1);
/// Its node port.
const NODE_PORT: u16 = 30080;
/// Who may use a load balancer: the field.
const SOURCE_RANGES: &str = "loadBalancerSourceRanges";

/// All scenarios.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        &inside()[..],
        &detection(),
        &entrances::all(),
        &endpoints::all(),
        &others(),
    ]
    .concat()
}

fn inside() -> [Scenario; 3] {
    [
        Scenario::new("a cluster IP")
            .service(&web(1).served_by(&[PodA, PodB, FarPod]))
            .attempts([
                // A pod that reaches itself has to see another source.
                (
                    &[PodA][..],
                    WEB.tcp(80),
                    reaches(&[PodB, FarPod]).or_masquerades(&[PodA]),
                ),
                (
                    &[PodB],
                    WEB.tcp(80),
                    reaches(&[PodA, FarPod]).or_masquerades(&[PodB]),
                ),
                (
                    &[Node, Client],
                    WEB.tcp(80),
                    masquerades(&[PodA, PodB, FarPod]),
                ),
                (
                    &[FarPod],
                    WEB.tcp(80),
                    reaches(&[PodA, PodB]).or_masquerades(&[FarPod]),
                ),
                (&[PodA, Node, Client], WEB.tcp(81), Untouched),
                (&[PodA, Node, Client], WEB.udp(80), Untouched),
                (&[PodA, Node], ClusterIp(2).tcp(80), Untouched),
                (&[PodB, Node, FarPod], Of(PodA).tcp(8080), Untouched),
            ]),
        Scenario::new("a pod that is its own endpoint")
            .service(&web(1).served_by(&[PodA]).node_port(NODE_PORT).external_ip())
            .attempts([
                (&[PodA][..], WEB.tcp(80), masquerades(&[PodA])),
                (&[PodA], ExternalIp.tcp(80), masquerades(&[PodA])),
                (&[PodA], Of(Node).tcp(NODE_PORT), masquerades(&[PodA])),
            ]),
        Scenario::new("an endpoint in the node's own network")
            .service(&web(1).served_by(&[Node]).node_port(NODE_PORT))
            .attempts([
                (&[PodA, PodB][..], WEB.tcp(80), reaches(&[Node])),
                // It has not left the node: its answer comes by here anyway.
                (&[Client], WEB.tcp(80), reaches(&[Node])),
                (&[Client], Of(Node).tcp(NODE_PORT), reaches(&[Node])),
                (&[Node], WEB.tcp(80), masquerades(&[Node])),
            ]),
    ]
}

fn detection() -> [Scenario; 5] {
    let service = web(1).served_by(&[PodA, FarPod]);
    let reached = [PodA, FarPod];
    let kept = || reaches(&reached);
    let masqueraded = || masquerades(&reached);
    let only_here = web(2).served_by(&[PodA]);
    let scenario = |name| Scenario::new(name).service(&service).service(&only_here);
    [
        scenario("nothing tells what is local")
            .settings(|family| RuleSettings {
                local_detector: None,
                ..usual(family)
            })
            .attempts([
                (&[PodB, Client][..], WEB.tcp(80), kept()),
                (&[FarPod], ClusterIp(2).tcp(80), reaches(&[PodA])),
            ]),
        scenario("everything is masqueraded")
            .settings(|family| RuleSettings {
                masquerade_all: true,
                ..usual(family)
            })
            .attempts([
                (&[PodB, Node, Client][..], WEB.tcp(80), masqueraded()),
                (&[FarPod], ClusterIp(2).tcp(80), masquerades(&[PodA])),
            ]),
        scenario("the node's CIDR is local")
            .settings(|family| RuleSettings {
                local_detector: Some(LocalDetector::Cidr(node_cidr(family))),
                ..usual(family)
            })
            .attempts([
                (&[PodB][..], WEB.tcp(80), kept()),
                (&[Node, Client], WEB.tcp(80), masqueraded()),
                (&[FarPod], ClusterIp(2).tcp(80), masquerades(&[PodA])),
            ]),
        scenario("pods' interfaces are local")
            .settings(|family| RuleSettings {
                local_detector: Some(LocalDetector::InterfaceNamePrefix(POD_INTERFACES.into())),
                ..usual(family)
            })
            .attempts([
                (&[PodB][..], WEB.tcp(80), kept()),
                (&[Node, Client], WEB.tcp(80), masqueraded()),
                (&[FarPod], ClusterIp(2).tcp(80), masquerades(&[PodA])),
            ]),
        scenario("one interface is local")
            .settings(|family| RuleSettings {
                local_detector: Host::PodB
                    .interface()
                    .map(|name| LocalDetector::BridgeInterface(name.into())),
                ..usual(family)
            })
            .attempts([
                (&[PodB][..], WEB.tcp(80), kept()),
                (&[PodA, Node, Client], WEB.tcp(80), masqueraded()),
            ]),
    ]
}

fn others() -> [Scenario; 3] {
    [
        Scenario::new("Services of others")
            .service(
                &web(1)
                    .labelled("service.kubernetes.io/service-proxy-name", "other")
                    .served_by(&[PodA])
                    .node_port(NODE_PORT),
            )
            .service(
                &web(2)
                    .with("clusterIP", json!("None"))
                    .with("clusterIPs", json!(["None"]))
                    .served_by(&[PodA]),
            )
            .attempts([
                (&[PodB, Node][..], WEB.tcp(80), Untouched),
                (&[Client], Of(Node).tcp(NODE_PORT), Untouched),
                (&[PodB, Node], ClusterIp(2).tcp(80), Untouched),
            ]),
        Scenario::new("two Services at one external IP")
            .service(&web(1).served_by(&[PodA]).external_ip())
            .service(
                &web(2)
                    .port(Protocol::Tcp, 443, 8443)
                    .served_by(&[PodB])
                    .external_ip(),
            )
            .attempts([
                // Both want port 80: the one has it whose name comes first.
                (&[Client][..], ExternalIp.tcp(80), masquerades(&[PodA])),
                (
                    &[Client],
                    ExternalIp.tcp(443),
                    masquerades(&[PodB]).at_port(8443),
                ),
                (&[PodA], ClusterIp(2).tcp(80), reaches(&[PodB])),
            ]),
        many_services(),
    ]
}

/// So many that the chains that tell them apart are cut into parts.
fn many_services() -> Scenario {
    const LAST: u16 = 400;
    let target = |number: u16| 8100 + number % 50;
    let services = (1..=LAST).map(|number| {
        web(number)
            .targeting(target(number))
            .served_by(&[PodA])
            .node_port(30_000 + number)
    });
    let some = (1..=LAST).step_by(97);
    let attempts = some.flat_map(|number| {
        let endpoint = |outcome: Outcome| outcome.at_port(target(number));
        [
            (
                &[PodB][..],
                ClusterIp(number).tcp(80),
                endpoint(reaches(&[PodA])),
            ),
            (
                &[Client],
                Of(Node).tcp(30_000 + number),
                endpoint(masquerades(&[PodA])),
            ),
        ]
    });
    let nobody = [
        (&[PodB][..], ClusterIp(LAST + 1).tcp(80), Untouched),
        (&[Client], Of(Node).tcp(30_001 + LAST), Untouched),
    ];
    services
        .fold(Scenario::new("many Services"), |scenario, service| {
            scenario.service(&service)
        })
        .attempts(attempts)
        .attempts(nobody)
}
