//! Events: what makes a [`ServiceIndex`] different.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::super::model::{Destination, Family, Protocol, ServiceName};
use super::super::service::{self, ServiceInfo};
use super::super::slice::{self, SliceInfo};
use super::claims::{Claim, Claimant};
use super::ledger::Origin;
use super::{Change, Counts, ServiceIndex};

impl ServiceIndex {
    /// The node is in another zone now. Every Service may be served by others.
    pub fn set_zone(&mut self, zone: Option<&str>) {
        if self.node.zone.as_deref() == zone {
            return;
        }
        self.node.zone = zone.map(Into::into);
        let proxied = self.services.iter().filter(|(_, e)| e.proxied().is_some());
        for name in proxied
            .map(|(name, _)| Arc::clone(name))
            .collect::<Vec<_>>()
        {
            self.mark(&name);
        }
    }

    /// A Service is new or different.
    pub fn apply_service(&mut self, service: &Service) {
        let Some(name) = service::name_of(&service.metadata) else {
            return;
        };
        let name = self.shared(name);
        let (info, faults) = service::read(service, &name);
        self.ledger.set(&name, Origin::Object, faults);
        self.set_service(&name, info);
    }

    /// A Service is gone. Its slices remain until they go too.
    pub fn delete_service(&mut self, name: &ServiceName) {
        let Some((name, _)) = self.services.get_key_value(name) else {
            // One that could not be used has left nothing but faults.
            let name = Arc::new(name.clone());
            return self.ledger.set(&name, Origin::Object, Vec::new());
        };
        let name = Arc::clone(name);
        self.ledger.set(&name, Origin::Object, Vec::new());
        self.set_service(&name, None);
    }

