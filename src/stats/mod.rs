//! What pods, containers and the node itself use, collected when somebody asks.
//!
//! In: cgroup files (v1 and v2), `/proc`, directories of pods, the runtime's
//! word on writable layers and images. Out: a [`Snapshot`] of plain numbers, and
//! its forms for metrics-server, Prometheus and `/stats/summary`.
//!
//! | file | |
//! |---|---|
//! | `model` | what was read, as plain data |
//! | `collect` | [`Collector`]: one collection for all who ask at a time |
//! | `target` | which pods and containers are looked at (pure) |
//! | `place` | where their cgroups are (pure) |
//! | `survey` | goes through them (blocking) |
//! | `read`, `files` | a cgroup's files (effects) |
//! | `parse` | the kernel's texts as numbers (pure) |
//! | `network`, `disk`, `machine` | interfaces, directories and file systems, the machine |
//! | `rate` | CPU rates from two readings (pure) |
//! | `summary` | `/stats/summary` (pure) |
//! | `resource`, `cadvisor` | `/metrics/resource`, `/metrics/cadvisor` (pure) |
//! | `exposition` | Prometheus' text format with time stamps |
//!
//! Nothing runs while nobody asks.

mod cadvisor;
mod collect;
mod disk;
mod exposition;
mod files;
mod machine;
mod model;
mod network;
mod parse;
mod place;
mod rate;
mod read;
mod resource;
#[cfg(test)]
mod samples;
mod summary;
mod survey;
mod target;
#[cfg(test)]
pub(crate) mod world;

pub use cadvisor::cadvisor;
pub use collect::{Collector, CollectorDeps, StatsSettings};
pub use disk::DiskSettings;
pub(crate) use exposition::CONTENT_TYPE;
pub use machine::{MachineInfo, Topology, topology};
pub use model::{Detail, Snapshot};
pub use place::CgroupNames;
pub use resource::resource;
pub use summary::{Extent, Summary, summary};

/// There are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    #[error("cannot read the root cgroup")]
    Root,
    #[error("invalid cgroup in the configuration")]
    Settings(#[source] crate::cgroup::CgroupError),
}
