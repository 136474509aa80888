//! The cgroup tree above containers: `kubepods`, its QoS classes, one cgroup a
//! pod. Values are computed in `pod::cgroup`; this module writes them, on cgroup
//! v1 and v2.
//!
//! In: [`CgroupSettings`] (what is mounted, where our tree stands) and
//! [`PodCgroup`](crate::pod::cgroup::PodCgroup) values. Out: directories and
//! files of the kernel's cgroup file systems; [`PodCgroups`] is the port.
//!
//! On v1 a pod gets a cgroup in *every* mounted hierarchy, because the runtime
//! puts containers below it in every one of them: a hierarchy left out would
//! get its directories from the runtime, and nobody would remove them.

mod fs;
mod hierarchy;
mod kill;
mod names;
mod port;
mod values;

pub use fs::{CgroupFs, CgroupSettings, RootLimits};
pub use hierarchy::{Hierarchy, V1Mount};
pub use names::{CgroupPath, QosParent};
pub use port::{CgroupError, PodCgroups};
pub use values::shares_to_weight;
