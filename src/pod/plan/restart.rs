//! Whether, and when, a container that exited runs again.
//!
//! The crash back-off lives on the containers themselves: each instance is
//! stamped with the pause that was in force when it was created, so a new agent
//! process goes on with the same schedule.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use crate::pod::containers::{find_ephemeral, init, kind_of, regular, restart_policy};
use crate::pod::event::ContainerKind;
use crate::pod::memory::ContainerMemory;
use crate::pod::observed::{Exit, ObservedContainer, ObservedPod};
use crate::pod::probe::ProbeKind;

/// Pause before the second restart; the first is immediate.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
/// An instance that lived this long clears its history.
const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;

/// When the next instance may start, and how it is to be stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashBackoff {
    /// Not before this time.
    pub until: Timestamp,
    /// The pause that `until` came from; zero for an immediate restart.
    pub pause: Duration,
    /// Stamp of the next instance.
    pub next: Duration,
}

/// The back-off after `exit` of `container`. A changed definition (`hash`)
/// starts from nothing.
#[must_use]
pub fn crash_backoff(
    container: &ObservedContainer,
    exit: &Exit,
    hash: &str,
    max: Duration,
) -> CrashBackoff {
    let lived = exit.finished_at.duration_since(container.created_at);
    let pause = match container.stamp.backoff {
        Some(pause) if container.stamp.hash == hash && lived.unsigned_abs() <= BACKOFF_RESET => {
            pause.min(max)
        }
        _ => Duration::ZERO,
    };
    let next = if pause.is_zero() {
        FIRST_BACKOFF.min(max)
    } else {
        (pause * 2).min(max)
    };
    CrashBackoff {
        until: exit.finished_at + pause,
        pause,
        next,
    }
}

/// What a container's rules and policies say to an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterExit {
    Stays,
    RunsAgain,
    /// The pod begins anew in its sandbox, with its init containers.
    AllRunAgain,
}

/// What follows when `container` exits with `code`: the first of its own rules
/// that matches decides, then its own policy, then the pod's. An ephemeral
/// container runs once.
#[must_use]
pub fn after_exit(pod: &Pod, container: &Container, code: i32) -> AfterExit {
    if find_ephemeral(pod, &container.name).is_some() {
        return AfterExit::Stays;
    }
    let own = own_policy(container);
    let rules = container.restart_policy_rules.iter().flatten();
    let rule = rules
        .filter(|_| own.is_some())
        .find(|rule| matches(rule, code));
    match rule.map(|rule| rule.action.as_str()) {
        Some("RestartAllContainers") => return AfterExit::AllRunAgain,
        Some("Restart") => return AfterExit::RunsAgain,
        _ => {}
    }
    let runs_again = match own.unwrap_or_else(|| restart_policy(pod)) {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    };
    if runs_again {
        AfterExit::RunsAgain
    } else {
        AfterExit::Stays
    }
}

/// Whether an instance that exited is followed by another one: because the exit
/// asks for it, or because it was stopped to be replaced.
#[must_use]
pub fn runs_again(
    pod: &Pod,
    container: &Container,
    instance: &ObservedContainer,
    exit: &Exit,
    memory: &ContainerMemory,
) -> bool {
    let is_init = kind_of(pod, &container.name) == ContainerKind::Init;
    let code = match exit.code {
        0 if is_init && !exit.is_success() => KILLED,
        code => code,
    };
    let never = own_policy(container).unwrap_or_else(|| restart_policy(pod)) == "Never";
    memory.redefined
        || after_exit(pod, container, code) != AfterExit::Stays
        || condemned(container, instance, memory) && !never
}

/// Whether a probe wanted this instance stopped. What it exits with then says
/// nothing of how well it did.
fn condemned(
    container: &Container,
    instance: &ObservedContainer,
    memory: &ContainerMemory,
) -> bool {
    [ProbeKind::Startup, ProbeKind::Liveness]
        .into_iter()
        .any(|kind| {
            kind.of(container).is_some() && memory.probes.on(kind, &instance.id) == Some(false)
        })
}

/// The container's own restart policy. Only a container that has one has rules.
fn own_policy(container: &Container) -> Option<&str> {
    let policy = container.restart_policy.as_deref();
    policy.filter(|policy| !policy.is_empty())
}

fn matches(rule: &ContainerRestartRule, code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let is_listed = codes.values.iter().flatten().any(|listed| *listed == code);
        match codes.operator.as_str() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            _ => false,
        }
    })
}

/// Whether some exit of some container restarts all of the pod's.
#[must_use]
pub fn may_restart_all(pod: &Pod) -> bool {
    init(pod).iter().chain(regular(pod)).any(|container| {
        let rules = container.restart_policy_rules.iter().flatten();
        own_policy(container).is_some()
            && rules
                .into_iter()
                .any(|r| r.action == "RestartAllContainers")
    })
}

/// The containers, by name, whose exit in this sandbox has all containers
/// restarted. As long as the runtime has such an exit on record, the restart is
/// under way: these records are removed last.
#[must_use]
pub fn restarters<'a>(pod: &Pod, observed: &'a ObservedPod) -> Vec<&'a ObservedContainer> {
    let Some(sandbox) = observed.ready_sandbox() else {
        return Vec::new();
    };
    let containers = init(pod).iter().chain(regular(pod));
    containers
        .filter_map(|container| {
            let newest = observed.newest(&container.name)?;
            let exit = newest.exit()?;
            let asks = after_exit(pod, container, exit.code) == AfterExit::AllRunAgain;
            (asks && newest.sandbox == sandbox.id).then_some(newest)
        })
        .collect()
}
