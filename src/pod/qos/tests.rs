use super::*;
use crate::pod::testing::{first, from_manifest, node, pod, with_spec};

const BOTH: &str = "{cpu: 1, memory: 1Gi}";

fn class_of(spec: &str) -> QosClass {
    class(&with_spec(spec).pod)
}

#[test]
fn the_class_follows_from_cpu_and_memory() {
    for (resources, expected) in [
        ("{}", QosClass::BestEffort),
        ("{requests: {cpu: 0}}", QosClass::BestEffort),
        (
            "{limits: {example.com/gpu: 1}, requests: {ephemeral-storage: 1Gi}}",
            QosClass::BestEffort,
        ),
        ("{requests: {cpu: 100m}}", QosClass::Burstable),
        (
            "{limits: {memory: 1Gi}, requests: {memory: 1Gi}}",
            QosClass::Burstable,
        ),
        ("{limits: {cpu: 1, memory: 1Gi}}", QosClass::Burstable),
        (
            "{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}",
            QosClass::Burstable,
        ),
        (
            "{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1000m, memory: 1024Mi}}",
            QosClass::Guaranteed,
        ),
    ] {
        let spec = format!("{{containers: [{{name: a, resources: {resources}}}]}}");
        assert_eq!(class_of(&spec), expected, "{resources}");
    }
}

#[test]
fn one_container_without_limits_ends_the_guarantee() {
    let equal = format!("resources: {{requests: {BOTH}, limits: {BOTH}}}");
    let two = format!("{{containers: [{{name: a, {equal}}}, {{name: b, {equal}}}]}}");
    assert_eq!(class_of(&two), QosClass::Guaranteed);
    let without = format!("{{containers: [{{name: a, {equal}}}, {{name: b}}]}}");
    assert_eq!(class_of(&without), QosClass::Burstable);
    let init = format!("{{containers: [{{name: a, {equal}}}], initContainers: [{{name: i}}]}}");
    assert_eq!(class_of(&init), QosClass::Burstable);
}

#[test]
fn pod_level_resources_decide_alone() {
    let spec =
        format!("{{resources: {{requests: {BOTH}, limits: {BOTH}}}, containers: [{{name: a}}]}}");
    assert_eq!(class_of(&spec), QosClass::Guaranteed);
    let spec = "{resources: {requests: {cpu: 1}}, containers: [{name: a}]}";
    assert_eq!(class_of(spec), QosClass::Burstable);
    let equal = format!("resources: {{requests: {BOTH}, limits: {BOTH}}}");
    let spec = format!("{{resources: {{}}, containers: [{{name: a, {equal}}}]}}");
    assert_eq!(class_of(&spec), QosClass::Guaranteed);
}

#[test]
fn the_cgroup_of_a_pod_has_the_pods_own_values() {
    let pod = with_spec(
        "{overhead: {cpu: 100m, memory: 1Mi},
          resources: {requests: {cpu: 250m}, limits: {cpu: 500m, memory: 64Mi}},
          containers: [{name: a, resources: {requests: {cpu: 100m, memory: 8Mi}}}, {name: b}]}",
    );
    let mut node = node();
    node.cgroup.pids_limit = Some(100);
    let cgroup = pod_cgroup(&pod, &node).unwrap();
    assert_eq!(cgroup.path, "/kubepods/burstable/podu");
    assert_eq!(cgroup.cpu_shares, 358);
    assert_eq!(cgroup.cpu_quota, Some(60_000));
    assert_eq!(cgroup.memory_limit, Some(65 << 20));
    assert_eq!(cgroup.pids_limit, Some(100));
    node.cgroup.enforce_cpu_quota = false;
    assert_eq!(pod_cgroup(&pod, &node).unwrap().cpu_quota, None);
}

#[test]
fn the_recorded_class_stands() {
    let yaml =
        "metadata: {name: p}\nspec: {containers: [{name: a}]}\nstatus: {qosClass: Guaranteed}";
    assert_eq!(class(&pod(yaml).pod), QosClass::Guaranteed);
}

#[test]
fn cgroups_stand_below_their_class() {
    for (resources, path) in [
        ("{}", "/kubepods/besteffort/podu"),
        ("{requests: {cpu: 1}}", "/kubepods/burstable/podu"),
        (
            "{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}",
            "/kubepods/podu",
        ),
    ] {
        let pod = with_spec(&format!(
            "{{containers: [{{name: a, resources: {resources}}}]}}"
        ));
        assert_eq!(pod_cgroup(&pod, &node()).unwrap().path, path);
        let mut nested = node();
        nested.cgroup.root = "/cluster-a".into();
        let nested = pod_cgroup(&pod, &nested).unwrap().path;
        assert_eq!(nested, format!("/cluster-a{path}"));
    }
    let mut flat = node();
    flat.cgroup.per_qos = false;
    assert_eq!(pod_cgroup(&with_spec("{containers: []}"), &flat), None);
}

