//! Kernel parameters that pods may set for themselves.
//!
//! In: names as pods and administrators write them. Out: names as the kernel's
//! tools have them, the kernel namespace that holds a parameter, and whether
//! this node lets a pod set it: the safe ones always, others by name or prefix
//! (`allowedUnsafeSysctls`).

use std::fmt;

/// Parameters that concern nobody outside the pod, and since which kernel
/// (major, minor) that is so.
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// Which kernel namespace a parameter belongs to, by the beginning of its name.
const NAMESPACED_PREFIXES: [(&str, Namespace); 4] = [
    ("kernel.shm", Namespace::Ipc),
    ("kernel.msg", Namespace::Ipc),
    ("fs.mqueue.", Namespace::Ipc),
    ("net.", Namespace::Net),
];
const NAMESPACED_NAMES: [(&str, Namespace); 1] = [("kernel.sem", Namespace::Ipc)];

/// A kernel namespace with parameters of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    Ipc,
    Net,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipc => "IPC",
            Self::Net => "Net",
        })
    }
}

/// The name with dots between its parts. Both forms of `sysctl(8)` are known:
/// in one that begins with a slash-separated part, dots belong to names
/// (`net/ipv4/conf/eth0.1/rp_filter`) and are told apart by becoming slashes.
#[must_use]
pub fn normalise(name: &str) -> String {
    if name
        .find(['.', '/'])
        .is_none_or(|at| name[at..].starts_with('.'))
    {
        return name.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

/// The namespace that holds a parameter, given its normalised name; `None` if
/// the kernel has it only once.
#[must_use]
pub fn namespace(name: &str) -> Option<Namespace> {
    let exact = NAMESPACED_NAMES.iter().find(|(known, _)| *known == name);
    let prefix = || {
        NAMESPACED_PREFIXES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
    };
    exact.or_else(prefix).map(|(_, namespace)| *namespace)
}

/// What an administrator allows: a name, or everything with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    kind: PatternKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PatternKind {
    Name,
    Prefix,
}

impl Pattern {
    fn read(pattern: &str) -> Self {
        let normal = normalise(pattern);
        match normal.strip_suffix('*') {
            Some(prefix) => Self {
                text: prefix.to_owned(),
                kind: PatternKind::Prefix,
            },
            None => Self {
                text: normal,
                kind: PatternKind::Name,
            },
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self.kind {
            PatternKind::Name => self.text == name,
            PatternKind::Prefix => name.starts_with(&self.text),
        }
    }
}

/// Whether a pattern of `allowedUnsafeSysctls` can be allowed: what it covers
/// must be a pod's own.
#[must_use]
pub fn is_namespaced(pattern: &str) -> bool {
    namespace(&Pattern::read(pattern).text).is_some()
}

/// The parameters that pods of this node may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowlist {
    /// Major and minor number of the running kernel.
    kernel: (u32, u32),
    unsafe_patterns: Vec<Pattern>,
}

/// Why a pod may not set a parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("{0:?} not allowlisted")]
    NotAllowed(String),
    /// The pod has no such namespace of its own.
    #[error("{name:?} not allowed with host {namespace} enabled")]
    HostNamespace { name: String, namespace: Namespace },
}

/// Which of the node's namespaces a pod shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostNamespaces {
    pub network: bool,
    pub ipc: bool,
}

impl HostNamespaces {
    fn shares(self, namespace: Namespace) -> bool {
        match namespace {
            Namespace::Ipc => self.ipc,
            Namespace::Net => self.network,
        }
    }
}

impl Allowlist {
    /// `kernel_release`: as `uname -r` has it. `unsafe_patterns`:
    /// `allowedUnsafeSysctls`.
    #[must_use]
    pub fn new(kernel_release: &str, unsafe_patterns: &[String]) -> Self {
        Self {
            kernel: kernel_version(kernel_release),
            unsafe_patterns: unsafe_patterns
                .iter()
                .map(|text| Pattern::read(text))
                .collect(),
        }
    }

