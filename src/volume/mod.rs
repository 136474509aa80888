//! Pod volumes and the pod's own directory under the root directory.
//!
//! In: a desired pod. Out: where each volume is ([`MountedVolumes`]); files of
//! a container; and, at the end, nothing left behind.

mod error;
mod port;

pub use error::VolumeError;
pub use port::{ContainerFilesRequest, TerminationLog, Volumes};

#[cfg(doc)]
use crate::pod::inputs::MountedVolumes;
