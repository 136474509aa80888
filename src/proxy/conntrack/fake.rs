//! A connection tracking table in memory, which fails where a test wants it to.

use std::sync::Mutex;

use super::super::model::{Family, Protocol};
use super::super::stale::Flow;
use super::{Conntrack, ConntrackError, Deletion, Keep, NetlinkError};

/// The table, what was asked of it, and what is to go wrong.
#[derive(Debug, Default)]
pub struct FakeConntrack {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    flows: Vec<Flow>,
    dumps: usize,
    failing_dumps: usize,
    refusing: Vec<Flow>,
}

impl FakeConntrack {
    #[must_use]
    pub fn new(flows: impl IntoIterator<Item = Flow>) -> Self {
        let fake = Self::default();
        fake.state().flows.extend(flows);
        fake
    }

    /// What is in the table, sorted.
    #[must_use]
    pub fn table(&self) -> Vec<Flow> {
        let mut flows = self.state().flows.clone();
        flows.sort();
        flows
    }

    pub fn insert(&self, flow: Flow) {
        self.state().flows.push(flow);
    }

    /// How often the table was read.
    #[must_use]
    pub fn dumps(&self) -> usize {
        self.state().dumps
    }

    /// The next `count` reads fail.
    pub fn fail_dumps(&self, count: usize) {
        self.state().failing_dumps = count;
    }

    /// Removing this entry fails from now on.
    pub fn refuse_deletion(&self, flow: Flow) {
        self.state().refusing.push(flow);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A test that panicked with the lock held is over anyway.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn busy() -> NetlinkError {
    NetlinkError::Refused(std::io::Error::from_raw_os_error(libc::EBUSY))
}

#[async_trait::async_trait]
impl Conntrack for FakeConntrack {
    async fn flows(
        &self,
        family: Family,
        protocols: &[Protocol],
        keep: &Keep<'_>,
    ) -> Result<Vec<Flow>, ConntrackError> {
        let mut state = self.state();
        state.dumps += 1;
        if let Some(left) = state.failing_dumps.checked_sub(1) {
            state.failing_dumps = left;
            let source = busy();
            return Err(ConntrackError::Read { family, source });
        }
        let wanted = |flow: &&Flow| {
            flow.family() == family && protocols.contains(&flow.protocol) && keep(flow)
        };
        Ok(state.flows.iter().filter(wanted).cloned().collect())
    }

    async fn delete(&self, flow: &Flow) -> Result<Deletion, ConntrackError> {
        let mut state = self.state();
        if state.refusing.contains(flow) {
            return Err(ConntrackError::Delete {
                flow: Box::new(flow.clone()),
                source: busy(),
            });
        }
        let before = state.flows.len();
        state.flows.retain(|one| one != flow);
        Ok(if state.flows.len() < before {
            Deletion::Deleted
        } else {
            Deletion::WasGone
        })
    }
}
