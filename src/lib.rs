//! kubelet-rs: a Kubernetes node agent.
pub mod agent;
pub mod apiserver;
pub mod cgroup;
pub mod config;
pub mod error;
pub mod node;
pub mod pod;
pub mod runtime;
pub mod server;
pub mod source;
pub mod status;
pub mod volume;
pub mod worker;
