//! Counts of what is streamed, under upstream's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Clonable; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    websockets: Family<SessionLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SessionLabels {
    subresource: &'static str,
}

impl Metrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            websockets: Family::default(),
        };
        // The registry adds `_total`.
        registry.register(
            "kubelet_websocket_streaming_requests",
            "Streaming requests that came as WebSockets",
            metrics.websockets.clone(),
        );
        metrics
    }

    /// Counts one of each: what was never counted is not served, and so not
    /// compared with the documentation.
    #[cfg(test)]
    pub(crate) fn touch(&self) {
        self.websocket("exec");
    }

    /// A WebSocket is about to be relayed; `subresource` is `exec`, `attach` or
    /// `portforward`.
    pub(super) fn websocket(&self, subresource: &'static str) {
        self.websockets
            .get_or_create(&SessionLabels { subresource })
            .inc();
    }

    #[cfg(test)]
    pub(super) fn websockets(&self, subresource: &'static str) -> u64 {
        self.websockets
            .get_or_create(&SessionLabels { subresource })
            .get()
    }
}
