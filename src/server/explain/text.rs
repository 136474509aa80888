//! A pod's view as a person reads it.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::pod::plan::{Step, StopReason};
use crate::pod::probe::ProbeKind;
use crate::pod::{
    ContainerState, Intent, ObservedContainer, Origin, SandboxState, TerminationReason,
};
use crate::runtime::RunningPulls;
use crate::worker::{AdmissionView, PodView};

/// The explanation of one pod. `now` is when it is read.
#[must_use]
pub fn render(view: &PodView, now: Timestamp) -> String {
    let mut lines = vec![
        format!("Pod {} (uid {})", view.name, view.uid),
        field("from", &origin(&view.origin)),
        field("wanted", &intent(&view.intent)),
        field("stage", &format!("{:?}", view.plan.stage)),
    ];
    admission(&view.admission, &mut lines);
    sandboxes(view, &mut lines);
    containers(view, now, &mut lines);
    if let Some(running) = &view.running {
        lines.push(field(
            "doing now",
            &format!("{} (for {})", running.step, age(running.since, now)),
        ));
    }
    if !view.pulling.is_empty() {
        lines.push(field("pulling for", &view.pulling.join(", ")));
    }
    let next = view.plan.steps.first().map_or_else(
        || "none: everything is as wanted, or waits".to_owned(),
        describe,
    );
    lines.push(field("next step", &next));
    for wait in &view.plan.waits {
        lines.push(field(
            "waits for",
            &format!("{} (in {})", wait.why, age(now, wait.at)),
        ));
    }
    if let Some(error) = &view.last_error {
        lines.push(field(
            "last error",
            &format!(
                "{} ago: cannot {}: {}",
                age(error.at, now),
                error.what,
                error.message
            ),
        ));
    }
    let wakeup = view.plan.recheck_at().map_or_else(
        || "when something changes".to_owned(),
        |at| format!("in {}, or when something changes", age(now, at)),
    );
    lines.push(field("wakes up", &wakeup));
    lines.push(String::new());
    lines.join("\n")
}

/// How far the pulls for this pod have come; nothing without any.
#[must_use]
pub(super) fn pulls(view: &PodView, pulls: &RunningPulls, now: Timestamp) -> String {
    let ours = pulls
        .pulls
        .iter()
        .filter(|pull| pull.pods.contains(&view.name));
    let mut text = String::new();
    for pull in ours {
        let how = match (pull.begun, &pulls.fetched) {
            (false, _) => "waits for its turn".to_owned(),
            (true, None) => "under way".to_owned(),
            (true, Some(fetched)) => format!("{fetched} of all pulls are on their way"),
        };
        let age = age(pull.since, now);
        text += &field("pull", &format!("{} for {age}: {how}", pull.image));
        text.push('\n');
    }
    text
}

/// The answer for a pod that has no worker.
pub(super) fn unknown(namespace: &str, name: &str, known: &[String]) -> String {
    let mut text = format!("this agent has no pod {namespace}/{name}");
    if known.is_empty() {
        text.push_str("; it has no pods at all");
    } else {
        // Writing to a string cannot fail.
        let _ = write!(text, "; it has: {}", known.join(", "));
    }
    text
}

fn field(name: &str, value: &str) -> String {
    format!("  {:<13}{value}", format!("{name}:"))
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Api => "the API server".into(),
        Origin::Static { path } => format!("manifest {}", path.display()),
    }
}

fn intent(intent: &Intent) -> String {
    match intent {
        Intent::Run => "to run".into(),
        Intent::Terminate(termination) => {
            let why = match &termination.reason {
                TerminationReason::Deleted => "deleted".to_owned(),
                TerminationReason::Removed => "no source wants it any more".to_owned(),
                TerminationReason::Orphaned => "no source ever named it".to_owned(),
                TerminationReason::Failed {
                    reason, message, ..
                } => format!("{reason}: {message}"),
            };
            match termination.grace {
                Some(grace) => format!("to end ({why}; grace {}s)", grace.as_secs()),
                None => format!("to end ({why})"),
            }
        }
    }
}

fn admission(admission: &AdmissionView, lines: &mut Vec<String>) {
    match admission {
        AdmissionView::Admitted => {}
        AdmissionView::Waits(what) => {
            lines.push(field("admission", &format!("waits for {what}")));
        }
        AdmissionView::Refused(rejection) => lines.push(field(
            "refused",
            &format!("{}: {}", rejection.reason, rejection.message),
        )),
    }
}

