//! Clusters for tests: one that is shared, brought up when first needed, and new ones
//! for tests that break things. Whatever happens, what was brought up is taken down.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OnceCell, Semaphore};

use super::cluster::Cluster;
use super::scene::Scene;
use super::settings::Settings;
use super::{Place, Test, leaks, report};

/// Clusters of their own at once: a control plane costs 700 MiB, and CPU while it starts.
const OWN_AT_ONCE: usize = 3;

/// Tests at once on the shared cluster; they mostly wait.
const SHARED_AT_ONCE: usize = 6;

/// Beyond this a test is hung, whatever its own deadlines say.
const TEST_LIMIT: Duration = Duration::from_secs(15 * 60);

pub struct Stage {
    pub settings: Arc<Settings>,
    shared: OnceCell<Result<Arc<Cluster>, String>>,
    own_slots: Semaphore,
    shared_slots: Semaphore,
    names: Mutex<Vec<String>>,
    scenes: AtomicUsize,
    failures: AtomicUsize,
}

impl Stage {
    pub fn new(settings: Arc<Settings>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            shared: OnceCell::new(),
            own_slots: Semaphore::new(OWN_AT_ONCE),
            shared_slots: Semaphore::new(SHARED_AT_ONCE),
            names: Mutex::default(),
            scenes: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
        })
    }

    /// Runs one test where it belongs; a failure comes with a report of its scene.
    pub async fn perform(&self, test: Test) -> anyhow::Result<()> {
        let outcome = match test.place {
            Place::Shared => {
                let _permit = self.shared_slots.acquire().await?;
                let cluster = self.shared_cluster().await?;
                let outcome = self.play(test, cluster).await;
                if outcome.is_err() {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                outcome
            }
            Place::Own => {
                let _permit = self.own_slots.acquire().await?;
                let cluster = self.bring_up().await?;
                let mut outcome = self.play(test, cluster.clone()).await;
                if outcome.is_ok() {
                    outcome = leaks::check(&cluster).await;
                }
                self.take_down(&cluster, outcome, 0).await
            }
        };
        if let Err(error) = &outcome {
            // The full text comes at the end, with everybody's.
            let text = format!("{error:#}");
            println!(
                "{}: {:.300}",
                test.name(),
                text.lines().next().unwrap_or_default()
            );
        }
        outcome
    }

    async fn play(&self, test: Test, cluster: Arc<Cluster>) -> anyhow::Result<()> {
        let number = self.scenes.fetch_add(1, Ordering::Relaxed);
        let scene = Scene::open(cluster, test.name(), number).await?;
        let run = AssertUnwindSafe((test.run)(scene.clone())).catch_unwind();
        let outcome = match tokio::time::timeout(TEST_LIMIT, run).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(anyhow!("{}", panic_text(&*panic))),
            Err(_) => Err(anyhow!("hung: not over after {TEST_LIMIT:?}")),
        };
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(anyhow!("{error:#}\n{}", report::of(&scene).await)),
        };
        outcome.and(scene.close().await)
    }

    async fn shared_cluster(&self) -> anyhow::Result<Arc<Cluster>> {
        let bring_up = || async { self.bring_up().await.map_err(|error| format!("{error:#}")) };
        self.shared
            .get_or_init(bring_up)
            .await
            .clone()
            .map_err(|error| anyhow!(error))
    }

    async fn bring_up(&self) -> anyhow::Result<Arc<Cluster>> {
        allow_watches()?;
        let name = {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let name = format!("t{}-{}", std::process::id(), names.len());
            names.push(name.clone());
            name
        };
        Ok(Arc::new(Cluster::up(&name, &self.settings).await?))
    }

    /// The end of the shared cluster: nothing may be left on its node.
    pub async fn finish(&self) -> anyhow::Result<()> {
        let Some(Ok(cluster)) = self.shared.get() else {
            return Ok(());
        };
        let outcome = leaks::check(cluster).await;
        let failures = self.failures.load(Ordering::Relaxed);
        self.take_down(cluster, outcome, failures).await
    }

    /// Removes a cluster. If tests failed on it, or its end did, its logs are kept, and it
    /// stays up if the settings say so.
    async fn take_down(
        &self,
        cluster: &Cluster,
        outcome: anyhow::Result<()>,
        failures: usize,
    ) -> anyhow::Result<()> {
        if outcome.is_ok() && failures == 0 {
            return Cluster::down(cluster.name()).await;
        }
        let logs = cluster.save_logs().await?;
        println!("logs of cluster {}: {}", cluster.name(), logs.display());
        if self.settings.keep {
            println!("cluster {} stays up", cluster.name());
            return outcome;
        }
        if let Err(error) = Cluster::down(cluster.name()).await {
            println!("cluster {} is not gone: {error:#}", cluster.name());
        }
        outcome
    }

    /// On SIGINT or SIGTERM: removes every cluster and ends the process.
    pub async fn strike_on_signal(self: Arc<Self>) {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let names = self
            .names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        eprintln!("interrupted: removing {} clusters", names.len());
        for name in names {
            if let Err(error) = Cluster::down(&name).await.context("interrupted") {
                eprintln!("error: {error:#}");
            }
        }
        std::process::exit(130);
    }
}

/// A cluster's programs hold some twenty inotify instances, and the kernel grants root 128
/// of them unless told otherwise: with a few clusters, containerd starts without its CRI.
fn allow_watches() -> anyhow::Result<()> {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
    const ENOUGH: u32 = 1024;
    let limit: u32 = std::fs::read_to_string(LIMIT)?.trim().parse()?;
    if limit < ENOUGH {
        println!("raising {LIMIT} from {limit} to {ENOUGH}, until the next boot");
        std::fs::write(LIMIT, ENOUGH.to_string()).context(LIMIT)?;
    }
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panicked")
        .to_owned()
}
