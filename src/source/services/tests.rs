//! From files' Services to calls, through the task.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::pod::{Origin, PodName, Termination, TerminationReason};

const DEADLINE: Duration = Duration::from_secs(60);

/// What a sink was told, one line a call.
#[derive(Clone, Default)]
struct Recorder(watch::Sender<Vec<String>>);

impl Recorder {
    fn note(&self, line: String) {
        self.0.send_modify(|lines| lines.push(line));
    }
}

impl ObjectSink<Service> for Recorder {
    fn apply(&mut self, object: &Service) {
        let spec = object.spec.as_ref().unwrap();
        let ip = spec.cluster_ip.as_deref().unwrap();
        self.note(format!(
            "+{} {ip}",
            object.metadata.name.as_deref().unwrap()
        ));
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        self.note(format!("-{namespace}/{name}"));
    }

    fn begin_list(&mut self) {
        self.note("(".into());
    }

    fn end_list(&mut self) {
        self.note(")".into());
    }
}

impl ObjectSink<EndpointSlice> for Recorder {
    fn apply(&mut self, object: &EndpointSlice) {
        let endpoints = object.endpoints.iter().flatten().map(|endpoint| {
            let ready = endpoint.conditions.as_ref().unwrap().ready.unwrap();
            format!("{}={ready}", endpoint.addresses[0])
        });
        let labels = object.metadata.labels.as_ref().unwrap();
        let service = &labels["kubernetes.io/service-name"];
        self.note(format!(
            "~{service} {}",
            Vec::from_iter(endpoints).join(" ")
        ));
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        let (service, _) = name.split_once("-ipv4-").unwrap();
        self.note(format!("-slice {namespace}/{service}"));
    }

    fn begin_list(&mut self) {}

    fn end_list(&mut self) {}
}

struct Node {
    manifests: watch::Sender<ManifestSnapshot>,
    desired: watch::Sender<DesiredPods>,
    statuses: watch::Sender<Statuses>,
    feed: ServiceFeed,
    told: watch::Receiver<Vec<String>>,
    seen: usize,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    fn start() -> Self {
        let (manifests, manifests_in) = watch::channel(ManifestSnapshot::default());
        let (desired, desired_in) = watch::channel(DesiredPods::default());
        let (statuses, statuses_in) = watch::channel(Statuses::default());
        let inputs = ServiceInputs {
            manifests: manifests_in,
            desired: desired_in,
            statuses: statuses_in,
            node_name: "n1".into(),
        };
        let recorder = Recorder::default();
        let told = recorder.0.subscribe();
        let (services, feed) = ManifestServices::new(inputs, Ranges::default());
        let services = services.with_proxy(Box::new(recorder.clone()), Box::new(recorder));
        let shutdown = CancellationToken::new();
        Self {
            manifests,
            desired,
            statuses,
            feed,
            told,
            seen: 0,
            task: tokio::spawn(services.run(shutdown.clone())),
            shutdown,
        }
    }

    fn write(&self, specs: &[(&str, Value)]) {
        let one = |(name, spec): &(&str, Value)| {
            let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
            let service = serde_json::from_value(object).unwrap();
            (ServiceName::new("default", *name), Arc::new(service))
        };
        let services = Arc::new(specs.iter().map(one).collect());
        self.manifests.send_modify(|snapshot| {
            snapshot.services = services;
            snapshot.synced = true;
        });
    }

    fn want(&self, uid: &str, intent: Intent) {
        let pod = json!({
            "metadata": {"namespace": "default", "name": "web-n1", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c"}]},
        });
        let pod = serde_json::from_value(pod).unwrap();
        let wanted = DesiredPod {
            uid: uid.into(),
            name: PodName::of(&pod),
            pod: Arc::new(pod),
            origin: Origin::Static { path: "/m".into() },
            intent,
        };
        self.desired.send_modify(|desired| {
            Arc::make_mut(&mut desired.pods).insert(uid.into(), Arc::new(wanted));
        });
    }

    fn report(&self, uid: &str, ip: &str, ready: &str) {
        let status = json!({
            "phase": "Running", "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": ready}],
        });
        let status = Arc::new(serde_json::from_value(status).unwrap());
        self.statuses.send_modify(|statuses| {
            Arc::make_mut(statuses).insert(uid.into(), status);
        });
    }

    /// Waits for these calls, and no others, after those seen before.
    async fn hears(&mut self, expected: &[&str]) {
        let count = self.seen + expected.len();
        let wait = self.told.wait_for(|lines| lines.len() >= count);
        let is_over = tokio::time::timeout(DEADLINE, wait).await.is_err();
        let lines = self.told.borrow().clone();
        assert_eq!(lines[self.seen..], *expected, "timed out: {is_over}");
        self.seen = count;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn web() -> Value {
    json!({"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"port": 80}]})
}

#[tokio::test(start_paused = true)]
async fn endpoints_follow_the_pods_of_the_folder() {
    let mut node = Node::start();
    node.want("u1", Intent::Run);
    node.report("u1", "10.1.0.1", "False");
    assert!(node.feed.borrow().is_none());
    node.write(&[("web", web())]);
    node.hears(&["(", "+web 10.96.0.9", ")", "~web 10.1.0.1=false"])
        .await;
    node.report("u1", "10.1.0.1", "True");
    node.hears(&["~web 10.1.0.1=true"]).await;
    // A pod that has no status yet has no address either.
    node.want("u2", Intent::Run);
    node.report("u2", "10.1.0.2", "True");
    node.hears(&["~web 10.1.0.1=true 10.1.0.2=true"]).await;
    let end = Termination {
        grace: None,
        reason: TerminationReason::Removed,
    };
    node.want("u1", Intent::Terminate(end));
    node.hears(&["~web 10.1.0.1=false 10.1.0.2=true"]).await;
    node.desired
        .send_modify(|desired| desired.pods = Arc::default());
    node.hears(&["-slice default/web"]).await;
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn services_come_change_and_go() {
    let mut node = Node::start();
    node.write(&[("web", web())]);
    node.hears(&["(", "+web 10.96.0.9", ")"]).await;
    let host = |node: &Node, name: &str| {
        let known = node.feed.borrow();
        let env: BTreeMap<_, _> = known
            .as_ref()
            .unwrap()
            .env("default", true)
            .into_iter()
            .collect();
        env.get(&format!("{name}_SERVICE_HOST")).cloned()
    };
    assert_eq!(host(&node, "WEB").as_deref(), Some("10.96.0.9"));
    let mut other = web();
    other["clusterIP"] = json!("10.96.0.10");
    node.write(&[("db", web()), ("web", other)]);
    node.hears(&["+db 10.96.0.9", "+web 10.96.0.10"]).await;
    assert_eq!(host(&node, "DB").as_deref(), Some("10.96.0.9"));
    // The same address twice: the first by name is served.
    node.write(&[("db", web()), ("web", web())]);
    node.hears(&["-default/web"]).await;
    assert_eq!(host(&node, "WEB"), None);
    node.stop().await;
}
