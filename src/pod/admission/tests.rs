//! One refusal after the other, and who makes room.

use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};

use super::preempt::{Candidate, victims};
use super::*;
use crate::pod::testing::{from_manifest, pod as from_yaml};
use crate::pod::{DesiredPod, PodUid};

fn node() -> NodeView {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {
            "kubernetes.io/os": "linux", "zone": "a", "slots": "5", "word": "x",
        }},
        "status": {"allocatable": {
            "cpu": "2", "memory": "1Gi", "ephemeral-storage": "10Gi", "pods": "3",
            "example.com/lamp": "4", "hugepages-2Mi": "4Mi",
        }},
    }))
    .expect("a node");
    NodeView::of(&node)
}

fn settings() -> Settings {
    Settings {
        sysctls: Allowlist::new("6.1", &["kernel.msg*".to_owned()]),
        apparmor: Support::Absent,
        pod_level_resources: Support::Present,
    }
}

fn pod(spec: Value) -> DesiredPod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let whole = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
    from_yaml(&whole.to_string())
}

fn asking(requests: Value) -> DesiredPod {
    pod(json!({"containers": [{"name": "c", "resources": {"requests": requests}}]}))
}

fn with_port(port: i32, ip: &str, protocol: &str) -> DesiredPod {
    pod(json!({"containers": [{"name": "c", "ports": [
        {"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol},
    ]}]}))
}

fn beside(pod: &DesiredPod, node: &NodeView, others: &[&DesiredPod]) -> Verdict {
    let claims: Vec<Claim> = others.iter().map(|other| Claim::of(&other.pod)).collect();
    admit(&AdmissionInput {
        pod,
        node,
        taken: &Claim::sum(&claims),
        supplemental_groups_policy: Support::Absent,
        settings: &settings(),
    })
}

/// `ok`, or `<reason>: <message>`, with a mark for verdicts that are not final.
fn told(verdict: Verdict) -> String {
    match verdict {
        Verdict::Admitted => "ok".into(),
        Verdict::Rejected(r) => format!("{}: {}", r.reason, r.message),
        Verdict::NodeDiffers(r) => format!("(node) {}: {}", r.reason, r.message),
        Verdict::MakeRoom(shortages) => {
            let missing = shortages
                .iter()
                .map(|s| format!("{} {}", s.missing(), s.resource));
            format!("(room) {}", missing.collect::<Vec<_>>().join(", "))
        }
    }
}

fn judged(pod: &DesiredPod) -> String {
    told(beside(pod, &node(), &[]))
}

#[test]
fn each_demand_that_is_not_met_has_its_refusal() {
    let label = from_yaml(
        "metadata: {name: p, namespace: ns, uid: u, labels: {kubernetes.io/os: windows}}\n\
         spec: {containers: [{name: c}]}",
    );
    let table = [
        (pod(json!({})), "ok"),
        (
            pod(json!({"securityContext": {"sysctls": [{"name": "kernel/msgmax", "value": "1"}]}})),
            "ok",
        ),
        (
            pod(json!({"securityContext": {"sysctls": [{"name": "vm/swappiness", "value": "1"}]}})),
            "SysctlForbidden: forbidden sysctl: \"vm.swappiness\" not allowlisted",
        ),
        (
            pod(json!({"hostIPC": true, "securityContext": {"sysctls": [
                {"name": "kernel.msgmax", "value": "1"},
            ]}})),
            "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowed with host IPC enabled",
        ),
        (
            label,
            "PodOSSelectorNodeLabelDoesNotMatch: Failed to admit pod as the `kubernetes.io/os` \
             label doesn't match node label",
        ),
        (
            pod(json!({"os": {"name": "windows"}})),
            "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS",
        ),
        (
            pod(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}})),
            "SupplementalGroupsPolicyNotSupported: SupplementalGroupsPolicy=Strict is not \
             supported in this node",
        ),
        (
            pod(json!({"nodeName": "n2"})),
            "NodeName: Predicate NodeName failed: node(s) didn't match the requested node name",
        ),
        (
            pod(json!({"nodeSelector": {"zone": "b"}})),
            "(node) NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's \
             node affinity/selector",
        ),
        (
            pod(json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}})),
            "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ),
        (
            pod(json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}})),
            "ok",
        ),
        (
            pod(json!({"resourceClaims": [{"name": "r"}]})),
            "PodFeatureUnsupported: spec.resourceClaims: resource claims are not supported yet",
        ),
    ];
    for (pod, expected) in table {
        assert_eq!(judged(&pod), expected);
    }
}