    /// These are all Services there are.
    pub fn reset_services<'a>(&mut self, services: impl IntoIterator<Item = &'a Service>) {
        let mut seen = HashSet::new();
        for service in services {
            seen.extend(service::name_of(&service.metadata));
            self.apply_service(service);
        }
        self.retain_services(|name| seen.contains(name));
    }

    /// Forgets the Services that `keep` does not want.
    pub fn retain_services(&mut self, keep: impl Fn(&ServiceName) -> bool) {
        let known = self.services.iter().filter(|(_, e)| e.info.is_some());
        let known = known.map(|(name, _)| name).chain(self.ledger.objects());
        let gone: Vec<_> = known.filter(|name| !keep(name)).cloned().collect();
        for name in gone {
            self.delete_service(&name);
        }
    }

    /// A slice is new or different.
    pub fn apply_slice(&mut self, slice: &EndpointSlice) {
        let metadata = &slice.metadata;
        let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else {
            return;
        };
        let service = slice::service_of(slice);
        let before = self
            .slices
            .get(&**namespace)
            .and_then(|all| all.get(&**name));
        if before.is_some_and(|before| Some(&**before) != service.as_ref()) {
            self.delete_slice(namespace, name);
        }
        let Some(service) = service else { return };
        let service = self.shared(service);
        let (info, faults) = slice::read(slice, &self.node.name);
        let name: Arc<str> = name.as_str().into();
        self.ledger
            .set(&service, Origin::Slice(Arc::clone(&name)), faults);
        if self.set_slice(&service, &name, Some(info))
            && let Some(change) = self.changed.get_mut(&service)
        {
            change.triggers.extend(slice::trigger_time(slice));
        }
        let of_namespace = self.slices.entry(namespace.as_str().into()).or_default();
        of_namespace.insert(name, service);
    }

    /// A slice is gone.
    pub fn delete_slice(&mut self, namespace: &str, name: &str) {
        let Some(of_namespace) = self.slices.get_mut(namespace) else {
            return;
        };
        let Some((name, service)) = of_namespace.remove_entry(name) else {
            return;
        };
        if of_namespace.is_empty() {
            self.slices.remove(namespace);
        }
        self.set_slice(&service, &name, None);
        // What it told of did not lead to its end.
        if let Some(change) = self.changed.get_mut(&service) {
            change.triggers.clear();
        }
        self.ledger.set(&service, Origin::Slice(name), Vec::new());
    }

    /// These are all slices there are.
    pub fn reset_slices<'a>(&mut self, slices: impl IntoIterator<Item = &'a EndpointSlice>) {
        let mut seen = HashSet::new();
        for slice in slices {
            let metadata = &slice.metadata;
            seen.extend(metadata.namespace.clone().zip(metadata.name.clone()));
            self.apply_slice(slice);
        }
        let seen: HashSet<(&str, &str)> = seen.iter().map(|(a, b)| (&**a, &**b)).collect();
        self.retain_slices(|namespace, name| seen.contains(&(namespace, name)));
    }

    /// Forgets the slices that `keep` does not want, which it is asked by namespace
    /// and name.
    pub fn retain_slices(&mut self, keep: impl Fn(&str, &str) -> bool) {
        let mut gone = Vec::new();
        for (namespace, names) in &self.slices {
            let names = names.keys().filter(|name| !keep(namespace, name));
            gone.extend(names.map(|name| (namespace.clone(), Arc::clone(name))));
        }
        for (namespace, name) in gone {
            self.delete_slice(&namespace, &name);
        }
    }

    /// The name as it is already known, so that all share one.
    fn shared(&self, name: ServiceName) -> Arc<ServiceName> {
        match self.services.get_key_value(&name) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(name),
        }
    }

    /// Rules of this Service may become different. To be called before they do.
    fn mark(&mut self, name: &Arc<ServiceName>) -> &mut Change {
        let before = match self.changed.get(name) {
            Some(_) => Vec::new(),
            None => self.stateless(name),
        };
        let change = || Change {
            before,
            ..Change::default()
        };
        self.changed.entry(Arc::clone(name)).or_insert_with(change)
    }

    /// The destinations of a Service whose flows do not end by themselves.
    fn stateless(&self, name: &ServiceName) -> Vec<(Family, Destination)> {
        let of_family = |family| {
            self.destinations(name, family)
                .filter(|destination| !is_tcp(*destination))
                .map(move |destination| (family, destination))
        };
        Family::ALL.into_iter().flat_map(of_family).collect()
    }

    fn set_service(&mut self, name: &Arc<ServiceName>, info: Option<ServiceInfo>) {
        let known = self.services.get(name);
        let before = known.and_then(|entry| entry.info.as_ref());
        if before == info.as_ref() {
            return;
        }
        let was_proxied = before.is_some_and(|info| info.proxied);
        let proxied = info.as_ref().is_some_and(|info| info.proxied);
        let old = claims_of(before);
        let new = claims_of(info.as_ref());
        if was_proxied || proxied {
            self.mark(name).by_service = true;
        }
        self.reclaim(name, &old, &new);
        self.counts.services += usize::from(proxied);
        self.counts.services -= usize::from(was_proxied);
        let checked = info.as_ref().filter(|info| info.proxied);
        if checked.is_some_and(|info| info.health_check_node_port().is_some()) {
            self.health_checked.insert(Arc::clone(name));
        } else {
            self.health_checked.remove(name);
        }
        let entry = self.services.entry(Arc::clone(name)).or_default();
        entry.info = info;
        self.forget_if_empty(name);
    }

    /// Replaces the claims of a Service. All who want any of what changes hands are
    /// concerned.
    fn reclaim(&mut self, name: &Arc<ServiceName>, old: &Wanted, new: &Wanted) {
        let same_age = old.created == new.created;
        let gone = old.claims.iter().copied();
        let gone: Vec<_> = gone
            .filter(|claim| !(same_age && new.claims.contains(claim)))
            .collect();
        let come = new.claims.iter().copied();
        let come: Vec<_> = come
            .filter(|claim| !(same_age && old.claims.contains(claim)))
            .collect();
        let rivals: BTreeSet<_> = gone
            .iter()
            .chain(&come)
            .flat_map(|claim| self.claims.rivals(*claim, name))
            .cloned()
            .collect();
        for rival in &rivals {
            self.mark(rival).by_service = true;
        }
        if !rivals.is_empty() {
            self.contested.insert(Arc::clone(name));
            self.contested.extend(rivals);
        }
        for claim in gone {
            self.claims.remove(claim, name);
        }
        for claim in come {
            let claimant = Claimant {
                created: new.created,
                service: Arc::clone(name),
            };
            self.claims.add(claim, claimant);
        }
    }

    /// Replaces a slice. Returns whether that makes a difference to a Service.
    fn set_slice(
        &mut self,
        service: &Arc<ServiceName>,
        name: &Arc<str>,
        slice: Option<SliceInfo>,
    ) -> bool {
        let entry = self.services.get(service);
        let before = entry.and_then(|entry| {
            let position = entry.position(name).ok()?;
            Some(&entry.slices[position].1)
        });
        if before == slice.as_ref() {
            return false;
        }
        let nothing = |slice: Option<&SliceInfo>| slice.is_none_or(SliceInfo::is_empty);
        let matters = entry.is_some_and(|entry| entry.proxied().is_some())
            && !(nothing(before) && nothing(slice.as_ref()));
        self.counts.replace(before, slice.as_ref());
        if matters {
            self.mark(service).by_slices = true;
        }
        let entry = self.services.entry(Arc::clone(service)).or_default();
        match (entry.position(name), slice) {
            (Ok(position), Some(slice)) => entry.slices[position].1 = slice,
            (Ok(position), None) => {
                entry.slices.remove(position);
            }
            (Err(position), Some(slice)) => {
                entry.slices.reserve_exact(1);
                entry.slices.insert(position, (Arc::clone(name), slice));
            }
            (Err(_), None) => {}
        }
        self.forget_if_empty(service);
        matters
    }

    fn forget_if_empty(&mut self, name: &ServiceName) {
        let entry = self.services.get(name);
        if entry.is_some_and(|entry| entry.info.is_none() && entry.slices.is_empty()) {
            self.services.remove(name);
        }
    }
}

/// What a Service wants to have.
struct Wanted {
    created: i64,
    claims: BTreeSet<Claim>,
}

fn claims_of(info: Option<&ServiceInfo>) -> Wanted {
    let of_family = |info: &'_ ServiceInfo, family| -> Vec<Claim> {
        let destinations = info.destinations(family);
        destinations
            .map(|(_, _, destination)| Claim::new(family, destination))
            .collect()
    };
    Wanted {
        created: info.map_or(i64::MAX, |info| info.created),
        claims: info
            .into_iter()
            .flat_map(|info| Family::ALL.map(|family| of_family(info, family)))
            .flatten()
            .collect(),
    }
}

const fn is_tcp(destination: Destination) -> bool {
    let (Destination::Address { protocol, .. } | Destination::NodePort { protocol, .. }) =
        destination;
    matches!(protocol, Protocol::Tcp)
}

impl Counts {
    fn replace(&mut self, before: Option<&SliceInfo>, after: Option<&SliceInfo>) {
        if let Some(after) = after {
            self.slices += 1;
            *self.endpoints(after.family) += after.targets();
        }
        if let Some(before) = before {
            self.slices -= 1;
            *self.endpoints(before.family) -= before.targets();
        }
    }

    const fn endpoints(&mut self, family: Family) -> &mut usize {
        match family {
            Family::V4 => &mut self.endpoints_v4,
            Family::V6 => &mut self.endpoints_v6,
        }
    }
}
