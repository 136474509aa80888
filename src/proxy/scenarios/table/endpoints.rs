//! Which endpoints serve, how one is chosen, and by which protocols and ports.

use serde_json::json;

use super::super::Outcome::{Dropped, Refused, Untouched};
use super::super::objects::{Condition, web};
use super::super::world::Address::{Balancer, ClusterIp, ExternalIp, Of};
use super::super::world::Party::{self, Client, FarPod, Node, PodA, PodB, Stranger};
use super::super::world::{NODE, ZONE, client_range};
use super::super::{Scenario, masquerades, reaches};
use super::{NODE_PORT, SOURCE_RANGES, WEB};
use crate::proxy::model::{Family, Protocol};

pub fn all() -> Vec<Scenario> {
    [
        &conditions()[..],
        &conditions_on_the_node(),
        &nobody_there(),
        &choices(),
        &protocols(),
        &ports_and_families(),
    ]
    .concat()
}

fn conditions() -> [Scenario; 3] {
    let service = web(1).node_port(NODE_PORT);
    [
        Scenario::new("only who is ready serves")
            .service(
                &service
                    .clone()
                    .served_by(&[FarPod])
                    .with_endpoints(Condition::Unready, &[PodA])
                    .with_endpoints(Condition::Ending, &[PodB]),
            )
            .attempts([
                (&[PodA][..], WEB.tcp(80), reaches(&[FarPod])),
                (&[Client], Of(Node).tcp(NODE_PORT), masquerades(&[FarPod])),
            ]),
        Scenario::new("who ends serves if nobody is ready")
            .service(
                &service
                    .clone()
                    .with_endpoints(Condition::Unready, &[PodA])
                    .with_endpoints(Condition::Ending, &[PodB, FarPod]),
            )
            .attempts([
                (&[PodA][..], WEB.tcp(80), reaches(&[PodB, FarPod])),
                (
                    &[Client],
                    Of(Node).tcp(NODE_PORT),
                    masquerades(&[PodB, FarPod]),
                ),
            ]),
        Scenario::new("who does not answer is as good as nobody")
            .service(
                &service
                    .with_endpoints(Condition::Unready, &[PodA])
                    .with_endpoints(Condition::Ended, &[PodB, FarPod]),
            )
            .attempts([
                (&[PodA, Node, Client][..], WEB.tcp(80), Refused),
                (&[PodA, Node, Client], Of(Node).tcp(NODE_PORT), Refused),
            ]),
    ]
}

fn conditions_on_the_node() -> [Scenario; 2] {
    let service = web(1)
        .node_port(NODE_PORT)
        .external_local()
        .internal_local();
    [
        Scenario::new("who ends here serves if only others are ready")
            .service(
                &service
                    .clone()
                    .served_by(&[FarPod])
                    .with_endpoints(Condition::Ending, &[PodB])
                    .with_endpoints(Condition::Ended, &[PodA]),
            )
            .attempts([
                (&[PodA][..], WEB.tcp(80), reaches(&[PodB])),
                (&[Client], Of(Node).tcp(NODE_PORT), reaches(&[PodB])),
                // Traffic that may go anywhere goes to who is ready.
                (&[PodA], Of(Node).tcp(NODE_PORT), reaches(&[FarPod])),
            ]),
        Scenario::new("who is ready here serves alone")
            .service(
                &service
                    .served_by(&[PodA])
                    .with_endpoints(Condition::Ending, &[PodB]),
            )
            .attempts([
                (&[PodB][..], WEB.tcp(80), reaches(&[PodA])),
                (&[Client], Of(Node).tcp(NODE_PORT), reaches(&[PodA])),
            ]),
    ]
}

fn nobody_there() -> [Scenario; 3] {
    let service = web(1).node_port(NODE_PORT).external_ip().balancer("VIP");
    let everybody: &[Party] = &[PodA, FarPod, Node, Client];
    let from_elsewhere: &[Party] = &[PodA, FarPod, Client];
    [
        Scenario::new("no endpoints").service(&service).attempts([
            (everybody, WEB.tcp(80), Refused),
            (everybody, Of(Node).tcp(NODE_PORT), Refused),
            (from_elsewhere, ExternalIp.tcp(80), Refused),
            (from_elsewhere, Balancer.tcp(80), Refused),
            // Refusals at such addresses are for what comes in or through.
            (&[Node], ExternalIp.tcp(80), Untouched),
            (&[Node], Balancer.tcp(80), Untouched),
            (&[PodA], WEB.tcp(81), Untouched),
            (&[Client], Of(Node).tcp(80), Untouched),
        ]),
        Scenario::new("no endpoints, policies Local, and few who may come in")
            .service(
                &service
                    .clone()
                    .external_local()
                    .internal_local()
                    .with(SOURCE_RANGES, json!(Family::ALL.map(client_range))),
            )
            .attempts([
                (everybody, WEB.tcp(80), Refused),
                (everybody, Of(Node).tcp(NODE_PORT), Refused),
                (&[Client, Stranger], Balancer.tcp(80), Refused),
            ]),
        Scenario::new("no endpoints of UDP")
            .service(&service.by(Protocol::Udp))
            .attempts([
                (everybody, WEB.udp(80), Refused),
                (everybody, Of(Node).udp(NODE_PORT), Refused),
                (from_elsewhere, ExternalIp.udp(80), Refused),
                (&[PodA], WEB.tcp(80), Untouched),
            ]),
    ]
}

