//! What a worker learns from the end of a step.

use jiff::Timestamp;

use super::step::{Outcome, StartFailure};
use crate::pod::WaitingReason;
use crate::pod::memory::{ContainerFailure, Failure, ImageProgress, Pauses, PodMemory, Progress};
use crate::pod::spec::PresentImage;

/// Folds an outcome into the memory. Pure.
pub(super) fn remember(memory: &mut PodMemory, outcome: Outcome, now: Timestamp) {
    match outcome {
        Outcome::Cgroup(result) => memory.cgroup = progressed(&memory.cgroup, result, now),
        Outcome::Volumes(result) => volumes(memory, result, now),
        Outcome::Sandbox(Ok(())) => memory.sandbox = Progress::Todo,
        Outcome::Sandbox(Err(message)) => {
            memory.sandbox = progressed(&memory.sandbox, Err(message), now);
        }
        Outcome::Image {
            container,
            image,
            result,
        } => pulled(memory, container, &image, result, now),
        Outcome::Start { container, result } => started(memory, container, result, now),
        Outcome::Resized { done, aim, result } => {
            if let Some(underway) = &mut memory.resize.underway {
                underway.done.extend(done);
                if result.is_ok() {
                    underway.cgroup = underway.cgroup.max(Some(aim));
                }
                let previous = underway.failure.take();
                underway.failure = result
                    .err()
                    .map(|message| Failure::after(previous.as_ref(), message, Pauses::STEP, now));
            }
        }
        Outcome::ContainersStopped {
            redefined,
            hooked,
            result,
        } => {
            if result.is_ok() {
                for name in redefined {
                    memory.containers.entry(name).or_default().redefined = true;
                }
                memory.pre_stopped.clear();
            } else {
                memory.pre_stopped.extend(hooked);
            }
            torn_down(memory, result, now);
        }
        Outcome::SandboxStopped { id, result } => {
            if result.is_ok() {
                memory.stopped_sandboxes.insert(id);
            }
            torn_down(memory, result, now);
        }
        Outcome::SandboxRemoved { id, result } => {
            if result.is_ok() {
                memory.stopped_sandboxes.remove(&id);
            }
            torn_down(memory, result, now);
        }
        Outcome::ContainerRemoved { result, .. } => torn_down(memory, result, now),
        Outcome::VolumesUnmounted(result) => {
            if result.is_ok() {
                memory.volumes = Progress::Undone;
            }
            torn_down(memory, result, now);
        }
        Outcome::CgroupRemoved(result) => {
            if result.is_ok() {
                memory.cgroup = Progress::Undone;
            }
            torn_down(memory, result, now);
        }
        Outcome::TracesRemoved(result) => {
            if result.is_ok() {
                memory.traces = Progress::Undone;
            }
            torn_down(memory, result, now);
        }
    }
}

fn started(
    memory: &mut PodMemory,
    container: String,
    result: Result<(), StartFailure>,
    now: Timestamp,
) {
    let entry = memory.containers.entry(container).or_default();
    // The next start asks for the image again: policy Always means so.
    entry.image = ImageProgress::Unknown;
    entry.redefined &= result.is_err();
    entry.start_failure = result.err().map(|error| {
        let previous = entry.start_failure.as_ref().map(|f| &f.failure);
        failed(previous, error, Pauses::STEP, now)
    });
}

/// The first failure is told as what it is; from the second on the pod is in
/// back-off.
fn pulled(
    memory: &mut PodMemory,
    container: String,
    image: &str,
    result: Result<PresentImage, StartFailure>,
    now: Timestamp,
) {
    let entry = memory.containers.entry(container).or_default();
    let error = match result {
        Ok(image) => {
            entry.pull_failure = None;
            entry.image = ImageProgress::Present(image);
            return;
        }
        Err(error) => error,
    };
    let previous = entry.pull_failure.as_ref().map(|f| &f.failure);
    let again = previous.is_some() && error.reason.is_failed_pull();
    let mut failed = failed(previous, error, Pauses::IMAGE, now);
    if again {
        failed.failure.message = format!(
            "Back-off pulling image \"{image}\": {}: {}",
            failed.reason.as_str(),
            failed.failure.message
        );
        failed.reason = WaitingReason::ImagePullBackOff;
    }
    entry.pull_failure = Some(failed.clone());
    entry.image = ImageProgress::Failed(failed);
}

/// A failed renewal leaves what is mounted mounted, and comes again soon.
fn volumes(
    memory: &mut PodMemory,
    result: Result<crate::pod::inputs::MountedVolumes, String>,
    now: Timestamp,
) {
    match (&memory.volumes, result) {
        (Progress::Done(_), Err(message)) => {
            let previous = memory.volume_renewal.as_ref();
            let failure = Failure::after(previous, message, Pauses::RENEWAL, now);
            memory.volume_renewal = Some(failure);
        }
        (_, result) => {
            memory.volumes = progressed(&memory.volumes, result, now);
            memory.volume_renewal = None;
        }
    }
}

/// Notes that what the volumes show has changed: what failed for want of it is
/// tried again at once. Pure.
pub(super) fn volumes_changed(memory: &mut PodMemory, count: u64, now: Timestamp) {
    memory.volume_changes = count;
    memory.volume_renewal = None;
    if let Progress::Failed(failure) = &mut memory.volumes {
        failure.until = failure.until.min(now);
    }
}

fn progressed<T>(previous: &Progress<T>, result: Result<T, String>, now: Timestamp) -> Progress<T> {
    match result {
        Ok(value) => Progress::Done(value),
        Err(message) => Progress::Failed(Failure::after(
            previous.failure(),
            message,
            Pauses::STEP,
            now,
        )),
    }
}

fn failed(
    previous: Option<&Failure>,
    error: StartFailure,
    pauses: Pauses,
    now: Timestamp,
) -> ContainerFailure {
    ContainerFailure {
        reason: error.reason,
        failure: Failure::after(previous, error.message, pauses, now),
    }
}

fn torn_down(memory: &mut PodMemory, result: Result<(), String>, now: Timestamp) {
    memory.teardown = result
        .err()
        .map(|message| Failure::after(memory.teardown.as_ref(), message, Pauses::STEP, now));
}
