//! Metrics that say who is measured: the node's name, and what this program is.
//! What is measured is each module's own; `docs/metrics.md` lists all of it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::config::KUBERNETES_VERSION;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

/// Registers them, with their values.
pub(super) fn register_identity(registry: &mut Registry, node_name: &str) {
    let name = Family::<NodeLabel, Gauge>::default();
    name.get_or_create(&NodeLabel {
        node: node_name.to_owned(),
    })
    .set(1);
    registry.register("kubelet_node_name", "The node's name, always 1", name);
    let build = Info::new(vec![
        ("gitVersion", KUBERNETES_VERSION),
        ("agent", concat!("kubelet-rs/", env!("CARGO_PKG_VERSION"))),
    ]);
    // The registry adds `_info`.
    registry.register(
        "kubernetes_build",
        "The Kubernetes version that this agent speaks, always 1",
        build,
    );
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::apiserver::{IdentityMetrics, RecorderMetrics, register_ttl};
    use crate::server::api::streams;
    use crate::{proxy, runtime, server, worker};

    /// `name type`, with the suffixes that samples have.
    fn registered() -> BTreeSet<String> {
        let mut registry = Registry::default();
        register_identity(&mut registry, "n");
        runtime::Metrics::new(&mut registry).touch();
        RecorderMetrics::default().register(&mut registry);
        IdentityMetrics::default().register(&mut registry);
        register_ttl(&mut registry, tokio::sync::watch::channel(None).1);
        worker::Metrics::new(&mut registry).touch();
        let _kept = worker::ProbeMetrics::new(&mut registry).touch();
        streams::Metrics::new(&mut registry).touch();
        let views = tokio::sync::watch::channel(Arc::new(BTreeMap::new())).1;
        worker::register_gauges(&mut registry, views);
        server::Metrics::new(&mut registry).touch();
        proxy::metrics::Metrics::new(&mut registry).touch();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| {
                let (name, kind) = line.split_once(' ').unwrap();
                match kind {
                    "counter" => format!("{name}_total counter"),
                    "info" => format!("{name}_info gauge"),
                    _ => line.to_owned(),
                }
            })
            .collect()
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        // What is used is the table of another test.
        let documented: BTreeSet<String> = include_str!("../../docs/metrics.md")
            .lines()
            .take_while(|line| *line != "## Usage")
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|row| {
                let (name, rest) = row.split_once("` | ").unwrap();
                format!("{name} {}", rest.split_once(" |").unwrap().0)
            })
            .collect();
        assert_eq!(documented, registered());
    }
}
