//! Tables and goldens; nothing here touches a machine.

use super::*;
use crate::runtime::ConditionFailure;
use insta::assert_json_snapshot;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn health() -> RuntimeHealth {
    let handler = |name: &str, works: bool| RuntimeHandler {
        name: name.to_owned(),
        recursive_read_only_mounts: works,
        user_namespaces: works,
    };
    RuntimeHealth {
        checked: true,
        last_good: Some(at(0)),
        name: "containerd".to_owned(),
        version: "2.1.0".to_owned(),
        handlers: vec![handler("runc", true), handler("", false)],
        supplemental_groups_policy: true,
        ..RuntimeHealth::default()
    }
}

fn image(name: &str, tags: usize, size_bytes: i64) -> LocalImage {
    LocalImage {
        repo_digests: vec![format!("{name}@sha256:1")],
        repo_tags: (0..tags).map(|tag| format!("{name}:{tag}")).collect(),
        size_bytes,
    }
}

/// What the tests vary; the rest is in order.
struct Scene {
    settings: NodeSettings,
    facts: MachineFacts,
    health: RuntimeHealth,
    images: Vec<LocalImage>,
    ips: Vec<IpAddr>,
}

impl Scene {
    fn new() -> Self {
        Self {
            settings: NodeSettings::for_test(),
            facts: MachineFacts::for_test(),
            health: health(),
            images: vec![image("small", 1, 10), image("big", 9, 1000)],
            ips: vec!["10.0.0.5".parse().unwrap()],
        }
    }

    fn refresh(&self, base: &Node, second: i64) -> Node {
        let observed = Observed {
            facts: &self.facts,
            internal_ips: Some(&self.ips),
            pressure: Pressure::default(),
            runtime: &self.health,
            images: &self.images,
            extra: &[],
            now: at(second),
        };
        refresh(base, &[], &self.settings, &observed)
    }

    fn initial(&self) -> Node {
        self.refresh(&registration::initial_node(&self.settings, &self.facts), 0)
    }
}

#[test]
fn the_first_node_object() {
    assert_json_snapshot!(Scene::new().initial());
}

/// An answer of the API server, which says nothing in other words.
fn stored(node: &Node) -> Node {
    let mut value = serde_json::to_value(node).unwrap();
    let status = &mut value["status"];
    status["runtimeHandlers"][0]["name"] = Value::Null;
    status["volumesInUse"] = json!([]);
    status["images"][1]["names"] = json!([]);
    serde_json::from_value(value).unwrap()
}

#[test]
fn nothing_new_is_no_change() {
    let mut scene = Scene::new();
    scene.images[0].repo_digests.clear();
    scene.images[0].repo_tags.clear();
    let first = stored(&scene.initial());
    let second = scene.refresh(&first, 10);
    assert!(!has_changed(&first, &second));
    assert!(!has_changed(&first, &stored(&second)));
    assert_ne!(first, second, "heartbeats differ");
}

#[test]
fn what_others_wrote_stays_and_is_allocatable() {
    let mut base = Scene::new().initial();
    let status = base.status.as_mut().unwrap();
    let put = |list: &mut Option<ResourceList>, name: &str, amount: &str| {
        let quantity = serde_json::from_value(json!(amount)).unwrap();
        list.get_or_insert_default()
            .insert(name.to_owned(), quantity);
    };
    put(&mut status.capacity, "example.com/foo", "5");
    put(&mut status.capacity, "hugepages-1Gi", "3Gi");
    put(&mut status.allocatable, "example.com/gone", "1");
    let volumes = json!([{"name": "v", "devicePath": "/dev/x"}]);
    status.volumes_attached = serde_json::from_value(volumes).unwrap();
    let next = Scene::new().refresh(&base, 1).status.unwrap();
    let (capacity, allocatable) = (next.capacity.unwrap(), next.allocatable.unwrap());
    assert_eq!(capacity["example.com/foo"].0, "5");
    assert_eq!(allocatable["example.com/foo"].0, "5");
    assert!(!allocatable.contains_key("example.com/gone"));
    // A page size that this machine does not have (any more).
    assert!(!capacity.contains_key("hugepages-1Gi"));
    assert_eq!(next.volumes_attached.unwrap().len(), 1);
}

