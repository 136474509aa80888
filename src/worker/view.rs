//! What a worker tells people about its pod: the answer to "why is my pod not
//! running?".

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::pod::admission::Rejection;
use crate::pod::plan::PodPlan;
use crate::pod::{DesiredPod, Intent, ObservedPod, Origin, PodMemory, PodName, PodUid};

/// A snapshot of one worker's mind.
#[derive(Debug, Clone, Serialize)]
pub struct PodView {
    pub uid: PodUid,
    pub name: PodName,
    pub origin: Origin,
    pub intent: Intent,
    pub admission: AdmissionView,
    pub observed: Arc<ObservedPod>,
    pub memory: PodMemory,
    pub plan: PodPlan,
    /// The step being carried out, and since when.
    pub running: Option<RunningView>,
    /// Image pulls under way, by container.
    pub pulling: Vec<String>,
    /// The last thing that went wrong, though it may have gone well since.
    pub last_error: Option<ErrorView>,
    pub at: Timestamp,
}

/// Whether the node takes the pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum AdmissionView {
    /// Not decided; what it waits for.
    Waits(&'static str),
    Admitted,
    Refused(Rejection),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunningView {
    pub step: String,
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorView {
    pub at: Timestamp,
    pub what: String,
    pub message: String,
}

impl PodView {
    /// The view of a pod that was only just taken on.
    #[must_use]
    pub(super) fn new(desired: &DesiredPod, now: Timestamp) -> Self {
        Self {
            uid: desired.uid.clone(),
            name: desired.name.clone(),
            origin: desired.origin.clone(),
            intent: desired.intent.clone(),
            admission: AdmissionView::Waits("its turn"),
            observed: Arc::new(ObservedPod::absent(
                desired.uid.clone(),
                desired.name.clone(),
                now,
            )),
            memory: PodMemory::default(),
            plan: PodPlan {
                stage: crate::pod::plan::Stage::Running,
                steps: Vec::new(),
                waits: Vec::new(),
            },
            running: None,
            pulling: Vec::new(),
            last_error: None,
            at: now,
        }
    }
}
