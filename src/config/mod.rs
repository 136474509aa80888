//! Configuration: argv and `KubeletConfiguration` files in, one immutable [`Config`] out.
//!
//! Input: the command line ([`Cli`]), the `--config` file, the `*.conf` drop-ins below
//! `--config-dir`, and the machine's hostname. Output: a validated [`Config`] whose every
//! value is typed, defaulted and ready to use, plus the warnings worth telling a person
//! ([`load()`]). Nothing else in the program reads files, environment or argv for settings; a
//! module receives its own section ([`NodeConfig`], [`ImageConfig`], …), never the whole.
//!
//! ```text
//! argv ──cli──► flags ─────────────┐
//! files ──document──► layers ──merge──► raw fields ──defaults──► resolve ──► Config
//!                        │                   │                    │
//!                     schema: types       gates, validate,     support: warnings
//!                     and unknown fields  rules of fields
//! ```
//!
//! Every value remembers the file, line and column or the flag it was written in
//! ([`Origin`]), through all layers, and all errors are reported together. The service
//! proxy's own file goes the same way, in [`proxy`].

mod cli;
mod credential_providers;
mod defaults;
mod document;
mod duration;
mod error;
mod flags;
mod gates;
mod labels;
mod layer;
mod load;
mod proxy;
mod raw;
mod resolve;
mod schema;
mod sections;
mod suggest;
mod support;
mod validate;

#[cfg(test)]
mod tests;

pub use cli::{Cli, CliError, ExplainArgs, KUBERNETES_VERSION, OutputFormat, PodName, RunArgs};
pub use credential_providers::CredentialProvider;
pub use duration::GoDuration;
pub use error::{ConfigError, ConfigErrors, ConfigWarning, Origin, Problem};
pub use gates::FeatureGates;
pub use load::{Loaded, load, load_for_host};
pub use proxy::{
    ConntrackConfig, LoadedProxy, LocalTraffic, NodePortAddresses, ProxyAction, ProxyArgs,
    ProxyConfig, ProxyProcessConfig, ServiceProxyConfig, ServiceProxyMode, load_proxy,
    load_proxy_for_host,
};
pub use sections::{
    ApiConfig, Authentication, Authorization, CgroupConfig, CgroupDriver, Config,
    ContainerLogConfig, DnsConfig, Enforcement, EventConfig, EvictionConfig, EvictionSignal,
    HandlerConfig, ImageConfig, ImageVerification, IpFamily, LogConfig, LogFormat, NodeConfig,
    NodeIps, PathsConfig, PodConfig, ProcessConfig, RateLimit, ReservedConfig, RuntimeConfig,
    ServerConfig, SoftThreshold, SourceConfig, SwapBehavior, ThresholdValue, TlsConfig, Verbosity,
};
