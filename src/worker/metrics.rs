//! Counts of what workers do, and gauges of what they see, under upstream's
//! names.
//!
//! Counters are raised where the effect is (`apply`); gauges are computed from
//! the workers' views whenever somebody asks.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::PodsView;
use crate::pod::{ContainerKind, ContainerState, SandboxState, WaitingReason};

/// Clonable; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pods: Counter,
    pod_errors: Counter,
    containers: Family<ContainerLabels, Counter>,
    container_errors: Family<ErrorLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    preemptions: Family<PreemptionLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ContainerLabels {
    container_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    container_type: &'static str,
    /// Why the container waits: `CreateContainerError`, ….
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PreemptionLabels {
    /// The resource that was short.
    preemption_signal: String,
}

/// Refusals for want of these have a reason of their own among the metrics;
/// all other resources are devices, of which there may be any number.
const COUNTED_SHORTAGES: [&str; 4] = [
    "OutOfcpu",
    "OutOfmemory",
    "OutOfephemeral-storage",
    "OutOfpods",
];

impl Metrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // The registry adds `_total` to counters.
        registry.register(
            "kubelet_started_pods",
            "Pod sandboxes that were to be started",
            metrics.pods.clone(),
        );
        registry.register(
            "kubelet_started_pods_errors",
            "Pod sandboxes that could not be started",
            metrics.pod_errors.clone(),
        );
        registry.register(
            "kubelet_started_containers",
            "Containers that were to be started",
            metrics.containers.clone(),
        );
        registry.register(
            "kubelet_started_containers_errors",
            "Containers that could not be started, by why they wait",
            metrics.container_errors.clone(),
        );
        registry.register(
            "kubelet_admission_rejections",
            "Pods that this node did not take, by reason",
            metrics.rejections.clone(),
        );
        registry.register(
            "kubelet_preemptions",
            "Pods that were ended to make room for critical ones, by what was short",
            metrics.preemptions.clone(),
        );
        metrics
    }

    /// Counts one of each: what was never counted is not served, and so not
    /// compared with the documentation.
    #[cfg(test)]
    pub(crate) fn touch(&self) {
        self.sandbox(&Err::<(), ()>(()));
        self.container(
            ContainerKind::Regular,
            Some(WaitingReason::RunContainerError),
        );
        self.rejected("NodeName");
        self.preempted("cpu", 1);
    }

    /// A pod was refused.
    pub(super) fn rejected(&self, reason: &str) {
        let is_device = reason.starts_with("OutOf") && !COUNTED_SHORTAGES.contains(&reason);
        let reason = if is_device {
            "OutOfExtendedResources"
        } else {
            reason
        };
        let labels = RejectionLabels {
            reason: reason.to_owned(),
        };
        self.rejections.get_or_create(&labels).inc();
    }

    /// So many pods were told to end for want of the resource `signal`.
    pub(super) fn preempted(&self, signal: &str, pods: usize) {
        let labels = PreemptionLabels {
            preemption_signal: signal.to_owned(),
        };
        let pods = u64::try_from(pods).unwrap_or(u64::MAX);
        self.preemptions.get_or_create(&labels).inc_by(pods);
    }

    /// A sandbox was started, or was not.
    pub(super) fn sandbox<T, E>(&self, result: &Result<T, E>) {
        self.pods.inc();
        if result.is_err() {
            self.pod_errors.inc();
        }
    }

    /// A container was started, or waits for `failure`.
    pub(super) fn container(&self, kind: ContainerKind, failure: Option<WaitingReason>) {
        let container_type = type_label(kind);
        self.containers
            .get_or_create(&ContainerLabels { container_type })
            .inc();
        if let Some(reason) = failure {
            let labels = ErrorLabels {
                container_type,
                code: reason.as_str(),
            };
            self.container_errors.get_or_create(&labels).inc();
        }
    }
}

fn type_label(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Init => "init_container",
        ContainerKind::Regular => "container",
        ContainerKind::Ephemeral => "ephemeral_container",
    }
}

/// Registers the gauges of running pods and containers.
pub fn register_gauges(registry: &mut Registry, pods: PodsView) {
    registry.register_collector(Box::new(Gauges { pods }));
}

struct Gauges {
    pods: PodsView,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

/// The metrics of one scrape.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    pods: i64,
    containers: BTreeMap<&'static str, i64>,
}

impl Gauges {
    fn count(&self) -> Counts {
        let entries = self.pods.borrow().clone();
        let mut counts = Counts::default();
        for entry in entries.values() {
            let observed = entry.view.borrow().observed.clone();
            let is_running = observed
                .sandboxes
                .iter()
                .any(|sandbox| sandbox.state == SandboxState::Ready);
            counts.pods += i64::from(is_running);
            for container in &observed.containers {
                let state = state_label(&container.state);
                *counts.containers.entry(state).or_default() += 1;
            }
        }
        counts
    }
}

fn state_label(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited(_) => "exited",
        ContainerState::Unknown => "unknown",
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.count();
        let pods = ConstGauge::new(counts.pods);
        let metric = encoder.encode_descriptor(
            "kubelet_running_pods",
            "Pods that have a running sandbox",
            None,
            pods.metric_type(),
        )?;
        pods.encode(metric)?;
        let mut metric = encoder.encode_descriptor(
            "kubelet_running_containers",
            "Containers that the runtime has, by state",
            None,
            pods.metric_type(),
        )?;
        for (state, count) in counts.containers {
            let labels = [("container_state", state)];
            ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::encoding::text::encode;
    use tokio::sync::watch;

    use super::*;
    use crate::pod::samples::{at, exited, instance, pod, running, up};
    use crate::worker::{PodView, WorkerEntry};

    fn samples(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(str::to_owned).collect()
    }

    #[test]
    fn gauges_show_what_workers_see() {
        let desired = pod("Always", &[], &["a", "b"]);
        let observed = up(vec![
            instance(&desired, "a", 1, running()),
            instance(&desired, "a", 0, exited(1, 5)),
            instance(&desired, "b", 0, running()),
        ]);
        let view = PodView {
            observed: Arc::new(observed),
            ..PodView::new(&desired, at(0))
        };
        let entry = WorkerEntry {
            name: desired.name.clone(),
            view: watch::channel(Arc::new(view)).1,
        };
        let views = BTreeMap::from([(desired.uid.clone(), entry)]);
        let mut registry = Registry::default();
        register_gauges(&mut registry, watch::channel(Arc::new(views)).1);
        assert_eq!(
            samples(&registry),
            [
                "kubelet_running_pods 1",
                "kubelet_running_containers{container_state=\"exited\"} 1",
                "kubelet_running_containers{container_state=\"running\"} 2",
            ]
        );
    }

    #[test]
    fn starts_are_counted_with_what_kept_them() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.sandbox(&Ok::<(), ()>(()));
        metrics.sandbox(&Err::<(), ()>(()));
        metrics.container(ContainerKind::Init, None);
        metrics.container(
            ContainerKind::Init,
            Some(WaitingReason::CreateContainerError),
        );
        assert_eq!(
            samples(&registry),
            [
                "kubelet_started_pods_total 2",
                "kubelet_started_pods_errors_total 1",
                "kubelet_started_containers_total{container_type=\"init_container\"} 2",
                "kubelet_started_containers_errors_total{container_type=\"init_container\",\
                 code=\"CreateContainerError\"} 1",
            ]
        );
    }
}
