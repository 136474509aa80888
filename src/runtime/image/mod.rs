//! [`Images`] over CRI: is it here, may the pod use it, and what came of a pull.
//!
//! | file | what |
//! |---|---|
//! | `name` | default tags; pure |
//! | `access`, `records` | who may use an image that is here already, and how that is known |
//! | `node_files`, `plugins`, `plugin` | the node's own credentials: files, and programs that are asked |
//! | `pull`, `turns` | pulls: shared, capped, in turns |
//! | `fetched` | how far they have come |

mod access;
mod fetched;
mod name;
mod node_files;
mod plugin;
mod plugins;
mod pull;
mod records;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::transport::Channel;

pub use node_files::CredentialDirs;
pub use plugin::CredentialPlugin;

use super::client::CriClient;
use super::{
    ImageError, ImageProgressEvent, Images, RunningPulls, RuntimeError, RuntimeSettings, cri,
};
use crate::config::ImageVerification;
use crate::pod::WaitingReason;
use crate::pod::reference::ImageReference;
use crate::pod::spec::{ImageId, ImageRequest, PresentImage, PullPolicy, RunAs};
use access::Access;
use plugins::Plugins;
use pull::{Order, Puller};
use records::{PullRecords, RecordError, SecretRecord};

/// After this time a pull that still goes on is told of, and again each time
/// that twice as much has passed.
const FIRST_WORD: Duration = Duration::from_secs(30);

pub(super) struct CriImages {
    client: CriClient,
    /// Of the service that has the images.
    channel: Channel,
    puller: Puller,
    plugins: Plugins,
    files: CredentialDirs,
    records: PullRecords,
    verification: ImageVerification,
    /// Told after each pull.
    pulled: Arc<Notify>,
}

impl CriImages {
    pub(super) fn new(
        client: CriClient,
        channel: Channel,
        settings: &RuntimeSettings,
        pulled: Arc<Notify>,
    ) -> Self {
        let images = &settings.images;
        Self {
            puller: Puller::new(client.clone(), images.max_parallel_pulls, images.pull_rate),
            plugins: Plugins::new(images.credential_plugins.clone()),
            files: images.credential_dirs.clone(),
            records: PullRecords::new(&images.records),
            verification: images.verification.clone(),
            client,
            channel,
            pulled,
        }
    }

    /// Whether the pod may use the image that is here.
    async fn may_use(
        &self,
        request: &ImageRequest,
        reference: &ImageReference,
        image: &cri::Image,
    ) -> bool {
        let shown: Vec<SecretRecord> = request
            .credentials
            .iter()
            .filter_map(SecretRecord::of)
            .collect();
        let (records, wanted, id) = (
            self.records.clone(),
            request.image.clone(),
            image.id.clone(),
        );
        let Ok(trace) = off_thread(move || Ok(records.trace(&wanted, &id))).await else {
            return false;
        };
        match access::decide(&self.verification, reference, &trace, &shown) {
            Access::Granted { learnt: None } => true,
            Access::Granted {
                learnt: Some(secret),
            } => {
                self.learn(reference, &image.id, Some(secret)).await;
                true
            }
            Access::Unproven => false,
        }
    }

    /// Writes down who may use an image. Without that the next pod has to pull
    /// it again, which is safe.
    async fn learn(&self, reference: &ImageReference, id: &str, secret: Option<SecretRecord>) {
        let (records, name, id) = (self.records.clone(), reference.name(), id.to_owned());
        let now = jiff::Timestamp::now();
        let written = off_thread(move || records.learn(&name, &id, secret, now)).await;
        if let Err(error) = written {
            let error = crate::error::chain(&error);
            tracing::warn!(image = %reference.name(), %error, "cannot record who may use it");
        }
    }

