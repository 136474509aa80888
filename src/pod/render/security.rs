//! Who a container's process is and what it may do. What the container says
//! goes before what the pod says.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, PodSecurityContext, PodSpec, SELinuxOptions,
    SeccompProfile as ApiSeccompProfile, SecurityContext,
};

use super::{ContainerInput, RenderError};
use crate::pod::facts::NodeFacts;
use crate::pod::inputs::PodRuntime;
use crate::pod::model::DesiredPod;
use crate::pod::spec::{
    ContainerSecurity, GroupsPolicy, NamespaceMode, Namespaces, RunAs, SeccompProfile,
    SelinuxOptions,
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

/// The security context of one container.
pub(super) fn of_container(input: &ContainerInput<'_>) -> Result<ContainerSecurity, RenderError> {
    let ContainerInput {
        pod,
        container,
        runtime,
        node,
        ..
    } = *input;
    let spec = pod.pod.spec.as_ref();
    let of_pod = spec.and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let image_user = input.image.user.clone().unwrap_or(RunAs::Uid(0));
    let run_as_user = either(own, |c| c.run_as_user, of_pod, |p| p.run_as_user);
    if either(own, |c| c.run_as_non_root, of_pod, |p| p.run_as_non_root) == Some(true) {
        check_non_root(run_as_user, &image_user)
            .map_err(|why| RenderError::config_message(format!("{why} {}", of(pod, container))))?;
    }
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    let (masked_paths, readonly_paths) = proc_paths(own, node);
    Ok(ContainerSecurity {
        privileged: own.and_then(|c| c.privileged).unwrap_or(false),
        read_only_root: own
            .and_then(|c| c.read_only_root_filesystem)
            .unwrap_or(false),
        no_new_privs: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        run_as: run_as_user.map_or(image_user, RunAs::Uid),
        run_as_group: either(own, |c| c.run_as_group, of_pod, |p| p.run_as_group),
        supplemental_groups: supplemental_groups(of_pod),
        groups_policy: groups_policy(of_pod, runtime)?,
        add_capabilities: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities
            .and_then(|c| c.drop.clone())
            .unwrap_or_default(),
        seccomp: seccomp(own, of_pod, node)?,
        apparmor: apparmor(pod, container, of_pod)?,
        masked_paths,
        readonly_paths,
        namespaces: namespaces(spec, runtime)?,
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
pub(super) fn supplemental_groups(pod: Option<&PodSecurityContext>) -> Vec<i64> {
    let fs_group = pod.and_then(|pod| pod.fs_group);
    let listed = pod.and_then(|pod| pod.supplemental_groups.as_ref());
    let listed = listed.into_iter().flatten().copied();
    fs_group.into_iter().chain(listed).collect()
}

/// # Errors
/// If the pod wants the groups of the image ignored and the runtime would add
/// them all the same: a process would have rights its author took away.
pub(super) fn groups_policy(
    pod: Option<&PodSecurityContext>,
    runtime: &PodRuntime,
) -> Result<GroupsPolicy, RenderError> {
    match pod.and_then(|pod| pod.supplemental_groups_policy.as_deref()) {
        None | Some("Merge") => Ok(GroupsPolicy::Merge),
        Some("Strict") if runtime.features.supplemental_groups_policy => Ok(GroupsPolicy::Strict),
        Some("Strict") => Err(RenderError::config_message(
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        )),
        Some(other) => Err(RenderError::config_message(format!(
            "unsupported supplementalGroupsPolicy: {other}"
        ))),
    }
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
        ("Localhost", Some(name)) if is_below(name) => Ok(SeccompProfile::Localhost(
            root_dir.join("seccomp").join(name),
        )),
        // What the API server admits is never like this; manifests can be.
        ("Localhost", Some(name)) => Err(RenderError::config_message(format!(
            "localhostProfile {name:?} must be a relative path without \"..\""
        ))),
        ("Localhost", None) => Err(RenderError::config_message(
            "localhostProfile must be set if seccompProfile type is Localhost.",
        )),
        (other, _) => Err(RenderError::config_message(format!(
            "unknown seccomp profile type: {other:?}"
        ))),
    }
}

/// Whether a path stays below the directory that it is relative to.
fn is_below(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
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
fn proc_paths(own: Option<&SecurityContext>, node: &NodeFacts) -> (Vec<String>, Vec<String>) {
    if own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked") {
        return (Vec::new(), Vec::new());
    }
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let mut masked: Vec<String> = owned(&MASKED_PATHS);
    masked.extend(node.thermal_paths.iter().cloned());
    (masked, owned(&READONLY_PATHS))
}

pub(super) fn selinux(options: &SELinuxOptions) -> SelinuxOptions {
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
/// If the pod wants a user namespace and the runtime cannot make one.
pub(super) fn namespaces(
    spec: Option<&PodSpec>,
    runtime: &PodRuntime,
) -> Result<Namespaces, RenderError> {
    let set = |field: fn(&PodSpec) -> Option<bool>| spec.and_then(field).unwrap_or(false);
    let users = match spec.and_then(|s| s.host_users) {
        Some(false) => Some(runtime.users.ok_or_else(|| no_user_namespaces(runtime))?),
        None | Some(true) => None,
    };
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
        users,
    })
}

fn no_user_namespaces(runtime: &PodRuntime) -> RenderError {
    let who = match runtime.handler.as_str() {
        "" => "runtime".to_owned(),
        handler => format!("RuntimeClass handler {handler:?}"),
    };
    RenderError::config_message(format!(
        "can't set `spec.hostUsers: false`, {who} does not support user namespaces"
    ))
}
