//! What image a container needs, when it is pulled, and with which credentials.

use k8s_openapi::api::core::v1::Container;

use super::RenderError;
use crate::pod::credentials::Keyring;
use crate::pod::inputs::ResolvedRefs;
use crate::pod::model::{DesiredPod, WaitingReason};
use crate::pod::reference::ImageReference;
use crate::pod::spec::{ImageRequest, PullPolicy};

/// The container's wish for an image.
///
/// # Errors
/// `InvalidImageName` if the reference is malformed, `ErrImagePull` if a pull
/// secret cannot be read.
pub fn image_request(
    pod: &DesiredPod,
    container: &Container,
    refs: &ResolvedRefs,
) -> Result<ImageRequest, RenderError> {
    let image = container.image.clone().unwrap_or_default();
    let reference: ImageReference = image.parse().map_err(|error| RenderError {
        reason: WaitingReason::InvalidImageName,
        message: format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {error}"),
    })?;
    // In the order in which the pod names them.
    let names = pod
        .pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let secrets = names.filter_map(|wanted| refs.secrets.get(&wanted.name));
    let keyring = Keyring::new(secrets).map_err(|error| RenderError {
        reason: WaitingReason::ErrImagePull,
        ..RenderError::config(&error)
    })?;
    Ok(ImageRequest {
        policy: policy(container, &reference)?,
        pod: pod.name.clone(),
        runtime_handler: String::new(),
        credentials: keyring.lookup(&reference),
        image,
    })
}

/// What is not said follows from the tag: `latest` may be another image
/// tomorrow, every other tag is taken to stay.
fn policy(container: &Container, reference: &ImageReference) -> Result<PullPolicy, RenderError> {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Ok(PullPolicy::Always),
        Some("IfNotPresent") => Ok(PullPolicy::IfNotPresent),
        Some("Never") => Ok(PullPolicy::Never),
        None | Some("") if reference.is_latest() => Ok(PullPolicy::Always),
        None | Some("") => Ok(PullPolicy::IfNotPresent),
        Some(other) => Err(RenderError::config_message(format!(
            "unknown imagePullPolicy {other:?}"
        ))),
    }
}
