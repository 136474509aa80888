//! A node without a kernel: the fake runtime, volumes and cgroups in memory,
//! and a recorder of what workers report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, PodSpec, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{
    Admission, AdmissionDeps, COMMANDS, Manager, Metrics, PodsView, ProbeMetrics, Probing,
    StartTurns, WorkerDeps,
};
use crate::apiserver::{
    ApiError, Changes, EventRecorder, EventSink, Following, ObjectName, ObjectRefs,
};
use crate::cgroup::{CgroupError, PodCgroups};
use crate::pod::admission::{self, NodeView, Support};
use crate::pod::cgroup::{PodCgroup, QosShares};
use crate::pod::env::Services;
use crate::pod::inputs::{ContainerFiles, MountedVolumes};
use crate::pod::samples;
use crate::pod::sysctl::Allowlist;
use crate::pod::userns::IdMapping;
use crate::pod::{
    DesiredPod, DesiredPods, Intent, Origin, PodName, PodUid, SourcesReady, Termination,
    TerminationReason,
};
use crate::runtime::Observer;
use crate::runtime::fake::FakeRuntime;
use crate::status::{Ending, StatusHandle, StatusUpdate};
use crate::volume::{ContainerFilesRequest, EnvFileRequest, VolumeError, Volumes};

/// Far beyond any wait of a worker, on a clock that jumps.
const DEADLINE: Duration = Duration::from_secs(3600);

/// What outlives an agent process.
pub(super) struct World {
    pub(super) runtime: FakeRuntime,
    pub(super) disk: Arc<Disk>,
    events: Arc<EventLog>,
    desired: watch::Sender<DesiredPods>,
    /// The Node as the API server has it.
    pub(super) node: watch::Sender<Option<Arc<Node>>>,
    agent: Option<Agent>,
}

/// One agent process.
struct Agent {
    shutdown: CancellationToken,
    manager: JoinHandle<()>,
    recorder: JoinHandle<()>,
    told: watch::Receiver<BTreeMap<PodUid, StatusUpdate>>,
    views: PodsView,
}

impl World {
    pub(super) fn new() -> Self {
        let ready = SourcesReady {
            api: true,
            manifests: true,
        };
        let mut world = Self {
            runtime: FakeRuntime::new(),
            disk: Arc::default(),
            events: Arc::default(),
            desired: watch::Sender::new(DesiredPods {
                ready,
                ..DesiredPods::default()
            }),
            node: watch::Sender::new(Some(Arc::new(node("8", "a")))),
            agent: None,
        };
        world.start_agent();
        world
    }

    pub(super) fn start_agent(&mut self) {
        let status = StatusHandle::default();
        let runtime = self.runtime.clone();
        let (events, event_task) = EventRecorder::new("n1".into(), self.events.clone());
        let (commands, commanded) = mpsc::channel(COMMANDS);
        let admission = Admission::new(AdmissionDeps {
            node: self.node.subscribe(),
            fetch: None,
            own: NodeView::of(&node("8", "a")),
            settings: admission::Settings {
                sysctls: Allowlist::new("6.1", &[]),
                apparmor: Support::Absent,
                pod_level_resources: Support::Present,
            },
            found: runtime.pods(),
            health: runtime.health(),
            commands,
            metrics: Metrics::default(),
        });
        let deps = Arc::new(WorkerDeps {
            sandboxes: Arc::new(runtime.clone()),
            images: Arc::new(runtime.clone()),
            streaming: Arc::new(runtime.clone()),
            observer: Arc::new(runtime.clone()),
            volumes: self.disk.clone(),
            cgroups: self.disk.clone(),
            objects: Arc::new(NoObjects),
            services: watch::channel(Some(Services::default())).1,
            admission,
            status: status.clone(),
            events,
            metrics: Metrics::default(),
            start_turns: StartTurns::of_this_machine(),
            probing: Probing::new(
                ProbeMetrics::new(&mut Registry::default()),
                runtime.now(),
                "v1.36.3",
            ),
            node: Arc::new(samples::node()),
            resolver: Arc::new(|| None),
            etc_hosts: Arc::new(String::new),
            clock: Arc::new(move || runtime.now()),
        });
        let shutdown = CancellationToken::new();
        tokio::spawn(event_task.run(shutdown.clone()));
        let desired = self.desired.subscribe();
        let (manager, views) = Manager::new(deps, desired, commanded, shutdown.clone());
        let (tell, told) = watch::channel(BTreeMap::new());
        let recorder = tokio::spawn(async move {
            loop {
                let updates = status.take().await;
                tell.send_modify(|told: &mut BTreeMap<_, _>| told.extend(updates));
            }
        });
        self.agent = Some(Agent {
            shutdown,
            manager: tokio::spawn(manager.run()),
            recorder,
            told,
            views,
        });
    }

