use std::collections::BTreeMap;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::Node;
use prometheus_client::registry::Registry;

use super::*;
use crate::runtime::ConditionFailure;
use crate::server::HealthCheck;
use crate::worker::Heartbeat;

const LIMIT: Duration = Duration::from_secs(60);
/// How long the main loop may stand still in these tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// What systemd has heard.
type Heard = Arc<Mutex<Vec<String>>>;

struct World {
    runtime: watch::Sender<RuntimeHealth>,
    node: watch::Sender<Option<Arc<Node>>>,
    heartbeat: Heartbeat,
    heard: Heard,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn start(limit: Option<Duration>) -> Self {
        let runtime = watch::Sender::new(RuntimeHealth::default());
        let node = watch::Sender::new(None);
        let pods = watch::Sender::new(Arc::new(BTreeMap::new()));
        let signs = Signs {
            runtime: runtime.subscribe(),
            pods: pods.subscribe(),
            node: Some(node.subscribe()),
        };
        let heartbeat = Heartbeat::default();
        let beats = heartbeat.clone();
        let check = HealthCheck {
            name: "syncloop",
            check: Box::new(move || match beats.age() <= PATIENCE {
                true => Ok(()),
                false => Err("stuck".to_owned()),
            }),
        };
        let health = Arc::new(Health::new(vec![check], Registry::default()));
        let heard = Heard::default();
        let ear = Arc::clone(&heard);
        let tell = move |states: &[NotifyState<'_>]| {
            let mut heard = ear.lock().unwrap();
            heard.extend(states.iter().map(ToString::to_string));
        };
        let shutdown = CancellationToken::new();
        let task = SystemdTask::with(signs, health, limit, tell).run(shutdown.clone());
        Self {
            runtime,
            node,
            heartbeat,
            heard,
            shutdown,
            task: tokio::spawn(task),
        }
    }

    /// What is told within this time.
    async fn told_within(&self, time: Duration) -> Vec<String> {
        tokio::time::sleep(time).await;
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    fn runtime_answers(&self) {
        self.runtime.send_modify(|health| health.checked = true);
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn failure(message: &str) -> Option<ConditionFailure> {
    Some(ConditionFailure {
        reason: "Reason".to_owned(),
        message: message.to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn ready_is_when_the_runtime_was_asked_and_not_before() {
    let world = World::start(Some(LIMIT));
    assert_eq!(
        world.told_within(LIMIT).await,
        ["STATUS=starting: asking the runtime"]
    );
    // It was asked, and is down: the agent serves all the same.
    world.runtime.send_modify(|health| {
        health.checked = true;
        health.runtime = failure("down");
    });
    assert_eq!(
        world.told_within(Duration::from_secs(1)).await,
        [
            "READY=1",
            "WATCHDOG=1",
            "STATUS=runtime not ready: down; 0 pods; node not registered yet"
        ]
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_is_fed_at_half_its_time_while_the_main_loop_turns() {
    let world = World::start(Some(LIMIT));
    world.runtime_answers();
    world.told_within(Duration::from_secs(1)).await;
    for _ in 0..3 {
        world.heartbeat.beat();
        assert_eq!(world.told_within(LIMIT / 2).await, ["WATCHDOG=1"]);
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_main_loop_that_stands_still_starves_the_watchdog_until_it_turns_again() {
    let world = World::start(Some(LIMIT));
    world.runtime_answers();
    world.told_within(PATIENCE + LIMIT + STATUS_PAUSE).await;
    assert_eq!(world.told_within(4 * LIMIT).await, Vec::<String>::new());
    world.heartbeat.beat();
    assert_eq!(
        world.told_within(LIMIT / 2).await,
        ["WATCHDOG=1", "STATUS=0 pods; node not registered yet"]
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_in_the_status_with_and_without_watchdog() {
    for limit in [Some(LIMIT), None] {
        let world = World::start(limit);
        world.runtime_answers();
        let told = world.told_within(PATIENCE + LIMIT).await;
        assert_eq!(
            told.last().unwrap(),
            "STATUS=syncloop failed: stuck; 0 pods; node not registered yet"
        );
        let fed = told.iter().any(|state| state == "WATCHDOG=1");
        assert_eq!(fed, limit.is_some());
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_is_two_statuses() {
    let world = World::start(None);
    world.runtime_answers();
    world.told_within(STATUS_PAUSE * 2).await;
    for step in 0..10 {
        let network = failure(&format!("step {step}"));
        world.runtime.send_modify(|health| health.network = network);
        tokio::time::sleep(STATUS_PAUSE / 20).await;
    }
    world.node.send_replace(Some(Arc::default()));
    assert_eq!(
        world.told_within(STATUS_PAUSE * 2).await,
        [
            "STATUS=network of pods not ready: step 0; 0 pods; node not registered yet",
            "STATUS=network of pods not ready: step 9; 0 pods; node registered",
        ]
    );
    world.stop().await;
}

#[test]
fn the_status_is_one_line() {
    let mut runtime = RuntimeHealth::default();
    assert_eq!(
        describe(&[], 1, &runtime, ApiServer::None),
        "1 pod; standalone"
    );
    // While the runtime is away, what it said of the network is of no interest.
    runtime.network = failure("no CNI");
    runtime.runtime = failure("down:\nno such file");
    assert_eq!(
        describe(
            &["log failed: full".to_owned()],
            12,
            &runtime,
            ApiServer::Heard
        ),
        "log failed: full; runtime not ready: down: no such file; 12 pods; node registered"
    );
}

#[test]
fn half_of_nothing_is_no_watchdog() {
    assert_eq!(watchdog_period(None), None);
    assert_eq!(watchdog_period(Some(Duration::ZERO)), None);
    assert_eq!(watchdog_period(Some(LIMIT)), Some(Duration::from_secs(30)));
}