    /// Pulls, with the pod's credentials and the node's.
    async fn pull(
        &self,
        request: &ImageRequest,
        reference: &ImageReference,
        spec: cri::ImageSpec,
        progress: &(dyn Fn(ImageProgressEvent) + Send + Sync),
    ) -> Result<PresentImage, ImageError> {
        let begun = Instant::now();
        let (records, wanted) = (self.records.clone(), request.image.clone());
        let intent = off_thread(move || records.begin(&wanted))
            .await
            .map_err(|error| not_recorded(request, &error))?;
        let mut credentials = request.credentials.clone();
        let files = self.files.clone();
        if let Ok(keyring) = off_thread(move || Ok(files.read())).await {
            credentials.extend(keyring.lookup(reference));
        }
        credentials.extend(self.plugins.lookup(reference).await);
        let pull = self.puller.pull(&request.pod, Order { spec, credentials });
        let result = self.follow(pull, begun, progress).await;
        if let Ok(pulled) = &result {
            let secret = pulled.used.as_ref().and_then(SecretRecord::of);
            self.learn(reference, &pulled.image.id.0, secret).await;
        }
        if let Err(error) = off_thread(move || intent.settle()).await {
            let error = crate::error::chain(&error);
            tracing::warn!(image = %request.image, %error, "cannot record the end of its pull");
        }
        let pulled = result?;
        self.pulled.notify_one();
        progress(ImageProgressEvent::Pulled {
            took: pulled.took,
            took_with_wait: begun.elapsed(),
            size: pulled.size,
        });
        Ok(pulled.image)
    }

    /// Waits for a pull, and tells from time to time how far it has come.
    async fn follow<T>(
        &self,
        pull: impl Future<Output = T>,
        begun: Instant,
        progress: &(dyn Fn(ImageProgressEvent) + Send + Sync),
    ) -> T {
        let mut pull = std::pin::pin!(pull);
        let mut word = FIRST_WORD;
        loop {
            tokio::select! {
                biased;
                result = &mut pull => return result,
                () = tokio::time::sleep_until(begun + word) => {}
            }
            word *= 2;
            // The pull goes on while the store is asked.
            let ask = fetched::fetched(self.channel.clone());
            let fetched = tokio::select! {
                biased;
                result = &mut pull => return result,
                fetched = ask => fetched,
            };
            progress(ImageProgressEvent::Underway {
                elapsed: begun.elapsed(),
                fetched,
            });
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
        let reference = name::parse(&request.image)?;
        let spec = image_spec(&name::with_default_tag(&request.image, &reference), request);
        if request.policy != PullPolicy::Always {
            let found = self.client.image_status(spec.clone()).await;
            match found.map_err(|error| inspect_failed(request, &error))? {
                Some(found) if self.may_use(request, &reference, &found).await => {
                    progress(ImageProgressEvent::AlreadyPresent);
                    return Ok(present(found));
                }
                found if request.policy == PullPolicy::Never => {
                    return Err(never_pulled(request, found.is_some()));
                }
                _ => {}
            }
        }
        progress(ImageProgressEvent::Pulling);
        self.pull(request, &reference, spec, progress).await
    }

    async fn pulls(&self) -> RunningPulls {
        let pulls = self.puller.pulls();
        let fetched = if pulls.iter().any(|pull| pull.begun) {
            fetched::fetched(self.channel.clone()).await
        } else {
            None
        };
        RunningPulls { pulls, fetched }
    }
}

/// Small work with files, where it cannot hold anybody up.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RecordError> + Send + 'static,
) -> Result<T, RecordError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(RecordError::Interrupted),
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

fn never_pulled(request: &ImageRequest, present: bool) -> ImageError {
    let how = if present {
        "is present with pull policy of Never but does not have the proper auth to be used"
    } else {
        "is not present with pull policy of Never"
    };
    ImageError {
        reason: WaitingReason::ErrImageNeverPull,
        message: format!("Container image \"{}\" {how}", request.image),
    }
}

/// A pull whose credentials would be forgotten could open the image to all.
fn not_recorded(request: &ImageRequest, error: &RecordError) -> ImageError {
    ImageError {
        reason: WaitingReason::ErrImagePull,
        message: format!(
            "Failed to record image pull intent for container image \"{}\": {}",
            request.image,
            crate::error::chain(error)
        ),
    }
}
