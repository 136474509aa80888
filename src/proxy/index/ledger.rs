//! What is wrong now, and what of it has been told.
//!
//! Objects come again and again with the same mistakes, at each relist at the latest.
//! Each is told once, and again only after it was gone for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::model::ServiceName;
use super::super::problem::{Fault, Problem};

/// What a Service's faults come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// Its own object.
    Object,
    /// One of its slices, by name.
    Slice(Arc<str>),
    /// Others that want the same destinations.
    Rivals,
}

type Key = (Arc<ServiceName>, Origin);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    now: BTreeMap<Key, Vec<Fault>>,
    told: BTreeMap<Key, Vec<Fault>>,
    /// Where the two may differ.
    open: BTreeSet<Key>,
}

impl Ledger {
    /// What is wrong at one origin; nothing, when all is well or the origin is gone.
    pub(super) fn set(&mut self, service: &Arc<ServiceName>, origin: Origin, faults: Vec<Fault>) {
        let key = (Arc::clone(service), origin);
        let before = if faults.is_empty() {
            self.now.remove(&key)
        } else {
            self.now.insert(key.clone(), faults)
        };
        if before.as_ref() != self.now.get(&key) {
            self.open.insert(key);
        }
    }

    /// What has not been told. Faults of slices wait until there is a Service to tell
    /// them of, for which `uid` has an answer.
    pub(super) fn take<'a>(
        &mut self,
        uid: impl Fn(&ServiceName) -> Option<Option<&'a str>>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut waiting = BTreeSet::new();
        for key in std::mem::take(&mut self.open) {
            let Some(faults) = self.now.get(&key) else {
                self.told.remove(&key);
                continue;
            };
            let (service, origin) = &key;
            let known = uid(service);
            if known.is_none() && matches!(origin, Origin::Slice(_)) {
                waiting.insert(key);
                continue;
            }
            let told = self.told.get(&key).map_or(&[][..], Vec::as_slice);
            let new = faults.iter().filter(|fault| !told.contains(fault));
            problems.extend(new.map(|fault| Problem {
                service: Arc::clone(service),
                uid: known.flatten().map(Into::into),
                field: fault.field.clone(),
                message: fault.message.clone(),
            }));
            self.told.insert(key.clone(), faults.clone());
        }
        self.open = waiting;
        problems
    }

    /// The Services whose own objects have faults.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<ServiceName>> {
        let keys = self.now.keys();
        keys.filter(|(_, origin)| *origin == Origin::Object)
            .map(|(service, _)| service)
    }

    /// Everything that is wrong now, told or not.
    #[cfg(test)]
    pub(super) fn now(&self) -> &BTreeMap<Key, Vec<Fault>> {
        &self.now
    }
}
