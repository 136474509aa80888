//! From a desired pod and what was gathered for it to what is asked of the
//! runtime. Pure: the same inputs always render the same.
//!
//! | function | in | out |
//! |---|---|---|
//! | [`refs()`] | the pod | names of the objects to fetch first |
//! | [`image_request`] | container, fetched objects | what image to have, and how |
//! | [`sandbox()`] | pod, node facts | the sandbox |
//! | [`resources_update`] | container, node facts | new resources for one that runs |
//! | [`sub_paths`] | as the container, without its files | what of volumes to prepare |
//! | [`container()`] | container, image, volumes, files, fetched objects, node facts | the container |

mod container;
mod image;
mod linux;
mod mounts;
mod refs;
mod sandbox;
mod security;

pub use self::container::{ContainerInput, container, sub_paths};
pub use self::image::image_request;
pub use self::linux::resources_update;
pub use self::refs::refs;
pub use self::sandbox::sandbox;
use super::model::WaitingReason;

/// Why something cannot be rendered. It can be later, if an object it refers
/// to appears; else the pod has to be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RenderError {
    /// For the container's status.
    pub reason: WaitingReason,
    /// For people; upstream's wording where upstream has one.
    pub message: String,
}

impl RenderError {
    /// The container's configuration is wrong. The message is the whole chain
    /// of errors, for it ends up in a status.
    fn config(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let messages: Vec<String> = causes.map(ToString::to_string).collect();
        Self::config_message(messages.join(": "))
    }

    fn config_message(message: impl Into<String>) -> Self {
        Self {
            reason: WaitingReason::CreateContainerConfigError,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests;
