//! Tests of the status pipeline, and what they share.

mod merge;
mod mirror;
mod pace;
mod patch;
mod reporter;
mod strategic;
mod view;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::{Ending, StatusUpdate};
use crate::pod::{DesiredPod, Intent, Origin, PodName, PodUid};

const NOW: &str = "2026-01-01T12:00:00Z";

fn now() -> jiff::Timestamp {
    NOW.parse().unwrap()
}

/// Any API type from its JSON.
fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod with one container `main` and this status.
fn api_pod(name: &str, status: &Value) -> Pod {
    object(json!({
        "metadata": {
            "namespace": "default", "name": name, "uid": format!("uid-{name}"),
            "resourceVersion": "1", "generation": 1
        },
        "spec": { "containers": [{ "name": "main" }], "restartPolicy": "Never" },
        "status": status,
    }))
}

fn desired(pod: &Pod, origin: Origin) -> Arc<DesiredPod> {
    Arc::new(DesiredPod {
        uid: PodUid::from(pod.metadata.uid.as_deref().unwrap()),
        name: PodName::of(pod),
        pod: Arc::new(pod.clone()),
        origin,
        intent: Intent::Run,
    })
}

fn update_of(pod: Arc<DesiredPod>, status: &Value, ending: Ending) -> StatusUpdate {
    StatusUpdate {
        pod,
        status: Arc::new(object::<PodStatus>(status.clone())),
        ending,
    }
}

fn update(pod: &Pod, status: &Value, ending: Ending) -> StatusUpdate {
    update_of(desired(pod, Origin::Api), status, ending)
}
