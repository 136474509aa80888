//! The agent as a service: what systemd is told of it.
//!
//! In: the runtime's health, the pods that have a worker, the node as the API server
//! has it, and the checks behind `/healthz`. Out: `READY=1` once the runtime has been
//! asked (the listeners are bound by then, and the API server is not waited for),
//! `STATUS=` in words for `systemctl status`, and `WATCHDOG=1` at half of the interval
//! that systemd wants it at, as long as every check is passed. An agent that hangs, or
//! whose main loop does, says nothing and is started anew.
//!
//! Without systemd (no `NOTIFY_SOCKET`) nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::apiserver::NodeFeed;
use crate::error::chain;
use crate::runtime::RuntimeHealth;
use crate::server::Health;
use crate::worker::PodsView;

#[cfg(test)]
mod tests;

/// How often the checks are made where no watchdog asks for it; they are part of the
/// status.
const CHECK_PERIOD: Duration = Duration::from_secs(30);
/// Changes within this time are told in one status.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// Tells systemd, if it started us.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(failure) = sd_notify::notify(states) {
        warn!(error = %chain(&failure), "cannot notify systemd");
    }
}

/// What tells how the agent is.
pub(super) struct Signs {
    pub(super) runtime: watch::Receiver<RuntimeHealth>,
    pub(super) pods: PodsView,
    /// `None`: standalone.
    pub(super) node: Option<NodeFeed>,
}

impl Signs {
    /// Completes when the runtime has been asked for its health, however that went.
    async fn runtime_asked(&mut self) {
        while !self.runtime.borrow_and_update().checked {
            alive(self.runtime.changed()).await;
        }
    }

    /// Completes when any of them has changed.
    async fn changed(&mut self) {
        let node = async {
            match &mut self.node {
                Some(node) => alive(node.changed()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = alive(self.runtime.changed()) => {}
            () = alive(self.pods.changed()) => {}
            () = node => {}
        }
    }

    fn situation(&self, problems: &[String]) -> String {
        let api = match &self.node {
            None => ApiServer::None,
            Some(node) if node.borrow().is_none() => ApiServer::Silent,
            Some(_) => ApiServer::Heard,
        };
        let pods = self.pods.borrow().len();
        describe(problems, pods, &self.runtime.borrow(), api)
    }
}

/// A sign whose giver has ended does not change any more; the agent ends with it.
async fn alive(changed: impl Future<Output = Result<(), watch::error::RecvError>>) {
    if changed.await.is_err() {
        std::future::pending().await
    }
}

/// What the API server says of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ApiServer {
    /// There is none.
    None,
    /// Nothing: it has not been reached, or does not have the node.
    Silent,
    /// It has the node.
    Heard,
}

/// The agent in one line, what is wrong first.
fn describe(problems: &[String], pods: usize, runtime: &RuntimeHealth, api: ApiServer) -> String {
    let mut parts = problems.to_vec();
    if let Some(failure) = &runtime.runtime {
        parts.push(format!("runtime not ready: {}", failure.message));
    } else if let Some(failure) = &runtime.network {
        parts.push(format!("network of pods not ready: {}", failure.message));
    }
    parts.push(match pods {
        1 => "1 pod".to_owned(),
        pods => format!("{pods} pods"),
    });
    parts.push(
        match api {
            ApiServer::None => "standalone",
            ApiServer::Silent => "node not registered yet",
            ApiServer::Heard => "node registered",
        }
        .to_owned(),
    );
    // A line is a message of the protocol.
    parts.join("; ").replace('\n', " ")
}

/// How often systemd is to hear that the agent is alive; `None`: it does not ask.
/// `limit` is the time after which it loses patience.
fn watchdog_period(limit: Option<Duration>) -> Option<Duration> {
    limit.map(|limit| limit / 2).filter(|half| !half.is_zero())
}

/// Tells the service manager how the agent is.
pub(super) struct SystemdTask<T> {
    signs: Signs,
    health: Arc<Health>,
    watchdog: Option<Duration>,
    tell: T,
    problems: Vec<String>,
    last_status: String,
}

impl SystemdTask<fn(&[NotifyState<'_>])> {
    /// For the service manager that started this process.
    pub(super) fn new(signs: Signs, health: Arc<Health>) -> Self {
        Self::with(signs, health, sd_notify::watchdog_enabled(), notify)
    }
}

impl<T: Fn(&[NotifyState<'_>])> SystemdTask<T> {
    /// `limit`: the service manager's patience; `tell` sends what it is called with.
    fn with(signs: Signs, health: Arc<Health>, limit: Option<Duration>, tell: T) -> Self {
        Self {
            signs,
            health,
            watchdog: watchdog_period(limit),
            tell,
            problems: Vec::new(),
            last_status: String::new(),
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        (self.tell)(&[NotifyState::Status("starting: asking the runtime")]);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = self.signs.runtime_asked() => {}
        }
        (self.tell)(&[NotifyState::Ready]);
        info!(watchdog = ?self.watchdog, "ready");
        let mut beats = beats(self.watchdog.unwrap_or(CHECK_PERIOD));
        let mut quiet_until = Instant::now();
        loop {
            let signs = &mut self.signs;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = beats.tick() => self.beat(),
                () = async { sleep_until(quiet_until).await; signs.changed().await } => {
                    quiet_until = Instant::now() + STATUS_PAUSE;
                }
            }
            self.tell_status();
        }
    }

    /// Makes the checks, and says that all is well if it is.
    fn beat(&mut self) {
        let problems = self.health.problems();
        if problems.is_empty() {
            if self.watchdog.is_some() {
                (self.tell)(&[NotifyState::Watchdog]);
            }
            if !self.problems.is_empty() {
                info!("healthy again");
            }
        } else if self.problems != problems {
            let restart = self.watchdog.is_some();
            error!(
                ?problems,
                restart, "not healthy; `restart`: systemd will, if this lasts"
            );
        }
        self.problems = problems;
    }

    fn tell_status(&mut self) {
        let status = self.signs.situation(&self.problems);
        if status != self.last_status {
            (self.tell)(&[NotifyState::Status(&status)]);
            self.last_status = status;
        }
    }
}

fn beats(period: Duration) -> Interval {
    let mut beats = interval(period);
    // After a pause of the whole machine one beat is as good as many.
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}
