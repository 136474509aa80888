//! The loop against one Lease in memory, with a paused clock.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::time::Instant;

use super::*;

/// One Lease in memory.
#[derive(Default)]
struct FakeLeases {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    version: u64,
    away: bool,
    gets: usize,
    writes: usize,
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

impl FakeLeases {
    fn call(&self) -> Result<std::sync::MutexGuard<'_, State>, ApiError> {
        let state = self.state.lock().unwrap();
        if state.away {
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
            let call = "fake";
            return Err(ApiError::Unreachable { call, source });
        }
        Ok(state)
    }

    fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    fn writes(&self) -> usize {
        self.look(|state| state.writes)
    }
}

impl State {
    fn store(&mut self, lease: &Lease) -> Lease {
        self.writes += 1;
        self.version += 1;
        let mut lease = lease.clone();
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        lease
    }
}

#[async_trait]
impl LeasePort for FakeLeases {
    async fn get(&self) -> Result<Lease, ApiError> {
        let mut state = self.call()?;
        state.gets += 1;
        state.lease.clone().ok_or_else(|| refused(404))
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, ApiError> {
        Ok(self.call()?.store(lease))
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, ApiError> {
        let mut state = self.call()?;
        match &state.lease {
            None => Err(refused(404)),
            Some(known) if known.metadata.resource_version != lease.metadata.resource_version => {
                Err(refused(409))
            }
            Some(_) => Ok(state.store(lease)),
        }
    }
}

struct World {
    leases: Arc<FakeLeases>,
    registered: watch::Sender<Option<NodeUid>>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn start(uid: Option<&str>) -> Self {
        let leases = Arc::new(FakeLeases::default());
        let (registered, watch) = watch::channel(uid.map(|uid| NodeUid(uid.to_owned())));
        let port = Arc::clone(&leases) as Arc<dyn LeasePort>;
        let task = LeaseTask::new(port, "node-1".to_owned(), Duration::from_secs(40), watch);
        let shutdown = CancellationToken::new();
        Self {
            leases,
            registered,
            task: tokio::spawn(task.run(shutdown.clone())),
            shutdown,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed().as_secs() < seconds,
            "not in {seconds} s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_made_for_the_node_and_renewed_at_a_quarter_of_its_time() {
    let world = World::start(Some("uid-1"));
    until("created", 1, || world.leases.writes() == 1).await;
    pass(100).await;
    let writes = world.leases.writes();
    assert!((10..=11).contains(&writes), "{writes}");
    // The Lease is known: no need to read it.
    assert_eq!(world.leases.look(|state| state.gets), 1);
    let lease = world.leases.look(|state| state.lease.clone()).unwrap();
    let owners = lease.metadata.owner_references.unwrap();
    assert_eq!(
        (owners[0].kind.as_str(), owners[0].uid.as_str()),
        ("Node", "uid-1")
    );
    let spec = lease.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("node-1"));
    assert_eq!(spec.lease_duration_seconds, Some(40));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_node_only_an_existing_lease_is_renewed() {
    let world = World::start(None);
    pass(60).await;
    assert_eq!(world.leases.writes(), 0);
    // From an earlier process.
    world.leases.look(|state| {
        state.lease = Some(Lease::default());
    });
    until("renewed", 11, || world.leases.writes() == 1).await;
    let owners = |world: &World| {
        let lease = world.leases.look(|state| state.lease.clone()).unwrap();
        lease.metadata.owner_references
    };
    assert_eq!(owners(&world), None);
    world
        .registered
        .send_replace(Some(NodeUid("uid-1".to_owned())));
    until("owned", 11, || owners(&world).is_some()).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_api_server_is_waited_for() {
    let world = World::start(Some("uid-1"));
    until("created", 1, || world.leases.writes() == 1).await;
    world.leases.look(|state| state.away = true);
    pass(3600).await;
    world.leases.look(|state| state.away = false);
    // The pause between two tries is at most 12 s.
    until("renewed", 13, || world.leases.writes() == 2).await;
    pass(60).await;
    assert!(world.leases.writes() >= 7);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_write_or_deletion_is_got_over() {
    let world = World::start(Some("uid-1"));
    until("created", 1, || world.leases.writes() == 1).await;
    world.leases.look(|state| {
        let lease = state.lease.as_mut().unwrap();
        lease.metadata.resource_version = Some("99".to_owned());
    });
    until("renewed", 11, || world.leases.writes() == 2).await;
    world.leases.look(|state| state.lease = None);
    until("created again", 11, || {
        world.leases.look(|s| s.lease.is_some())
    })
    .await;
    world.stop().await;
}

#[test]
fn a_renewal_keeps_what_others_wrote() {
    let base: Lease = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "node-1", "labels": {"a": "b"}, "resourceVersion": "7"},
        "spec": {"leaseTransitions": 3, "leaseDurationSeconds": 10},
    }))
    .unwrap();
    let now = "2026-01-02T03:04:05.678901Z".parse().unwrap();
    let uid = NodeUid("uid-1".to_owned());
    insta::assert_json_snapshot!(renewed(Some(&base), "node-1", Some(&uid), 40, now));
}
