//! The kernel's connection tracking table: looked through for stale entries, which are
//! removed.
//!
//! In: a [`Truth`], after the kernel has its rules. Out: entries gone from the table,
//! and how many. [`HostConntrack`] talks netlink; [`fake::FakeConntrack`] is a table
//! in memory.
//!
//! A node under load has a million entries, most of them of TCP. The kernel is asked
//! for some protocols only, its answer is looked at entry by entry, and nothing is kept
//! but what is stale.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use super::model::{Family, Protocol};
use super::stale::{Flow, PROTOCOLS, Truth};

#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod host;
mod wire;

#[cfg(test)]
mod tests;

pub use host::HostConntrack;
pub use wire::Malformed;

/// Which entries somebody wants to have.
pub type Keep<'a> = dyn Fn(&Flow) -> bool + Send + Sync + 'a;

/// The connection tracking table of a network namespace.
#[async_trait::async_trait]
pub trait Conntrack: Send + Sync {
    /// The entries of these protocols that `keep` wants. It sees all of them, some
    /// perhaps more than once.
    ///
    /// # Errors
    /// The kernel refused, could not be understood, or its table changed too much
    /// while it was read.
    async fn flows(
        &self,
        family: Family,
        protocols: &[Protocol],
        keep: &Keep<'_>,
    ) -> Result<Vec<Flow>, ConntrackError>;

    /// Removes one entry, if it is still the same.
    ///
    /// # Errors
    /// The kernel refused for another reason than that there is no such entry.
    async fn delete(&self, flow: &Flow) -> Result<Deletion, ConntrackError>;
}

/// How the removal of an entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// It had ended, or made way for a newer one.
    WasGone,
}

/// The table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error("cannot read the connection tracking table of {}", family.as_str())]
    Read {
        family: Family,
        #[source]
        source: NetlinkError,
    },
    #[error("cannot remove the connection tracking entry of {flow}")]
    Delete {
        flow: Box<Flow>,
        #[source]
        source: NetlinkError,
    },
}

/// A conversation with the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    #[error("cannot use a netlink socket")]
    Transfer(#[source] io::Error),
    /// An answer with an error number.
    #[error("the kernel refused")]
    Refused(#[source] io::Error),
    #[error("cannot understand the kernel")]
    Malformed(#[source] Malformed),
    /// It said so itself: entries may be missing.
    #[error("the table changed while it was read")]
    Interrupted,
    #[error("the kernel did not answer in {0:?}")]
    TimedOut(std::time::Duration),
}

/// What [`clean`] did.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// Entries that were removed.
    pub deleted: usize,
    /// Stale entries that are still there; for the first one, why.
    pub failed: usize,
    pub first_failure: Option<ConntrackError>,
}

/// Removes all stale entries. Must come after the rules are in the kernel: before that,
/// a client's next packet would make the same entry again. If none failed, `truth` is
/// settled. `node` as in [`Truth::is_stale`].
///
/// # Errors
/// The table could not be read. Then nothing was removed.
pub async fn clean(
    conntrack: &dyn Conntrack,
    truth: &mut Truth,
    node: &BTreeSet<IpAddr>,
) -> Result<Cleaned, ConntrackError> {
    let is_stale = |flow: &Flow| truth.is_stale(flow, node);
    let stale = conntrack
        .flows(truth.family(), &PROTOCOLS, &is_stale)
        .await?;
    let mut cleaned = Cleaned::default();
    for flow in stale {
        match conntrack.delete(&flow).await {
            Ok(Deletion::Deleted) => {
                tracing::debug!(%flow, "removed a stale connection tracking entry");
                cleaned.deleted += 1;
            }
            Ok(Deletion::WasGone) => {}
            Err(error) => {
                cleaned.failed += 1;
                cleaned.first_failure.get_or_insert(error);
            }
        }
    }
    if cleaned.failed == 0 {
        truth.settled();
    }
    Ok(cleaned)
}