#[test]
fn of_several_refusals_the_first_is_told() {
    let much = json!([{"name": "c", "resources": {"requests": {"cpu": "9", "memory": "9Gi"}}}]);
    let short_of_cpu = "OutOfcpu: Node didn't have enough resource: cpu, requested: 9000, \
                        used: 0, capacity: 2000";
    let labels = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node \
                  affinity/selector";
    let mut spec = json!({"containers": much, "nodeSelector": {"zone": "b"}, "nodeName": "n2"});
    assert_eq!(judged(&pod(spec.clone())), short_of_cpu);
    // What others can make room for is no reason to refuse a critical pod.
    spec["priority"] = json!(2_000_000_000);
    assert_eq!(judged(&pod(spec.clone())), labels);
    spec["nodeSelector"] = json!({"zone": "a"});
    spec["nodeName"] = json!("n1");
    assert_eq!(
        judged(&pod(spec.clone())),
        "(room) 7000 cpu, 8589934592 memory"
    );
    spec["priority"] = json!(1_999_999_999);
    assert_eq!(judged(&pod(spec)), short_of_cpu);
}

#[test]
fn requests_must_fit_beside_those_of_others() {
    let small = asking(json!({"cpu": "500m", "example.com/lamp": "3"}));
    let table = [
        (asking(json!({"cpu": "1500m"})), "ok"),
        (
            asking(json!({"cpu": "1501m"})),
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 1501, used: 500, \
             capacity: 2000",
        ),
        (
            asking(json!({"memory": "2Gi"})),
            "OutOfmemory: Node didn't have enough resource: memory, requested: 2147483648, \
             used: 0, capacity: 1073741824",
        ),
        (
            asking(json!({"ephemeral-storage": "11Gi"})),
            "OutOfephemeral-storage: Node didn't have enough resource: ephemeral-storage, \
             requested: 11811160064, used: 0, capacity: 10737418240",
        ),
        (
            asking(json!({"example.com/lamp": "2"})),
            "OutOfexample.com/lamp: Node didn't have enough resource: example.com/lamp, \
             requested: 2, used: 3, capacity: 4",
        ),
        // Devices that the node never heard of are not its business.
        (asking(json!({"example.com/horn": "2"})), "ok"),
        (
            asking(json!({"hugepages-2Mi": "6Mi"})),
            "OutOfhugepages-2Mi: Node didn't have enough resource: hugepages-2Mi, \
             requested: 6291456, used: 0, capacity: 4194304",
        ),
    ];
    for (pod, expected) in table {
        assert_eq!(told(beside(&pod, &node(), &[&small])), expected);
    }
    let none = asking(json!({}));
    assert_eq!(told(beside(&none, &node(), &[&none, &none])), "ok");
    assert_eq!(
        told(beside(&none, &node(), &[&none, &none, &none])),
        "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
    );
}

