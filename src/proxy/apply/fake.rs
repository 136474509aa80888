//! Tables in memory, for tests of what uses [`Iptables`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Iptables, IptablesError, NftablesError, Removal};
use crate::proxy::model::{Family, Found, RestoreScript};

/// Remembers what it is given, and fails when told to.
#[derive(Debug, Default)]
pub struct FakeIptables(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    restored: Vec<(Family, RestoreScript)>,
    found: BTreeMap<Family, Found>,
    failures: VecDeque<IptablesError>,
    /// Those of kube-proxy's nftables mode.
    nftables: BTreeSet<Family>,
}

impl FakeIptables {
    /// What [`Iptables::found`] answers from now on.
    pub fn set_found(&self, family: Family, found: Found) {
        self.state().found.insert(family, found);
    }

    /// The next call fails; several failures are used up in order.
    pub fn fail_next(&self, error: IptablesError) {
        self.state().failures.push_back(error);
    }

    /// The scripts that were taken since this was last asked.
    #[must_use]
    pub fn take_restored(&self) -> Vec<(Family, RestoreScript)> {
        std::mem::take(&mut self.state().restored)
    }

    /// kube-proxy's nftables mode was at work.
    pub fn set_nftables_mode(&self, family: Family) {
        self.state().nftables.insert(family);
    }

    /// Whether its table is still there.
    #[must_use]
    pub fn has_nftables_mode(&self, family: Family) -> bool {
        self.state().nftables.contains(&family)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Iptables for FakeIptables {
    async fn restore(&self, family: Family, script: &RestoreScript) -> Result<(), IptablesError> {
        let mut state = self.state();
        if let Some(error) = state.failures.pop_front() {
            return Err(error);
        }
        state.restored.push((family, script.clone()));
        Ok(())
    }

    async fn found(&self, family: Family) -> Result<Found, IptablesError> {
        let mut state = self.state();
        match state.failures.pop_front() {
            Some(error) => Err(error),
            None => Ok(state.found.get(&family).cloned().unwrap_or_default()),
        }
    }

    async fn remove_nftables_mode(&self, family: Family) -> Result<Removal, NftablesError> {
        Ok(if self.state().nftables.remove(&family) {
            Removal::Removed
        } else {
            Removal::WasAbsent
        })
    }
}
