//! Running the agent: one set of named tasks, none of which may end before the
//! agent is told to.

use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use futures::future::BoxFuture;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use super::serve::Addresses;
use super::systemd::notify;
use crate::error::chain;
use crate::worker::Manager;

/// Time for statuses to be sent after the workers are done.
const OUTLETS_PATIENCE: Duration = Duration::from_secs(8);

const STOPPING: [NotifyState<'_>; 2] = [
    NotifyState::Stopping,
    NotifyState::Status("stopping; containers keep running"),
];

/// Shutdown in two steps: workers put down their work, then what they reported
/// is sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Shutdown {
    pub(super) work: CancellationToken,
    pub(super) outlets: CancellationToken,
}

/// The tasks that make up an agent, before they are spawned.
#[derive(Default)]
pub(super) struct Tasks {
    list: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

impl Tasks {
    pub(super) fn add(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.list.push((name, Box::pin(task)));
    }

    fn spawn(self) -> JoinSet<&'static str> {
        let mut set = JoinSet::new();
        for (name, task) in self.list {
            set.spawn(async move {
                task.instrument(info_span!("task", name)).await;
                name
            });
        }
        set
    }

    /// A task whose error is worth a word before its end ends the agent.
    pub(super) fn add_fallible(
        &mut self,
        name: &'static str,
        task: impl Future<Output = std::io::Result<()>> + Send + 'static,
    ) {
        self.add(name, async move {
            if let Err(failure) = task.await {
                error!(error = %chain(&failure), task = name, "task failed");
            }
        });
    }
}

/// An agent that is ready to run.
pub struct Agent {
    tasks: Tasks,
    manager: Manager,
    shutdown: Shutdown,
    addresses: Addresses,
}

impl Agent {
    pub(super) fn new(
        tasks: Tasks,
        manager: Manager,
        shutdown: Shutdown,
        addresses: Addresses,
    ) -> Self {
        Self {
            tasks,
            manager,
            shutdown,
            addresses,
        }
    }

    /// Where the agent is to be asked.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Runs until `stop` resolves, or until a task ends that should not.
    /// Containers are left running in either case.
    pub async fn run(self, stop: impl Future<Output = ()>) -> ExitCode {
        let mut set = self.tasks.spawn();
        // The manager owns the workers: it is waited for by itself.
        let mut manager = tokio::spawn(self.manager.run());
        info!("started");

        let mut stop: Pin<Box<_>> = Box::pin(stop);
        let unexpected = tokio::select! {
            () = &mut stop => None,
            Some(ended) = set.join_next() => Some(ended_task(ended)),
            ended = &mut manager => Some(match ended {
                Ok(()) => "workers".to_owned(),
                Err(panic) => panic.to_string(),
            }),
        };
        if let Some(task) = &unexpected {
            error!(
                task,
                "a task ended that should run for ever; the agent stops"
            );
        }
        notify(&STOPPING);
        info!("stopping; containers keep running");
        self.shutdown.work.cancel();
        if !manager.is_finished()
            && let Err(panic) = manager.await
        {
            error!(%panic, "the workers' manager died");
        }
        self.shutdown.outlets.cancel();
        if tokio::time::timeout(OUTLETS_PATIENCE, drain(&mut set))
            .await
            .is_err()
        {
            warn!("not everything was sent in time");
        }
        info!("stopped");
        if unexpected.is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Runs tasks that need no order of shutdown, until `stop` resolves or one of them
/// ends that should not.
pub(super) async fn run_tasks(
    tasks: Tasks,
    shutdown: CancellationToken,
    stop: impl Future<Output = ()>,
) -> ExitCode {
    let mut set = tasks.spawn();
    notify(&[NotifyState::Ready]);
    let unexpected = tokio::select! {
        () = stop => None,
        Some(ended) = set.join_next() => Some(ended_task(ended)),
    };
    if let Some(task) = &unexpected {
        error!(
            task,
            "a task ended that should run for ever; the process stops"
        );
    }
    notify(&[NotifyState::Stopping]);
    shutdown.cancel();
    if tokio::time::timeout(OUTLETS_PATIENCE, drain(&mut set))
        .await
        .is_err()
    {
        warn!("not everything was sent in time");
    }
    match unexpected {
        Some(_) => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
    }
}

fn ended_task(ended: Result<&'static str, JoinError>) -> String {
    match ended {
        Ok(name) => name.to_owned(),
        Err(panic) => panic.to_string(),
    }
}

async fn drain(set: &mut JoinSet<&'static str>) {
    while set.join_next().await.is_some() {}
}

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at
/// once.
pub async fn shutdown_signals() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without handlers the default action of both signals stands.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        warn!("second signal: ending at once");
        std::process::exit(1);
    });
}