#[test]
fn a_port_is_taken_once_per_address_and_protocol() {
    let here = with_port(80, "10.0.0.1", "TCP");
    let taken = "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the \
                 requested pod ports";
    let table = [
        (with_port(80, "10.0.0.1", "TCP"), taken),
        (with_port(80, "", ""), taken),
        (with_port(80, "0.0.0.0", "TCP"), taken),
        (with_port(80, "10.0.0.2", "TCP"), "ok"),
        (with_port(80, "10.0.0.1", "UDP"), "ok"),
        (with_port(81, "10.0.0.1", "TCP"), "ok"),
        (with_port(0, "10.0.0.1", "TCP"), "ok"),
    ];
    for (pod, expected) in table {
        assert_eq!(told(beside(&pod, &node(), &[&here])), expected);
    }
    let sidecar = pod(json!({"initContainers": [
        {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 80}]},
    ]}));
    assert_eq!(told(beside(&here, &node(), &[&sidecar])), taken);
}

#[test]
fn affinity_knows_all_operators() {
    let table = [
        ("zone", "In", json!(["a", "b"]), true),
        ("zone", "In", json!(["b"]), false),
        ("none", "In", json!(["a"]), false),
        ("zone", "NotIn", json!(["b"]), true),
        ("zone", "NotIn", json!(["a"]), false),
        ("none", "NotIn", json!(["a"]), true),
        ("zone", "Exists", json!([]), true),
        ("none", "Exists", json!([]), false),
        ("none", "DoesNotExist", json!([]), true),
        ("zone", "DoesNotExist", json!([]), false),
        ("slots", "Gt", json!(["4"]), true),
        ("slots", "Gt", json!(["5"]), false),
        ("slots", "Lt", json!(["6"]), true),
        ("slots", "Lt", json!(["5"]), false),
        ("word", "Gt", json!(["1"]), false),
        ("slots", "Gt", json!(["x"]), false),
        ("zone", "Like", json!(["a"]), false),
    ];
    let terms = |terms: Value| {
        let pod = pod(json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}}));
        judged(&pod) == "ok"
    };
    for (key, operator, values, expected) in table {
        let wanted = json!({"key": key, "operator": operator, "values": values});
        assert_eq!(
            terms(json!([{"matchExpressions": [wanted]}])),
            expected,
            "{wanted}"
        );
    }
    let name = |operator: &str, name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": [name]}]});
    assert!(terms(json!([name("In", "n1")])));
    assert!(!terms(json!([name("In", "n2")])));
    assert!(terms(json!([name("NotIn", "n2")])));
    // One term of several will do; one that is empty will not.
    assert!(terms(json!([name("In", "n2"), name("In", "n1")])));
    assert!(!terms(json!([{}])));
}

#[test]
fn a_taint_keeps_out_who_does_not_tolerate_it() {
    let mut node = node();
    node.taints = ["NoSchedule", "NoExecute"]
        .map(|effect| Taint {
            key: format!("for-{effect}"),
            value: Some("v".into()),
            effect: effect.into(),
            time_added: None,
        })
        .into();
    let refused = "(node) TaintToleration: Predicate TaintToleration failed: node(s) had taints that \
                   the pod didn't tolerate";
    let table = [
        (json!([]), refused),
        (json!([{"key": "for-NoExecute", "value": "v"}]), "ok"),
        (json!([{"key": "for-NoExecute", "value": "w"}]), refused),
        (
            json!([{"key": "for-NoExecute", "operator": "Exists", "effect": "NoExecute"}]),
            "ok",
        ),
        (
            json!([{"key": "for-NoExecute", "operator": "Exists", "effect": "NoSchedule"}]),
            refused,
        ),
        (json!([{"operator": "Exists"}]), "ok"),
    ];
    for (tolerations, expected) in table {
        let pod = pod(json!({"tolerations": tolerations}));
        assert_eq!(told(beside(&pod, &node, &[])), expected, "{tolerations}");
    }
    let from_file = from_manifest(pod(json!({})));
    assert_eq!(told(beside(&from_file, &node, &[])), "ok");
}

