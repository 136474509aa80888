//! Mirror pods: the API objects through which a cluster sees static pods.
//! Pure: desired pods, known mirrors and our Node in; what to create and
//! delete out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::pod::annotation::{CONFIG_HASH, CONFIG_MIRROR};
use crate::pod::{DesiredPod, DesiredPods, Intent, PodName, PodUid};

/// One write that brings mirrors closer to the static pods.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MirrorStep {
    Create { name: PodName, pod: Box<Pod> },
    Delete { name: PodName, uid: PodUid },
}

impl MirrorStep {
    pub(super) fn name(&self) -> &PodName {
        match self {
            Self::Create { name, .. } | Self::Delete { name, .. } => name,
        }
    }
}

/// The mirror of this very static pod, if the API server holds it.
pub(super) fn mirror_of<'a>(desired: &'a DesiredPods, pod: &DesiredPod) -> Option<&'a Arc<Pod>> {
    desired
        .mirrors
        .get(&pod.name)
        .filter(|mirror| stands_for(mirror, pod))
}

/// Everything to be done now. Writes for different names are independent.
/// `ending`: static pods that nobody wants any more and that are not gone yet;
/// their mirrors stay until they are.
pub(super) fn plan(
    desired: &DesiredPods,
    ending: &[Arc<DesiredPod>],
    node: Option<&Node>,
) -> Vec<MirrorStep> {
    let mut by_name: BTreeMap<&PodName, Vec<&DesiredPod>> = BTreeMap::new();
    for pod in desired.pods.values().filter(|pod| pod.origin.is_static()) {
        by_name.entry(&pod.name).or_default().push(pod);
    }
    let mut steps = Vec::new();
    for (name, mirror) in desired.mirrors.iter() {
        let mut of_name = ending.iter().filter(|pod| pod.name == *name);
        let is_of_ending = of_name.any(|pod| stands_for(mirror, pod));
        let lives = mirror.metadata.deletion_timestamp.is_none();
        let is_wanted = match by_name.get(name) {
            Some(pods) => lives && (is_of_ending || pods.iter().any(|pod| stands_for(mirror, pod))),
            // It may belong to a manifest that was not read yet.
            None => lives && is_of_ending || !desired.ready.all(),
        };
        if let (false, Some(uid)) = (is_wanted, &mirror.metadata.uid) {
            steps.push(MirrorStep::Delete {
                name: name.clone(),
                uid: PodUid::from(uid.as_str()),
            });
        }
    }
    let Some(owner) = node.and_then(owner) else {
        return steps;
    };
    for (name, pods) in by_name {
        let running = pods.iter().find(|pod| pod.intent == Intent::Run);
        // Mirrors are only known once the API server has listed our pods.
        if let Some(pod) = running
            && desired.ready.api
            && !desired.mirrors.contains_key(name)
        {
            steps.push(MirrorStep::Create {
                name: name.clone(),
                pod: Box::new(render(pod, owner.clone())),
            });
        }
    }
    steps
}

fn hash(pod: &DesiredPod) -> &str {
    let annotations = pod.pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(CONFIG_HASH))
        .map_or(pod.uid.as_str(), String::as_str)
}

fn stands_for(mirror: &Pod, pod: &DesiredPod) -> bool {
    let annotations = mirror.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(CONFIG_MIRROR))
        .map(String::as_str)
        == Some(hash(pod))
}

/// Our Node as owner, so that mirrors go when it goes. `None` while it is being
/// deleted: what it owns would be deleted with it.
fn owner(node: &Node) -> Option<OwnerReference> {
    let meta = &node.metadata;
    if meta.deletion_timestamp.is_some() {
        return None;
    }
    Some(OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: meta.name.clone()?,
        uid: meta.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    })
}

fn render(pod: &DesiredPod, owner: OwnerReference) -> Pod {
    let meta = &pod.pod.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.insert(CONFIG_MIRROR.into(), hash(pod).into());
    Pod {
        metadata: ObjectMeta {
            name: Some(pod.name.name.to_string()),
            namespace: Some(pod.name.namespace.to_string()),
            labels: meta.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: pod.pod.spec.clone(),
        status: None,
    }
}
