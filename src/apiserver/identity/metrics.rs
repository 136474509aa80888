//! How long the client's certificate is good for, and what renewals failed.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// What the task counts.
#[derive(Debug, Clone, Default)]
pub struct IdentityMetrics {
    /// A counter in all but its type: upstream's name has not the suffix that the
    /// samples of counters must have.
    pub(super) errors: Gauge,
}

impl IdentityMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kubelet_certificate_manager_client_expiration_renew_errors",
            "Requests for a client certificate that came to nothing",
            self.errors.clone(),
        );
    }
}

/// Registers the time until the client's certificate expires, which is computed when
/// it is asked for.
pub fn register_ttl(registry: &mut Registry, expires: watch::Receiver<Option<Timestamp>>) {
    registry.register_collector(Box::new(Ttl { expires }));
}

#[derive(Debug)]
struct Ttl {
    expires: watch::Receiver<Option<Timestamp>>,
}

impl Collector for Ttl {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(seconds_left(*self.expires.borrow(), Timestamp::now()));
        let metric = encoder.encode_descriptor(
            "kubelet_certificate_manager_client_ttl_seconds",
            "Seconds until the client certificate expires, negative after that, infinite if \
             there is none",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}

pub(super) fn seconds_left(expires: Option<Timestamp>, now: Timestamp) -> f64 {
    expires.map_or(f64::INFINITY, |at| at.duration_since(now).as_secs_f64())
}
