//! What the runtime module has to be told, and where its sockets are.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The settings of this module; made from the agent's configuration.
#[derive(Debug, Clone)]
pub struct RuntimeSettings {
    /// `containerRuntimeEndpoint`.
    pub endpoint: Endpoint,
    /// `imageServiceEndpoint`; `None`: the same socket.
    pub image_endpoint: Option<Endpoint>,
    /// `runtimeRequestTimeout`: how long a call may take unless CRI gives it
    /// more.
    pub request_timeout: Duration,
    /// `podLogsDir`.
    pub pod_logs_dir: PathBuf,
    /// Where links to the log files of running containers are kept, for log
    /// shippers: `/var/log/containers`.
    pub container_links_dir: PathBuf,
    /// Pulls at a time: 1 for `serializeImagePulls`, else
    /// `maxParallelImagePulls`. `None`: no limit.
    pub max_parallel_pulls: Option<NonZeroUsize>,
    /// `registryPullQPS` and `registryBurst`; `None`: no limit.
    pub pull_rate: Option<PullRate>,
    /// How often everything is listed anew while events arrive.
    pub relist_period: Duration,
}

/// A token bucket for image pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullRate {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}

/// A CRI socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for Endpoint {
    fn from(socket: PathBuf) -> Self {
        Self(socket)
    }
}

/// Only unix sockets can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("runtime endpoint {0:?} is not of the form unix:///path")]
pub struct EndpointError(String);

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;

    /// Accepts `unix:///path`, `unix:/path` and a bare absolute path.
    fn from_str(endpoint: &str) -> Result<Self, Self::Err> {
        let path = endpoint
            .strip_prefix("unix://")
            .or_else(|| endpoint.strip_prefix("unix:"))
            .unwrap_or(endpoint);
        if path.starts_with('/') {
            Ok(Self(PathBuf::from(path)))
        } else {
            Err(EndpointError(endpoint.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_unix_endpoints_are_taken() {
        let cases = [
            ("unix:///run/c.sock", Some("/run/c.sock")),
            ("unix:/run/c.sock", Some("/run/c.sock")),
            ("/run/c.sock", Some("/run/c.sock")),
            ("tcp://127.0.0.1:1", None),
            ("unix://run/c.sock", None),
            ("", None),
        ];
        for (given, path) in cases {
            let endpoint = given.parse::<Endpoint>().ok();
            assert_eq!(
                endpoint.as_ref().map(Endpoint::path),
                path.map(Path::new),
                "{given}"
            );
        }
    }
}