    /// SIGKILL: every future is dropped where it stands.
    pub(super) async fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.manager.abort();
            agent.recorder.abort();
            // Dropping the manager aborts its workers; wait until it is gone.
            drop(agent.manager.await);
        }
    }

    /// SIGTERM.
    pub(super) async fn stop_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.shutdown.cancel();
            agent.manager.await.expect("the manager ends well");
            agent.recorder.abort();
        }
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("a running agent")
    }

    // === wishes ===

    pub(super) fn want(&self, pod: DesiredPod) {
        self.desired.send_modify(|desired| {
            let mut pods = BTreeMap::clone(&desired.pods);
            pods.insert(pod.uid.clone(), Arc::new(pod));
            desired.pods = Arc::new(pods);
        });
    }

    /// All in one snapshot.
    pub(super) fn want_all(&self, wanted: &[DesiredPod]) {
        self.desired.send_modify(|desired| {
            let mut pods = BTreeMap::clone(&desired.pods);
            for pod in wanted {
                pods.insert(pod.uid.clone(), Arc::new(pod.clone()));
            }
            desired.pods = Arc::new(pods);
        });
    }

    pub(super) fn forget(&self, uid: &PodUid) {
        self.desired.send_modify(|desired| {
            let mut pods = BTreeMap::clone(&desired.pods);
            pods.remove(uid);
            desired.pods = Arc::new(pods);
        });
    }

    pub(super) fn set_ready(&self, ready: SourcesReady) {
        self.desired.send_modify(|desired| desired.ready = ready);
    }

    // === what comes of them ===

    pub(super) async fn wait_told(
        &self,
        uid: &PodUid,
        what: &str,
        good: impl Fn(&StatusUpdate) -> bool,
    ) -> StatusUpdate {
        let mut told = self.agent().told.clone();
        let found = tokio::time::timeout(
            DEADLINE,
            told.wait_for(|all| all.get(uid).is_some_and(&good)),
        )
        .await;
        match found {
            Ok(Ok(all)) => all[uid].clone(),
            _ => panic!(
                "never {what}: {:#?}, {:#?}",
                self.agent()
                    .told
                    .borrow()
                    .get(uid)
                    .map(|u| (&u.status.phase, u.ending)),
                self.runtime.calls()
            ),
        }
    }

    pub(super) async fn wait_phase(&self, uid: &PodUid, phase: &str) -> StatusUpdate {
        let is = |update: &StatusUpdate| update.status.phase.as_deref() == Some(phase);
        self.wait_told(uid, phase, is).await
    }

    pub(super) async fn wait_gone(&self, uid: &PodUid) {
        self.wait_told(uid, "gone", |update| update.ending == Ending::Gone)
            .await;
    }

    /// Waits until the runtime is as the test wants it.
    pub(super) async fn wait_runtime(&self, what: &str, good: impl Fn(&FakeRuntime) -> bool) {
        let poll = async {
            while !good(&self.runtime) {
                // On the paused clock this is a step of virtual time.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, poll).await.is_err() {
            panic!("never {what}: {:#?}", self.runtime.calls());
        }
    }

    /// Waits for an event of `reason`; its message.
    pub(super) async fn wait_event(&self, reason: &str) -> String {
        let mut events = self.events.0.subscribe();
        let found = events.wait_for(|all| all.iter().any(|(r, _)| r == reason));
        let Ok(Ok(all)) = tokio::time::timeout(DEADLINE, found).await else {
            panic!("no event {reason}");
        };
        let found = all.iter().find(|(r, _)| r == reason);
        found
            .map(|(_, message)| message.clone())
            .unwrap_or_default()
    }

    /// Messages of all events of `reason` so far, in order.
    pub(super) fn events(&self, reason: &str) -> Vec<String> {
        let all = self.events.0.borrow();
        let found = all.iter().filter(|(r, _)| r == reason);
        found.map(|(_, message)| message.clone()).collect()
    }

    pub(super) async fn wait_forgotten(&self, uid: &PodUid) {
        let mut views = self.agent().views.clone();
        tokio::time::timeout(DEADLINE, views.wait_for(|all| !all.contains_key(uid)))
            .await
            .expect("the worker is forgotten")
            .expect("the manager runs");
    }
}

/// A node with so many CPUs in that zone.
pub(in crate::worker) fn node(cpus: &str, zone: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {"zone": zone}},
        "status": {"allocatable": {"cpu": cpus, "memory": "8Gi", "pods": "110"}},
    }))
    .expect("a node")
}

/// A pod of busy containers; `p-<uid>` in namespace `ns`.
pub(in crate::worker) fn pod(uid: &str, containers: &[&str]) -> DesiredPod {
    pod_with_policy(uid, "Always", containers)
}

pub(super) fn pod_with_policy(uid: &str, policy: &str, containers: &[&str]) -> DesiredPod {
    let name = format!("p-{uid}");
    let containers: Vec<_> = containers
        .iter()
        .map(|name| json!({"name": name, "image": "img", "imagePullPolicy": "IfNotPresent"}))
        .collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": uid},
        "spec": {
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": 30,
            "enableServiceLinks": true,
            "containers": containers,
        }
    }))
    .expect("a pod");
    DesiredPod {
        uid: PodUid::from(uid),
        name: PodName::new("ns", name),
        pod: Arc::new(pod),
        origin: Origin::Api,
        intent: Intent::Run,
    }
}

