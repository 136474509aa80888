//! What the runtime module has to be told, and where its sockets are.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::{CredentialDirs, CredentialPlugin};
use crate::config::ImageVerification;

/// The settings of this module; made from the agent's configuration.
#[derive(Debug, Clone)]
pub struct RuntimeSettings {
    /// The CRI socket (`containerRuntimeEndpoint`).
    pub endpoint: PathBuf,
    /// The socket for images (`imageServiceEndpoint`); `None`: the same socket.
    pub image_endpoint: Option<PathBuf>,
    /// `runtimeRequestTimeout`: how long a call may take unless CRI gives it
    /// more.
    pub request_timeout: Duration,
    /// `podLogsDir`.
    pub pod_logs_dir: PathBuf,
    /// Where links to the log files of running containers are kept, for log
    /// shippers: `/var/log/containers`.
    pub container_links_dir: PathBuf,
    pub images: ImageSettings,
    /// How often everything is listed anew while events arrive.
    pub relist_period: Duration,
}

/// How images are pulled, and who may use them.
#[derive(Debug, Clone)]
pub struct ImageSettings {
    /// Pulls at a time: 1 for `serializeImagePulls`, else
    /// `maxParallelImagePulls`. `None`: no limit.
    pub max_parallel_pulls: Option<NonZeroUsize>,
    /// `registryPullQPS` and `registryBurst`; `None`: no limit.
    pub pull_rate: Option<PullRate>,
    /// Programs that know credentials, each asked for the images it matches.
    pub credential_plugins: Vec<CredentialPlugin>,
    /// Where files with credentials may be.
    pub credential_dirs: CredentialDirs,
    /// Where it is written down who may use which image.
    pub records: PathBuf,
    /// Which images that are here already need a second look.
    pub verification: ImageVerification,
}

/// A token bucket for image pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullRate {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}
