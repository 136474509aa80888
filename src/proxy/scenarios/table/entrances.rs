//! Ways in besides the cluster IP, and policies about who takes them to whom.

use ipnet::IpNet;
use serde_json::json;

use super::super::Outcome::{Dropped, Untouched};
use super::super::objects::web;
use super::super::world::Address::{Balancer, ExternalIp, Gateway, Localhost, Of};
use super::super::world::Party::{self, Client, FarPod, Node, PodA, PodB, Stranger};
use super::super::world::{Host, client_range, cluster_cidr, node_range};
use super::super::{Scenario, masquerades, reaches, usual};
use super::{NODE_PORT, SOURCE_RANGES, WEB};
use crate::proxy::model::Family;
use crate::proxy::rules::{NodePortAddresses, RuleSettings};

pub fn all() -> Vec<Scenario> {
    [
        &node_ports()[..],
        &chosen_node_ports(),
        &outside(),
        &balancers(),
        &source_ranges(),
        &external_policy(),
        &internal_policy(),
    ]
    .concat()
}

fn node_ports() -> [Scenario; 1] {
    let service = web(1).served_by(&[PodA, FarPod]).node_port(NODE_PORT);
    let reached = || masquerades(&[PodA, FarPod]);
    let pods_and_outside: &[Party] = &[PodA, PodB, Client];
    [Scenario::new("a node port")
        .service(&service)
        .attempts([
            (pods_and_outside, Of(Node).tcp(NODE_PORT), reached()),
            (&[Node], Of(Node).tcp(NODE_PORT), reached()),
            // Every address of the node has it, wherever one comes from.
            (&[Client], Gateway(Host::Client).tcp(NODE_PORT), reached()),
            (&[PodB], Gateway(Host::PodB).tcp(NODE_PORT), reached()),
            (&[Client], Of(Node).tcp(80), Untouched),
            (&[Client], Of(Node).udp(NODE_PORT), Untouched),
            (&[Client], ExternalIp.tcp(NODE_PORT), Untouched),
            (&[PodB], Of(PodA).tcp(NODE_PORT), Untouched),
            // Not masqueraded for the node port, but for whence it comes.
            (&[Client], WEB.tcp(80), reached()),
        ])
        .attempts_in(
            Family::V4,
            [(&[Node][..], Localhost.tcp(NODE_PORT), reached())],
        )
        .attempts_in(
            Family::V6,
            [(&[Node][..], Localhost.tcp(NODE_PORT), Untouched)],
        )]
}

fn chosen_node_ports() -> [Scenario; 2] {
    let service = web(1).served_by(&[PodA, FarPod]).node_port(NODE_PORT);
    let reached = || masquerades(&[PodA, FarPod]);
    [
        Scenario::new("node ports not on localhost")
            .service(&service)
            .settings(|family| RuleSettings {
                localhost_node_ports: false,
                ..usual(family)
            })
            .attempts([
                (&[Node, Client][..], Of(Node).tcp(NODE_PORT), reached()),
                (&[Node], Localhost.tcp(NODE_PORT), Untouched),
            ]),
        Scenario::new("node ports on one address")
            .service(&service)
            .settings(|family| RuleSettings {
                node_port_addresses: NodePortAddresses::Only(vec![
                    Host::Client.gateway(family),
                    Localhost.ip(family),
                ]),
                ..usual(family)
            })
            .attempts([
                (
                    &[Client, PodB, Node][..],
                    Gateway(Host::Client).tcp(NODE_PORT),
                    reached(),
                ),
                (&[Client, PodB, Node], Of(Node).tcp(NODE_PORT), Untouched),
            ])
            .attempts_in(
                Family::V4,
                [(&[Node][..], Localhost.tcp(NODE_PORT), reached())],
            ),
    ]
}

fn outside() -> [Scenario; 1] {
    let reached = || masquerades(&[PodA, FarPod]);
    [Scenario::new("an external IP")
        .service(&web(1).served_by(&[PodA, FarPod]).external_ip())
        .attempts([
            (&[Client, Node, PodB][..], ExternalIp.tcp(80), reached()),
            (&[Client, Node, PodB], ExternalIp.tcp(8080), Untouched),
            (&[Client, Node, PodB], Balancer.tcp(80), Untouched),
        ])]
}

fn balancers() -> [Scenario; 2] {
    let service = web(1)
        .served_by(&[PodA, FarPod])
        .node_port(NODE_PORT)
        .external_ip();
    let reached = || masquerades(&[PodA, FarPod]);
    [
        Scenario::new("a load balancer that sends packets on")
            .service(&service.clone().balancer("VIP"))
            .attempts([
                (&[Client, Node, PodB][..], Balancer.tcp(80), reached()),
                (&[Client], Balancer.tcp(NODE_PORT), Untouched),
            ]),
        Scenario::new("a load balancer that is a proxy")
            .service(&service.balancer("Proxy"))
            .attempts([
                (&[Client, Node, PodB][..], Balancer.tcp(80), Untouched),
                (&[Client], Of(Node).tcp(NODE_PORT), reached()),
            ]),
    ]
}

