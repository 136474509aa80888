//! A runtime in memory, for tests of everything above the ports.
//!
//! In: the calls of the ports, and a script: failures, latencies, hangs,
//! exits. Out: observations like a real runtime's, and a record of the calls.
//! Time is tokio's, so tests may pause it; timestamps follow it.
//!
//! ```no_run
//! # use kubelet::runtime::fake::{Call, Fault, FakeRuntime};
//! # use kubelet::pod::PodUid;
//! let fake = FakeRuntime::new();
//! fake.fail_next(Call::RunSandbox, Fault::Refused("no CNI".into()));
//! fake.exit_container(&PodUid::from("uid-1"), "web", 3);
//! assert_eq!(fake.count(Call::RunSandbox), 0);
//! ```

mod ports;
mod script;
mod state;
mod streaming;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use script::{Call, Called, Fault};

use super::{
    DiskUsage, ExecOutput, ImageDisk, ImageError, KnownPods, RuntimeError, RuntimeHealth, StreamUrl,
};
use crate::pod::{ContainerId, ContainerState, Exit, ObservedPod, PodName, PodUid, SandboxState};
use script::Turn;
use state::State;

/// Clonable handle; all clones are one runtime.
#[derive(Clone)]
pub struct FakeRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes hung calls when [`FakeRuntime::heal`] is called.
    healed: Notify,
    pods: watch::Sender<KnownPods>,
    health: watch::Sender<RuntimeHealth>,
    started: (Timestamp, Instant),
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeRuntime {
    /// An empty, healthy runtime whose first full observation is in. Every
    /// image can be pulled; containers run until told otherwise and end at
    /// once with code 143 when stopped.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                healed: Notify::new(),
                pods: watch::Sender::new(Some(Arc::default())),
                health: watch::Sender::new(healthy()),
                started: (Timestamp::now(), Instant::now()),
            }),
        }
    }

    /// Now, on the clock that this fake stamps observations with: the wall
    /// clock at its creation plus tokio's time since.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let (wall, instant) = self.shared.started;
        wall + instant.elapsed()
    }

    // === the script ===

    /// The next call of this kind meets the fault; several queue up.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.state().script.next(call, fault);
    }

    /// Every call of this kind meets the fault until [`Self::heal`].
    pub fn fail_always(&self, call: Call, fault: Fault) {
        self.state().script.always(call, fault);
    }

    /// Every call of this kind takes so long, until [`Self::heal`].
    pub fn delay(&self, call: Call, latency: Duration) {
        self.state().script.delay(call, latency);
    }

    /// Ends faults, latencies and hangs of this kind of call.
    pub fn heal(&self, call: Call) {
        self.state().script.heal(call);
        self.shared.healed.notify_waiters();
    }

    /// Containers of this name take so long to end after the stop signal; if
    /// that is more than their grace they are killed (code 137).
    pub fn stop_takes(&self, container: &str, time: Duration) {
        let mut state = self.state();
        state.behaviour(container).stop_takes = time;
    }

    /// Containers of this name exit by themselves, so long after their start.
    pub fn exits_after(&self, container: &str, time: Duration, code: i32) {
        let mut state = self.state();
        state.behaviour(container).exits = Some((time, code));
    }

    /// Containers of this name run until stopped again.
    pub fn runs_on(&self, container: &str) {
        self.state().behaviour(container).exits = None;
    }

    /// Commands run to their end in containers of this name end so. Without
    /// this they succeed and print nothing.
    pub fn commands_end(&self, container: &str, output: ExecOutput) {
        self.state().behaviour(container).commands_end = output;
    }

    /// Where exec, attach and port-forward send their callers. Without this
    /// the runtime refuses those calls.
    pub fn streams_at(&self, url: StreamUrl) {
        self.state().streams_at = Some(url);
    }

    /// Pulls of this image fail from now on.
    pub fn unpullable(&self, image: &str, error: ImageError) {
        self.state().unpullable.insert(image.to_owned(), error);
    }

    /// Pulls of this image succeed again.
    pub fn pullable(&self, image: &str) {
        self.state().unpullable.remove(image);
    }

    /// The image is on the node already.
    pub fn add_image(&self, image: &str) {
        self.state().images.insert(image.to_owned());
    }

    /// What the container's writable layer takes from now on.
    pub fn set_layer(&self, id: &ContainerId, usage: DiskUsage) {
        self.state().layers.insert(id.clone(), usage);
    }

    /// What the image store takes from now on.
    pub fn set_image_disk(&self, disk: ImageDisk) {
        self.state().image_disk = disk;
    }

    pub fn set_health(&self, health: RuntimeHealth) {
        self.shared.health.send_replace(health);
    }

    /// While muted, changes reach watchers only through `refresh`: lost events.
    pub fn mute(&self) {
        self.state().muted = true;
    }

    /// Ends [`Self::mute`] and shows everybody what they missed.
    pub fn unmute(&self) {
        let mut state = self.state();
        state.muted = false;
        state.publish_all();
        drop(state);
        self.publish_membership();
    }

    /// Back to the time before the first full observation.
    pub fn forget_first_observation(&self) {
        self.shared.pods.send_replace(None);
    }

    // === what happens to pods ===

    /// Something an earlier process left running.
    pub fn install(&self, pod: ObservedPod) {
        let uid = pod.uid.clone();
        let name = pod.name.clone();
        self.change(&uid, &name, |there| *there = pod);
    }

    /// The newest instance of a container ends by itself.
    ///
    /// # Panics
    /// If it is not running: the test's premise is wrong.
    pub fn exit_container(&self, uid: &PodUid, container: &str, code: i32) {
        let now = self.now();
        let name = self.pod(uid).name.clone();
        self.change(uid, &name, |pod| {
            let newest = pod.containers.iter_mut().find(|c| c.name == container);
            let Some(newest) = newest else {
                panic!("pod {uid} has no container {container}");
            };
            let ContainerState::Running { started_at } = newest.state else {
                panic!("container {container} is {:?}", newest.state);
            };
            newest.state = ContainerState::Exited(exit(code, Some(started_at), now));
        });
    }

    /// The newest sandbox dies, and all containers with it.
    pub fn kill_sandbox(&self, uid: &PodUid) {
        let now = self.now();
        let name = self.pod(uid).name.clone();
        self.change(uid, &name, |pod| {
            if let Some(sandbox) = pod.sandboxes.first_mut() {
                sandbox.state = SandboxState::NotReady;
            }
            for container in &mut pod.containers {
                if let ContainerState::Running { started_at } = container.state {
                    container.state = ContainerState::Exited(exit(137, Some(started_at), now));
                }
            }
        });
    }

    // === what the test asks ===

    /// All calls so far, in the order they began. `Refresh` is not recorded.
    #[must_use]
    pub fn calls(&self) -> Vec<Called> {
        self.state().calls.clone()
    }

    /// How many calls of this kind began.
    #[must_use]
    pub fn count(&self, call: Call) -> usize {
        let state = self.state();
        state.calls.iter().filter(|made| made.call == call).count()
    }

    /// Forgets the record of calls.
    pub fn clear_calls(&self) {
        self.state().calls.clear();
    }

    /// The pod as it truly is, events muted or not.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> ObservedPod {
        let now = self.now();
        self.state().truth(uid).unwrap_or_else(|| {
            ObservedPod::absent(uid.clone(), PodName::new("unknown", "unknown"), now)
        })
    }

    /// Sandboxes that are up, over all pods.
    #[must_use]
    pub fn ready_sandboxes(&self) -> usize {
        self.state().ready_sandboxes()
    }

    // === shared by the ports ===

    fn state(&self) -> MutexGuard<'_, State> {
        // A failed assertion of another thread must not hide behind a poison
        // error of this one.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Edits one pod and tells its watchers.
    fn change<T>(
        &self,
        uid: &PodUid,
        name: &PodName,
        edit: impl FnOnce(&mut ObservedPod) -> T,
    ) -> T {
        let now = self.now();
        let result = self.state().change(uid, name, now, edit);
        self.publish_membership();
        result
    }

    fn publish_membership(&self) {
        let (muted, members) = {
            let state = self.state();
            (state.muted, state.members())
        };
        if muted {
            return;
        }
        self.shared.pods.send_if_modified(|current| match current {
            Some(known) if **known != members => {
                *known = Arc::new(members);
                true
            }
            // Before the first full observation nothing is told.
            _ => false,
        });
    }

    /// Records the call and lives through what the script has for it. `Ok`
    /// says what is to happen after the call's effect.
    async fn begin(&self, call: Call, subject: String) -> Result<Aftermath, RuntimeError> {
        let turn = {
            let at = self.now();
            let mut state = self.state();
            if call != Call::Refresh {
                state.calls.push(Called { call, subject, at });
            }
            state.script.turn(call)
        };
        let Turn { latency, fault } = turn;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match fault {
            None => Ok(Aftermath(None)),
            Some(Fault::TimeoutAfterEffect) => Ok(Aftermath(Some(timeout(call)))),
            Some(Fault::Hang) => {
                self.hang(call).await;
                Ok(Aftermath(None))
            }
            Some(fault) => Err(fault.into_error(call)),
        }
    }

    async fn hang(&self, call: Call) {
        loop {
            let healed = self.shared.healed.notified();
            tokio::pin!(healed);
            healed.as_mut().enable();
            if !self.state().script.hangs(call) {
                return;
            }
            healed.await;
        }
    }
}

/// An error to be returned although the call had its effect.
struct Aftermath(Option<RuntimeError>);

impl Aftermath {
    fn finish<T>(self, value: T) -> Result<T, RuntimeError> {
        self.0.map_or(Ok(value), Err)
    }
}

fn timeout(call: Call) -> RuntimeError {
    RuntimeError::Timeout {
        call: call.as_str(),
        limit: Duration::from_secs(120),
    }
}

fn exit(code: i32, started_at: Option<Timestamp>, finished_at: Timestamp) -> Exit {
    Exit {
        code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
        started_at,
        finished_at,
    }
}

fn healthy() -> RuntimeHealth {
    RuntimeHealth {
        checked: true,
        runtime: None,
        network: None,
        last_good: Some(Timestamp::now()),
        name: "containerd".to_owned(),
        version: "fake".to_owned(),
        handlers: Vec::new(),
        supplemental_groups_policy: false,
    }
}
