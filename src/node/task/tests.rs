//! The loop against an API server in memory, with a paused clock.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::node::resources::ResourceList;
use crate::runtime::ConditionFailure;

// === fakes ===

/// What the API server has, and what was asked of it.
#[derive(Default)]
struct FakeApi {
    state: Mutex<State>,
    reflected: watch::Sender<Option<Arc<Node>>>,
}

#[derive(Default)]
struct State {
    node: Option<Value>,
    version: u64,
    away: bool,
    /// Answers of the next patches, in place of success.
    failures: VecDeque<u16>,
    creates: usize,
    gets: usize,
    patches: Vec<Value>,
}

fn refused(code: u16) -> ApiError {
    ApiError::Refused {
        call: "fake",
        code,
        reason: String::new(),
        message: String::new(),
        retry_after: None,
    }
}

impl FakeApi {
    fn with_node(node: Value) -> Arc<Self> {
        let api = Self::default();
        api.state.lock().unwrap().node = Some(node);
        Arc::new(api)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        if let Some(node) = state.answer() {
            self.reflected.send_replace(Some(Arc::new(node)));
        }
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    /// A field of the condition Ready.
    fn of_ready(&self, field: &str) -> Option<String> {
        self.of_condition("Ready", field)
    }

    fn of_condition(&self, kind: &str, field: &str) -> Option<String> {
        self.look(|state| {
            let conditions = state.node.as_ref()?["status"]["conditions"].as_array()?;
            let found = conditions.iter().find(|c| c["type"] == kind)?;
            Some(found[field].as_str()?.to_owned())
        })
    }

    fn ready(&self) -> Option<String> {
        self.of_ready("status")
    }

    fn call(&self) -> Result<std::sync::MutexGuard<'_, State>, ApiError> {
        let state = self.state.lock().unwrap();
        if state.away {
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
            let call = "fake";
            return Err(ApiError::Unreachable { call, source });
        }
        Ok(state)
    }
}

impl State {
    fn answer(&mut self) -> Option<Node> {
        self.version += 1;
        let version = self.version.to_string();
        let node = self.node.as_mut()?;
        node["metadata"]["resourceVersion"] = version.into();
        serde_json::from_value(node.clone()).unwrap()
    }
}

/// As much of a strategic merge as a Node's status needs.
fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in patch {
        match (key.as_str(), change) {
            (_, Value::Null) => {
                target.as_object_mut().unwrap().remove(key);
            }
            ("addresses", Value::Array(list)) => {
                assert_eq!(list.last().unwrap(), &json!({"$patch": "replace"}));
                target[key] = list[..list.len() - 1].into();
            }
            ("conditions", Value::Array(list)) => {
                let mut merged = target[key].as_array().cloned().unwrap_or_default();
                for condition in list {
                    if condition["$patch"] == "delete" {
                        merged.retain(|known| known["type"] != condition["type"]);
                        continue;
                    }
                    let same = |known: &&mut Value| known["type"] == condition["type"];
                    match merged.iter_mut().find(same) {
                        Some(known) => apply(known, condition),
                        None => merged.push(condition.clone()),
                    }
                }
                target[key] = merged.into();
            }
            (_, change) => apply(&mut target[key], change),
        }
    }
}

#[async_trait]
impl NodePort for FakeApi {
    async fn create(&self, node: &Node) -> Result<Node, ApiError> {
        let mut state = self.call()?;
        state.creates += 1;
        if state.node.is_some() {
            return Err(refused(409));
        }
        let mut value = serde_json::to_value(node).unwrap();
        value["metadata"]["uid"] = "uid-1".into();
        state.node = Some(value);
        let answer = state.answer().unwrap();
        self.reflected.send_replace(Some(Arc::new(answer.clone())));
        Ok(answer)
    }

    async fn get(&self) -> Result<Node, ApiError> {
        let mut state = self.call()?;
        state.gets += 1;
        state.answer().ok_or_else(|| refused(404))
    }

