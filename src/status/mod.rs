//! Pod status out: what workers computed, to the API server.
//!
//! In: [`StatusUpdate`]s, latest wins per pod. Out: status patches, the final
//! deletion of pods that have ended, and mirror pods of static pods.
//!
//! Decisions are pure: [`merge`] and [`patch`] make the body of a status
//! patch, [`step`] says which call comes next and [`pace`] how soon, [`mirror`]
//! plans mirror pods, [`ledger`] remembers what is still to be told. The effects
//! are in [`reporter`].

mod handle;
mod ledger;
mod merge;
mod mirror;
mod pace;
mod patch;
mod reporter;
mod step;
#[cfg(test)]
mod tests;
mod view;

pub use handle::{Ending, StatusHandle, StatusUpdate};
pub use reporter::{Reporter, ReporterInputs};
pub use view::{StandaloneStatus, StatusView};
