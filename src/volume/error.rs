//! What can go wrong with a pod's volumes.

use std::path::{Path, PathBuf};

/// A volume operation that failed. Everything is retried.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A volume could not be set up; `step` and `volume` make upstream's event
    /// text `MountVolume.<step> failed for volume "<volume>" : <cause>`.
    #[error("MountVolume.{step} failed for volume \"{volume}\"")]
    SetUp {
        step: &'static str,
        volume: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("error making pod data directories")]
    PodDirectories(#[source] std::io::Error),
    /// The cause is logged: the text reaches the pod's owner, and would tell
    /// what is on this host.
    #[error(
        "failed to create subPath directory for volumeMount \"{volume}\" of container \"{container}\""
    )]
    SubPathDirectory { volume: String, container: String },
    /// See [`VolumeError::SubPathDirectory`].
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\"")]
    SubPath { volume: String, container: String },
    #[error("cannot read env file {path:?} of volume {volume:?}")]
    EnvFile {
        volume: String,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write {path}")]
    ContainerFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot clean up {path}")]
    TearDown {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("unusable user namespace in {path}")]
    UserNamespace {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("could not find an empty slot to allocate a user namespace")]
    NoIdsLeft,
    /// A pod UID or a name of a pod that cannot be a file name here.
    #[error("unusable name")]
    Name(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The agent stops and the work was not begun.
    #[error("interrupted by shutdown")]
    Interrupted,
}

impl VolumeError {
    pub(super) fn set_up(
        volume: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::SetUp {
            step: "SetUp",
            volume: volume.to_owned(),
            source: source.into(),
        }
    }

    pub(super) fn tear_down(path: &Path, source: std::io::Error) -> Self {
        Self::TearDown {
            path: path.to_owned(),
            source,
        }
    }
}