    async fn patch(&self, _: &Value) -> Result<Node, ApiError> {
        Err(refused(405))
    }

    async fn patch_status(&self, patch: &Value) -> Result<Node, ApiError> {
        let mut state = self.call()?;
        if let Some(code) = state.failures.pop_front() {
            return Err(refused(code));
        }
        state.patches.push(patch.clone());
        let Some(node) = &mut state.node else {
            return Err(refused(404));
        };
        apply(node, patch);
        let answer = state.answer().unwrap();
        self.reflected.send_replace(Some(Arc::new(answer.clone())));
        Ok(answer)
    }
}

/// A machine whose clock is the paused one.
struct FakeMachine {
    started: Instant,
}

#[async_trait]
impl Probe for FakeMachine {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        start + self.started.elapsed()
    }

    fn readings(&self) -> Result<Readings, FactsError> {
        Ok(Readings {
            memory_available: 1 << 32,
            nodefs_available: 1 << 36,
            nodefs_inodes_free: 900_000,
            pids_available: 30_000,
        })
    }

    async fn internal_ips(&self, _: &[IpAddr]) -> Result<Vec<IpAddr>, AddressError> {
        Ok(vec!["10.0.0.5".parse().unwrap()])
    }
}

// === the world around a loop ===

struct World {
    machine: Arc<FakeMachine>,
    api: Arc<FakeApi>,
    health: watch::Sender<RuntimeHealth>,
    extra: watch::Sender<Vec<ExtraCondition>>,
    events: Arc<Mutex<Vec<&'static str>>>,
    registered: watch::Receiver<Option<NodeUid>>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn start(api: &Arc<FakeApi>, health: RuntimeHealth) -> Self {
        Self::start_with(api, health, NodeSettings::for_test())
    }

