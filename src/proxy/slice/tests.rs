use serde_json::{Value, json};

use super::*;

fn slice(object: Value) -> EndpointSlice {
    let mut all = json!({
        "metadata": {
            "namespace": "shop",
            "name": "web-1",
            "labels": {SERVICE_LABEL: "web"},
        },
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [{"name": "", "port": 8080}],
    });
    for (key, value) in object.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn read_here(object: Value) -> (SliceInfo, Vec<Fault>) {
    read(&slice(object), "here")
}

fn good(object: Value) -> SliceInfo {
    let (info, faults) = read_here(object);
    assert_eq!(faults, []);
    info
}

fn addresses(info: &SliceInfo) -> Vec<String> {
    info.endpoints
        .iter()
        .map(|e| e.address.to_string())
        .collect()
}

#[test]
fn whose_a_slice_is() {
    let labels = |labels: Value| {
        let object = json!({"metadata": {"namespace": "shop", "name": "x", "labels": labels}});
        service_of(&slice(object))
    };
    let web = ServiceName::new("shop", "web");
    assert_eq!(labels(json!({SERVICE_LABEL: "web"})), Some(web));
    assert_eq!(labels(json!({SERVICE_LABEL: ""})), None);
    assert_eq!(labels(json!({})), None);
    assert_eq!(
        labels(json!({SERVICE_LABEL: "web", HEADLESS_LABEL: ""})),
        None
    );
}

#[test]
fn trigger_times() {
    for (text, time) in [
        ("2024-05-01T10:00:00.25Z", Some(1_714_557_600_250)),
        ("2024-05-01T12:00:00+02:00", Some(1_714_557_600_000)),
        ("yesterday", None),
    ] {
        let metadata = json!({"annotations": {TRIGGER_ANNOTATION: text}});
        let found = trigger_time(&slice(json!({"metadata": metadata})));
        assert_eq!(found.map(Timestamp::as_millisecond), time, "{text}");
    }
    assert_eq!(trigger_time(&slice(json!({}))), None);
}

#[test]
fn conditions() {
    let cases = [
        (json!({}), (true, true, false)),
        (json!({"ready": false}), (false, true, false)),
        (
            json!({"ready": true, "serving": false}),
            (true, false, false),
        ),
        (
            json!({"ready": false, "serving": true, "terminating": true}),
            (false, true, true),
        ),
    ];
    for (conditions, expected) in cases {
        let info = good(json!({
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": conditions}],
        }));
        let found = &info.endpoints[0];
        assert_eq!(
            (found.ready, found.serving, found.terminating),
            expected,
            "{conditions}"
        );
    }
}

#[test]
fn nodes_and_hints() {
    let info = good(json!({"endpoints": [
        {"addresses": ["10.1.0.1"], "nodeName": "here"},
        {"addresses": ["10.1.0.2"], "nodeName": "there", "hints": {"forNodes": [{"name": "there"}]}},
        {"addresses": ["10.1.0.3"], "hints": {
            "forNodes": [{"name": "there"}, {"name": "here"}],
            "forZones": [{"name": "b"}, {"name": "a"}],
        }},
        {"addresses": ["10.1.0.4"], "hints": {"forZones": [{"name": "a"}, {"name": "b"}]}},
        {"addresses": ["10.1.0.5"], "hints": {"forZones": [], "forNodes": []}},
    ]}));
    let local: Vec<_> = info.endpoints.iter().map(|e| e.local).collect();
    assert_eq!(local, [true, false, false, false, false]);
    let nodes: Vec<_> = info.endpoints.iter().map(|e| e.node_hint).collect();
    let absent = NodeHint::Absent;
    assert_eq!(
        nodes,
        [absent, NodeHint::Elsewhere, NodeHint::Here, absent, absent]
    );
    let zones: Vec<_> = info
        .endpoints
        .iter()
        .map(|e| e.zone_hints.clone())
        .collect();
    let both = zones[2].as_ref().expect("hints");
    assert!(both.contains("a") && both.contains("b"));
    // Endpoints with the same hints share them.
    assert!(Arc::ptr_eq(both, zones[3].as_ref().expect("hints")));
    assert_eq!((&zones[0], &zones[4]), (&None, &None));
}

#[test]
fn ports_without_name_or_number_are_for_others() {
    let (info, faults) = read_here(json!({"ports": [
        {"name": "b", "port": 2},
        {"port": 1},
        {"name": "n"},
        {"name": "n", "port": 0},
        {"name": "n", "port": 70000},
        {"name": "n", "port": 1, "protocol": "QUIC"},
        {"name": "a", "port": 2, "protocol": "SCTP"},
        {"name": "b", "port": 2, "protocol": "TCP"},
    ]}));
    let ports: Vec<_> = info
        .ports
        .iter()
        .map(|port| (&*port.name, port.protocol, port.port.get()))
        .collect();
    assert_eq!(ports, [("a", Protocol::Sctp, 2), ("b", Protocol::Tcp, 2)]);
    let messages: Vec<_> = faults.iter().map(|f| (&*f.field, &*f.message)).collect();
    assert_eq!(
        messages,
        [
            (
                "EndpointSlice web-1: ports[4]",
                "70000 is not a port number"
            ),
            (
                "EndpointSlice web-1: ports[5]",
                "\"QUIC\" is none of TCP, UDP and SCTP"
            ),
        ]
    );
}

#[test]
fn bad_addresses_take_away_only_themselves() {
    for (kind, bad, message) in [
        (
            "IPv4",
            "127.0.0.1",
            "127.0.0.1 is a loopback address, which cannot be an endpoint",
        ),
        (
            "IPv4",
            "169.254.0.1",
            "169.254.0.1 is a link-local address, which cannot be an endpoint",
        ),
        (
            "IPv4",
            "224.0.0.1",
            "224.0.0.1 is a multicast address, which cannot be an endpoint",
        ),
        (
            "IPv4",
            "0.0.0.0",
            "0.0.0.0 is the unspecified address, which cannot be an endpoint",
        ),
        ("IPv4", "fd00::2", "fd00::2 is not of the family IPv4"),
        (
            "IPv4",
            "web.example.com",
            "\"web.example.com\" is not an IP address",
        ),
        ("IPv6", "10.1.0.1", "10.1.0.1 is not of the family IPv6"),
        (
            "IPv6",
            "::1",
            "::1 is a loopback address, which cannot be an endpoint",
        ),
    ] {
        let fine = if kind == "IPv4" {
            "10.1.0.9"
        } else {
            "fd00::9"
        };
        let (info, faults) = read_here(json!({"addressType": kind, "endpoints": [
            {"addresses": [bad]},
            {"addresses": []},
            {"addresses": [fine, bad]},
        ]}));
        assert_eq!(addresses(&info), [fine], "{bad}");
        let expected = Fault::new("EndpointSlice web-1: endpoints", message);
        assert_eq!(faults, [expected]);
    }
}

#[test]
fn many_bad_addresses_are_one_fault() {
    let endpoints: Vec<_> = (0..100)
        .map(|n| json!({"addresses": [format!("127.0.0.{n}")]}))
        .collect();
    let (info, faults) = read_here(json!({"endpoints": endpoints}));
    assert!(info.is_empty());
    let message = "127.0.0.0 is a loopback address, which cannot be an endpoint; \
                   99 more cannot be used either";
    assert_eq!(
        faults,
        [Fault::new("EndpointSlice web-1: endpoints", message)]
    );
}

#[test]
fn slices_of_names_serve_nothing() {
    let (info, faults) = read_here(json!({
        "addressType": "FQDN",
        "endpoints": [{"addresses": ["web.example.com"]}],
    }));
    assert!(info.is_empty());
    let message = "endpoints of type \"FQDN\" are not served, only IPv4 and IPv6";
    assert_eq!(
        faults,
        [Fault::new("EndpointSlice web-1: addressType", message)]
    );
}

#[test]
fn empty_slices() {
    assert!(good(json!({})).is_empty());
    let no_ports = good(json!({"ports": null, "endpoints": [{"addresses": ["10.1.0.1"]}]}));
    assert!(no_ports.is_empty());
    assert_eq!(no_ports.targets(), 0);
}

#[test]
fn an_address_counts_once() {
    let dying = json!({"ready": false, "serving": true, "terminating": true});
    let unready = json!({"ready": false});
    let info = good(json!({"endpoints": [
        {"addresses": ["10.1.0.1"], "conditions": dying},
        {"addresses": ["10.1.0.1"], "conditions": unready},
        {"addresses": ["10.1.0.2"], "conditions": dying, "nodeName": "here"},
        {"addresses": ["10.1.0.2"], "conditions": {}},
        {"addresses": ["10.1.0.2"], "conditions": dying},
    ]}));
    let found: Vec<_> = info
        .endpoints
        .iter()
        .map(|e| (e.ready, e.terminating))
        .collect();
    assert_eq!(found, [(false, false), (true, false)]);
}

#[test]
fn the_order_of_endpoints_means_nothing() {
    let one = json!({"addresses": ["10.1.0.10"]});
    let other = json!({"addresses": ["10.1.0.9"], "targetRef": {"kind": "Pod", "name": "p"}});
    let bare = json!({"addresses": ["10.1.0.9"], "zone": "a"});
    assert_eq!(
        good(json!({"endpoints": [one, other]})),
        good(json!({"endpoints": [bare, one]}))
    );
}

#[test]
fn ten_thousand_endpoints() {
    let endpoints: Vec<_> = (0..10_000)
        .map(|n| json!({"addresses": [format!("10.2.{}.{}", n / 250, n % 250 + 1)]}))
        .collect();
    let info = good(json!({"endpoints": endpoints}));
    assert_eq!(info.targets(), 10_000);
    assert!(info.endpoints.is_sorted_by_key(|endpoint| endpoint.address));
}
