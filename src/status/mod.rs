//! Pod status out: what workers computed, to the API server.
//!
//! In: [`StatusUpdate`]s, latest wins per pod. Out: status patches, the final
//! deletion of pods that have ended, and mirror pods of static pods.

mod handle;

pub use handle::{Ending, StatusHandle, StatusUpdate};