    fn start_with(api: &Arc<FakeApi>, health: RuntimeHealth, settings: NodeSettings) -> Self {
        let (health, health_watch) = watch::channel(health);
        let (extra, extra_watch) = watch::channel(Vec::new());
        let machine = Arc::new(FakeMachine {
            started: Instant::now(),
        });
        let events = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&events);
        let (task, registered) = NodeTask::new(NodeDeps {
            settings: Arc::new(settings),
            facts: MachineFacts::for_test(),
            extended: ExtendedResources::Zero,
            port: Arc::clone(api) as Arc<dyn NodePort>,
            probe: Arc::clone(&machine) as Arc<dyn Probe>,
            health: health_watch,
            images: watch::channel(Arc::new(Vec::new())).1,
            extra: extra_watch,
            node: api.reflected.subscribe(),
            events: Arc::new(move |event| recorded.lock().unwrap().push(event.reason)),
        });
        let shutdown = CancellationToken::new();
        Self {
            machine,
            api: Arc::clone(api),
            health,
            extra,
            events,
            registered,
            task: tokio::spawn(task.run(shutdown.clone())),
            shutdown,
        }
    }

    fn events(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn patches(&self) -> usize {
        self.api.look(|state| state.patches.len())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn good() -> RuntimeHealth {
    RuntimeHealth {
        checked: true,
        last_good: Some(Timestamp::now()),
        name: "containerd".to_owned(),
        version: "2.1.0".to_owned(),
        ..RuntimeHealth::default()
    }
}

fn bad() -> RuntimeHealth {
    RuntimeHealth {
        runtime: Some(ConditionFailure {
            reason: crate::runtime::RUNTIME_DOWN.to_owned(),
            message: "container runtime is down".to_owned(),
        }),
        ..good()
    }
}

/// Waits, by the paused clock, until the condition holds; returns how long.
async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

const SOON: Duration = Duration::from_secs(1);

/// Between two tries, and a moment for the try itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(13);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn old_node(ready: &str) -> Value {
    json!({
        "metadata": {"name": "node-1", "uid": "uid-0", "labels": {}},
        "status": {
            "conditions": [{"type": "Ready", "status": ready,
                "lastTransitionTime": "2020-01-01T00:00:00Z"}],
            "nodeInfo": {"bootID": "b0"},
        },
    })
}

// === tests ===

#[tokio::test(start_paused = true)]
async fn a_new_node_is_created_ready_once_the_runtime_was_asked() {
    let api = Arc::new(FakeApi::default());
    let world = World::start(&api, RuntimeHealth::default());
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(api.look(|state| state.creates), 0);
    assert_eq!(world.events(), ["Starting"]);

    world.health.send_replace(good());
    until("ready", SOON, || api.ready().as_deref() == Some("True")).await;
    assert_eq!(
        *world.registered.borrow(),
        Some(NodeUid("uid-1".to_owned()))
    );
    let expected = [
        "NodeHasSufficientMemory",
        "NodeHasNoDiskPressure",
        "NodeHasSufficientPID",
        "NodeReady",
    ];
    assert_eq!(world.events(), expected);
    // All was said with the creation.
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(world.patches(), 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_existing_node_is_put_right_and_told_of_the_reboot() {
    let api = FakeApi::with_node(old_node("True"));
    let world = World::start(&api, good());
    until("reported", SOON, || world.patches() == 2).await;
    api.look(|state| {
        let first = &state.patches[0]["metadata"];
        assert_eq!(first["labels"]["kubernetes.io/hostname"], "node-1");
        let node = state.node.as_ref().unwrap();
        assert_eq!(node["status"]["nodeInfo"]["bootID"], "b1");
    });
    let since = api.of_ready("lastTransitionTime");
    assert_eq!(since.as_deref(), Some("2020-01-01T00:00:00Z"));
    assert_eq!(
        *world.registered.borrow(),
        Some(NodeUid("uid-0".to_owned()))
    );
    let events = world.events();
    assert_eq!(events[..2], ["Starting", "Rebooted"]);
    assert!(!events.contains(&"NodeReady"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_during_a_runtime_outage_does_not_flap() {
    let api = FakeApi::with_node(old_node("True"));
    let world = World::start(&api, bad());
    tokio::time::sleep(seconds(29)).await;
    assert_eq!(api.ready().as_deref(), Some("True"));
    let late = until("told", seconds(10), || {
        api.ready().as_deref() == Some("False")
    })
    .await;
    assert!(late <= seconds(2));
    // And once the runtime is back, that is told at once.
    world.health.send_replace(good());
    until("ready", SOON, || api.ready().as_deref() == Some("True")).await;
    assert!(world.events().ends_with(&["NodeNotReady", "NodeReady"]));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_api_server_may_be_away_for_hours() {
    let api = Arc::new(FakeApi::default());
    api.change(|state| state.away = true);
    let world = World::start(&api, good());
    tokio::time::sleep(seconds(3 * 3600)).await;
    assert_eq!(*world.registered.borrow(), None);
    api.change(|state| state.away = false);
    until("registered", LONGEST_PAUSE, || {
        world.registered.borrow().is_some()
    })
    .await;

    // Away again while something happens.
    api.change(|state| state.away = true);
    world.health.send_replace(bad());
    tokio::time::sleep(seconds(3600)).await;
    api.change(|state| state.away = false);
    until("told", seconds(11), || {
        api.ready().as_deref() == Some("False")
    })
    .await;
    let since = api.of_ready("lastTransitionTime").unwrap();
    let age = world.machine.now().duration_since(since.parse().unwrap());
    assert!(
        age.as_secs() >= 3590,
        "the change came while the server was away"
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_status_is_sent_once_a_period() {
    let api = FakeApi::with_node(old_node("True"));
    let world = World::start(&api, good());
    until("reported", SOON, || world.patches() == 2).await;
    // The first period is spread over 150 to 450 s, those after are 300 s.
    tokio::time::sleep(seconds(149)).await;
    assert_eq!(world.patches(), 2);
    tokio::time::sleep(seconds(3600)).await;
    let reports = world.patches() - 2;
    assert!((11..=13).contains(&reports), "{reports}");
    // Such a report carries heartbeats only.
    api.look(|state| {
        let last = state.patches.last().unwrap();
        assert_eq!(last.as_object().unwrap().len(), 1);
        assert_eq!(last["status"].as_object().unwrap().len(), 1);
        assert_eq!(last["status"]["conditions"].as_array().unwrap().len(), 4);
    });
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_others_write_is_answered_at_once() {
    let api = Arc::new(FakeApi::default());
    let world = World::start(&api, good());
    until("registered", SOON, || world.registered.borrow().is_some()).await;
    api.change(|state| {
        let node = state.node.as_mut().unwrap();
        node["status"]["capacity"]["example.com/foo"] = "5".into();
        node["spec"]["unschedulable"] = true.into();
    });
    let allocatable = || -> ResourceList {
        api.look(|state| {
            let node = state.node.as_ref().unwrap();
            serde_json::from_value(node["status"]["allocatable"].clone()).unwrap()
        })
    };
    until("allocatable", SOON, || {
        allocatable().contains_key("example.com/foo")
    })
    .await;
    assert!(world.events().ends_with(&["NodeNotSchedulable"]));
    assert_eq!(world.patches(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_read_anew_and_tried_again() {
    let api = FakeApi::with_node(old_node("True"));
    let world = World::start(&api, good());
    until("reported", SOON, || world.patches() == 2).await;
    let gets = api.look(|state| state.gets);
    api.change(|state| state.failures = [409, 500].into());
    world.health.send_replace(bad());
    until("told", SOON, || api.ready().as_deref() == Some("False")).await;
    assert_eq!(api.look(|state| state.gets) - gets, 2);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_node_is_not_created_again_but_a_new_one_is_adopted() {
    let api = Arc::new(FakeApi::default());
    let world = World::start(&api, good());
    until("registered", SOON, || world.registered.borrow().is_some()).await;
    api.change(|state| state.node = None);
    api.reflected.send_replace(None);
    tokio::time::sleep(seconds(900)).await;
    assert_eq!(
        api.look(|state| (state.creates, state.node.is_some())),
        (1, false)
    );
    api.change(|state| state.node = Some(old_node("Unknown")));
    until("ready", SOON, || api.ready().as_deref() == Some("True")).await;
    assert_eq!(
        *world.registered.borrow(),
        Some(NodeUid("uid-0".to_owned()))
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_registration_the_node_is_waited_for() {
    let api = Arc::new(FakeApi::default());
    let settings = NodeSettings {
        register: false,
        ..NodeSettings::for_test()
    };
    let world = World::start_with(&api, good(), settings);
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(api.look(|state| state.creates), 0);
    api.change(|state| state.node = Some(old_node("Unknown")));
    until("ready", LONGEST_PAUSE, || {
        api.ready().as_deref() == Some("True")
    })
    .await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn conditions_of_other_parts_are_told_at_once() {
    let api = Arc::new(FakeApi::default());
    let world = World::start(&api, good());
    until("ready", SOON, || api.ready().as_deref() == Some("True")).await;
    let says = |status: &str| {
        ExtraCondition::Says(NodeCondition {
            type_: "Extra".to_owned(),
            status: status.to_owned(),
            ..NodeCondition::default()
        })
    };
    let told = || api.of_condition("Extra", "status");
    for status in ["Unknown", "True"] {
        world.extra.send_replace(vec![says(status)]);
        until("told", SOON, || told().as_deref() == Some(status)).await;
    }
    let absent = vec![ExtraCondition::Absent("Extra")];
    world.extra.send_replace(absent);
    until("gone", SOON, || told().is_none()).await;
    world.stop().await;
}
