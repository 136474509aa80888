//! Tests of the whole agent on a real cluster: Kubernetes' own control plane, a real
//! containerd, and a node that is ours or upstream's (`hack/cluster`).
//!
//! ```text
//! cargo test --features node-tests --test cluster            # all, as root
//! cargo test --features node-tests --test cluster -- --list
//! cargo test --features node-tests --test cluster -- images:: deletion::
//! ```
//!
//! | variable | |
//! |---|---|
//! | `KUBELET_RS_NODE` | `ours` (default) or `upstream`: whose node agent runs |
//! | `KUBELET_RS_CONTAINERD` | `1.6` (default) or `2` |
//! | `KUBELET_RS_KUBELET` | our binary; default: the one Cargo built with these tests |
//! | `KUBELET_RS_LONG` | `1`: outages last as long as in real life (five minutes) |
//! | `KUBELET_RS_KEEP` | `1`: leave the clusters of failed tests up until the next `hack/cluster/up` |
//!
//! Every test is a sentence. Most share one cluster, in a namespace of their own; those
//! that break components get a cluster of their own. At the end of a cluster's life
//! nothing may be left on its node (`harness::leaks`). A test that passes with upstream's
//! node tells that the test is right; what upstream cannot do is listed in `upstream`.

mod harness;
mod upstream;

mod admission;
mod callers;
mod deletion;
mod endings;
mod environment;
mod events;
mod faults;
mod hooks;
mod identity;
mod images;
mod lifecycle;
mod live_volumes;
mod log_requests;
mod logs;
mod network;
mod node;
mod pod_dns;
mod pod_resources;
mod probes;
mod resize;
mod resources;
mod restarts;
mod runtime_classes;
mod security;
mod services;
mod sessions;
mod sidecars;
mod static_pods;
mod sub_paths;
mod usage;
mod volumes;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The longest first.
    let themes = [
        faults::containerd::TESTS,
        faults::agent::TESTS,
        faults::apiserver::TESTS,
        faults::disk::TESTS,
        faults::control_plane::TESTS,
        identity::TESTS,
        callers::OWN_TESTS,
        admission::OWN_TESTS,
        services::FAULTS,
        services::IPTABLES,
        services::UPGRADE,
        services::NAMES,
        services::INGRESS,
        sessions::RESTARTS,
        workloads::TESTS,
        live_volumes::TESTS,
        lifecycle::TESTS,
        environment::TESTS,
        probes::TESTS,
        usage::TESTS,
        usage::TOP,
        services::TESTS,
        services::POLICIES,
        services::OUTSIDE,
        network::TESTS,
        resize::TESTS,
        resources::TESTS,
        pod_resources::TESTS,
        security::TESTS,
        runtime_classes::TESTS,
        pod_dns::TESTS,
        volumes::TESTS,
        sub_paths::TESTS,
        log_requests::TESTS,
        sessions::TESTS,
        sidecars::TESTS,
        restarts::TESTS,
        logs::TESTS,
        hooks::TESTS,
        endings::TESTS,
        deletion::TESTS,
        admission::TESTS,
        images::TESTS,
        node::TESTS,
        static_pods::TESTS,
        events::TESTS,
        callers::TESTS,
    ];
    harness::run(themes.concat())
}
