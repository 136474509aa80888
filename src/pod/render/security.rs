//! Who a container's process is and what it may do. What the container says
//! goes before what the pod says.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, PodSecurityContext, PodSpec, SELinuxOptions,
    SeccompProfile as ApiSeccompProfile, SecurityContext,
};

use super::RenderError;
use crate::pod::facts::NodeFacts;
use crate::pod::model::DesiredPod;
use crate::pod::spec::{
    ContainerSecurity, NamespaceMode, Namespaces, RunAs, SeccompProfile, SelinuxOptions,
};

const APPARMOR_ANNOTATION_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const APPARMOR_RUNTIME_DEFAULT: &str = "runtime/default";
const APPARMOR_UNCONFINED: &str = "unconfined";
const APPARMOR_LOCALHOST_PREFIX: &str = "localhost/";

/// User IDs the API admits.
const USER_IDS: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The security context of one container. `image_user` is whom the image runs
/// as, if it says.
pub(super) fn of_container(
    pod: &DesiredPod,
    container: &Container,
    image_user: Option<&RunAs>,
    node: &NodeFacts,
) -> Result<ContainerSecurity, RenderError> {
    let spec = pod.pod.spec.as_ref();
    let of_pod = spec.and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let image_user = image_user.cloned().unwrap_or(RunAs::Uid(0));
    let run_as_user = either(own, |c| c.run_as_user, of_pod, |p| p.run_as_user);
    if either(own, |c| c.run_as_non_root, of_pod, |p| p.run_as_non_root) == Some(true) {
        check_non_root(run_as_user, &image_user)
            .map_err(|why| RenderError::config_message(format!("{why} {}", of(pod, container))))?;
    }
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    let (masked_paths, readonly_paths) = proc_paths(own);
    Ok(ContainerSecurity {
        privileged: own.and_then(|c| c.privileged).unwrap_or(false),
        read_only_root: own
            .and_then(|c| c.read_only_root_filesystem)
            .unwrap_or(false),
        no_new_privs: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        run_as: run_as_user.map_or(image_user, RunAs::Uid),
        run_as_group: either(own, |c| c.run_as_group, of_pod, |p| p.run_as_group),
        supplemental_groups: supplemental_groups(of_pod)?,
        add_capabilities: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities
            .and_then(|c| c.drop.clone())
            .unwrap_or_default(),
        seccomp: seccomp(own, of_pod, node)?,
        apparmor: apparmor(pod, container, of_pod)?,
        masked_paths,
        readonly_paths,
        namespaces: namespaces(spec)?,
        selinux: either(
            own,
            |c| c.se_linux_options.as_ref(),
            of_pod,
            |p| p.se_linux_options.as_ref(),
        )
        .map(selinux),
    })
}

/// What the container says, else what the pod says.
fn either<'a, T>(
    own: Option<&'a SecurityContext>,
    of_own: impl Fn(&'a SecurityContext) -> Option<T>,
    pod: Option<&'a PodSecurityContext>,
    of_pod: impl Fn(&'a PodSecurityContext) -> Option<T>,
) -> Option<T> {
    own.and_then(of_own).or_else(|| pod.and_then(of_pod))
}

/// The tail of messages about a container.
fn of(pod: &DesiredPod, container: &Container) -> String {
    format!(
        "(pod: {:?}, container: {})",
        pod.full_name(),
        container.name
    )
}

fn check_non_root(run_as_user: Option<i64>, image_user: &RunAs) -> Result<(), String> {
    match (run_as_user, image_user) {
        (Some(0), _) => Err("container's runAsUser breaks non-root policy".into()),
        (Some(_), _) => Ok(()),
        (None, RunAs::UserName(name)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify \
             user is non-root"
        )),
        (None, RunAs::Uid(0)) => {
            Err("container has runAsNonRoot and image will run as root".into())
        }
        (None, RunAs::Uid(uid)) if !USER_IDS.contains(uid) => Err(format!(
            "container has runAsNonRoot and image has an invalid user id ({uid}). (Must be \
             1-({})): must be between 0 and {0}, inclusive",
            USER_IDS.end()
        )),
        (None, RunAs::Uid(_)) => Ok(()),
    }
}

/// `fsGroup`, then the groups listed.
///
/// # Errors
/// If the pod wants the groups of the image ignored: the runtime would add
/// them, and a process would have rights its author took away.
pub(super) fn supplemental_groups(
    pod: Option<&PodSecurityContext>,
) -> Result<Vec<i64>, RenderError> {
    let Some(pod) = pod else {
        return Ok(Vec::new());
    };
    match pod.supplemental_groups_policy.as_deref() {
        None | Some("Merge") => {}
        Some("Strict") => {
            return Err(RenderError::config_message(
                "supplementalGroupsPolicy Strict is not supported yet",
            ));
        }
        Some(other) => {
            return Err(RenderError::config_message(format!(
                "unsupported supplementalGroupsPolicy: {other}"
            )));
        }
    }
    let listed = pod.supplemental_groups.iter().flatten();
    Ok(pod.fs_group.iter().chain(listed).copied().collect())
}

