//! Images: present ones found, others pulled, and what is told of it.

use std::time::Duration;

use super::{Target, no_such_container};
use crate::pod::containers::find;
use crate::pod::inputs::ResolvedRefs;
use crate::pod::render;
use crate::pod::spec::PresentImage;
use crate::pod::{Severity, WaitingReason};
use crate::runtime::ImageProgressEvent;
use crate::worker::step::{Outcome, StartFailure};

impl Target {
    pub(super) async fn pull(&self, container: String) -> Outcome {
        let image = find(&self.desired.pod, &container)
            .and_then(|container| container.image.clone())
            .unwrap_or_default();
        let result = self.ensure_image(&container).await;
        if let Err(failure) = &result {
            self.image_failed(&container, &image, failure);
            self.start_failed(&container, failure.reason.as_str());
        }
        Outcome::Image {
            container,
            image,
            result,
        }
    }

    async fn ensure_image(&self, name: &str) -> Result<PresentImage, StartFailure> {
        let pod = &self.desired.pod;
        let container = find(pod, name).ok_or_else(|| no_such_container(name))?;
        let refs = self.resolve_pull_secrets().await;
        let request = render::image_request(&self.desired, &container, &refs)?;
        let progress = |event| self.image_event(name, &request.image, &event);
        self.deps
            .images
            .ensure_image(&request, &progress)
            .await
            .map_err(|error| StartFailure {
                reason: error.reason,
                message: error.message,
            })
    }

    fn image_event(&self, container: &str, image: &str, event: &ImageProgressEvent) {
        let (reason, message) = match event {
            ImageProgressEvent::Pulling => ("Pulling", format!("Pulling image \"{image}\"")),
            ImageProgressEvent::AlreadyPresent => (
                "Pulled",
                format!(
                    "Container image \"{image}\" already present on machine and can be accessed \
                     by the pod"
                ),
            ),
            ImageProgressEvent::Underway { elapsed, fetched } => {
                let fetched = fetched
                    .map(|fetched| format!(" ({fetched} on their way)"))
                    .unwrap_or_default();
                (
                    "PullProgress",
                    format!(
                        "Still pulling image \"{image}\" after {}s{fetched}",
                        elapsed.as_secs()
                    ),
                )
            }
            ImageProgressEvent::Pulled {
                took,
                took_with_wait,
                size,
            } => (
                "Pulled",
                format!(
                    "Successfully pulled image \"{image}\" in {} ({} including waiting). Image \
                     size: {size} bytes.",
                    seconds(*took),
                    seconds(*took_with_wait)
                ),
            ),
        };
        self.container_event(container, Severity::Normal, reason, message);
    }

    fn image_failed(&self, container: &str, image: &str, failure: &StartFailure) {
        let message = &failure.message;
        let (event, text) = match failure.reason {
            WaitingReason::ErrImageNeverPull => ("ErrImageNeverPull", message.clone()),
            WaitingReason::InvalidImageName | WaitingReason::ImageInspectError => {
                ("InspectFailed", message.clone())
            }
            _ => (
                "Failed",
                format!("Failed to pull image \"{image}\": {message}"),
            ),
        };
        self.container_event(container, Severity::Warning, event, text);
    }

    /// The last of the events about a start that failed.
    pub(in crate::worker) fn start_failed(&self, container: &str, error: &str) {
        let text = format!("Error: {error}");
        self.container_event(container, Severity::Warning, "Failed", text);
    }

    /// Pull secrets that exist and can be read; the others are told of.
    async fn resolve_pull_secrets(&self) -> ResolvedRefs {
        let names = render::refs(&self.desired.pod).pull_secrets;
        let mut refs = ResolvedRefs::default();
        let mut missing = Vec::new();
        for name in names {
            match self
                .deps
                .objects
                .secret(&self.desired.name.namespace, &name)
                .await
            {
                Ok(Some(secret)) => {
                    refs.secrets.insert(name, secret);
                }
                Ok(None) | Err(_) => missing.push(name),
            }
        }
        if !missing.is_empty() {
            self.warn(
                "FailedToRetrieveImagePullSecret",
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the \
                     image may not succeed.",
                    missing.join(", ")
                ),
            );
        }
        refs
    }
}

/// A duration as upstream shows one in events, to the millisecond.
fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}
