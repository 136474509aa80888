//! What the worker makes of a wish for other resources.

use super::PodWorker;
use crate::pod::plan::{PodPlan, Stage, Step};
use crate::pod::resize::{self, Allocation, Underway, Verdict};
use crate::pod::{Severity, qos};

impl PodWorker {
    /// Takes the newest wish, with as many resources as the node grants.
    pub(super) fn allocate(&mut self) {
        let wish = self.wish.borrow().clone();
        let held = Allocation::wished(&self.desired.pod);
        let known = self.memory.resize.deferred.take();
        if self.refusal.is_some() || self.memory.over {
            // It takes nothing, and will not.
            self.desired = resize::keep(&wish, &held);
            return;
        }
        // What becomes free from here on is news.
        self.room.mark_unchanged();
        let room = || self.ticket.resize(&wish).map_err(|short| short.message);
        let allocated = resize::allocate(&wish, &held, room);
        let from = qos::pod_cgroup(&self.desired, &self.deps.node);
        self.desired = allocated.pod;
        match allocated.verdict {
            Verdict::Unchanged => {}
            Verdict::Granted(changes) => {
                // One that is still on its way goes on with the new values.
                let earlier = self.memory.resize.underway.take();
                let mut underway = Underway {
                    since: (self.deps.clock)(),
                    changes: earlier.map(|e| e.changes).unwrap_or_default(),
                    from,
                    ..Underway::default()
                };
                underway.changes.extend(changes);
                self.memory.resize.underway = Some(underway);
                self.tell_of_resize(Severity::Normal, "ResizeStarted", "started", None);
            }
            Verdict::Deferred(why) => {
                if known.as_ref() != Some(&why) {
                    let detail = resize::event_detail(&wish.pod, Some(&why));
                    let message = format!("Pod resize Deferred: {detail}");
                    self.target().warn("ResizeDeferred", message);
                }
                self.memory.resize.deferred = Some(why);
            }
        }
    }

    /// A resize is over when the plan has nothing more to do for it.
    pub(super) fn note_resized(&mut self, plan: &PodPlan) {
        let Some(underway) = &self.memory.resize.underway else {
            return;
        };
        let over = plan.stage != Stage::Running;
        let works = |step: &Step| {
            matches!(
                step,
                Step::Resize { .. }
                    | Step::StopContainers(_)
                    | Step::StartContainer { .. }
                    | Step::StartCreated { .. }
                    | Step::PullImage { .. }
            )
        };
        let restarts = self.memory.containers.values().any(|c| c.redefined);
        if !over && (underway.failure.is_some() || restarts || plan.steps.iter().any(works)) {
            return;
        }
        self.memory.resize.underway = None;
        if !over {
            self.tell_of_resize(Severity::Normal, "ResizeCompleted", "completed", None);
        }
    }

    fn tell_of_resize(
        &self,
        severity: Severity,
        reason: &'static str,
        what: &str,
        error: Option<&str>,
    ) {
        let detail = resize::event_detail(&self.desired.pod, error);
        let message = format!("Pod resize {what}: {detail}");
        self.target().event(severity, reason, message);
    }
}
