//! The pods and images of a [`FakeRuntime`](super::FakeRuntime).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::super::{DiskUsage, ExecOutput, ImageDisk, ImageError, StreamUrl};
use super::script::{Called, Script};
use crate::pod::{ContainerId, ObservedPod, PodName, PodUid, SandboxState};

#[derive(Default)]
pub(super) struct State {
    pub(super) script: Script,
    pub(super) calls: Vec<Called>,
    pub(super) images: BTreeSet<String>,
    pub(super) unpullable: BTreeMap<String, ImageError>,
    pub(super) streams_at: Option<StreamUrl>,
    pub(super) layers: BTreeMap<ContainerId, DiskUsage>,
    pub(super) image_disk: ImageDisk,
    pub(super) muted: bool,
    pods: BTreeMap<PodUid, FakePod>,
    behaviours: BTreeMap<String, Behaviour>,
    ids: u32,
}

struct FakePod {
    truth: ObservedPod,
    shown: watch::Sender<Arc<ObservedPod>>,
}

/// How containers of one name act.
#[derive(Debug, Clone, Default)]
pub(super) struct Behaviour {
    pub(super) stop_takes: Duration,
    pub(super) exits: Option<(Duration, i32)>,
    pub(super) commands_end: ExecOutput,
}

impl State {
    pub(super) fn next_id(&mut self) -> u32 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn behaviour(&mut self, container: &str) -> &mut Behaviour {
        self.behaviours.entry(container.to_owned()).or_default()
    }

    pub(super) fn truth(&self, uid: &PodUid) -> Option<ObservedPod> {
        self.pods.get(uid).map(|pod| pod.truth.clone())
    }

    pub(super) fn members(&self) -> Vec<(PodUid, PodName)> {
        self.pods
            .values()
            .filter(|pod| !pod.truth.is_absent())
            .map(|pod| (pod.truth.uid.clone(), pod.truth.name.clone()))
            .collect()
    }

    pub(super) fn ready_sandboxes(&self) -> usize {
        self.pods
            .values()
            .flat_map(|pod| &pod.truth.sandboxes)
            .filter(|sandbox| sandbox.state == SandboxState::Ready)
            .count()
    }

    /// The pod that has something for which `holds` is true.
    pub(super) fn owner(&self, holds: impl Fn(&ObservedPod) -> bool) -> Option<(PodUid, PodName)> {
        self.pods
            .values()
            .map(|pod| &pod.truth)
            .find(|pod| holds(pod))
            .map(|pod| (pod.uid.clone(), pod.name.clone()))
    }

    pub(super) fn change<T>(
        &mut self,
        uid: &PodUid,
        name: &PodName,
        now: Timestamp,
        edit: impl FnOnce(&mut ObservedPod) -> T,
    ) -> T {
        let muted = self.muted;
        let pod = self.entry(uid, name, now);
        let result = edit(&mut pod.truth);
        pod.truth.observed_at = now;
        pod.truth
            .sandboxes
            .sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        pod.truth
            .containers
            .sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        if !muted {
            pod.publish();
        }
        result
    }

    /// Shows the pod's watchers the truth and returns it.
    pub(super) fn refresh(
        &mut self,
        uid: &PodUid,
        name: &PodName,
        now: Timestamp,
    ) -> Arc<ObservedPod> {
        let pod = self.entry(uid, name, now);
        pod.truth.observed_at = now;
        pod.publish();
        pod.shown.borrow().clone()
    }

    pub(super) fn watch(
        &mut self,
        uid: &PodUid,
        name: &PodName,
        now: Timestamp,
    ) -> watch::Receiver<Arc<ObservedPod>> {
        self.entry(uid, name, now).shown.subscribe()
    }

    pub(super) fn publish_all(&mut self) {
        self.pods.values().for_each(FakePod::publish);
    }

    fn entry(&mut self, uid: &PodUid, name: &PodName, now: Timestamp) -> &mut FakePod {
        self.pods.entry(uid.clone()).or_insert_with(|| {
            let truth = ObservedPod::absent(uid.clone(), name.clone(), now);
            FakePod {
                shown: watch::Sender::new(Arc::new(truth.clone())),
                truth,
            }
        })
    }
}

impl FakePod {
    /// Wakes watchers only for a difference in content, as the real one does.
    fn publish(&self) {
        self.shown.send_if_modified(|shown| {
            let differs = shown.sandboxes != self.truth.sandboxes
                || shown.containers != self.truth.containers;
            *shown = Arc::new(self.truth.clone());
            differs
        });
    }
}