fn source_ranges() -> [Scenario; 3] {
    let service = web(1)
        .served_by(&[PodA, FarPod])
        .node_port(NODE_PORT)
        .external_ip()
        .balancer("VIP");
    let reached = || masquerades(&[PodA, FarPod]);
    let ranges = |all: &[fn(Family) -> IpNet]| {
        let of = |family| all.iter().map(move |range| range(family));
        json!(Family::ALL.into_iter().flat_map(of).collect::<Vec<_>>())
    };
    [
        Scenario::new("a load balancer for the client")
            .service(&service.clone().with(SOURCE_RANGES, ranges(&[client_range])))
            .attempts([
                (&[Client][..], Balancer.tcp(80), reached()),
                (&[Stranger, PodB, Node], Balancer.tcp(80), Dropped),
                // The ranges are for the load balancer's address alone.
                (&[Stranger], Of(Node).tcp(NODE_PORT), reached()),
                (&[Stranger], ExternalIp.tcp(80), reached()),
                (&[Stranger], WEB.tcp(80), reached()),
            ]),
        Scenario::new("a load balancer for the client, the node and pods")
            .service(&service.clone().with(
                SOURCE_RANGES,
                ranges(&[client_range, node_range, cluster_cidr]),
            ))
            .attempts([
                (&[Client, Node, PodB][..], Balancer.tcp(80), reached()),
                (&[Stranger], Balancer.tcp(80), Dropped),
            ]),
        Scenario::new("a load balancer for the client, with an endpoint here")
            .service(
                &service
                    .with(SOURCE_RANGES, ranges(&[client_range]))
                    .external_local(),
            )
            .attempts([
                (&[Client][..], Balancer.tcp(80), reaches(&[PodA])),
                (&[Stranger, PodB], Balancer.tcp(80), Dropped),
                (&[Stranger], Of(Node).tcp(NODE_PORT), reaches(&[PodA])),
            ]),
    ]
}

fn external_policy() -> [Scenario; 3] {
    let external = web(1)
        .node_port(NODE_PORT)
        .external_ip()
        .balancer("VIP")
        .external_local();
    [
        Scenario::new("external policy Local with an endpoint here")
            .service(&external.clone().served_by(&[PodA, FarPod]))
            .attempts([
                (&[Client][..], Balancer.tcp(80), reaches(&[PodA])),
                (&[Client], ExternalIp.tcp(80), reaches(&[PodA])),
                (&[Client], Of(Node).tcp(NODE_PORT), reaches(&[PodA])),
                // As if they had gone out and come in by another node.
                (&[PodB], Balancer.tcp(80), reaches(&[PodA, FarPod])),
                (&[PodB], ExternalIp.tcp(80), reaches(&[PodA, FarPod])),
                (&[PodB], Of(Node).tcp(NODE_PORT), reaches(&[PodA, FarPod])),
                (&[Node], Balancer.tcp(80), masquerades(&[PodA, FarPod])),
                (
                    &[Node],
                    Of(Node).tcp(NODE_PORT),
                    masquerades(&[PodA, FarPod]),
                ),
                (&[PodB], WEB.tcp(80), reaches(&[PodA, FarPod])),
                (&[Client], WEB.tcp(80), masquerades(&[PodA, FarPod])),
            ]),
        Scenario::new("external policy Local with endpoints elsewhere")
            .service(&external.clone().served_by(&[FarPod]))
            .attempts([
                (&[Client][..], Balancer.tcp(80), Dropped),
                (&[Client], ExternalIp.tcp(80), Dropped),
                (&[Client], Of(Node).tcp(NODE_PORT), Dropped),
                (&[PodB], Balancer.tcp(80), reaches(&[FarPod])),
                (&[PodB], Of(Node).tcp(NODE_PORT), reaches(&[FarPod])),
                (&[Node], ExternalIp.tcp(80), masquerades(&[FarPod])),
                (&[Node], Of(Node).tcp(NODE_PORT), masquerades(&[FarPod])),
            ]),
        Scenario::new("external policy Local, and nothing tells what is local")
            .service(&external.served_by(&[PodA, FarPod]))
            .settings(|family| RuleSettings {
                local_detector: None,
                ..usual(family)
            })
            .attempts([
                (&[Client, PodB][..], Balancer.tcp(80), reaches(&[PodA])),
                (&[Node], Balancer.tcp(80), masquerades(&[PodA, FarPod])),
            ]),
    ]
}

fn internal_policy() -> [Scenario; 3] {
    let internal = web(1).internal_local();
    let everybody: &[Party] = &[PodB, Node, Client];
    [
        Scenario::new("internal policy Local with an endpoint here")
            .service(&internal.clone().served_by(&[PodA, FarPod]))
            .attempts([
                (&[PodB][..], WEB.tcp(80), reaches(&[PodA])),
                (&[Node, Client], WEB.tcp(80), masquerades(&[PodA])),
            ]),
        Scenario::new("internal policy Local with endpoints elsewhere")
            .service(&internal.clone().served_by(&[FarPod]).node_port(NODE_PORT))
            .attempts([
                (everybody, WEB.tcp(80), Dropped),
                (everybody, Of(Node).tcp(NODE_PORT), masquerades(&[FarPod])),
            ]),
        Scenario::new("both policies Local")
            .service(
                &internal
                    .served_by(&[PodA, FarPod])
                    .node_port(NODE_PORT)
                    .external_local(),
            )
            .attempts([
                (&[PodB][..], WEB.tcp(80), reaches(&[PodA])),
                (&[Client], Of(Node).tcp(NODE_PORT), reaches(&[PodA])),
                (&[PodB], Of(Node).tcp(NODE_PORT), reaches(&[PodA, FarPod])),
            ]),
    ]
}
