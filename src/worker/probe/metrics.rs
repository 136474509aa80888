//! Counts and durations of probes, under upstream's names, on
//! `/metrics/probes`. A probe's series go when it ends.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::pod::DesiredPod;
use crate::pod::probe::ProbeKind;

/// Seconds, as client_golang's default buckets.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Clonable; all clones count together.
#[derive(Debug, Clone)]
pub struct ProbeMetrics {
    results: Family<ResultLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    spent: Family<PodLabels, Counter<f64, std::sync::atomic::AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    probe_type: &'static str,
    result: &'static str,
    container: String,
    pod: String,
    namespace: String,
    pod_uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    probe_type: &'static str,
    container: String,
    pod: String,
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodLabels {
    namespace: String,
    pod: String,
}

impl ProbeMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            results: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            spent: Family::default(),
        };
        // The registry adds `_total` to counters.
        registry.register(
            "prober_probe",
            "Probes carried out, by what they found",
            metrics.results.clone(),
        );
        registry.register(
            "prober_probe_duration_seconds",
            "How long successful probes took",
            metrics.durations.clone(),
        );
        registry.register(
            "kubelet_probe_spent_seconds",
            "Time that the agent spent waiting for the probes of a pod",
            metrics.spent.clone(),
        );
        metrics
    }

    /// Counts one of each, as long as the answer is kept: what was never counted
    /// is not served, and so not compared with the documentation.
    #[cfg(test)]
    pub(crate) fn touch(&self) -> impl Sized + use<> {
        let pod = crate::pod::samples::pod("Always", &[], &["c"]);
        let series = Series::new(self, &pod, "c", ProbeKind::Liveness);
        series.count(true, Duration::from_millis(1));
        PodSeries::new(self, &pod).spend(Duration::from_millis(1));
        series
    }
}

/// The series of one probe; they go with it.
#[derive(Debug)]
pub(super) struct Series {
    metrics: ProbeMetrics,
    result: ResultLabels,
    duration: DurationLabels,
}

impl Series {
    pub(super) fn new(
        metrics: &ProbeMetrics,
        desired: &DesiredPod,
        container: &str,
        kind: ProbeKind,
    ) -> Self {
        let pod = desired.name.name.to_string();
        let namespace = desired.name.namespace.to_string();
        Self {
            metrics: metrics.clone(),
            result: ResultLabels {
                probe_type: kind.title(),
                result: SUCCESSFUL,
                container: container.to_owned(),
                pod: pod.clone(),
                namespace: namespace.clone(),
                pod_uid: desired.uid.to_string(),
            },
            duration: DurationLabels {
                probe_type: kind.title(),
                container: container.to_owned(),
                pod,
                namespace,
            },
        }
    }

    /// A probe was carried out and took so long. Durations of failures are not
    /// kept, as upstream.
    pub(super) fn count(&self, passed: bool, took: Duration) {
        let result = self.labels(if passed { SUCCESSFUL } else { FAILED });
        self.metrics.results.get_or_create(&result).inc();
        if passed {
            self.metrics
                .durations
                .get_or_create(&self.duration)
                .observe(took.as_secs_f64());
        }
    }

    fn labels(&self, result: &'static str) -> ResultLabels {
        ResultLabels {
            result,
            ..self.result.clone()
        }
    }
}

const SUCCESSFUL: &str = "successful";
const FAILED: &str = "failed";

impl Drop for Series {
    fn drop(&mut self) {
        for result in [SUCCESSFUL, FAILED] {
            self.metrics.results.remove(&self.labels(result));
        }
        self.metrics.durations.remove(&self.duration);
    }
}

/// The series of one pod's probes together; they go with it.
#[derive(Debug, Clone)]
pub(super) struct PodSeries {
    metrics: ProbeMetrics,
    labels: PodLabels,
}

impl PodSeries {
    pub(super) fn new(metrics: &ProbeMetrics, desired: &DesiredPod) -> Self {
        Self {
            metrics: metrics.clone(),
            labels: PodLabels {
                namespace: desired.name.namespace.to_string(),
                pod: desired.name.name.to_string(),
            },
        }
    }

    /// Time went by in a probe, whatever came of it.
    pub(super) fn spend(&self, took: Duration) {
        self.metrics
            .spent
            .get_or_create(&self.labels)
            .inc_by(took.as_secs_f64());
    }

    pub(super) fn remove(&self) {
        self.metrics.spent.remove(&self.labels);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::pod::samples::pod;

    fn samples(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn series_are_upstreams_and_go_with_the_probe() {
        let mut registry = Registry::default();
        let metrics = ProbeMetrics::new(&mut registry);
        let desired = pod("Always", &[], &["c"]);
        let series = Series::new(&metrics, &desired, "c", ProbeKind::Readiness);
        series.count(true, Duration::from_millis(250));
        series.count(false, Duration::from_secs(1));
        let together = PodSeries::new(&metrics, &desired);
        together.spend(Duration::from_millis(1250));
        assert_eq!(
            samples(&registry).into_iter().collect::<std::collections::BTreeSet<_>>(),
            [
                "kubelet_probe_spent_seconds_total{namespace=\"ns\",pod=\"p\"} 1.25",
                "prober_probe_duration_seconds_count{probe_type=\"Readiness\",container=\"c\",pod=\"p\",namespace=\"ns\"} 1",
                "prober_probe_duration_seconds_sum{probe_type=\"Readiness\",container=\"c\",pod=\"p\",namespace=\"ns\"} 0.25",
                "prober_probe_total{probe_type=\"Readiness\",result=\"failed\",container=\"c\",pod=\"p\",namespace=\"ns\",pod_uid=\"u\"} 1",
                "prober_probe_total{probe_type=\"Readiness\",result=\"successful\",container=\"c\",pod=\"p\",namespace=\"ns\",pod_uid=\"u\"} 1",
            ]
            .map(str::to_owned)
            .into()
        );
        drop(series);
        together.remove();
        assert_eq!(samples(&registry), Vec::<String>::new());
    }
}
