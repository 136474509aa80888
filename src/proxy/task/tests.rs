//! The loop with tables in memory: when it writes, what it survives, when it rests.

mod telling;

use std::collections::VecDeque;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::apiserver::ObjectSink;
use crate::pod::{SourcesReady, samples};
use crate::proxy::apply::IptablesError;
use crate::proxy::apply::fake::FakeIptables;
use crate::proxy::apply::watch::{Chains, channel};
use crate::proxy::conntrack::fake::FakeConntrack;
use crate::proxy::index::NodeLocal;
use crate::proxy::model::{ChainId, Family, Found, Jump, RestoreScript, Table};
use crate::proxy::pace::PaceLimits;
use crate::proxy::rules::{Backend, RuleSet};
use crate::proxy::settings::{LocalTraffic, NodePortChoice};

/// For what must come; the clock is paused, so it costs nothing.
const DEADLINE: Duration = Duration::from_secs(100);

struct World {
    iptables: Arc<FakeIptables>,
    services: Box<dyn ObjectSink<Service>>,
    slices: Box<dyn ObjectSink<EndpointSlice>>,
    disturb: Box<dyn Fn(Disturbance) + Send>,
    pods: watch::Sender<DesiredPods>,
    health: ProxyHealth,
    verdict: watch::Receiver<Option<Verdict>>,
    checks: watch::Receiver<Arc<WantedChecks>>,
    events: Arc<Mutex<VecDeque<ProxyEvent>>>,
    metrics: Registry,
    shutdown: CancellationToken,
    written: VecDeque<RestoreScript>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn settings() -> ProxySettings {
    ProxySettings {
        bind_address: None,
        masquerade_bit: 14,
        masquerade_all: false,
        localhost_node_ports: true,
        local: LocalTraffic::NodeCidrs,
        node_ports: NodePortChoice::All,
        pace: PaceLimits {
            longest: Duration::from_secs(1),
            longest_retry: Duration::from_secs(30),
        },
    }
}

fn pods_known(pods: &[crate::pod::DesiredPod]) -> DesiredPods {
    DesiredPods {
        pods: Arc::new(
            pods.iter()
                .map(|pod| (pod.uid.clone(), Arc::new(pod.clone())))
                .collect(),
        ),
        ready: SourcesReady {
            api: true,
            manifests: true,
        },
        ..DesiredPods::default()
    }
}

impl World {
    fn new(mode: Mode) -> Self {
        Self::with_node(mode, None)
    }

    fn with_node(mode: Mode, node: Option<NodeFeed>) -> Self {
        let inbox = Inbox::new(NodeLocal {
            name: "n1".into(),
            zone: None,
        });
        let iptables = Arc::new(FakeIptables::default());
        let (pods_out, pods) = watch::channel(DesiredPods::default());
        let (verdict_out, verdict) = watch::channel(None);
        let (checks_out, checks) = watch::channel(Arc::default());
        let health = ProxyHealth::new(Duration::from_secs(60));
        let events = Arc::<Mutex<VecDeque<ProxyEvent>>>::default();
        let (disturb, disturbances) = channel();
        let disturbances = Mutex::new(Some(disturbances));
        let mut registry = Registry::default();
        let task = ProxyTask::new(ProxyDeps {
            settings: settings(),
            families: vec![FamilyFacts {
                family: Family::V4,
                random_fully: true,
                backend: Backend::NfTables,
                tcp_liberal: false,
            }],
            mode,
            inbox: inbox.clone(),
            node,
            pods: Some(pods),
            iptables: Arc::clone(&iptables) as Arc<dyn Iptables>,
            conntrack: Arc::new(FakeConntrack::default()),
            lookout: Box::new(move || {
                let disturbances = disturbances.lock().unwrap().take();
                let looking: Looking = Box::pin(std::future::pending());
                Ok((looking, disturbances.expect("looked out for once")))
            }),
            prepare: Box::new(|| {}),
            addresses: Arc::new(BTreeSet::new),
            health: health.clone(),
            metrics: Metrics::new(&mut registry),
            events: {
                let events = Arc::clone(&events);
                Arc::new(move |event| events.lock().unwrap().push_back(event))
            },
            checks: checks_out,
            verdict: verdict_out,
        });
        let shutdown = CancellationToken::new();
        tokio::spawn(task.run(shutdown.clone()));
        Self {
            iptables,
            services: inbox.services(),
            slices: inbox.slices(),
            disturb: Box::new(disturb),
            pods: pods_out,
            health,
            verdict,
            checks,
            events,
            metrics: registry,
            shutdown,
            written: VecDeque::new(),
        }
    }