fn seccomp(
    own: Option<&SecurityContext>,
    of_pod: Option<&PodSecurityContext>,
    node: &NodeFacts,
) -> Result<SeccompProfile, RenderError> {
    let wanted = either(
        own,
        |c| c.seccomp_profile.as_ref(),
        of_pod,
        |p| p.seccomp_profile.as_ref(),
    );
    match wanted {
        Some(profile) => seccomp_profile(profile, &node.root_dir),
        None if node.seccomp_default => Ok(SeccompProfile::RuntimeDefault),
        None => Ok(SeccompProfile::Unconfined),
    }
}

fn seccomp_profile(
    profile: &ApiSeccompProfile,
    root_dir: &Path,
) -> Result<SeccompProfile, RenderError> {
    let name = profile
        .localhost_profile
        .as_deref()
        .filter(|name| !name.is_empty());
    match (profile.type_.as_str(), name) {
        ("RuntimeDefault", _) => Ok(SeccompProfile::RuntimeDefault),
        ("Unconfined", _) => Ok(SeccompProfile::Unconfined),
        ("Localhost", Some(name)) => Ok(SeccompProfile::Localhost(
            root_dir.join("seccomp").join(name.trim_start_matches('/')),
        )),
        ("Localhost", None) => Err(RenderError::config_message(
            "localhostProfile must be set if seccompProfile type is Localhost.",
        )),
        (other, _) => Err(RenderError::config_message(format!(
            "unknown seccomp profile type: {other:?}"
        ))),
    }
}

/// The container's profile; that of the annotation which static pods may still
/// carry; the pod's.
fn apparmor(
    pod: &DesiredPod,
    container: &Container,
    of_pod: Option<&PodSecurityContext>,
) -> Result<String, RenderError> {
    let own = container.security_context.as_ref();
    if let Some(profile) = own.and_then(|c| c.app_armor_profile.as_ref()) {
        return apparmor_profile(profile);
    }
    let key = format!("{APPARMOR_ANNOTATION_PREFIX}{}", container.name);
    let annotations = pod.pod.metadata.annotations.as_ref();
    let annotation = annotations.and_then(|a| a.get(&key)).filter(|value| {
        [APPARMOR_RUNTIME_DEFAULT, APPARMOR_UNCONFINED].contains(&value.as_str())
            || value.starts_with(APPARMOR_LOCALHOST_PREFIX)
    });
    match (
        annotation,
        of_pod.and_then(|p| p.app_armor_profile.as_ref()),
    ) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(profile)) => apparmor_profile(profile),
        (None, None) => Ok(String::new()),
    }
}

fn apparmor_profile(profile: &AppArmorProfile) -> Result<String, RenderError> {
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Ok(APPARMOR_RUNTIME_DEFAULT.into()),
        ("Unconfined", _) => Ok(APPARMOR_UNCONFINED.into()),
        ("Localhost", Some(name)) => Ok(format!("{APPARMOR_LOCALHOST_PREFIX}{name}")),
        ("Localhost", None) => Err(RenderError::config_message(
            "missing localhost apparmor profile name",
        )),
        (other, _) => Err(RenderError::config_message(format!(
            "unknown apparmor profile type: {other:?}"
        ))),
    }
}

/// Masked and read-only paths, which `procMount: Unmasked` lifts.
fn proc_paths(own: Option<&SecurityContext>) -> (Vec<String>, Vec<String>) {
    if own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked") {
        return (Vec::new(), Vec::new());
    }
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    (owned(&MASKED_PATHS), owned(&READONLY_PATHS))
}

fn selinux(options: &SELinuxOptions) -> SelinuxOptions {
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    SelinuxOptions {
        user: text(&options.user),
        role: text(&options.role),
        kind: text(&options.type_),
        level: text(&options.level),
    }
}

/// Which namespaces of the host a pod's containers are in.
///
/// # Errors
/// If the pod wants a user namespace.
pub(super) fn namespaces(spec: Option<&PodSpec>) -> Result<Namespaces, RenderError> {
    let set = |field: fn(&PodSpec) -> Option<bool>| spec.and_then(field).unwrap_or(false);
    if spec.and_then(|s| s.host_users) == Some(false) {
        return Err(RenderError::config_message(
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces",
        ));
    }
    let shared = |with_node| {
        if with_node {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        }
    };
    Ok(Namespaces {
        network: shared(set(|s| s.host_network)),
        ipc: shared(set(|s| s.host_ipc)),
        pid: match (set(|s| s.host_pid), set(|s| s.share_process_namespace)) {
            (true, _) => NamespaceMode::Node,
            (false, true) => NamespaceMode::Pod,
            (false, false) => NamespaceMode::Container,
        },
    })
}