#[test]
fn the_agents_own_amounts_are_newer_than_the_objects() {
    let own = node();
    let object: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {"zone": "b"}},
        "status": {"allocatable": {"cpu": "1", "example.com/horn": "1"}},
    }))
    .expect("a node");
    let view = own.updated_by(&object);
    assert_eq!(view.allocatable("cpu"), Some(2000));
    assert_eq!(view.allocatable("example.com/horn"), Some(1));
    assert_eq!(view.labels["zone"], "b");
}

// === making room ===

/// A pod of a class: its CPU in thousandths and its memory in MiB.
fn of_class(uid: &str, class: &str, cpu: i64, memory: i64) -> DesiredPod {
    let amounts = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
    let resources = match class {
        "Guaranteed" => json!({"requests": amounts, "limits": amounts}),
        "Burstable" => json!({"requests": amounts}),
        _ => json!({}),
    };
    let pod = pod(json!({"containers": [{"name": "c", "resources": resources}]}));
    DesiredPod {
        uid: PodUid::from(uid),
        ..pod
    }
}

fn shortage(resource: &str, missing: i64) -> Shortage {
    Shortage {
        resource: resource.into(),
        requested: missing,
        used: 0,
        capacity: 0,
    }
}

/// The UIDs of those who make room, or why nobody can.
fn chosen(here: &[DesiredPod], shortages: &[Shortage]) -> String {
    let critical = from_manifest(pod(json!({})));
    let claims: Vec<Claim> = here.iter().map(|pod| Claim::of(&pod.pod)).collect();
    let candidates = here
        .iter()
        .zip(&claims)
        .map(|(pod, claim)| Candidate { pod, claim });
    match victims(&critical, candidates, shortages) {
        Ok(victims) => {
            let uids = victims.iter().map(|victim| victim.pod.uid.to_string());
            uids.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn as_few_as_will_do_make_room_the_lowest_class_first() {
    let here = [
        of_class("idle", "BestEffort", 0, 0),
        of_class("small", "Burstable", 100, 100),
        of_class("large", "Burstable", 300, 300),
        of_class("sure", "Guaranteed", 100, 100),
        of_class("surer", "Guaranteed", 300, 300),
    ];
    let table: [(&[Shortage], &str); 8] = [
        (&[], ""),
        (&[shortage("cpu", 50)], "small"),
        (&[shortage("cpu", 200)], "large"),
        (&[shortage("cpu", 400)], "large small"),
        // What all burstable ones give is not enough; the guaranteed one that
        // then suffices spares a burstable one.
        (&[shortage("cpu", 500)], "large small sure"),
        (
            &[shortage("cpu", 300), shortage("memory", 100 << 20)],
            "large",
        ),
        (&[shortage("pods", 1)], "idle"),
        (
            &[shortage("cpu", 900)],
            "no set of running pods found to reclaim resources: [(res: cpu, q: 100), ]",
        ),
    ];
    for (shortages, expected) in table {
        assert_eq!(chosen(&here, shortages), expected, "{shortages:?}");
    }
}

#[test]
fn critical_pods_do_not_make_room_unless_they_are_of_lower_priority() {
    let priority = |uid: &str, priority: i64| {
        let pod = pod(json!({"priority": priority}));
        DesiredPod {
            uid: PodUid::from(uid),
            ..pod
        }
    };
    let of = |comes: &DesiredPod, here: &DesiredPod| {
        let claim = Claim::of(&here.pod);
        let candidate = Candidate {
            pod: here,
            claim: &claim,
        };
        victims(comes, [candidate], &[shortage("pods", 1)]).is_ok()
    };
    let (normal, critical) = (priority("a", 10), priority("b", 2_000_000_000));
    let more = priority("c", 2_000_001_000);
    let from_file = from_manifest(pod(json!({})));
    assert!(of(&critical, &normal));
    assert!(!of(&critical, &critical));
    assert!(of(&more, &critical));
    assert!(!of(&critical, &more));
    assert!(!of(&critical, &from_file));
    assert!(of(&from_file, &normal));
    assert!(!of(&from_file, &critical));
}
