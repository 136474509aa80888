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

#[cfg(test)]
mod tests {
    use super::*;

    /// `(name, type)` of each family, in the order of the text.
    fn served(text: &str) -> Vec<(&str, &str)> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split_once(' ').unwrap()).collect()
    }

    /// The same of the table below a headline.
    fn documented<'a>(document: &'a str, headline: &str) -> Vec<(&'a str, &'a str)> {
        let lines = document
            .lines()
            .skip_while(|line| *line != headline)
            .skip(1);
        let section = lines.take_while(|line| !line.starts_with("### "));
        let rows = section.filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            (name, rest.split_once(" |").unwrap().0)
        })
        .collect()
    }

    #[test]
    fn the_documentation_lists_every_metric_of_usage() {
        let document = include_str!("../../docs/metrics.md");
        let snapshot = samples::snapshot();
        assert_eq!(
            documented(document, "### `/metrics/resource`"),
            served(&resource(Some(&snapshot)))
        );
        assert_eq!(
            documented(document, "### `/metrics/cadvisor`"),
            served(&cadvisor(Some(&snapshot), &samples::machine()))
        );
    }
}
