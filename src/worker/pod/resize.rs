//! What the worker makes of a wish for other resources.

use std::sync::Arc;

use jiff::Timestamp;

use super::PodWorker;
use crate::pod::plan::{PodPlan, Stage, Step};
use crate::pod::resize::{self, Allocation, ResizeMemory, Underway, Verdict};
use crate::pod::{DesiredPod, NodeFacts, Severity, qos};

/// The pod as it is to be run by a new worker, from what its status tells of
/// earlier ones.
pub(super) fn first(
    wish: &Arc<DesiredPod>,
    node: &NodeFacts,
    now: Timestamp,
) -> (Arc<DesiredPod>, ResizeMemory) {
    let held = Allocation::recorded(&wish.pod);
    let allocated = resize::allocate(wish, &held, |pod| resize::room(pod, node.allocatable));
    let mut memory = ResizeMemory {
        deferred: None,
        underway: Underway::recorded(&wish.pod),
    };
    match allocated.verdict {
        Verdict::Unchanged => {}
        Verdict::Deferred(why) => memory.deferred = Some(why),
        Verdict::Granted(changes) => {
            let mut underway = memory.underway.unwrap_or_default();
            underway.since = now;
            underway.changes.extend(changes);
            memory.underway = Some(underway);
        }
    }
    (allocated.pod, memory)
}

impl PodWorker {
    /// Takes a new wish, with as many resources as the node grants.
    pub(super) fn allocate(&mut self, wish: &Arc<DesiredPod>) {
        let held = Allocation::wished(&self.desired.pod);
        let node = &self.deps.node;
        let allocated = resize::allocate(wish, &held, |pod| resize::room(pod, node.allocatable));
        let from = qos::pod_cgroup(&self.desired, node);
        self.desired = allocated.pod;
        let known = self.memory.resize.deferred.take();
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
