//! The decision: from what is wanted, observed and remembered to the next
//! steps. One pure function, [`plan`].
//!
//! A plan is a value. The worker executes its first step (pulls go on beside),
//! looks again, and plans anew; so a plan never has to foresee how a step ends,
//! and a crash between any two steps is a situation like any other.
//! `kubelet explain` prints the plan as it is.

mod containers;
mod end;
#[cfg(test)]
mod properties;
mod resize;
mod restart;
mod run;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

pub use end::{sought_grace, stop};
pub use resize::ContainerUpdate;
pub use restart::{
    AfterExit, CrashBackoff, after_exit, crash_backoff, may_restart_all, restarters, runs_again,
};

use super::cgroup::PodCgroup;
use super::deadline;
use super::event::ContainerKind;
use super::facts::NodeFacts;
use super::hook::Hook;
use super::memory::PodMemory;
use super::model::{DesiredPod, WaitOn, Wakeup};
use super::observed::{ContainerId, ObservedPod, SandboxId};
use super::probe::ProbeKind;
use super::resize::CgroupAim;

/// Everything a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    pub desired: &'a DesiredPod,
    pub observed: &'a ObservedPod,
    pub memory: &'a PodMemory,
    pub node: &'a NodeFacts,
    /// Why the runtime cannot set up pod networks now; host-network pods do
    /// not care.
    pub network_down: Option<&'a str>,
    /// `status.startTime`, from which deadlines count.
    pub started: Timestamp,
    pub now: Timestamp,
}

/// What to do next for one pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodPlan {
    pub stage: Stage,
    /// In order. Pulls may run beside anything; of the rest
    /// [`PodPlan::next_steps`] are to be carried out before the next plan.
    pub steps: Vec<Step>,
    /// What the pod waits for besides events, soonest first.
    pub waits: Vec<Wakeup>,
}

impl PodPlan {
    /// When to plan again even if nothing happens.
    #[must_use]
    pub fn recheck_at(&self) -> Option<Timestamp> {
        self.waits.first().map(|wait| wait.at)
    }

    /// What to carry out now, all at the same time, beside pulls: the first
    /// step, and the second if the two have nothing to do with each other.
    #[must_use]
    pub fn next_steps(&self) -> Vec<Step> {
        let mut steps = self
            .steps
            .iter()
            .filter(|step| !matches!(step, Step::PullImage { .. }));
        let first = steps.next();
        let second = steps.next().filter(|second| {
            matches!(
                (first, second),
                (Some(Step::EnsureCgroup), Step::MountVolumes)
                    | (Some(Step::UnmountVolumes), Step::RemoveCgroup)
            )
        });
        first.into_iter().chain(second).cloned().collect()
    }
}

/// How far a pod has come; only ever moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Stage {
    /// Containers are started and restarted.
    Running,
    /// Containers are being stopped; nothing is started any more.
    Stopping,
    /// No container runs. Volumes and cgroup are being taken away.
    Stopped,
    /// Ended by itself: the newest record of each container stays for readers
    /// of logs and status, until the pod is deleted.
    Finished,
    /// Being removed for good: records, logs, directory.
    Removing,
    /// Nothing of the pod is left on this node.
    Gone,
}

/// One effect. The executor carries it out by one call to a port and has no
/// opinion of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Step {
    EnsureCgroup,
    MountVolumes,
    CreateSandbox {
        attempt: u32,
        /// Whether an earlier sandbox of this pod existed (`SandboxChanged`).
        replaces: bool,
    },
    PullImage {
        container: String,
    },
    /// Create and start a new instance.
    StartContainer {
        container: String,
        attempt: NextAttempt,
        /// Crash back-off that will be in force when this instance exits.
        backoff: Option<Duration>,
    },
    /// Start an instance that an earlier process created but did not start.
    StartCreated {
        container: String,
        id: ContainerId,
    },
    /// Give running containers, and the pod, their new resources.
    Resize {
        updates: Vec<ContainerUpdate>,
        /// The pod's cgroup as it was, if that is known.
        from: Option<PodCgroup>,
        /// What the cgroup is to have at the end.
        aim: CgroupAim,
    },
    /// All at the same time, but for their turns.
    StopContainers(Vec<StopContainer>),
    StopSandbox(SandboxId),
    UnmountVolumes,
    RemoveCgroup,
    RemoveContainer(ContainerId),
    RemoveSandbox(SandboxId),
    /// Logs and the pod's directory.
    RemoveTraces,
}

/// The restart count of a container instance to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NextAttempt {
    Number(u32),
    /// The runtime has no record: go on from the log files on disk, or from 0.
    FromLogs,
}

/// One container to stop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StopContainer {
    pub id: ContainerId,
    pub name: String,
    pub kind: ContainerKind,
    /// For hook, turn and signal together.
    pub grace: Duration,
    pub why: StopReason,
    /// To be carried out first, while the grace lasts.
    pub hook: Option<Hook>,
    /// The stop signal waits until the containers of lower turns have ended,
    /// while the grace lasts. 0 for all but sidecars.
    pub turn: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum StopReason {
    /// The pod ends, or its sandbox is replaced.
    PodEnds,
    /// Its image changed; a new instance follows.
    DefinitionChanged,
    /// The runtime does not know its state; stopped to be sure.
    StateUnknown,
    /// Its resources changed, and it wants to be restarted for that.
    Resized,
    /// Its startup or liveness probe failed.
    ProbeFailed(ProbeKind),
    /// An exit that restarts all containers of the pod.
    RestartOfAll,
    /// Its post-start hook failed.
    PostStartFailed,
}

/// Decides what to do next for one pod. Total and deterministic.
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> PodPlan {
    let mut plan = match end::requested(input) {
        Some(ending) => end::plan(input, ending),
        None => run::plan(input),
    };
    if plan.stage == Stage::Running
        && let Some(at) = deadline::of(input.desired, input.started)
    {
        plan.waits.push(Wakeup {
            at,
            on: WaitOn::Deadline,
            why: "its deadline".into(),
        });
    }
    plan.waits.sort_by_key(|wait| wait.at);
    plan
}
