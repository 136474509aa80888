//! Where the watches put what they hear, and the loop takes it from.
//!
//! In: Services and EndpointSlices, through [`ObjectSink`]s. Out: the index, under a
//! lock that is held for no longer than one object takes, and a signal that there is
//! something in it. Nothing queues up here: what changes twice before it is taken has
//! changed once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::Notify;

use super::index::{NodeLocal, ServiceIndex};
use super::model::ServiceName;
use crate::apiserver::ObjectSink;

/// Both ends of the box; clones share it.
#[derive(Debug, Clone)]
pub struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    content: Mutex<Content>,
    changed: Notify,
}

/// What is in the box.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) index: ServiceIndex,
    services_listed: bool,
    slices_listed: bool,
    seen: Seen,
}

/// How many objects were put in, whether that made a difference or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) services: u64,
    pub(super) slices: u64,
}

impl Content {
    /// What was seen since this was last asked.
    pub(super) fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// Whether both kinds were listed in full once. Before that, rules would be made
    /// of half of what there is.
    pub(super) const fn is_complete(&self) -> bool {
        self.services_listed && self.slices_listed
    }
}

impl Inbox {
    #[must_use]
    pub fn new(node: NodeLocal) -> Self {
        Self(Arc::new(Shared {
            content: Mutex::new(Content {
                index: ServiceIndex::new(node),
                services_listed: false,
                slices_listed: false,
                seen: Seen::default(),
            }),
            changed: Notify::new(),
        }))
    }

    /// For the watch of Services.
    #[must_use]
    pub fn services(&self) -> Box<dyn ObjectSink<Service>> {
        Box::new(Services {
            inbox: self.clone(),
            listing: None,
        })
    }

    /// For the watch of EndpointSlices.
    #[must_use]
    pub fn slices(&self) -> Box<dyn ObjectSink<EndpointSlice>> {
        Box::new(Slices {
            inbox: self.clone(),
            listing: None,
        })
    }

    /// Completes when something was put in since this last completed.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        self.0
            .content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, change: impl FnOnce(&mut Content)) {
        change(&mut self.content());
        self.0.changed.notify_one();
    }
}

struct Services {
    inbox: Inbox,
    /// Those that a list under way has named so far.
    listing: Option<HashSet<ServiceName>>,
}

impl ObjectSink<Service> for Services {
    fn apply(&mut self, service: &Service) {
        if let Some(listing) = &mut self.listing {
            let metadata = &service.metadata;
            let named = metadata.namespace.as_deref().zip(metadata.name.as_deref());
            listing.extend(named.map(|(namespace, name)| ServiceName::new(namespace, name)));
        }
        self.inbox.put(|content| {
            content.seen.services += 1;
            content.index.apply_service(service);
        });
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        let name = ServiceName::new(namespace, name);
        if let Some(listing) = &mut self.listing {
            listing.remove(&name);
        }
        self.inbox.put(|content| {
            content.seen.services += 1;
            content.index.delete_service(&name);
        });
    }

    fn begin_list(&mut self) {
        self.listing = Some(HashSet::new());
    }

    fn end_list(&mut self) {
        let Some(listed) = self.listing.take() else {
            return;
        };
        self.inbox.put(|content| {
            content.index.retain_services(|name| listed.contains(name));
            content.services_listed = true;
        });
    }
}

struct Slices {
    inbox: Inbox,
    /// Namespaces and names that a list under way has named so far.
    listing: Option<HashSet<(Box<str>, Box<str>)>>,
}

impl ObjectSink<EndpointSlice> for Slices {
    fn apply(&mut self, slice: &EndpointSlice) {
        if let Some(listing) = &mut self.listing {
            let metadata = &slice.metadata;
            let named = metadata.namespace.as_deref().zip(metadata.name.as_deref());
            listing.extend(named.map(|(namespace, name)| (namespace.into(), name.into())));
        }
        self.inbox.put(|content| {
            content.seen.slices += 1;
            content.index.apply_slice(slice);
        });
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        if let Some(listing) = &mut self.listing {
            listing.remove(&(namespace.into(), name.into()));
        }
        self.inbox.put(|content| {
            content.seen.slices += 1;
            content.index.delete_slice(namespace, name);
        });
    }

    fn begin_list(&mut self) {
        self.listing = Some(HashSet::new());
    }

    fn end_list(&mut self) {
        let Some(listed) = self.listing.take() else {
            return;
        };
        self.inbox.put(|content| {
            content.index.retain_slices(|namespace, name| {
                listed.contains(&(Box::from(namespace), Box::from(name)))
            });
            content.slices_listed = true;
        });
    }
}
