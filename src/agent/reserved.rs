//! What the node's own daemons may use, where the operator wants that enforced
//! (`enforceNodeAllocatable` with `system-reserved` or `kube-reserved`).
//!
//! In: the configuration. Out: limits for cgroups that exist already; nobody
//! here makes them, or puts processes into them.

use std::collections::BTreeMap;

use crate::cgroup::RootLimits;
use crate::config::{Config, Enforcement};
use crate::pod::quantity::Quantity;
use crate::pod::resources::cpu_shares;

/// One cgroup of daemons and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DaemonLimits {
    /// `system reserved` or `kube reserved`, as in events.
    pub(super) who: &'static str,
    /// From the hierarchy's root, with a slash before it.
    pub(super) cgroup: String,
    pub(super) limits: RootLimits,
}

/// The limits that are to be enforced.
pub(super) fn daemons(config: &Config) -> Vec<DaemonLimits> {
    let (cgroup, reserved) = (&config.cgroup, &config.reserved);
    let system = (
        "system reserved",
        &cgroup.system_reserved_cgroup,
        &reserved.system,
        Enforcement::SystemReserved,
        Enforcement::SystemReservedCompressible,
    );
    let kube = (
        "kube reserved",
        &cgroup.kube_reserved_cgroup,
        &reserved.kube,
        Enforcement::KubeReserved,
        Enforcement::KubeReservedCompressible,
    );
    [system, kube]
        .into_iter()
        .filter_map(|(who, path, amounts, everything, only_cpu)| {
            let all = limits(amounts);
            let limits = if cgroup.enforce.contains(&everything) {
                all
            } else if cgroup.enforce.contains(&only_cpu) {
                RootLimits {
                    cpu_shares: all.cpu_shares,
                    ..RootLimits::default()
                }
            } else {
                return None;
            };
            Some(DaemonLimits {
                who,
                cgroup: format!("/{}", path.as_deref()?.trim_start_matches('/')),
                limits,
            })
        })
        .collect()
}

fn limits(amounts: &BTreeMap<String, String>) -> RootLimits {
    let amount = |resource: &str| Quantity::parse(amounts.get(resource)?).ok();
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    RootLimits {
        cpu_shares: amount("cpu").map(|cpu| unsigned(cpu_shares(cpu.milli_value()))),
        memory_limit: amount("memory").map(|memory| unsigned(memory.value())),
        pids_limit: amount("pid").map(Quantity::value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_that_were_reserved() {
        let amounts = |list: &[(&str, &str)]| {
            let owned = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            limits(&owned.collect())
        };
        assert_eq!(amounts(&[]), RootLimits::default());
        assert_eq!(
            amounts(&[
                ("cpu", "500m"),
                ("memory", "1Gi"),
                ("pid", "1000"),
                ("ephemeral-storage", "1Gi"),
            ]),
            RootLimits {
                cpu_shares: Some(512),
                memory_limit: Some(1 << 30),
                pids_limit: Some(1000),
            }
        );
    }
}
