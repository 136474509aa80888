//! Pod volumes and the pod's own directory under the root directory.
//!
//! In: a desired pod, and through ports the objects and tokens that its
//! volumes show. Out: where each volume is ([`MountedVolumes`]); the files of a
//! container; and, at the end, nothing left behind.
//!
//! ```text
//! Pod ─► plan ─► VolumeSetup ──────────────┐
//!          └► needs ─► fetch (API) ─► payload ─► apply: mkdir, tmpfs, atomic writer, fsGroup
//! ```
//!
//! `plan`, `payload`, `downward` and `path` are pure; `fetch`
//! talks to the API server through ports; everything else touches the disk and
//! runs on blocking threads. The kernel must know `openat2` (5.6 or later):
//! that is how removal is kept from leaving a volume.
//!
//! The objects that a pod's volumes show are followed from the first
//! [`Volumes::ensure`] to [`Volumes::tear_down`]; [`Volumes::changes`] says when
//! it is worth calling `ensure` again.
//!
//! Not here yet: claims, CSI and network volumes.

mod apply;
mod atomic;
mod clean;
mod container_files;
mod downward;
mod env_file;
mod error;
mod fetch;
mod host_path;
mod layout;
mod mounts;
mod ownership;
mod path;
mod payload;
mod plan;
mod port;
mod remove;
mod setup;
mod sub_path;
mod tokens;
mod user_namespace;

pub use apply::{Clock, HostVolumes, VolumeSettings};
pub use error::VolumeError;
pub use port::{ContainerFilesRequest, EnvFileRequest, TerminationLog, Volumes};

#[cfg(doc)]
use crate::pod::inputs::MountedVolumes;