fn sandboxes(view: &PodView, lines: &mut Vec<String>) {
    let Some(newest) = view.observed.sandboxes.first() else {
        lines.push(field("sandbox", "none"));
        return;
    };
    let state = match newest.state {
        SandboxState::Ready => "ready",
        SandboxState::NotReady => "not ready",
    };
    let ips: Vec<String> = newest.ips.iter().map(ToString::to_string).collect();
    let ips = if newest.host_network {
        "host network".to_owned()
    } else if ips.is_empty() {
        "no IP".to_owned()
    } else {
        ips.join(", ")
    };
    lines.push(field(
        "sandbox",
        &format!(
            "{} {state}, {ips}, attempt {}",
            short(&newest.id.0),
            newest.attempt
        ),
    ));
}

fn containers(view: &PodView, now: Timestamp, lines: &mut Vec<String>) {
    if view.observed.containers.is_empty() {
        lines.push(field("containers", "none yet"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for container in &view.observed.containers {
        if seen.insert(&container.name) {
            lines.push(field("container", &container_line(container, now)));
        }
    }
    for (name, memory) in &view.memory.containers {
        let failure = memory
            .pull_failure
            .as_ref()
            .or(memory.start_failure.as_ref());
        if let Some(failure) = failure {
            lines.push(field(
                "trouble",
                &format!(
                    "{name}: {}: {}",
                    failure.reason.as_str(),
                    failure.failure.message
                ),
            ));
        }
    }
}

fn container_line(container: &ObservedContainer, now: Timestamp) -> String {
    let state = match &container.state {
        ContainerState::Created => "created, not started".to_owned(),
        ContainerState::Running { started_at } => format!("running for {}", age(*started_at, now)),
        ContainerState::Exited(exit) => format!(
            "exited {} ago with code {} ({})",
            age(exit.finished_at, now),
            exit.code,
            exit.reason
        ),
        ContainerState::Unknown => "in unknown state".to_owned(),
    };
    format!(
        "{} {state}, restarts {}, {}",
        container.name,
        container.attempt,
        short(&container.id.0)
    )
}

fn describe(step: &Step) -> String {
    match step {
        Step::EnsureCgroup => "create the pod's cgroup".into(),
        Step::MountVolumes => "mount volumes".into(),
        Step::CreateSandbox { attempt, .. } => format!("create sandbox, attempt {attempt}"),
        Step::PullImage { container } => format!("get the image of container {container}"),
        Step::StartContainer { container, .. } => format!("start container {container}"),
        Step::StartCreated { container, .. } => {
            format!("start container {container}, created earlier")
        }
        Step::Resize { updates, .. } => {
            let names: Vec<&str> = updates.iter().map(|u| u.name.as_str()).collect();
            format!(
                "change the resources of the pod and of: {}",
                names.join(", ")
            )
        }
        Step::StopContainers(stops) => {
            let names: Vec<String> = stops
                .iter()
                .map(|stop| {
                    let why = match stop.why {
                        StopReason::PodEnds => "pod ends",
                        StopReason::DefinitionChanged => "definition changed",
                        StopReason::Resized => "its resources change",
                        StopReason::StateUnknown => "state unknown",
                        StopReason::ProbeFailed(ProbeKind::Startup) => "startup probe failed",
                        StopReason::ProbeFailed(_) => "liveness probe failed",
                        StopReason::RestartOfAll => "all containers are restarted",
                        StopReason::PostStartFailed => "post-start hook failed",
                    };
                    let hook = stop.hook.as_ref().map_or("", |_| ", hook first");
                    let grace = stop.grace.as_secs();
                    format!("{} ({why}, grace {grace}s{hook})", stop.name)
                })
                .collect();
            format!("stop {}", names.join(", "))
        }
        Step::StopSandbox(id) => format!("stop sandbox {}", short(&id.0)),
        Step::UnmountVolumes => "unmount volumes".into(),
        Step::RemoveCgroup => "remove the pod's cgroup".into(),
        Step::RemoveContainer(id) => format!("remove container {}", short(&id.0)),
        Step::RemoveSandbox(id) => format!("remove sandbox {}", short(&id.0)),
        Step::RemoveTraces => "remove logs and the pod's directory".into(),
    }
}

fn short(id: &str) -> &str {
    id.get(..13).unwrap_or(id)
}

/// The time from `from` to `to`, to the second; nothing is ever "-3s".
fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}
