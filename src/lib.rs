//! kubelet-rs: a Kubernetes node agent.
//!
//! ```text
//!   apiserver: reflected pods, node, services          /etc/kubernetes/manifests
//!        │ watch<PodSnapshot>                                 │ inotify + rescan
//!        │                                                    ▼
//!        │                                            source::manifest
//!        └────────────► source::merge ◄── watch<ManifestSnapshot> ┘
//!                            │ watch<DesiredPods>
//!                            ▼
//!                     worker::Manager ◄── watch<KnownPods> ── runtime::observe
//!                            │ watch<Arc<DesiredPod>> for each pod
//!                            ▼
//!   ┌──────────── worker::pod, one actor per pod ──────────────┐
//!   │ pod::plan(desired, observed, memory, node, now)          │──► volume, cgroup
//!   │      → PodPlan { stage, steps, waits }                   │──► runtime ──► containerd
//!   │ worker::apply: the first step, then look and plan again  │        │ events + relist
//!   │ pod::status(desired, observed, memory, stage, …)         │        ▼
//!   └────┬──────────────────▲──────────────────────────────────┘  runtime::observe
//!        │ StatusUpdate     └──────── watch<Arc<ObservedPod>> ─────────┘
//!        ▼
//!   status::Reporter ──► apiserver: patch, final delete, mirror pods
//!
//!   proxy   Services, EndpointSlices ─► index ─► rules ─► iptables-restore
//!   node    machine + runtime health ─► Node status, Lease ─► apiserver
//!   server  views ─► the node's API (logs, sessions, usage), explain, health
//! ```
//!
//! `docs/architecture.md` has the boundaries, the order of start and shutdown,
//! and what holds everywhere; `tests/layers.rs` says who may do what.

// Builds all of the below in dependency order, runs it, and shuts it down.
pub mod agent;
// The API server: watches in, narrow write ports and events out; the only user
// of `kube`.
pub mod apiserver;
// Certificates that the cluster's signers give this node: files, requests, deadlines.
pub mod certificate;
// The cgroups above containers: `kubepods`, its QoS classes, one per pod.
pub mod cgroup;
// Flags and files to one validated `Config`.
pub mod config;
// How errors are shown.
pub mod error;
// Plain HTTP listeners with bounds for their callers.
pub mod listen;
// This machine as a Node: its status, its Lease, its set-up at start.
pub mod node;
// The pod domain, pure: plan, status, rendering, defaults, validation.
pub mod pod;
// containerd through CRI: what changes containers, images, what runs.
pub mod runtime;
// Services: index, rules, iptables, connection tracking.
pub mod proxy;
// What is served: the node's HTTPS API, health, metrics, `kubelet explain`.
pub mod server;
// Desired pods: the API server's and the static manifests', merged.
pub mod source;
// What pods and the node use, for metrics and `/stats/summary`.
pub mod stats;
// Pod statuses to the API server, final deletions, mirror pods.
pub mod status;
// Pod volumes and pod directories on this host.
pub mod volume;
// One actor per pod, and the manager that starts and forgets them.
pub mod worker;
