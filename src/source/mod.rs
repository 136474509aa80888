//! Desired pods in: the API server's pods and the static manifests of this
//! host, merged into one snapshot.
//!
//! ```text
//!   apiserver ── watch<PodSnapshot> ────────┐
//!                                       ├─► merge ─► watch<DesiredPods> ─► worker
//!   manifest  ── watch<ManifestSnapshot>┘
//! ```
//!
//! - [`manifest`] reads a directory (or one file) of pod manifests;
//! - [`merge()`] is the pure union of both sources;
//! - [`ManifestObjects`] answers for ConfigMaps and Secrets that are files, on a
//!   node without an API server, and [`ManifestServices`] tells of Services that
//!   are;
//! - [`run`] keeps the published snapshot current.
//!
//! Every channel carries a whole, level-triggered snapshot: a reader that
//! misses one has missed nothing.

pub mod manifest;
mod merge;
mod objects;
mod services;
mod task;

pub use manifest::{ManifestConfig, ManifestProblem, ManifestSnapshot, ManifestSource};
pub use merge::{DropReason, DroppedPod, Merged, merge};
pub use objects::{ManifestObjects, ManifestObjectsTask};
pub use services::{ManifestServices, ServiceInputs};
pub use task::{Sources, run};