    /// One that has written its first rules.
    async fn at_work() -> Self {
        let mut world = Self::new(Mode::Auto);
        world.pods.send_replace(pods_known(&[]));
        world.list(
            &[service("a", "10.96.0.1", json!({}))],
            &[slice("a", &["10.1.0.1"])],
        );
        let first = world.next_script().await;
        assert!(first.text.contains("-d 10.96.0.1 "), "{}", first.text);
        world
    }

    fn list(&mut self, services: &[Service], slices: &[EndpointSlice]) {
        self.services.begin_list();
        services.iter().for_each(|one| self.services.apply(one));
        self.services.end_list();
        self.slices.begin_list();
        slices.iter().for_each(|one| self.slices.apply(one));
        self.slices.end_list();
    }

    async fn next_script(&mut self) -> RestoreScript {
        let came = async {
            loop {
                let restored = self.iptables.take_restored();
                self.written
                    .extend(restored.into_iter().map(|(_, script)| script));
                if let Some(script) = self.written.pop_front() {
                    return script;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, came)
            .await
            .expect("rules are written")
    }

    /// Nothing is written for a long time.
    async fn is_quiet(&mut self) {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let restored = self.iptables.take_restored();
        assert!(restored.is_empty(), "{restored:?}");
    }

    fn events(&self) -> Vec<(&'static str, String)> {
        let mut events = self.events.lock().unwrap();
        events
            .drain(..)
            .map(|event| (event.reason, event.message))
            .collect()
    }
}

fn service(name: &str, ip: &str, spec: Value) -> Service {
    let mut service = json!({
        "metadata": {"namespace": "ns", "name": name},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    serde_json::from_value(service).unwrap()
}

fn slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "nodeName": "n1", "conditions": {"ready": true}}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "ns", "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn failure() -> IptablesError {
    IptablesError::Busy {
        complaint: "xtables lock".to_owned(),
    }
}

fn refused(line: &str) -> IptablesError {
    IptablesError::Refused {
        program: "iptables-restore".into(),
        number: 1,
        line: line.to_owned(),
        complaint: "no such protocol".to_owned(),
    }
}

fn disturbance(chain: &str, writer: Option<&str>) -> Disturbance {
    Disturbance {
        family: Family::V4,
        chains: Chains::Named([ChainId::new(Table::Nat, chain)].into()),
        by: writer.map(str::to_owned),
        pid: None,
        writer: writer.map(str::to_owned),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_both_kinds_are_listed_and_pods_are_known() {
    let mut world = World::new(Mode::Auto);
    world.services.begin_list();
    world.services.end_list();
    world.is_quiet().await;
    world.slices.begin_list();
    world.slices.end_list();
    world.is_quiet().await;
    assert_eq!(*world.verdict.borrow(), None);
    world.pods.send_replace(pods_known(&[]));
    world.next_script().await;
    assert_eq!(*world.verdict.borrow(), Some(Verdict::Alone));
}

#[tokio::test(start_paused = true)]
async fn a_change_writes_what_it_changes_and_a_repetition_nothing() {
    let mut world = World::at_work().await;
    world.slices.apply(&slice("a", &["10.1.0.2"]));
    let script = world.next_script().await;
    assert!(script.text.contains("10.1.0.2:8080"), "{}", script.text);
    assert!(!script.text.contains("KUBE-POSTROUTING"), "{}", script.text);
    world.slices.apply(&slice("a", &["10.1.0.2"]));
    world.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_relist_takes_away_what_it_does_not_name() {
    let mut world = World::at_work().await;
    let kept = service("b", "10.96.0.2", json!({}));
    world.list(&[kept], &[slice("b", &["10.1.0.9"])]);
    let script = world.next_script().await;
    assert!(script.text.contains("-d 10.96.0.2 "), "{}", script.text);
    assert!(!script.text.contains("-d 10.96.0.1 "), "{}", script.text);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_everything_is_written_and_nothing_is_lost() {
    let mut world = World::at_work().await;
    world.iptables.fail_next(failure());
    world.iptables.fail_next(failure());
    world.slices.apply(&slice("a", &["10.1.0.3"]));
    let script = world.next_script().await;
    assert!(script.text.contains("10.1.0.3:8080"), "{}", script.text);
    assert!(script.text.contains("KUBE-POSTROUTING"), "{}", script.text);
    assert!(world.health.is_healthy());
    world.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn failures_that_last_are_unhealthy() {
    let mut world = World::at_work().await;
    for _ in 0..50 {
        world.iptables.fail_next(failure());
    }
    world.slices.apply(&slice("a", &["10.1.0.3"]));
    world.is_quiet().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!world.health.is_healthy());
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_put_right() {
    let mut world = World::at_work().await;
    (world.disturb)(disturbance("KUBE-SERVICES", None));
    let script = world.next_script().await;
    assert!(script.text.contains(":KUBE-SERVICES"), "{}", script.text);
    assert!(!script.text.contains("KUBE-POSTROUTING"), "{}", script.text);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_changed_is_looked_at_first() {
    let mut world = World::at_work().await;
    let doubt = || Disturbance {
        chains: Chains::All,
        ..disturbance("KUBE-SERVICES", None)
    };
    // Our rules, by their numbers and jumps.
    let mut whole = Found::default();
    whole.rules.insert(Table::Filter, 3 + 1);
    whole.rules.insert(Table::Nat, 5 + 4);
    whole.jumps = RuleSet::jumps()
        .iter()
        .map(|jump| Jump {
            table: jump.table,
            from: jump.from.into(),
            to: jump.to.as_str().into(),
        })
        .collect();
    world.iptables.set_found(Family::V4, whole.clone());
    (world.disturb)(doubt());
    world.is_quiet().await;
    whole.rules.insert(Table::Nat, 1);
    world.iptables.set_found(Family::V4, whole);
    (world.disturb)(doubt());
    let script = world.next_script().await;
    assert!(script.text.contains("KUBE-POSTROUTING"), "{}", script.text);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_the_kernel_refuses_goes_without_rules_and_others_go_on() {
    let mut world = World::at_work().await;
    world.services.apply(&service("b", "10.96.0.2", json!({})));
    world.slices.apply(&slice("b", &["10.1.0.9"]));
    let mut chain = String::new();
    while chain.is_empty() {
        let text = world.next_script().await.text;
        let line = text.lines().find(|line| line.contains("-d 10.96.0.2 "));
        chain = line
            .and_then(|line| line.split(' ').next_back())
            .unwrap_or_default()
            .to_owned();
    }
    world.events();
    world
        .iptables
        .fail_next(refused(&format!("-A {chain} -m recent")));
    // The second try looks at what is there before it writes.
    world.slices.apply(&slice("a", &["10.1.0.3"]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    world
        .iptables
        .fail_next(refused(&format!("-A {chain} -m recent")));
    let script = world.next_script().await;
    assert!(script.text.contains("10.1.0.3:8080"), "{}", script.text);
    assert!(!script.text.contains("10.96.0.2"), "{}", script.text);
    let events = world.events();
    assert!(
        events.iter().any(|(reason, message)| {
            *reason == "ServiceNotFullyServed" && message.contains("no such protocol")
        }),
        "{events:?}"
    );
    world.slices.apply(&slice("b", &["10.1.0.10"]));
    let script = world.next_script().await;
    assert!(script.text.contains("10.1.0.10:8080"), "{}", script.text);
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_put_right_however_often() {
    let mut world = World::at_work().await;
    for _ in 0..20 {
        (world.disturb)(disturbance("KUBE-SERVICES", None));
        world.next_script().await;
    }
    assert_eq!(*world.verdict.borrow(), Some(Verdict::Alone));
}

#[tokio::test(start_paused = true)]
async fn it_stands_aside_for_a_kube_proxy_and_takes_over_with_everything() {
    let mut world = World::at_work().await;
    let mut other = samples::with_spec(json!({"containers": []}));
    let pod = Arc::make_mut(&mut other.pod);
    pod.metadata.namespace = Some("kube-system".into());
    pod.metadata.labels = Some([("k8s-app".into(), "kube-proxy".into())].into());
    world.events();
    world.pods.send_replace(pods_known(&[other]));
    world
        .verdict
        .wait_for(|verdict| matches!(verdict, Some(Verdict::KubeProxyPod { .. })))
        .await
        .unwrap();
    world.slices.apply(&slice("a", &["10.1.0.4"]));
    world.is_quiet().await;
    assert!(world.health.is_healthy());
    world.pods.send_replace(pods_known(&[]));
    let script = world.next_script().await;
    assert!(script.text.contains("10.1.0.4:8080"), "{}", script.text);
    assert!(script.text.contains("KUBE-POSTROUTING"), "{}", script.text);
    let reasons: Vec<_> = world
        .events()
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    assert_eq!(
        reasons,
        [
            "ServiceProxyStandsAside",
            "ServiceProxyTakesOver",
            "Starting"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn it_does_not_fight_with_who_writes_again_and_again() {
    let mut world = World::at_work().await;
    for _ in 0..3 {
        (world.disturb)(disturbance("KUBE-SERVICES", Some("iptables-nft-re")));
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let verdict = world.verdict.borrow().clone();
    assert!(
        matches!(verdict, Some(Verdict::RewrittenByAnother { .. })),
        "{verdict:?}"
    );
    drop(world.iptables.take_restored());
    (world.disturb)(disturbance("KUBE-SERVICES", Some("iptables-nft-re")));
    world.is_quiet().await;
    // A change that the other follows, and one that it does not.
    world.slices.apply(&slice("a", &["10.1.0.6"]));
    (world.disturb)(disturbance("KUBE-SERVICES", Some("iptables-nft-re")));
    world.is_quiet().await;
    world.slices.apply(&slice("a", &["10.1.0.7"]));
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(world.iptables.take_restored().is_empty());
    let script = world.next_script().await;
    assert!(script.text.contains("10.1.0.7:8080"), "{}", script.text);
    assert!(script.text.contains("KUBE-POSTROUTING"), "{}", script.text);
    assert_eq!(*world.verdict.borrow(), Some(Verdict::Alone));
}

#[tokio::test(start_paused = true)]
async fn a_bad_service_is_told_of_and_harms_no_other() {
    let mut world = World::at_work().await;
    world.events();
    let young = service("b", "10.96.0.1", json!({}));
    world.services.apply(&young);
    let good = service("c", "10.96.0.3", json!({}));
    world.services.apply(&good);
    world.slices.apply(&slice("c", &["10.1.0.5"]));
    let mut text = String::new();
    while !text.contains("-d 10.96.0.3 ") || !text.contains("10.1.0.5:8080") {
        text += &world.next_script().await.text;
    }
    let events = world.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].0, "ServiceNotFullyServed");
    assert!(events[0].1.contains("ns/a"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn health_checks_follow_the_local_endpoints() {
    let mut world = World::at_work().await;
    let balanced = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}],
    });
    world.services.apply(&service("b", "10.96.0.2", balanced));
    world.slices.apply(&slice("b", &["10.1.0.6", "10.1.0.7"]));
    let has_two = |wanted: &Arc<WantedChecks>| {
        wanted
            .checks
            .values()
            .any(|check| check.port.get() == 31000 && check.local == 2)
    };
    tokio::time::timeout(DEADLINE, world.checks.wait_for(has_two))
        .await
        .expect("in time")
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_come_is_not_waited_for_for_ever() {
    let (_silent, node) = watch::channel(None);
    let mut world = World::with_node(Mode::On, Some(node));
    world.pods.send_replace(pods_known(&[]));
    world.list(&[], &[]);
    tokio::time::sleep(NODE_PATIENCE / 2).await;
    assert_eq!(world.iptables.take_restored(), []);
    world.next_script().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_node_says_of_pods_decides_what_is_masqueraded() {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.1.0.0/24"]},
    }))
    .unwrap();
    let (said, node_feed) = watch::channel(Some(Arc::new(node.clone())));
    let mut world = World::with_node(Mode::On, Some(node_feed));
    world.pods.send_replace(pods_known(&[]));
    let services = [service("a", "10.96.0.1", json!({}))];
    world.list(&services, &[slice("a", &["10.1.0.1"])]);
    let script = world.next_script().await;
    assert!(script.text.contains("! -s 10.1.0.0/24"), "{}", script.text);
    let mut moved = node;
    moved.spec.get_or_insert_default().pod_cidrs = Some(vec!["10.9.0.0/24".into()]);
    said.send_replace(Some(Arc::new(moved)));
    let script = world.next_script().await;
    assert!(script.text.contains("! -s 10.9.0.0/24"), "{}", script.text);
}
