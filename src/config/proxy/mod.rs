//! Configuration of the service proxy: `KubeProxyConfiguration` files and kube-proxy's
//! flags in, one immutable [`ProxyConfig`] out.
//!
//! The proxy runs in two ways. As a part of the agent it has what `--proxy-config` names,
//! and what concerns the process or the way to the API server is the agent's
//! ([`ServiceProxyConfig`]). As `kubelet proxy` it is a process of its own, with
//! kube-proxy's command line ([`ProxyArgs`]) and a [`ProxyProcessConfig`] besides.
//!
//! It all goes the way the agent's own configuration goes: layers, typed fields that know
//! where they were written, defaults, rules, sections; every error at once.

mod args;
mod defaults;
mod load;
mod raw;
mod resolve;
mod section;
mod support;

pub use args::{ProxyAction, ProxyArgs};
pub use load::{LoadedProxy, load_proxy, load_proxy_for_host};
pub use section::{
    ConntrackConfig, LocalTraffic, NodePortAddresses, ProxyConfig, ProxyProcessConfig,
    ServiceProxyConfig, ServiceProxyMode,
};

pub(super) use args::ProxyCommand;
pub(super) use load::{for_agent, read_for_agent};
pub(super) use raw::KubeProxyConfiguration;

#[cfg(test)]
pub(super) use {defaults::pristine, support::TABLE};
