//! What a worker tells others: status, events of its waits, and its view for
//! `kubelet explain`.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;

use super::{PodWorker, Running, Sight, Work};
use crate::pod::memory::ImageProgress;
use crate::pod::plan::{PodPlan, Stage};
use crate::pod::status::{self, StatusInput};
use crate::pod::{Intent, Severity, TerminationReason, WaitOn, WaitingReason};
use crate::status::{Ending, StatusUpdate};
use crate::worker::probe::Said;
use crate::worker::view::{PodView, RunningView};

impl PodWorker {
    pub(super) fn publish_status(&mut self, plan: &PodPlan) {
        if let Intent::Terminate(termination) = &self.desired.intent
            && termination.reason == TerminationReason::Orphaned
        {
            return;
        }
        let ending = match plan.stage {
            Stage::Running | Stage::Stopping => Ending::Live,
            Stage::Stopped | Stage::Finished | Stage::Removing => Ending::Stopped,
            Stage::Gone => Ending::Gone,
        };
        // Once records are being removed, what was told last stays the truth.
        let keep = plan.stage >= Stage::Removing && self.told.is_some();
        if !keep {
            let now = (self.deps.clock)();
            let handler = self
                .seen
                .ready_sandbox()
                .map(|s| s.runtime_handler.as_str());
            let features = self.health.borrow().features(handler.unwrap_or_default());
            let status = self.refused_status(now).unwrap_or_else(|| {
                status::compute(&StatusInput {
                    desired: &self.desired,
                    observed: &self.seen,
                    memory: &self.memory,
                    node: &self.deps.node,
                    features,
                    stage: plan.stage,
                    previous: self.told.as_deref().or(self.desired.pod.status.as_ref()),
                    now,
                })
            });
            if self.told.as_deref() != Some(&status) {
                self.told = Some(Arc::new(status));
                self.last_ending = None;
            }
        }
        if self.last_ending != Some(ending) {
            self.send_status(ending);
        }
    }

    /// Shows the probes what was just told of the pod.
    pub(super) fn show_probes(&mut self) {
        let told = self.told.as_deref();
        self.probes
            .update(&self.desired, &self.seen, &self.memory, told);
    }

    /// Takes in a verdict. A step under way is not waited for to tell of it:
    /// a container may take long to stop, and another be unready meanwhile.
    pub(super) fn heed(&mut self, said: Said, is_busy: bool) {
        let memory = self.memory.containers.entry(said.container).or_default();
        memory.probes.set(said.kind, said.verdict);
        if is_busy && matches!(self.sight, Sight::Clear) {
            let plan = self.plan();
            self.publish_status(&plan);
            self.show_probes();
        }
    }

    fn send_status(&mut self, ending: Ending) {
        let Some(status) = self.told.clone() else {
            return;
        };
        self.last_ending = Some(ending);
        self.deps.status.set(StatusUpdate {
            pod: self.desired.clone(),
            status,
            ending,
        });
    }

    fn refused_status(&self, now: Timestamp) -> Option<PodStatus> {
        let rejection = self.refusal.as_ref()?;
        Some(status::rejected(&self.desired, rejection, now))
    }

    /// One event per wait that a user asks about, when it begins.
    pub(super) fn announce(&mut self, plan: &PodPlan) {
        let mut waits = BTreeSet::new();
        for wait in &plan.waits {
            // The network's wait has no time of its own: once is enough.
            let since = match wait.on {
                WaitOn::Network => Timestamp::UNIX_EPOCH,
                _ => wait.at,
            };
            let key = (wait.on.clone(), since);
            if !self.announced.contains(&key) {
                match &wait.on {
                    WaitOn::CrashBackoff { container } => self.announce_crash_backoff(container),
                    WaitOn::Network => self.target().warn("NetworkNotReady", wait.why.clone()),
                    _ => {}
                }
            }
            waits.insert(key);
        }
        self.announced = waits;
    }

    fn announce_crash_backoff(&self, container: &str) {
        let pod = &self.desired;
        self.target().container_event(
            container,
            Severity::Warning,
            "BackOff",
            format!(
                "Back-off restarting failed container {container} in pod {}_{}({})",
                pod.name.name, pod.name.namespace, pod.uid
            ),
        );
    }

    pub(super) fn announce_image_backoff(&self, container: &str) {
        let memory = self.memory.container(container);
        if let ImageProgress::Failed(failed) = &memory.image
            && failed.reason == WaitingReason::ImagePullBackOff
        {
            self.target().container_event(
                container,
                Severity::Normal,
                "BackOff",
                failed.failure.message.clone(),
            );
            self.target()
                .start_failed(container, failed.reason.as_str());
        }
    }

    pub(super) fn publish_view(&self, plan: PodPlan, running: Option<&Running>) {
        let pulling = self
            .memory
            .containers
            .iter()
            .filter(|(_, c)| matches!(c.image, ImageProgress::Pulling { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        self.view.send_replace(Arc::new(PodView {
            uid: self.desired.uid.clone(),
            name: self.desired.name.clone(),
            origin: self.desired.origin.clone(),
            intent: self.desired.intent.clone(),
            admission: self.admission_view(),
            observed: self.seen.clone(),
            memory: self.memory.clone(),
            plan,
            running: running.map(|running| RunningView {
                step: match &running.work {
                    Work::Look => "Look".to_owned(),
                    Work::Steps(steps) => {
                        let steps = steps.iter().map(|step| format!("{step:?}"));
                        steps.collect::<Vec<_>>().join(" and ")
                    }
                },
                since: running.since,
            }),
            pulling,
            last_error: self.last_error.clone(),
            at: (self.deps.clock)(),
        }));
    }
}
