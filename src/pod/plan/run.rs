//! The way in, and staying up: cgroup, volumes, sandbox, containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;

use super::containers::{Containers, SETTLING, decide, stop};
use super::end::{self, retry_later};
use super::restart::{restarters, runs_again};
use super::{PlanInput, PodPlan, Stage, Step, StopReason, resize};
use crate::pod::containers::{
    find, host_network, init, kind_of, regular, restart_policy, termination_grace,
};
use crate::pod::downward;
use crate::pod::event::ContainerKind;
use crate::pod::inputs::MountedVolumes;
use crate::pod::memory::Progress;
use crate::pod::model::{WaitOn, Wakeup};
use crate::pod::observed::{ContainerState, ObservedContainer, ObservedSandbox, SandboxState};
use crate::pod::resize::CgroupAim;

pub(super) fn plan(input: &PlanInput<'_>) -> PodPlan {
    let sandbox = match sandbox_state(input) {
        Sandbox::Usable(sandbox) => Some(sandbox),
        Sandbox::Replace => return replace_sandbox(input),
        Sandbox::Missing { attempt, replaces } => {
            if !worth_a_sandbox(input, attempt) {
                return end::plan(input, end::by_itself(input.desired));
            }
            let mut draft = Draft::new();
            let ready = draft.prepare(input);
            draft.containers(input, &decide(input, None));
            if ready {
                draft.create_sandbox(input, attempt, replaces);
            }
            return draft.done();
        }
    };
    let restarters = restarters(&input.desired.pod, input.observed);
    if !restarters.is_empty() {
        return restart_all(input, &restarters);
    }
    let mut containers = decide(input, sandbox);
    if containers.finished {
        return end::plan(input, end::by_itself(input.desired));
    }
    let mut draft = Draft::new();
    let ready = draft.prepare(input);
    draft.resize(input, &mut containers);
    draft.stops(&containers);
    draft.pulls_and_waits(&containers);
    if ready {
        draft.steps.extend(containers.starts);
    }
    draft.steps.extend(surplus(input));
    draft.done()
}

/// What is to be done about the pod's sandbox.
enum Sandbox<'a> {
    Usable(&'a ObservedSandbox),
    /// There is one, but containers cannot live in it: stop all, then it is
    /// missing.
    Replace,
    Missing {
        attempt: u32,
        replaces: bool,
    },
}

fn sandbox_state<'a>(input: &PlanInput<'a>) -> Sandbox<'a> {
    let sandboxes = &input.observed.sandboxes;
    let Some(newest) = sandboxes.first() else {
        return Sandbox::Missing {
            attempt: 0,
            replaces: false,
        };
    };
    let wants_host_network = host_network(&input.desired.pod);
    let ready = sandboxes
        .iter()
        .filter(|s| s.state == SandboxState::Ready)
        .count();
    let usable = newest.state == SandboxState::Ready
        && ready == 1
        && newest.host_network == wants_host_network
        && (wants_host_network || !newest.ips.is_empty());
    if usable {
        return Sandbox::Usable(newest);
    }
    let settled = ready == 0
        && input.observed.live_containers().next().is_none()
        && end::sandbox_stops(input).is_empty();
    if settled {
        Sandbox::Missing {
            attempt: newest.attempt.saturating_add(1),
            replaces: true,
        }
    } else {
        Sandbox::Replace
    }
}

/// Stops everything that hangs on sandboxes that cannot be used any more.
fn replace_sandbox(input: &PlanInput<'_>) -> PodPlan {
    let mut draft = Draft::new();
    let stops = end::stops(
        input,
        termination_grace(&input.desired.pod),
        StopReason::PodEnds,
    );
    if let Some(wait) = retry_later(input.memory.teardown.as_ref(), input.now) {
        draft.waits.push(wait);
    } else if stops.is_empty() {
        draft.steps = end::sandbox_stops(input);
    } else {
        draft.steps.push(Step::StopContainers(stops));
    }
    draft.done()
}