fn choices() -> [Scenario; 4] {
    let hint = |kind: &str, name: &str| {
        let mut hints = json!({});
        hints[kind] = json!([{ "name": name }]);
        hints
    };
    [
        Scenario::new("clients stay where they were")
            .service(
                &web(1)
                    .served_by(&[PodA, PodB, FarPod])
                    .node_port(NODE_PORT)
                    .with("sessionAffinity", json!("ClientIP")),
            )
            .attempts([
                (
                    &[Client][..],
                    Of(Node).tcp(NODE_PORT),
                    masquerades(&[PodA, PodB, FarPod]).and_stays(),
                ),
                (
                    &[Node],
                    WEB.tcp(80),
                    masquerades(&[PodA, PodB, FarPod]).and_stays(),
                ),
                (
                    &[PodB],
                    WEB.tcp(80),
                    reaches(&[PodA, FarPod]).or_masquerades(&[PodB]).and_stays(),
                ),
            ]),
        Scenario::new("endpoints for zones")
            .service(
                &web(1)
                    .hinted(PodA, hint("forZones", ZONE))
                    .hinted(FarPod, hint("forZones", "far"))
                    .node_port(NODE_PORT),
            )
            .attempts([
                (&[PodB][..], WEB.tcp(80), reaches(&[PodA])),
                (&[Client], Of(Node).tcp(NODE_PORT), masquerades(&[PodA])),
            ]),
        Scenario::new("endpoints for nodes")
            .service(
                &web(1)
                    .hinted(PodA, hint("forNodes", NODE))
                    .hinted(FarPod, hint("forNodes", "elsewhere")),
            )
            .attempts([(&[PodB][..], WEB.tcp(80), reaches(&[PodA]))]),
        Scenario::new("half a set of hints")
            .service(
                &web(1)
                    .hinted(PodA, hint("forZones", ZONE))
                    .served_by(&[FarPod]),
            )
            .attempts([(&[PodB][..], WEB.tcp(80), reaches(&[PodA, FarPod]))]),
    ]
}

fn protocols() -> [Scenario; 2] {
    [
        Scenario::new("UDP")
            .service(
                &web(1)
                    .by(Protocol::Udp)
                    .served_by(&[PodA, FarPod])
                    .node_port(NODE_PORT)
                    .external_ip()
                    .balancer("VIP")
                    .external_local(),
            )
            .service(
                &web(2)
                    .by(Protocol::Udp)
                    .served_by(&[FarPod])
                    .internal_local(),
            )
            .attempts([
                (
                    &[PodA][..],
                    WEB.udp(80),
                    reaches(&[FarPod]).or_masquerades(&[PodA]),
                ),
                (&[Node], WEB.udp(80), masquerades(&[PodA, FarPod])),
                (&[Client], Of(Node).udp(NODE_PORT), reaches(&[PodA])),
                (&[Client], ExternalIp.udp(80), reaches(&[PodA])),
                (&[Client], Balancer.udp(80), reaches(&[PodA])),
                (&[PodB, Node, Client], ClusterIp(2).udp(80), Dropped),
                (&[PodB], WEB.tcp(80), Untouched),
            ]),
        Scenario::new("SCTP")
            .service(
                &web(1)
                    .by(Protocol::Sctp)
                    .served_by(&[PodA, FarPod])
                    .node_port(NODE_PORT),
            )
            .service(&web(2).by(Protocol::Sctp))
            .attempts([
                (
                    &[PodB][..],
                    WEB.by(Protocol::Sctp, 80),
                    reaches(&[PodA, FarPod]),
                ),
                (
                    &[Client],
                    Of(Node).by(Protocol::Sctp, NODE_PORT),
                    masquerades(&[PodA, FarPod]),
                ),
                (&[PodB], ClusterIp(2).by(Protocol::Sctp, 80), Refused),
                (&[PodB], WEB.tcp(80), Untouched),
            ]),
    ]
}

fn ports_and_families() -> [Scenario; 2] {
    [
        Scenario::new("several ports")
            .service(
                &web(1)
                    .node_port(NODE_PORT)
                    .port(Protocol::Tcp, 53, 5353)
                    .port(Protocol::Udp, 53, 5354)
                    .node_port(30053)
                    .served_by(&[PodA, PodB]),
            )
            .attempts([
                (&[FarPod][..], WEB.tcp(80), reaches(&[PodA, PodB])),
                (&[FarPod], WEB.tcp(53), reaches(&[PodA, PodB]).at_port(5353)),
                (&[FarPod], WEB.udp(53), reaches(&[PodA, PodB]).at_port(5354)),
                (
                    &[Client],
                    Of(Node).udp(30053),
                    masquerades(&[PodA, PodB]).at_port(5354),
                ),
                (&[Client], Of(Node).tcp(30053), Untouched),
            ]),
        Scenario::new("a Service of one family")
            .service(
                &web(1)
                    .only_in(Family::V4)
                    .served_by(&[PodA])
                    .node_port(NODE_PORT),
            )
            .service(&web(2).only_in(Family::V6).served_by(&[PodA]))
            .attempts_in(
                Family::V4,
                [
                    (&[PodB][..], WEB.tcp(80), reaches(&[PodA])),
                    (&[Client], Of(Node).tcp(NODE_PORT), masquerades(&[PodA])),
                    (&[PodB], ClusterIp(2).tcp(80), Untouched),
                ],
            )
            .attempts_in(
                Family::V6,
                [
                    (&[PodB][..], WEB.tcp(80), Untouched),
                    (&[Client], Of(Node).tcp(NODE_PORT), Untouched),
                    (&[PodB], ClusterIp(2).tcp(80), reaches(&[PodA])),
                ],
            ),
    ]
}
