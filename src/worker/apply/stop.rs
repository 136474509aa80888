//! Stopping containers, all that are named at the same time.
//!
//! Each has one grace for everything: its hook, the wait for its turn, and the
//! time between the stop signal and SIGKILL. A grace that is shortened meanwhile
//! counts for whatever is under way; what was done before is not done again.

use futures::future::join_all;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Target, told};
use crate::error::chain;
use crate::pod::hook::Hook;
use crate::pod::plan::{StopContainer, StopReason};
use crate::pod::{ContainerId, Severity};
use crate::runtime::RuntimeError;
use crate::worker::haste::GraceClock;
use crate::worker::step::Outcome;

/// The turns of the stops that are not over.
pub(super) struct Turns(watch::Sender<Vec<u32>>);

impl Turns {
    fn of(stops: &[StopContainer]) -> Self {
        let turns = stops.iter().map(|stop| stop.turn).collect();
        Self(watch::Sender::new(turns))
    }

    /// Completes when all lower turns are over.
    async fn come(&self, turn: u32) {
        let mut left = self.0.subscribe();
        let come = |left: &Vec<u32>| left.iter().all(|other| *other >= turn);
        // It fails without a sender only, and that is `self`.
        let _ = left.wait_for(come).await;
    }

    fn over(&self, turn: u32) {
        self.0.send_modify(|left| {
            if let Some(place) = left.iter().position(|other| *other == turn) {
                left.swap_remove(place);
            }
        });
    }
}

impl Target {
    pub(super) async fn stop_containers(&self, stops: Vec<StopContainer>) -> Outcome {
        let redefined = stops
            .iter()
            .filter(|stop| {
                matches!(
                    stop.why,
                    StopReason::DefinitionChanged | StopReason::Resized
                )
            })
            .map(|stop| stop.name.clone())
            .collect();
        let hooked = stops.iter().filter(|stop| stop.hook.is_some());
        let hooked = hooked.map(|stop| stop.id.clone()).collect();
        let turns = Turns::of(&stops);
        let results = join_all(stops.iter().map(|stop| self.stop_in_turn(stop, &turns))).await;
        let errors: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        Outcome::ContainersStopped {
            redefined,
            hooked,
            result: if errors.is_empty() {
                Ok(())
            } else {
                Err(errors.join("; "))
            },
        }
    }

    /// Stops one container that waits for no other.
    pub(super) async fn stop_container(&self, stop: &StopContainer) -> Result<(), String> {
        self.stop_in_turn(stop, &Turns::of(&[])).await
    }

    async fn stop_in_turn(&self, stop: &StopContainer, turns: &Turns) -> Result<(), String> {
        let mut clock = self.pace.clock(stop.grace);
        self.container_event(&stop.name, Severity::Normal, "Killing", message(stop));
        if let Some(hook) = &stop.hook {
            self.pre_stop(stop, hook, &mut clock).await;
        }
        tokio::select! {
            () = turns.come(stop.turn) => {}
            () = clock.run_out() => info!(
                container = %stop.name,
                "the containers to be stopped before are not; its grace is over"
            ),
        }
        let result = self.send_stop(&stop.id, &mut clock).await;
        turns.over(stop.turn);
        if let Err(error) = &result {
            let text = chain(error).to_string();
            self.warn("FailedKillPod", format!("error killing pod: {text}"));
        }
        told(result)
    }

    /// A hook that fails, or takes all the time there is, does not keep the
    /// container.
    async fn pre_stop(&self, stop: &StopContainer, hook: &Hook, clock: &mut GraceClock) {
        let container = &stop.name;
        tokio::select! {
            result = self.run_hook(&stop.id, hook) => if let Err(error) = result {
                warn!(%container, error = %chain(&error), "the pre-stop hook failed");
                let message = "PreStopHook failed".to_owned();
                self.container_event(container, Severity::Warning, "FailedPreStopHook", message);
            },
            () = clock.run_out() => {
                info!(%container, "the pre-stop hook took all the grace there was");
            }
        }
    }

    async fn send_stop(
        &self,
        id: &ContainerId,
        clock: &mut GraceClock,
    ) -> Result<(), RuntimeError> {
        loop {
            let stopped = self.deps.sandboxes.stop_container(id, clock.left());
            tokio::select! {
                result = stopped => return result,
                () = clock.shortened() => {
                    info!(container = %id, "the stop is taken over by one with less time");
                }
            }
        }
    }
}

/// The event's message.
fn message(stop: &StopContainer) -> String {
    let name = &stop.name;
    match stop.why {
        StopReason::PodEnds | StopReason::RestartOfAll => format!("Stopping container {name}"),
        StopReason::DefinitionChanged => {
            format!("Container {name} definition changed, will be restarted")
        }
        StopReason::Resized => format!("Container {name} resize requires restart"),
        StopReason::StateUnknown => {
            format!("Container {name} is in unknown state, try killing it before restart")
        }
        StopReason::ProbeFailed(kind) => {
            let kind = kind.as_str();
            format!("Container {name} failed {kind} probe, will be restarted")
        }
        StopReason::PostStartFailed => "FailedPostStartHook".to_owned(),
    }
}