    /// Judges the parameter `name`, in either form.
    ///
    /// # Errors
    /// Why the pod may not set it.
    pub fn check(&self, name: &str, host: HostNamespaces) -> Result<(), Forbidden> {
        let name = normalise(name);
        let is_safe = SAFE
            .iter()
            .any(|(safe, since)| *safe == name && self.kernel >= *since);
        let is_allowed = is_safe || self.unsafe_patterns.iter().any(|p| p.matches(&name));
        if !is_allowed {
            return Err(Forbidden::NotAllowed(name));
        }
        match namespace(&name) {
            Some(namespace) if host.shares(namespace) => {
                Err(Forbidden::HostNamespace { name, namespace })
            }
            _ => Ok(()),
        }
    }
}

/// Major and minor number of `6.1.0-13-amd64`; zeros where there are none.
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: HostNamespaces = HostNamespaces {
        network: false,
        ipc: false,
    };

    fn verdict(allowlist: &Allowlist, name: &str, host: HostNamespaces) -> String {
        match allowlist.check(name, host) {
            Ok(()) => "allowed".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn both_ways_to_write_a_name_are_one() {
        for (written, normal) in [
            ("kernel.sem", "kernel.sem"),
            ("kernel/sem", "kernel.sem"),
            (
                "net/ipv4/conf/eth0.1/rp_filter",
                "net.ipv4.conf.eth0/1.rp_filter",
            ),
            (
                "net.ipv4.conf.eth0/1.rp_filter",
                "net.ipv4.conf.eth0/1.rp_filter",
            ),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(normalise(written), normal);
        }
    }

    #[test]
    fn safe_ones_are_allowed_and_others_by_name_or_prefix() {
        let patterns = ["kernel.msgmax".to_owned(), "net.core.*".to_owned()];
        let allowlist = Allowlist::new("6.1.0-13-amd64", &patterns);
        let table = [
            ("kernel.shm_rmid_forced", "allowed"),
            ("net/ipv4/tcp_wmem", "allowed"),
            ("kernel.msgmax", "allowed"),
            ("kernel.msgmni", "\"kernel.msgmni\" not allowlisted"),
            ("net.core.somaxconn", "allowed"),
            ("net/core/somaxconn", "allowed"),
            ("net.corex", "\"net.corex\" not allowlisted"),
            ("vm.swappiness", "\"vm.swappiness\" not allowlisted"),
        ];
        for (name, expected) in table {
            assert_eq!(verdict(&allowlist, name, OWN), expected, "{name}");
        }
    }

    #[test]
    fn what_is_shared_with_the_host_may_not_be_set() {
        let allowlist = Allowlist::new("6.1", &["fs.mqueue.*".to_owned()]);
        let network = HostNamespaces {
            network: true,
            ..OWN
        };
        let ipc = HostNamespaces { ipc: true, ..OWN };
        let table = [
            ("net.ipv4.tcp_syncookies", network, "Net"),
            ("kernel.shm_rmid_forced", ipc, "IPC"),
            ("fs.mqueue.msg_max", ipc, "IPC"),
        ];
        for (name, host, namespace) in table {
            assert_eq!(
                verdict(&allowlist, name, host),
                format!("{name:?} not allowed with host {namespace} enabled")
            );
        }
        assert_eq!(
            verdict(&allowlist, "kernel.shm_rmid_forced", network),
            "allowed"
        );
    }

    #[test]
    fn an_old_kernel_has_fewer_safe_ones() {
        let safe_on = |release: &str| {
            let allowlist = Allowlist::new(release, &[]);
            let safe = SAFE
                .iter()
                .filter(|(name, _)| allowlist.check(name, OWN).is_ok());
            safe.count()
        };
        let table = [
            ("3.10.0-1160.el7", 5),
            ("4.5.0", 9),
            ("4.14.1", 10),
            ("4.15", 12),
            ("?", 5),
        ];
        for (release, count) in table {
            assert_eq!(safe_on(release), count, "{release}");
        }
    }

    #[test]
    fn only_what_a_pod_has_of_its_own_can_be_allowed() {
        for (pattern, fine) in [
            ("kernel.sem", true),
            ("kernel.shm*", true),
            ("net.*", true),
            ("net/core/somaxconn", true),
            ("fs.mqueue.*", true),
            ("kernel.*", false),
            ("vm.swappiness", false),
            ("*", false),
        ] {
            assert_eq!(is_namespaced(pattern), fine, "{pattern}");
        }
    }
}
