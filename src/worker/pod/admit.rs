//! The worker's part of admission: to wait for the verdict, and to live by it.

use std::ops::ControlFlow;
use std::sync::Arc;

use tracing::warn;

use super::PodWorker;
use crate::pod::Intent;
use crate::pod::resize::recorded;
use crate::pod::support::{self, Effect};
use crate::worker::view::{AdmissionView, PodView};

impl PodWorker {
    /// Waits until it is decided whether the pod may run here; not for a pod
    /// that is to end. Breaks if the agent stops before that.
    pub(super) async fn await_admission(&mut self) -> ControlFlow<()> {
        while self.desired.intent == Intent::Run {
            let Self {
                deps,
                ticket,
                desired,
                wish,
                view,
                shutdown,
                ..
            } = self;
            let on_wait = |what| {
                view.send_replace(Arc::new(PodView {
                    admission: AdmissionView::Waits(what),
                    ..PodView::new(desired, (deps.clock)())
                }));
            };
            let verdict = tokio::select! {
                biased;
                () = shutdown.cancelled() => return ControlFlow::Break(()),
                Ok(()) = wish.changed() => None,
                verdict = ticket.verdict(desired, on_wait) => Some(verdict),
            };
            match verdict {
                None => self.desired = recorded(&self.wish.borrow_and_update()),
                Some(verdict) => {
                    self.refusal = verdict.err();
                    return ControlFlow::Continue(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Tells the refusal; but a pod that runs already is never refused.
    pub(super) fn settle_admission(&mut self) {
        let pod = self.desired.clone();
        if !self.seen.is_absent() {
            if self.refusal.take().is_some() {
                self.ticket.enter(&pod);
            }
            return;
        }
        let Some(rejection) = &self.refusal else {
            return warn_of_unsupported(&pod.pod);
        };
        if pod.intent != Intent::Run {
            return;
        }
        warn!(reason = %rejection.reason, message = %rejection.message, "the pod is refused");
        let events = &self.deps.events;
        events.record_rejection(&pod.pod, &rejection.reason, rejection.message.clone());
    }

    pub(super) fn admission_view(&self) -> AdmissionView {
        match &self.refusal {
            None => AdmissionView::Admitted,
            Some(rejection) => AdmissionView::Refused(rejection.clone()),
        }
    }
}

/// Fields without which the pod runs all the same.
fn warn_of_unsupported(pod: &k8s_openapi::api::core::v1::Pod) {
    let unsupported = support::unsupported(pod);
    for item in unsupported.iter().filter(|u| u.effect == Effect::Warn) {
        warn!(field = %item.field_path, "{}", item.message);
    }
}