#[test]
fn cgroup_values() {
    let guaranteed = with_spec(
        "{overhead: {cpu: 500m}, containers: [{name: a, resources: {
           requests: {cpu: 1, memory: 1Gi, hugepages-2Mi: 4Mi},
           limits: {cpu: 1, memory: 1Gi, hugepages-2Mi: 4Mi}}}]}",
    );
    let mut facts = node();
    facts.cgroup.pids_limit = Some(100);
    let cgroup = pod_cgroup(&guaranteed, &facts).unwrap();
    assert_eq!(cgroup.cpu_shares, 1536);
    assert_eq!(
        (cgroup.cpu_quota, cgroup.cpu_period),
        (Some(150_000), 100_000)
    );
    assert_eq!(cgroup.memory_limit, Some(1 << 30));
    assert_eq!(cgroup.pids_limit, Some(100));
    assert_eq!(
        cgroup.hugepage_limits,
        [("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 0)]
    );
    facts.cgroup.enforce_cpu_quota = false;
    assert_eq!(pod_cgroup(&guaranteed, &facts).unwrap().cpu_quota, None);

    let half_bound = with_spec(
        "{containers: [{name: a, resources: {requests: {cpu: 100m}, limits: {cpu: 1, memory: 1Mi}}},
                       {name: b, resources: {limits: {memory: 1Mi}}}]}",
    );
    let cgroup = pod_cgroup(&half_bound, &node()).unwrap();
    assert_eq!((cgroup.cpu_shares, cgroup.cpu_quota), (102, None));
    assert_eq!(cgroup.memory_limit, Some(2 << 20));

    let best_effort = pod_cgroup(&with_spec("{containers: [{name: a}]}"), &node()).unwrap();
    assert_eq!((best_effort.cpu_shares, best_effort.cpu_quota), (2, None));
    assert_eq!(best_effort.memory_limit, None);
}

#[test]
fn burstable_shares_are_the_sum_of_burstable_requests() {
    let burstable = with_spec("{containers: [{name: a, resources: {requests: {cpu: 1}}}]}");
    let best_effort = with_spec("{containers: [{name: a}]}");
    let guaranteed = with_spec(&format!(
        "{{containers: [{{name: a, resources: {{requests: {BOTH}, limits: {BOTH}}}}}]}}"
    ));
    let pods = [&burstable, &best_effort, &guaranteed, &burstable];
    assert_eq!(shares(pods.into_iter()).burstable, 2048);
    assert_eq!(shares([&best_effort].into_iter()).burstable, 2);
}

#[test]
fn oom_scores_of_burstable_containers() {
    let node_memory = 1000;
    for (request, score) in [
        (0, 999),
        (1, 999),
        (100, 900),
        (500, 500),
        (999, 3),
        (2000, 3),
    ] {
        let pod = with_spec(&format!(
            "{{containers: [{{name: a, resources: {{requests: {{cpu: 1, memory: {request}}}}}}}]}}"
        ));
        assert_eq!(
            oom_score_adj(&pod, first(&pod), node_memory),
            score,
            "{request}"
        );
        assert!((3..=999).contains(&oom_score_adj(&pod, first(&pod), 0)));
    }
}

#[test]
fn oom_scores_of_the_other_classes() {
    let best_effort = with_spec("{containers: [{name: a}]}");
    assert_eq!(oom_score_adj(&best_effort, first(&best_effort), 1000), 1000);
    let guaranteed = with_spec(&format!(
        "{{containers: [{{name: a, resources: {{requests: {BOTH}, limits: {BOTH}}}}}]}}"
    ));
    assert_eq!(oom_score_adj(&guaranteed, first(&guaranteed), 1000), -997);
    let spec = "{priorityClassName: system-node-critical, containers: [{name: a}]}";
    let named_only = with_spec(spec);
    assert_eq!(oom_score_adj(&named_only, first(&named_only), 1000), 1000);
    let critical = from_manifest(named_only);
    assert_eq!(oom_score_adj(&critical, first(&critical), 1000), -997);
}

#[test]
fn a_sidecar_lives_no_shorter_than_what_it_serves() {
    let pod = with_spec(
        "{containers: [{name: a, resources: {requests: {memory: 400}}},
                       {name: b, resources: {requests: {memory: 300}}}],
          initContainers: [{name: s, restartPolicy: Always, resources: {requests: {memory: 100}}},
                           {name: i, resources: {requests: {memory: 100}}}]}",
    );
    let init = pod
        .pod
        .spec
        .as_ref()
        .unwrap()
        .init_containers
        .as_ref()
        .unwrap();
    assert_eq!(oom_score_adj(&pod, &init[0], 1000), 700);
    assert_eq!(oom_score_adj(&pod, &init[1], 1000), 900);
}

#[test]
fn unclaimed_memory_of_the_pod_is_shared() {
    let pod = with_spec(
        "{resources: {requests: {memory: 500}},
          containers: [{name: a, resources: {requests: {memory: 100}}}, {name: b}]}",
    );
    assert_eq!(oom_score_adj(&pod, first(&pod), 1000), 700);
}

#[test]
fn critical_pods() {
    let plain = with_spec("{containers: [{name: a}]}");
    assert!(!is_critical(&plain));
    assert!(is_critical(&from_manifest(plain)));
    assert!(is_critical(&with_spec(
        "{priority: 2000000000, containers: []}"
    )));
    assert!(!is_critical(&with_spec(
        "{priority: 1999999999, containers: []}"
    )));
}
