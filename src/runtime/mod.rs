//! The container runtime: containerd through CRI over gRPC.
//!
//! In: the specs that `pod` rendered. Out: [`ObservedPod`] snapshots, fed by
//! containerd's event stream and audited by a slow relist. CRI's protobuf
//! types do not leave this module.
//!
//! | file | what |
//! |---|---|
//! | `port`, `error` | what the rest of the agent sees |
//! | `client`, `cri` | the calls, with deadlines and metrics |
//! | `encode`, `decode` | our types as CRI's and back; pure |
//! | `sandboxes`, `logs`, `leftover` | [`Sandboxes`]: what changes what runs, log files, what the runtime lost sight of |
//! | `image` | [`Images`]: presence and pulls |
//! | `inventory` | which images there are |
//! | `rotate` | rotation of container logs |
//! | `client::streaming` | [`Streaming`]: commands in containers, and where their streams are |
//! | `regular` | opening files that containers have a hand in |
//! | `observe`, `termination` | [`Observer`]: what runs and how it ended |
//! | `health` | the runtime's own word on itself |
//! | `usage` | [`Usage`]: what of the disk is used |
//! | `fake` | all ports in memory, for tests |
//!
//! [`connect`] makes the handles without waiting for the runtime; the future
//! of [`Tasks::run`] is for the caller to spawn.

mod client;
mod cri;
mod decode;
mod encode;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod health;
mod image;
mod inventory;
mod leftover;
mod logs;
mod metrics;
mod observe;
mod port;
mod regular;
mod rotate;
mod sandboxes;
mod settings;
#[cfg(test)]
mod stub;
mod termination;
mod usage;

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use error::{ExecError, ImageError, RuntimeError};
pub use image::{CredentialDirs, CredentialPlugin};
pub use metrics::Metrics;
pub use port::{
    ConditionFailure, DiskUsage, ExecOutput, FetchProgress, ImageDisk, ImageProgressEvent, Images,
    KnownPods, LocalImage, Observer, RUNTIME_DOWN, RunningPull, RunningPulls, RuntimeHandler,
    RuntimeHealth, Sandboxes, StdStreams, StreamUrl, Streaming, Usage,
};
pub use rotate::{Form, LogRotationSettings, LogRotationTask, RotatedLog, Stamp};
pub use settings::{ImageSettings, PullRate, RuntimeSettings};

#[cfg(doc)]
use crate::pod::ObservedPod;
use client::CriClient;
use health::HealthTask;
use image::CriImages;
use inventory::InventoryTask;
use leftover::Leftovers;
use logs::Logs;
use observe::{Observations, ObserveTask};
use sandboxes::CriSandboxes;
use usage::CriUsage;

/// The ports, over one runtime. Clonable.
#[derive(Clone)]
pub struct Handles {
    pub sandboxes: Arc<dyn Sandboxes>,
    pub images: Arc<dyn Images>,
    pub observer: Arc<dyn Observer>,
    pub streaming: Arc<dyn Streaming>,
    pub usage: Arc<dyn Usage>,
    /// The images on this node.
    pub inventory: watch::Receiver<Arc<Vec<LocalImage>>>,
    client: CriClient,
}

/// How containers' cgroups are named and made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    Cgroupfs,
    Systemd,
}

impl Handles {
    /// Asks the runtime for its cgroup driver; `None` if it cannot tell
    /// (containerd 1.x).
    pub async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>, RuntimeError> {
        let driver = self.client.cgroup_driver().await?;
        Ok(driver.map(|driver| match driver {
            cri::CgroupDriver::Systemd => CgroupDriver::Systemd,
            cri::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
        }))
    }
}

impl Handles {
    /// Keeps containers' logs small, once it runs.
    #[must_use]
    pub fn log_rotation(&self, settings: LogRotationSettings) -> LogRotationTask {
        let runtime = Arc::new(self.client.clone());
        LogRotationTask::new(settings, Arc::clone(&self.observer), runtime)
    }
}

/// What has to run for [`Handles::observer`] to tell anything new.
pub struct Tasks {
    observe: ObserveTask,
    health: HealthTask,
    inventory: InventoryTask,
}

impl Tasks {
    /// Runs until shutdown. Calls that others made are theirs to end.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::join!(
            self.observe.run(shutdown.clone()),
            self.health.run(shutdown.clone()),
            self.inventory.run(shutdown)
        );
    }
}

/// Makes the handles of a runtime. Connects when the first call is made, and
/// again whenever the connection was lost. Must be called inside a tokio
/// runtime.
#[must_use]
pub fn connect(settings: &RuntimeSettings, metrics: &Metrics) -> (Handles, Tasks) {
    let channel = client::channel(&settings.endpoint);
    let images = settings.image_endpoint.as_deref();
    let images = images.map_or_else(|| channel.clone(), client::channel);
    let client = CriClient::new(
        channel.clone(),
        images.clone(),
        settings.request_timeout,
        metrics.clone(),
    );
    let logs = Logs::new(
        settings.pod_logs_dir.clone(),
        settings.container_links_dir.clone(),
    );
    let health = Arc::new(watch::Sender::new(RuntimeHealth::default()));
    let observations = Arc::new(Observations::new(client.clone(), Arc::clone(&health)));
    let pulled = Arc::new(Notify::new());
    let (images_out, inventory) = watch::channel(Arc::default());
    let handles = Handles {
        sandboxes: Arc::new(CriSandboxes::new(
            client.clone(),
            logs,
            Leftovers::new(channel.clone()),
        )),
        images: Arc::new(CriImages::new(
            client.clone(),
            images,
            settings,
            pulled.clone(),
        )),
        observer: Arc::clone(&observations) as Arc<dyn Observer>,
        streaming: Arc::new(client.clone()),
        usage: Arc::new(CriUsage {
            client: client.clone(),
        }),
        inventory,
        client: client.clone(),
    };
    let tasks = Tasks {
        observe: ObserveTask {
            observations,
            channel,
            relist_period: settings.relist_period,
            metrics: metrics.clone(),
        },
        health: HealthTask {
            client: client.clone(),
            health,
        },
        inventory: InventoryTask {
            client,
            pulled,
            out: images_out,
        },
    };
    (handles, tasks)
}
