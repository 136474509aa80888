//! What is asked of the runtime, in our own types: the result of rendering a
//! pod. `runtime` turns these into CRI messages and nothing else does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::model::{PodName, PodUid};
use super::observed::ContainerId;
use super::userns::IdMapping;

/// CRI `PodSandboxConfig` (upstream-compatible content).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SandboxSpec {
    pub uid: PodUid,
    pub name: PodName,
    pub attempt: u32,
    /// Empty for host network.
    pub hostname: String,
    /// Absolute; `<pod logs dir>/<namespace>_<name>_<uid>`.
    pub log_directory: PathBuf,
    pub dns: DnsSpec,
    pub port_mappings: Vec<PortMapping>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The pod's cgroup as the runtime must name it, e.g.
    /// `/kubepods/burstable/pod<uid>`. Empty: the runtime's default.
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    pub namespaces: Namespaces,
    /// True if any container is privileged.
    pub privileged: bool,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub groups_policy: GroupsPolicy,
    pub selinux: Option<SelinuxOptions>,
    pub seccomp: SeccompProfile,
    /// The sum for the pod, without overhead. Without any requests this is the
    /// least of CPU shares and no limits.
    pub resources: LinuxResources,
    pub overhead: Option<LinuxResources>,
    /// From the RuntimeClass; empty for the default handler.
    pub runtime_handler: String,
}

/// Contents of the container's `resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DnsSpec {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    /// 0: not mapped to the host.
    pub host_port: u16,
    pub host_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// CRI `NamespaceOption`, whose `network` and `ipc` know POD and NODE, and
/// `pid` also CONTAINER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    pub network: NamespaceMode,
    pub ipc: NamespaceMode,
    pub pid: NamespaceMode,
    /// The pod's user namespace; `None`: the host's.
    pub users: Option<IdMapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NamespaceMode {
    Pod,
    Container,
    Node,
}

/// Which groups a process has beside those that its pod lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum GroupsPolicy {
    /// Those that the image's `/etc/group` gives its user.
    #[default]
    Merge,
    /// None.
    Strict,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SeccompProfile {
    RuntimeDefault,
    Unconfined,
    /// Absolute path of a profile on this host.
    Localhost(PathBuf),
}

/// CRI `ContainerConfig`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerSpec {
    pub name: String,
    /// The restart count of this instance.
    pub attempt: u32,
    /// The resolved image reference to run.
    pub image: ImageId,
    /// What the pod's author wrote.
    pub user_image: String,
    /// Empty: the image's entrypoint.
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<MountSpec>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's log directory: `<container>/<attempt>.log`.
    pub log_path: PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: LinuxResources,
    pub security: ContainerSecurity,
    /// The container whose process namespace it joins, whatever its own
    /// security says (CRI's TARGET): what an ephemeral container looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_target: Option<ContainerId>,
}

/// The runtime's own ID of an image that is present.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ImageId(pub String);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountSpec {
    pub container_path: String,
    pub host_path: PathBuf,
    pub read_only: bool,
    pub recursive_read_only: bool,
    pub propagation: MountPropagation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MountPropagation {
    Private,
    HostToContainer,
    Bidirectional,
}

/// CRI `LinuxContainerResources`. Zero means "not set", as in CRI.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LinuxResources {
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds per period; 0 = not set, -1 = unlimited.
    pub cpu_quota: i64,
    /// Bytes.
    pub memory_limit: i64,
    /// -1000..1000.
    pub oom_score_adj: i64,
    /// Bytes; cgroup v1 memory+swap.
    pub memory_swap_limit: i64,
    /// `(page size such as "2MB", limit in bytes)`.
    pub hugepage_limits: Vec<(String, u64)>,
    /// cgroup v2 files, e.g. `memory.oom.group`.
    pub unified: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerSecurity {
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privs: bool,
    pub run_as: RunAs,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub groups_policy: GroupsPolicy,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub seccomp: SeccompProfile,
    /// `runtime/default`, `unconfined`, `localhost/<name>`; empty: not asked.
    pub apparmor: String,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub namespaces: Namespaces,
    pub selinux: Option<SelinuxOptions>,
}

/// Who the process runs as. `UserName` only ever comes from the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum RunAs {
    Uid(i64),
    UserName(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelinuxOptions {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

// === images ===

/// One container's wish for an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageRequest {
    /// As written in the pod.
    pub image: String,
    pub policy: PullPolicy,
    /// Sandbox facts that some runtimes want with a pull.
    pub pod: PodName,
    pub runtime_handler: String,
    /// Registry credentials of the pod's own that apply, best match first. The
    /// node's come after them.
    #[serde(skip)]
    pub credentials: Vec<PullCredential>,
}

/// Registry credentials, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullCredential {
    pub auth: RegistryAuth,
    /// The pull secret that holds them; `None`: they are the node's, and good
    /// for every pod.
    pub secret: Option<SecretId>,
}

/// A secret among all that ever were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretId {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// What CRI calls `AuthConfig`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
    pub auth: String,
    pub identity_token: String,
    pub registry_token: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryAuth(redacted)")
    }
}

/// An image that is on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresentImage {
    pub id: ImageId,
    /// The image's own user, for `runAsNonRoot` and the CRI user fields.
    pub user: Option<RunAs>,
}
