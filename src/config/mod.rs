//! Configuration: argv and `KubeletConfiguration` files in, one immutable [`Config`] out.
//!
//! Input: the parsed command line, the `--config` file, the `*.conf` drop-ins below
//! `--config-dir`, and the machine's hostname. Output: a validated [`Config`] whose every
//! value is typed, defaulted and ready to use, plus the warnings worth telling a person.
//! Nothing else in the program reads files, environment or argv for settings; a module
//! receives its own section ([`NodeConfig`], [`ImageConfig`], …), never the whole.

mod duration;
mod gates;
mod sections;
mod suggest;

pub use gates::FeatureGates;
pub use sections::{
    ApiConfig, Authentication, Authorization, CgroupConfig, CgroupDriver, Config,
    ContainerLogConfig, DnsConfig, Enforcement, EventConfig, EvictionConfig, EvictionSignal,
    HandlerConfig, ImageConfig, ImageVerification, IpFamily, LogConfig, LogFormat, NodeConfig,
    NodeIps, PathsConfig, PodConfig, ProcessConfig, RateLimit, ReservedConfig, RuntimeConfig,
    ServerConfig, SoftThreshold, SourceConfig, SwapBehavior, ThresholdValue, TlsConfig, Verbosity,
};
