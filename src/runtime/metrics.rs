//! Counts and durations of what we ask of the runtime, under upstream's names.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Clonable; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    operations: Family<OperationLabels, Counter>,
    errors: Family<OperationLabels, Counter>,
    durations: Family<OperationLabels, Histogram>,
    relists: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation_type: &'static str,
}

impl Metrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            operations: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.005, 2.5, 14))
            }),
            relists: Histogram::new(exponential_buckets(0.001, 2.5, 14)),
        };
        // The registry adds `_total` to counters.
        registry.register(
            "kubelet_runtime_operations",
            "CRI calls by type",
            metrics.operations.clone(),
        );
        registry.register(
            "kubelet_runtime_operations_errors",
            "CRI calls that failed, by type",
            metrics.errors.clone(),
        );
        registry.register(
            "kubelet_runtime_operations_duration_seconds",
            "Time that CRI calls took, by type",
            metrics.durations.clone(),
        );
        registry.register(
            "kubelet_pleg_relist_duration_seconds",
            "Time that listing all sandboxes and containers took",
            metrics.relists.clone(),
        );
        metrics
    }

    /// Counts one of each: what was never counted is not served, and so not
    /// compared with the documentation.
    #[cfg(test)]
    pub(crate) fn touch(&self) {
        self.operation("version", Duration::ZERO, &Err::<(), ()>(()));
    }

    /// One CRI call ended. `operation` as upstream labels it: `run_podsandbox`.
    pub(super) fn operation<T, E>(
        &self,
        operation: &'static str,
        took: Duration,
        result: &Result<T, E>,
    ) {
        let labels = OperationLabels {
            operation_type: operation,
        };
        self.operations.get_or_create(&labels).inc();
        self.durations
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        if result.is_err() {
            self.errors.get_or_create(&labels).inc();
        }
    }

    pub(super) fn relist(&self, took: Duration) {
        self.relists.observe(took.as_secs_f64());
    }
}
