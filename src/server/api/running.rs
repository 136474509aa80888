//! `/runningpods/`: the pods that the runtime runs, whoever wanted them.
//!
//! In: what the runtime was last seen to have. Out: a PodList with names and
//! images and nothing that only the API server would know.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods::list;
use crate::pod::ObservedPod;
use crate::runtime::Observer;

/// The route.
pub fn running_pods(observer: Arc<dyn Observer>) -> Router {
    let answer = move || {
        let observer = Arc::clone(&observer);
        async move { Json(list(running(&*observer))) }
    };
    Router::new()
        .route("/runningpods", get(answer.clone()))
        .route("/runningpods/", get(answer))
}

fn running(observer: &dyn Observer) -> Vec<Pod> {
    let known = observer.pods().borrow().clone().unwrap_or_default();
    known
        .iter()
        .map(|(uid, name)| observer.watch(uid, name).borrow().clone())
        .filter(|pod| pod.live_containers().next().is_some())
        .map(|pod| object(&pod))
        .collect()
}

fn object(observed: &ObservedPod) -> Pod {
    let containers = observed.live_containers().map(|container| Container {
        name: container.name.clone(),
        image: Some(container.image.clone()),
        ..Container::default()
    });
    Pod {
        metadata: ObjectMeta {
            name: Some(observed.name.name.to_string()),
            namespace: Some(observed.name.namespace.to_string()),
            uid: Some(observed.uid.to_string()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: containers.collect(),
            ..PodSpec::default()
        }),
        status: None,
    }
}
