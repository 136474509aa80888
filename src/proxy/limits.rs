//! Kernel settings of the service proxy: how many connections are tracked and for how
//! long, and node ports at loopback addresses.
//!
//! In: the configuration and the number of CPUs. Out: values below `/proc/sys` and
//! `/sys/module`, as upstream's kube-proxy sets them. Unlike upstream we go on where one
//! cannot be written, with one warning for each: Services work without, and in a network
//! namespace of its own the proxy may not change what is the whole machine's.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// No more entries than this by number of CPUs alone, as upstream.
const CEILING: u64 = 1_048_576;

/// Entries for each bucket of the table, as upstream.
const ENTRIES_PER_BUCKET: u64 = 4;

/// What is to be set (`conntrack` and `iptables.localhostNodePorts` of a
/// KubeProxyConfiguration). Zero: leave the kernel's value alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Entries for each CPU.
    pub max_per_core: u32,
    /// Entries at least, whatever the number of CPUs. Counts only with `max_per_core`.
    pub min: u32,
    pub tcp_established_timeout: Duration,
    pub tcp_close_wait_timeout: Duration,
    pub udp_timeout: Duration,
    pub udp_stream_timeout: Duration,
    /// Packets outside of the window are not `INVALID`.
    pub tcp_be_liberal: bool,
    /// Node ports of IPv4 at 127.0.0.0/8.
    pub localhost_node_ports: bool,
}

impl Default for LimitSettings {
    /// Upstream's.
    fn default() -> Self {
        Self {
            max_per_core: 32_768,
            min: 131_072,
            tcp_established_timeout: Duration::from_hours(24),
            tcp_close_wait_timeout: Duration::from_hours(1),
            udp_timeout: Duration::ZERO,
            udp_stream_timeout: Duration::ZERO,
            tcp_be_liberal: false,
            localhost_node_ports: true,
        }
    }
}

/// A kernel setting. All are whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tunable {
    ConntrackMax,
    ConntrackBuckets,
    TcpEstablishedTimeout,
    TcpCloseWaitTimeout,
    TcpBeLiberal,
    UdpTimeout,
    UdpStreamTimeout,
    RouteLocalnet,
}

impl Tunable {
    pub const ALL: [Self; 8] = [
        Self::ConntrackMax,
        Self::ConntrackBuckets,
        Self::TcpEstablishedTimeout,
        Self::TcpCloseWaitTimeout,
        Self::TcpBeLiberal,
        Self::UdpTimeout,
        Self::UdpStreamTimeout,
        Self::RouteLocalnet,
    ];

    /// Below `/`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ConntrackMax => "proc/sys/net/netfilter/nf_conntrack_max",
            // The sysctl of this name is read-only; the module's parameter is not.
            Self::ConntrackBuckets => "sys/module/nf_conntrack/parameters/hashsize",
            Self::TcpEstablishedTimeout => {
                "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"
            }
            Self::TcpCloseWaitTimeout => {
                "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait"
            }
            Self::TcpBeLiberal => "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
            Self::UdpTimeout => "proc/sys/net/netfilter/nf_conntrack_udp_timeout",
            Self::UdpStreamTimeout => "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream",
            Self::RouteLocalnet => "proc/sys/net/ipv4/conf/all/route_localnet",
        }
    }
}

/// A value to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    pub tunable: Tunable,
    /// None: it could not be read.
    pub from: Option<u64>,
    pub to: u64,
}

/// A kernel setting stays as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot set /{} to {}", write.tunable.path(), write.to)]
pub struct WriteError {
    pub write: Write,
    #[source]
    pub source: io::Error,
}

/// Brings the settings below `root` (`/`) in order, with a warning for each that
/// resists. `cpus` counts the machine's.
pub fn ensure(root: &Path, settings: &LimitSettings, cpus: usize) {
    let plan = plan(settings, cpus, &current(root));
    for error in apply(root, &plan) {
        tracing::warn!(
            is = error.write.from,
            error = %crate::error::chain(&error),
            "a kernel setting of the service proxy stays as it is"
        );
    }
}

/// The values now, of settings that can be read.
#[must_use]
pub fn current(root: &Path) -> BTreeMap<Tunable, u64> {
    let known = |tunable: Tunable| Some((tunable, read(root, tunable)?));
    Tunable::ALL.into_iter().filter_map(known).collect()
}

/// What has to be written, in this order.
#[must_use]
pub fn plan(settings: &LimitSettings, cpus: usize, current: &BTreeMap<Tunable, u64>) -> Vec<Write> {
    let max = max_entries(settings, cpus);
    let wanted = [
        (Tunable::ConntrackMax, max),
        (Tunable::ConntrackBuckets, max / ENTRIES_PER_BUCKET),
        (
            Tunable::TcpEstablishedTimeout,
            settings.tcp_established_timeout.as_secs(),
        ),
        (
            Tunable::TcpCloseWaitTimeout,
            settings.tcp_close_wait_timeout.as_secs(),
        ),
        (Tunable::TcpBeLiberal, settings.tcp_be_liberal.into()),
        (Tunable::UdpTimeout, settings.udp_timeout.as_secs()),
        (
            Tunable::UdpStreamTimeout,
            settings.udp_stream_timeout.as_secs(),
        ),
        (Tunable::RouteLocalnet, settings.localhost_node_ports.into()),
    ];
    let differs = |(tunable, to)| {
        let from = current.get(&tunable).copied();
        let is_right = match tunable {
            // More buckets than needed cost little, and rehashing stops all traffic.
            Tunable::ConntrackBuckets => from >= Some(to),
            _ => from == Some(to),
        };
        (to != 0 && !is_right).then_some(Write { tunable, from, to })
    };
    wanted.into_iter().filter_map(differs).collect()
}

/// Writes what can be written, and says what could not.
#[must_use]
pub fn apply(root: &Path, plan: &[Write]) -> Vec<WriteError> {
    let mut errors: Vec<WriteError> = Vec::new();
    for write in plan {
        // Buckets are for the entries that there may be; one warning is enough.
        let max_failed = || {
            errors
                .iter()
                .any(|e| e.write.tunable == Tunable::ConntrackMax)
        };
        if write.tunable == Tunable::ConntrackBuckets && max_failed() {
            continue;
        }
        let Write { tunable, from, to } = *write;
        match std::fs::write(root.join(tunable.path()), to.to_string()) {
            Ok(()) => tracing::info!(
                setting = tunable.path(),
                from,
                to,
                "changed a kernel setting for the service proxy"
            ),
            Err(source) => errors.push(WriteError {
                write: *write,
                source,
            }),
        }
    }
    errors
}

/// Whether the kernel takes TCP packets outside of the window for valid
/// (`nf_conntrack_tcp_be_liberal`), below `root` (`/`). Then there must not be a rule
/// that drops invalid packets. No if it cannot be read, as upstream.
#[must_use]
pub fn tcp_be_liberal(root: &Path) -> bool {
    read(root, Tunable::TcpBeLiberal).is_some_and(|value| value != 0)
}

fn max_entries(settings: &LimitSettings, cpus: usize) -> u64 {
    if settings.max_per_core == 0 {
        return 0;
    }
    let cpus = u64::try_from(cpus).unwrap_or(u64::MAX);
    u64::from(settings.max_per_core)
        .saturating_mul(cpus)
        .max(settings.min.into())
        .min(CEILING)
}

fn read(root: &Path, tunable: Tunable) -> Option<u64> {
    let text = std::fs::read_to_string(root.join(tunable.path())).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests;
