//! [`Images`] over CRI: is it here, may it be pulled, and what came of it.

mod name;
mod pull;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::CriClient;
use super::{ImageError, ImageProgressEvent, Images, RuntimeError, RuntimeSettings, cri};
use crate::pod::WaitingReason;
use crate::pod::spec::{ImageId, ImageRequest, PresentImage, PullPolicy, RunAs};
use pull::{Order, Puller};

pub(super) struct CriImages {
    client: CriClient,
    puller: Puller,
    /// Told after each pull.
    pulled: Arc<Notify>,
}

impl CriImages {
    pub(super) fn new(client: CriClient, settings: &RuntimeSettings, pulled: Arc<Notify>) -> Self {
        Self {
            puller: Puller::new(
                client.clone(),
                settings.max_parallel_pulls,
                settings.pull_rate,
            ),
            client,
            pulled,
        }
    }
}

#[async_trait]
impl Images for CriImages {
    async fn ensure_image(
        &self,
        request: &ImageRequest,
        progress: &(dyn Fn(ImageProgressEvent) + Send + Sync),
    ) -> Result<PresentImage, ImageError> {
        let image = name::with_default_tag(&request.image)?;
        let spec = image_spec(&image, request);
        if request.policy != PullPolicy::Always {
            let found = self.client.image_status(spec.clone()).await;
            if let Some(found) = found.map_err(|error| inspect_failed(request, &error))? {
                progress(ImageProgressEvent::AlreadyPresent);
                return Ok(present(found));
            }
            if request.policy == PullPolicy::Never {
                return Err(never_pulled(request));
            }
        }
        progress(ImageProgressEvent::Pulling);
        let begun = Instant::now();
        let order = Order {
            spec,
            credentials: request.credentials.clone(),
        };
        let pulled = self.puller.pull(order).await?;
        self.pulled.notify_one();
        progress(ImageProgressEvent::Pulled {
            took: pulled.took,
            took_with_wait: begun.elapsed(),
            size: pulled.size,
        });
        Ok(pulled.image)
    }
}

fn image_spec(image: &str, request: &ImageRequest) -> cri::ImageSpec {
    cri::ImageSpec {
        image: image.to_owned(),
        user_specified_image: request.image.clone(),
        runtime_handler: request.runtime_handler.clone(),
        ..Default::default()
    }
}

/// What an image's status says to us.
fn present(image: cri::Image) -> PresentImage {
    let uid = image.uid.map(|uid| RunAs::Uid(uid.value));
    let name = Some(image.username)
        .filter(|name| !name.is_empty())
        .map(RunAs::UserName);
    PresentImage {
        id: ImageId(image.id),
        user: uid.or(name),
    }
}

/// The runtime's own words, without ours around them: events and statuses
/// frame them.
fn text(error: &RuntimeError) -> String {
    match error {
        RuntimeError::Refused { message, .. } | RuntimeError::NotFound { message, .. } => {
            message.clone()
        }
        other => crate::error::chain(other).to_string(),
    }
}

fn inspect_failed(request: &ImageRequest, error: &RuntimeError) -> ImageError {
    ImageError {
        reason: WaitingReason::ImageInspectError,
        message: format!(
            "Failed to inspect image \"{}\": {}",
            request.image,
            text(error)
        ),
    }
}

fn never_pulled(request: &ImageRequest) -> ImageError {
    ImageError {
        reason: WaitingReason::ErrImageNeverPull,
        message: format!(
            "Container image \"{}\" is not present with pull policy of Never",
            request.image
        ),
    }
}