#[test]
fn platform_labels_are_put_back() {
    let scene = Scene::new();
    let mut base = scene.initial();
    let labels = base.metadata.labels.as_mut().unwrap();
    labels.insert("kubernetes.io/os".to_owned(), "plan9".to_owned());
    labels.remove("kubernetes.io/arch");
    labels.insert("mine".to_owned(), "1".to_owned());
    let next = scene.refresh(&base, 1);
    let labels = next.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/os"], "linux");
    assert_eq!(labels["kubernetes.io/arch"], "amd64");
    assert_eq!(labels["mine"], "1");
    assert!(has_changed(&base, &next));
}

#[test]
fn an_external_cloud_provider_is_told_the_address() {
    let mut scene = Scene::new();
    scene.settings.external_cloud_provider = true;
    scene.settings.ips = crate::node::NodeIps::One(scene.ips[0]);
    let node = scene.initial();
    let key = address::PROVIDED_IP_ANNOTATION;
    assert_eq!(node.metadata.annotations.as_ref().unwrap()[key], "10.0.0.5");
    scene.settings.external_cloud_provider = false;
    let node = scene.refresh(&node, 1);
    assert!(!node.metadata.annotations.unwrap().contains_key(key));
}

#[test]
fn images_are_cut_to_the_biggest() {
    let mut scene = Scene::new();
    scene.settings.max_images = Some(1);
    let told = scene.initial().status.unwrap().images.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].names.as_deref().unwrap(),
        ["big@sha256:1", "big:0", "big:1", "big:2", "big:3"]
    );
    scene.settings.max_images = None;
    scene.images.reverse();
    assert_eq!(scene.initial().status.unwrap().images.unwrap().len(), 2);
    scene.images.clear();
    assert_eq!(scene.initial().status.unwrap().images, None);
}

#[test]
fn a_silent_runtime_leaves_what_it_said_before() {
    let mut scene = Scene::new();
    let base = scene.initial();
    scene.health = RuntimeHealth::default();
    let (old, new) = (
        base.status.clone().unwrap(),
        scene.refresh(&base, 1).status.unwrap(),
    );
    assert_eq!(new.runtime_handlers, old.runtime_handlers);
    assert_eq!(new.features, old.features);
    assert_eq!(
        new.node_info.unwrap().container_runtime_version,
        "containerd://2.1.0"
    );
}

#[test]
fn no_address_found_keeps_the_known_ones() {
    let scene = Scene::new();
    let base = scene.initial();
    let observed = Observed {
        facts: &scene.facts,
        internal_ips: None,
        pressure: Pressure::default(),
        runtime: &scene.health,
        images: &[],
        extra: &[],
        now: at(1),
    };
    let next = refresh(&base, &[], &scene.settings, &observed);
    assert_eq!(
        next.status.unwrap().addresses,
        base.status.unwrap().addresses
    );
}

#[test]
fn when_to_report() {
    let mut scene = Scene::new();
    let base = scene.initial();
    let same = scene.refresh(&base, 1);
    scene.health.runtime = Some(ConditionFailure {
        reason: "R".to_owned(),
        message: "M".to_owned(),
    });
    let changed = scene.refresh(&base, 1);
    let period = Duration::from_secs(300);
    for (next, since_report, expected) in [
        (&same, None, true),
        (&same, Some(299), false),
        (&same, Some(300), true),
        (&changed, Some(1), true),
    ] {
        let since = since_report.map(Duration::from_secs);
        assert_eq!(needs_report(&base, next, since, period), expected);
    }
}

#[test]
fn periods_are_spread_after_changes() {
    let frequency = Duration::from_secs(300);
    for (cause, random, seconds) in [
        (ReportCause::Change, 0.0, 150),
        (ReportCause::Change, 0.5, 300),
        (ReportCause::Change, 1.0, 450),
        (ReportCause::Period, 0.9, 300),
    ] {
        let period = next_period(frequency, cause, random);
        assert_eq!(period, Duration::from_secs(seconds));
    }
}
