//! The container runtime: containerd through CRI over gRPC.
//!
//! In: the specs that `pod` rendered. Out: [`ObservedPod`] snapshots, fed by
//! containerd's event stream and audited by a slow relist. CRI's protobuf
//! types do not leave this module.

mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod port;

pub use error::{ImageError, RuntimeError};
pub use port::{
    ConditionFailure, ImageProgressEvent, Images, KnownPods, Observer, RuntimeHandler,
    RuntimeHealth, Sandboxes,
};

#[cfg(doc)]
use crate::pod::ObservedPod;