/// Stops and removes every container, so that the pod begins anew in its
/// sandbox. `restarters` go last: while one of them is on record, any process
/// that looks knows that this is under way.
fn restart_all(input: &PlanInput<'_>, restarters: &[&ObservedContainer]) -> PodPlan {
    let mut draft = Draft::new();
    let settled = restarters
        .iter()
        .filter_map(|c| c.exit())
        .map(|exit| exit.finished_at)
        .max();
    let retry = retry_later(input.memory.teardown.as_ref(), input.now);
    let settling = settled
        .filter(|exit| *exit <= input.now && *exit + SETTLING > input.now)
        .map(|exit| Wakeup {
            at: exit + SETTLING,
            on: WaitOn::Settling,
            why: "the sandbox of a container that asks for a restart of all".into(),
        });
    if let Some(wait) = retry.or(settling) {
        draft.waits.push(wait);
        return draft.done();
    }
    let pod = &input.desired.pod;
    let (live, mut dead): (Vec<_>, Vec<_>) = input
        .observed
        .containers
        .iter()
        .filter(|instance| kind_of(pod, &instance.name) != ContainerKind::Ephemeral)
        .partition(|instance| instance.state.is_live());
    let stops: Vec<_> = live
        .into_iter()
        .filter_map(|instance| {
            let container = find(pod, &instance.name)?;
            Some(stop(input, &container, instance, StopReason::RestartOfAll))
        })
        .collect();
    if !stops.is_empty() {
        draft.steps.push(Step::StopContainers(stops));
        return draft.done();
    }
    dead.sort_by_key(|instance| restarters.iter().any(|last| last.id == instance.id));
    let removals = dead
        .into_iter()
        .map(|c| Step::RemoveContainer(c.id.clone()));
    draft.steps.extend(removals);
    draft.done()
}

/// Whether containers would run in a new sandbox at all.
fn worth_a_sandbox(input: &PlanInput<'_>, attempt: u32) -> bool {
    let pod = &input.desired.pod;
    let ended = |container: &Container| {
        let newest = input.observed.newest(&container.name)?;
        let exit = newest.exit()?;
        let memory = input.memory.container(&container.name);
        Some(runs_again(pod, container, newest, exit, &memory))
    };
    let init_has_failed = init(pod).iter().any(|c| {
        let newest = input.observed.newest(&c.name);
        let failed = newest
            .and_then(ObservedContainer::exit)
            .is_some_and(|e| !e.is_success());
        failed && ended(c) == Some(false)
    });
    if init_has_failed {
        return false;
    }
    let containers = regular(pod);
    if containers.iter().any(|c| ended(c) == Some(true)) {
        return true;
    }
    // A pod that never restarts has one sandbox in its life.
    let is_second_life = attempt > 0 && !input.observed.containers.is_empty();
    let is_over = containers.iter().all(|c| ended(c) == Some(false));
    let has_had_it = restart_policy(pod) == "Never" && is_second_life;
    !(is_over || has_had_it)
}

/// A plan in the making.
struct Draft {
    steps: Vec<Step>,
    waits: Vec<Wakeup>,
}

impl Draft {
    fn new() -> Self {
        Self {
            steps: Vec::new(),
            waits: Vec::new(),
        }
    }

    fn done(self) -> PodPlan {
        PodPlan {
            stage: Stage::Running,
            steps: self.steps,
            waits: self.waits,
        }
    }

    /// Cgroup and volumes. True when both stand.
    fn prepare(&mut self, input: &PlanInput<'_>) -> bool {
        let cgroup = self.progress(
            &input.memory.cgroup,
            Step::EnsureCgroup,
            "the pod's cgroup",
            input,
        );
        let volumes = self.progress(&input.memory.volumes, Step::MountVolumes, "volumes", input);
        if let Some(mounted) = input.memory.volumes.done() {
            self.renewal(mounted, input);
        }
        cgroup && volumes
    }

    /// New contents for mounted volumes, when there are some.
    fn renewal(&mut self, mounted: &MountedVolumes, input: &PlanInput<'_>) {
        let wait = |at, why| Wakeup {
            at,
            on: WaitOn::VolumeRefresh,
            why,
        };
        if let Some(later) = retry_later(input.memory.volume_renewal.as_ref(), input.now) {
            let why = format!("volume contents could not be renewed: {}", later.why);
            self.waits.push(wait(later.at, why));
            return;
        }
        let outdated = mounted.changes != input.memory.volume_changes
            || mounted.shown != downward::shown(&input.desired.pod);
        match mounted.refresh_at {
            Some(at) if !outdated && at > input.now => {
                self.waits
                    .push(wait(at, "volume contents to be renewed".into()));
            }
            None if !outdated => {}
            _ => self.steps.push(Step::MountVolumes),
        }
    }

