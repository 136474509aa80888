//! Rules into the kernel, and out of it: the only place that runs iptables.
//!
//! In: a [`RestoreScript`] per family. Out: whether the kernel took it; what the kernel
//! holds, as [`Found`]; and, from [`watch`], that somebody else has changed our chains.
//!
//! ```text
//!  RestoreScript ──► HostIptables ──► iptables-restore ──► kernel
//!  Found ◄── save ◄──────┤◄────────── iptables-save ◄────────┤
//!  table of the ◄─────────┤ netlink                            │
//!  nftables mode          │ own processes                      │ nf_tables' events,
//!                        ▼                                    ▼ counts of ip_tables
//!  Disturbance ◄──────────────────── watch ◄──────────────────┘
//! ```

mod command;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod host;
mod names;
mod nftables;
mod save;
pub mod watch;

use async_trait::async_trait;

pub use self::error::IptablesError;
pub use self::host::{Facts, HostIptables, Mode, Programs, Version};
pub use self::names::is_ours;
pub use self::nftables::{NftablesError, Removal};
use crate::proxy::model::{Family, Found, RestoreScript};

/// The tables of this node.
#[async_trait]
pub trait Iptables: Send + Sync {
    /// Applies a script as `iptables-restore --noflush --counters` does: each table of
    /// it whole or not at all, one after the other.
    ///
    /// # Errors
    ///
    /// If the kernel has not taken all of it; [`IptablesError`] says what of it then
    /// counts.
    async fn restore(&self, family: Family, script: &RestoreScript) -> Result<(), IptablesError>;

    /// What the tables hold that concerns us.
    ///
    /// # Errors
    ///
    /// If that cannot be said in full.
    async fn found(&self, family: Family) -> Result<Found, IptablesError>;

    /// Removes the table of kube-proxy's nftables mode, which iptables does not show.
    ///
    /// # Errors
    ///
    /// If it may still be there.
    async fn remove_nftables_mode(&self, family: Family) -> Result<Removal, NftablesError>;
}
