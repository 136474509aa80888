//! The cgroup tree above containers: `kubepods`, its QoS classes, one cgroup a
//! pod. Values are computed in `pod::cgroup`; this module writes them, on cgroup
//! v1 and v2.

mod port;

pub use port::{CgroupError, PodCgroups};