/// The same pod with another spec.
pub(super) fn edited(pod: &DesiredPod, edit: impl FnOnce(&mut PodSpec)) -> DesiredPod {
    let mut object = Pod::clone(&pod.pod);
    edit(object.spec.as_mut().expect("a spec"));
    DesiredPod {
        pod: Arc::new(object),
        ..pod.clone()
    }
}

pub(super) fn deleted(pod: &DesiredPod, grace: u64) -> DesiredPod {
    DesiredPod {
        intent: Intent::Terminate(Termination {
            grace: Some(Duration::from_secs(grace)),
            reason: TerminationReason::Deleted,
        }),
        ..pod.clone()
    }
}

/// Volumes and cgroups that exist.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) volumes: Mutex<BTreeSet<PodUid>>,
    pub(super) cgroups: Mutex<BTreeSet<PodUid>>,
    /// Of what all volumes show.
    pub(super) changes: Changes,
    /// How many `ensure` calls were good.
    pub(super) ensures: AtomicUsize,
    /// How many of the next `ensure` calls fail.
    pub(super) failing_ensures: AtomicUsize,
    /// How many of the next `ensure` calls panic.
    pub(super) panicking_ensures: AtomicUsize,
}

impl Disk {
    pub(super) fn is_empty(&self) -> bool {
        self.volumes.lock().expect("lock").is_empty()
            && self.cgroups.lock().expect("lock").is_empty()
    }
}

fn take_one(counter: &AtomicUsize) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

#[async_trait]
impl Volumes for Disk {
    async fn ensure(&self, pod: &DesiredPod) -> Result<MountedVolumes, VolumeError> {
        assert!(!take_one(&self.panicking_ensures), "scripted panic");
        if take_one(&self.failing_ensures) {
            return Err(VolumeError::PodDirectories(std::io::Error::other("full")));
        }
        self.volumes.lock().expect("lock").insert(pod.uid.clone());
        self.ensures.fetch_add(1, Ordering::SeqCst);
        Ok(MountedVolumes {
            changes: self.changes.count(),
            ..MountedVolumes::default()
        })
    }

    fn changes(&self, _uid: &PodUid) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn container_files(
        &self,
        _request: &ContainerFilesRequest,
    ) -> Result<ContainerFiles, VolumeError> {
        Ok(ContainerFiles::default())
    }

    async fn id_mapping(&self, _uid: &PodUid) -> Result<IdMapping, VolumeError> {
        Ok(IdMapping {
            host_id: 65_536,
            container_id: 0,
            length: 65_536,
        })
    }

    async fn env_file(&self, _request: &EnvFileRequest) -> Result<Option<Vec<u8>>, VolumeError> {
        Ok(None)
    }

    async fn tear_down(&self, uid: &PodUid) -> Result<(), VolumeError> {
        self.volumes.lock().expect("lock").remove(uid);
        Ok(())
    }

    async fn remove_pod_directory(&self, _uid: &PodUid) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, VolumeError> {
        Ok(self.volumes.lock().expect("lock").iter().cloned().collect())
    }
}

#[async_trait]
impl PodCgroups for Disk {
    async fn ensure(&self, cgroup: &PodCgroup) -> Result<(), CgroupError> {
        self.cgroups
            .lock()
            .expect("lock")
            .insert(cgroup.uid.clone());
        Ok(())
    }

    async fn memory_in_use(&self, _cgroup: &PodCgroup) -> Result<u64, CgroupError> {
        Ok(0)
    }

    async fn remove(&self, uid: &PodUid) -> Result<(), CgroupError> {
        self.cgroups.lock().expect("lock").remove(uid);
        Ok(())
    }

    async fn set_qos_shares(&self, _shares: QosShares) -> Result<(), CgroupError> {
        Ok(())
    }

    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, CgroupError> {
        Ok(self.cgroups.lock().expect("lock").iter().cloned().collect())
    }
}

/// Reasons and messages of the events that were sent.
#[derive(Default)]
struct EventLog(watch::Sender<Vec<(String, String)>>);

#[async_trait]
impl EventSink for EventLog {
    async fn create(&self, event: &Event) -> Result<Event, ApiError> {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let line = (part(&event.reason), part(&event.message));
        self.0.send_modify(|all| all.push(line));
        Ok(event.clone())
    }

    async fn patch(&self, _: &str, _: &str, _: &serde_json::Value) -> Result<Event, ApiError> {
        Ok(Event::default())
    }
}

/// No ConfigMaps, no Secrets, and one RuntimeClass.
struct NoObjects;

#[async_trait]
impl ObjectRefs for NoObjects {
    async fn config_map(&self, _: &str, _: &str) -> Result<Option<ConfigMap>, ApiError> {
        Ok(None)
    }

    async fn secret(&self, _: &str, _: &str) -> Result<Option<Secret>, ApiError> {
        Ok(None)
    }

    async fn runtime_class(&self, name: &str) -> Result<Option<RuntimeClass>, ApiError> {
        Ok((name == "sandboxed").then(|| RuntimeClass {
            handler: "runsc".into(),
            ..RuntimeClass::default()
        }))
    }

    fn follow(&self, _: &ObjectName, _: &Changes) -> Following {
        Following::empty()
    }
}
