//! Stopping containers, all that are named at the same time.

use futures::future::join_all;

use super::{Target, told};
use crate::error::chain;
use crate::pod::Severity;
use crate::pod::plan::{StopContainer, StopReason};
use crate::worker::step::Outcome;

impl Target {
    pub(super) async fn stop_containers(&self, stops: Vec<StopContainer>) -> Outcome {
        let redefined = stops
            .iter()
            .filter(|stop| stop.why == StopReason::DefinitionChanged)
            .map(|stop| stop.name.clone())
            .collect();
        let results = join_all(stops.iter().map(|stop| self.stop_container(stop))).await;
        let errors: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        Outcome::ContainersStopped {
            redefined,
            result: if errors.is_empty() {
                Ok(())
            } else {
                Err(errors.join("; "))
            },
        }
    }

    async fn stop_container(&self, stop: &StopContainer) -> Result<(), String> {
        let message = match stop.why {
            StopReason::PodEnds | StopReason::RestartOfAll => {
                format!("Stopping container {}", stop.name)
            }
            StopReason::DefinitionChanged => format!(
                "Container {} definition changed, will be restarted",
                stop.name
            ),
            StopReason::StateUnknown => format!(
                "Container {} is in unknown state, try killing it before restart",
                stop.name
            ),
            StopReason::ProbeFailed(kind) => format!(
                "Container {} failed {} probe, will be restarted",
                stop.name,
                kind.as_str()
            ),
        };
        self.container_event(&stop.name, Severity::Normal, "Killing", message);
        let result = self
            .deps
            .sandboxes
            .stop_container(&stop.id, stop.grace)
            .await;
        if let Err(error) = &result {
            let text = chain(error).to_string();
            self.warn("FailedKillPod", format!("error killing pod: {text}"));
        }
        told(result)
    }
}
