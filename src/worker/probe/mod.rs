//! The probes of one pod: a task for each container and kind, which live and
//! die with the pod's worker.
//!
//! In: what the worker knows of its pod, after every plan. Out: changes of
//! verdicts ([`Probes::next`]), events, and metrics. A probe that hangs, or a
//! runtime that does, holds up nothing but itself.

mod attempt;
mod metrics;
mod task;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{Instrument, info_span, warn};

pub use metrics::ProbeMetrics;

use self::metrics::{PodSeries, Series};
use self::task::ProbeTask;
use super::WorkerDeps;
use super::turns::Turns;
use crate::pod::memory::PodMemory;
use crate::pod::probe::{ProbeKind, Subject, Verdict, inherited, probed};
use crate::pod::{DesiredPod, Intent, ObservedPod};

/// Verdicts that wait for the worker. A probe waits for its own to be taken, so
/// a pod's containers times three is the most there can be; few pods have more
/// than sixteen probes, and theirs only wait a little longer.
const VERDICTS: usize = 16;

/// What all probes of the agent share.
pub struct Probing {
    metrics: ProbeMetrics,
    exec_turns: Turns,
    /// When this process began; on both clocks.
    since: (Instant, Timestamp),
    user_agent: String,
}

impl Probing {
    /// `now`: when the process began. `version`: Kubernetes' version that is
    /// spoken, as `v1.36.3`.
    #[must_use]
    pub fn new(metrics: ProbeMetrics, now: Timestamp, version: &str) -> Self {
        Self {
            metrics,
            exec_turns: turns::exec_turns(),
            since: (Instant::now(), now),
            user_agent: user_agent(version),
        }
    }
}

/// `kube-probe/1.36`.
fn user_agent(version: &str) -> String {
    let version = version.trim_start_matches('v');
    let minor: Vec<&str> = version.split('.').take(2).collect();
    format!("kube-probe/{}", minor.join("."))
}

/// What a probe has come to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) container: String,
    pub(super) kind: ProbeKind,
    pub(super) verdict: Verdict,
}

/// The probes of one pod. Dropping this ends them.
pub(super) struct Probes {
    deps: Arc<WorkerDeps>,
    tasks: JoinSet<()>,
    running: BTreeMap<(String, ProbeKind), AbortHandle>,
    subjects: BTreeMap<String, watch::Sender<Subject>>,
    say: mpsc::Sender<Said>,
    said: mpsc::Receiver<Said>,
    has_begun: bool,
    together: PodSeries,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.together.remove();
    }
}

impl Probes {
    pub(super) fn new(deps: Arc<WorkerDeps>, desired: &DesiredPod) -> Self {
        let (say, said) = mpsc::channel(VERDICTS);
        Self {
            together: PodSeries::new(&deps.probing.metrics, desired),
            deps,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            subjects: BTreeMap::new(),
            say,
            said,
            has_begun: false,
        }
    }

    /// The next verdict. Safe to drop.
    pub(super) async fn next(&mut self) -> Option<Said> {
        self.said.recv().await
    }

    /// Takes over what `status`, the API's, tells of containers that ran before
    /// this process. Once, with the first reading of the pod.
    pub(super) fn inherit(
        &mut self,
        desired: &DesiredPod,
        observed: &ObservedPod,
        memory: &mut PodMemory,
    ) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let (_, process_start) = self.deps.probing.since;
        let status = desired.pod.status.as_ref();
        for (name, verdicts) in inherited(&desired.pod, status, observed, process_start) {
            memory.containers.entry(name).or_default().probes = verdicts;
        }
    }

    /// Shows the probes the pod as it is now; starts those that are missing and
    /// ends those that are not wanted any more. `told`: the pod's status.
    pub(super) fn update(
        &mut self,
        desired: &DesiredPod,
        observed: &ObservedPod,
        memory: &PodMemory,
        told: Option<&PodStatus>,
    ) {
        let ip = told.and_then(|status| status.pod_ip.as_deref());
        for container in probed(&desired.pod) {
            if !ProbeKind::ALL
                .iter()
                .any(|kind| kind.of(container).is_some())
            {
                continue;
            }
            let subject = Subject::of(container, observed, memory, ip);
            self.show(&container.name, subject);
            for kind in ProbeKind::ALL {
                if kind.of(container).is_none() {
                    continue;
                }
                if desired.intent == Intent::Run || kind == ProbeKind::Readiness {
                    self.ensure(desired, container, kind, memory);
                } else if let Some(task) = self.running.remove(&(container.name.clone(), kind)) {
                    // Who is going anyway is neither started nor killed.
                    task.abort();
                }
            }
        }
    }

    fn show(&mut self, container: &str, subject: Subject) {
        let Some(shown) = self.subjects.get(container) else {
            let shown = watch::Sender::new(subject);
            self.subjects.insert(container.to_owned(), shown);
            return;
        };
        shown.send_if_modified(|shown| {
            let changed = *shown != subject;
            *shown = subject;
            changed
        });
    }

    /// Starts the probe unless it runs.
    fn ensure(
        &mut self,
        desired: &DesiredPod,
        container: &Container,
        kind: ProbeKind,
        memory: &PodMemory,
    ) {
        let key = (container.name.clone(), kind);
        match self.running.get(&key) {
            Some(task) if !task.is_finished() => return,
            Some(_) => {
                warn!(container = %key.0, probe = kind.as_str(), "the probe died; starting it again")
            }
            None => {}
        }
        while self.tasks.try_join_next().is_some() {}
        let (Some(probe), Some(subject)) = (kind.of(container), self.subjects.get(&key.0)) else {
            return;
        };
        let series = Series::new(&self.deps.probing.metrics, desired, &key.0, kind);
        let task = ProbeTask::new(
            task::About {
                deps: self.deps.clone(),
                pod: desired.pod.clone(),
                container: container.clone(),
                kind,
                probe: probe.clone(),
                series,
                together: self.together.clone(),
            },
            memory.container(&key.0).probes,
            subject.subscribe(),
            self.say.clone(),
        );
        let span = info_span!("probe", container = %key.0, kind = kind.as_str());
        let handle = self.tasks.spawn(task.run().instrument(span));
        self.running.insert(key, handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_see_who_asks() {
        assert_eq!(user_agent("v1.36.3"), "kube-probe/1.36");
    }
}
