//! What can go wrong with a pod's volumes.

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
    #[error("cannot write {path}")]
    ContainerFile {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot clean up {path}")]
    TearDown {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}
