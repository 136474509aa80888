//! The pods of this node as its callers name them.
//!
//! In: what the sources want, what the workers report, what the runtime runs.
//! Out: one [`FoundPod`] with all three, and the route `/pods`.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use crate::pod::{DesiredPod, DesiredPods, ObservedPod, PodName};
use crate::runtime::Observer;
use crate::status::StatusView;

/// Read handle for handlers. Clonable.
#[derive(Clone)]
pub struct PodDirectory {
    desired: watch::Receiver<DesiredPods>,
    statuses: StatusView,
    observer: Arc<dyn Observer>,
}

/// One pod that this node was given.
#[derive(Debug, Clone)]
pub struct FoundPod {
    pub desired: Arc<DesiredPod>,
    /// As its worker computed it last; `None` until then.
    pub status: Option<Arc<PodStatus>>,
    /// As the runtime last told.
    pub observed: Arc<ObservedPod>,
}

impl PodDirectory {
    #[must_use]
    pub fn new(
        desired: watch::Receiver<DesiredPods>,
        statuses: StatusView,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            desired,
            statuses,
            observer,
        }
    }

    /// The pod of that name. A caller that names a UID as well means just that
    /// pod; a static pod answers to its mirror's UID too.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<FoundPod> {
        let snapshot = self.desired.borrow().clone();
        let of_that_name =
            |pod: &&Arc<DesiredPod>| *pod.name.namespace == *namespace && *pod.name.name == *name;
        let is_meant = |pod: &&Arc<DesiredPod>| {
            uid.is_none_or(|uid| pod.uid.as_str() == uid || is_mirror(&snapshot, &pod.name, uid))
        };
        let desired = snapshot.pods.values().filter(of_that_name).find(is_meant)?;
        Some(self.found(desired))
    }

    /// All pods of this node, by UID.
    #[must_use]
    pub fn all(&self) -> Vec<FoundPod> {
        let pods = Arc::clone(&self.desired.borrow().pods);
        pods.values().map(|desired| self.found(desired)).collect()
    }

    /// `/pods`: the pods of this node with their statuses, static ones included.
    pub fn routes(self) -> Router {
        let answer = move || {
            let pods = self.all().iter().map(FoundPod::object).collect();
            async move { Json(list(pods)) }
        };
        Router::new()
            .route("/pods", get(answer.clone()))
            .route("/pods/", get(answer))
    }

    fn found(&self, desired: &Arc<DesiredPod>) -> FoundPod {
        FoundPod {
            desired: Arc::clone(desired),
            status: self.statuses.get(&desired.uid),
            observed: self
                .observer
                .watch(&desired.uid, &desired.name)
                .borrow()
                .clone(),
        }
    }
}

impl FoundPod {
    /// The object as this node knows it: the sources' spec, the worker's status.
    #[must_use]
    pub fn object(&self) -> Pod {
        let mut pod = (*self.desired.pod).clone();
        if let Some(status) = &self.status {
            pod.status = Some((**status).clone());
        }
        pod
    }
}

/// A PodList.
pub(super) fn list(items: Vec<Pod>) -> List<Pod> {
    List {
        items,
        ..List::default()
    }
}

fn is_mirror(snapshot: &DesiredPods, name: &PodName, uid: &str) -> bool {
    snapshot
        .mirrors
        .get(name)
        .is_some_and(|mirror| mirror.metadata.uid.as_deref() == Some(uid))
}