    /// Plans `step` unless it is done or must wait. True when it is done.
    fn progress<T>(
        &mut self,
        progress: &Progress<T>,
        step: Step,
        what: &str,
        input: &PlanInput<'_>,
    ) -> bool {
        match progress {
            Progress::Done(_) => true,
            Progress::Failed(failure) if !failure.is_due(input.now) => {
                self.waits.push(Wakeup {
                    at: failure.until,
                    on: WaitOn::StepRetry,
                    why: format!("{what} failed: {}", failure.message),
                });
                false
            }
            Progress::Todo | Progress::Undone | Progress::Failed(_) => {
                self.steps.push(step);
                false
            }
        }
    }

    fn create_sandbox(&mut self, input: &PlanInput<'_>, attempt: u32, replaces: bool) {
        if let Some(why) = input.network_down
            && !host_network(&input.desired.pod)
        {
            // The worker also wakes when the runtime's health changes.
            self.waits.push(Wakeup {
                at: input.now + std::time::Duration::from_secs(10),
                on: WaitOn::Network,
                why: format!("network is not ready: {why}"),
            });
            return;
        }
        match retry_later(input.memory.sandbox.failure(), input.now) {
            Some(wait) => self.waits.push(Wakeup {
                why: format!("sandbox creation failed: {}", wait.why),
                ..wait
            }),
            None => self.steps.push(Step::CreateSandbox { attempt, replaces }),
        }
    }

    /// What a resize changes at once; what it restarts is stopped with the rest.
    fn resize(&mut self, input: &PlanInput<'_>, containers: &mut Containers) {
        let resize = resize::decide(input);
        if let Some(underway) = &input.memory.resize.underway
            && (!resize.updates.is_empty() || resize.cgroup.is_some())
        {
            self.steps.push(Step::Resize {
                updates: resize.updates,
                from: underway.from.clone(),
                aim: resize.cgroup.or(underway.cgroup).unwrap_or(CgroupAim::New),
            });
        }
        let stops = resize.stops.into_iter();
        let named = |id| containers.stops.iter().any(|stop| stop.id == id);
        let more: Vec<_> = stops.filter(|stop| !named(stop.id.clone())).collect();
        containers.stops.extend(more);
        self.waits.extend(resize.wait);
    }

    fn stops(&mut self, containers: &Containers) {
        if !containers.stops.is_empty() {
            self.steps
                .push(Step::StopContainers(containers.stops.clone()));
        }
    }

    fn pulls_and_waits(&mut self, containers: &Containers) {
        // Pulls need nothing but the network of the node: they come first and
        // go on beside the rest.
        let pulls = containers.pulls.iter().map(|name| Step::PullImage {
            container: name.clone(),
        });
        self.steps.splice(0..0, pulls);
        self.waits.extend(containers.waits.iter().cloned());
    }

    /// Before there is a sandbox: only images can be made ready.
    fn containers(&mut self, _input: &PlanInput<'_>, containers: &Containers) {
        self.pulls_and_waits(containers);
    }
}

/// Records that nobody will ask for: all but the newest dead instance of each
/// container, and old sandboxes that hold none.
pub(super) fn surplus(input: &PlanInput<'_>) -> Vec<Step> {
    let observed = input.observed;
    let mut dead_seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut kept_in = std::collections::BTreeSet::new();
    let mut steps = Vec::new();
    for container in &observed.containers {
        let dead = matches!(container.state, ContainerState::Exited(_));
        // Created, and then overtaken by a newer instance: it never will run.
        let abandoned = container.state == ContainerState::Created
            && observed
                .newest(&container.name)
                .is_some_and(|newest| newest.id != container.id);
        let seen = dead_seen.entry(&container.name).or_default();
        if abandoned || dead && *seen >= 1 {
            steps.push(Step::RemoveContainer(container.id.clone()));
        } else {
            *seen += u32::from(dead);
            kept_in.insert(&container.sandbox);
        }
    }
    for old in observed.sandboxes.iter().skip(1) {
        if old.state == SandboxState::NotReady && !kept_in.contains(&old.id) {
            if !input.memory.stopped_sandboxes.contains(&old.id) {
                steps.push(Step::StopSandbox(old.id.clone()));
            }
            steps.push(Step::RemoveSandbox(old.id.clone()));
        }
    }
    match retry_later(input.memory.teardown.as_ref(), input.now) {
        Some(_) => Vec::new(),
        None => steps,
    }
}
