//! From defaulted fields and flags to the sections modules read.
//!
//! Values are parsed into their types here, and every one that cannot be is reported
//! ([`Problems`]); rules between fields are in [`super::validate`]. A section made from a
//! value that was reported holds a stand-in; it is never handed out.

mod eviction;
mod node;
mod pods;
mod server;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::cli::{NodeFlags, given};
use super::duration::GoDuration;
use super::error::{ConfigError, Origin, Problem};
use super::flags;
use super::gates::FeatureGates;
use super::proxy::{ProxyConfig, ServiceProxyConfig};
use super::raw::{KubeletConfiguration, TextMap};
use super::schema::Setting;
use super::sections::{Config, PathsConfig, ProcessConfig, RateLimit, SourceConfig};
use crate::pod::quantity::Quantity;

pub(super) use server::log;

/// What sections are made from.
pub(super) struct Inputs<'a> {
    /// All files and flags laid over each other, defaulted.
    pub(super) raw: &'a KubeletConfiguration,
    /// Flags that are no fields.
    pub(super) flags: &'a NodeFlags,
    /// The node's name.
    pub(super) node_name: String,
    /// The service proxy's own configuration.
    pub(super) proxy: ProxyConfig,
    /// The gates, resolved.
    pub(super) gates: FeatureGates,
}

/// Makes the configuration, or something like it with errors in `problems`.
pub(super) fn config(inputs: &Inputs<'_>, problems: &mut Problems) -> Config {
    let Inputs { raw, flags, .. } = inputs;
    Config {
        node: node::node(inputs, problems),
        api: node::api(raw, flags, problems),
        source: source(raw, problems),
        runtime: pods::runtime(raw, flags, problems),
        images: pods::images(inputs, problems),
        pod: pods::pod(raw, problems),
        dns: pods::dns(raw, problems),
        cgroup: node::cgroup(raw, problems),
        reserved: node::reserved(raw, problems),
        eviction: eviction::eviction(raw, flags, problems),
        container_logs: pods::container_logs(raw, problems),
        paths: paths(raw, flags, problems),
        events: node::events(raw, problems),
        server: server::server(raw, problems),
        process: ProcessConfig {
            oom_score_adj: problems.within(&raw.oom_score_adj, -1000..=1000),
            max_open_files: problems.not_negative(&raw.max_open_files),
        },
        log: server::log(&raw.logging, problems),
        proxy: ServiceProxyConfig {
            mode: flags.service_proxy,
            proxy: inputs.proxy.clone(),
        },
        gates: inputs.gates.clone(),
        effective: serde_json::Value::Null,
    }
}

/// The name of this node: what was given for it, or the machine's own.
pub(super) fn node_name(given: Option<&str>, hostname: &str, problems: &mut Problems) -> String {
    let name = given.unwrap_or(hostname).trim().to_lowercase();
    if name.is_empty() {
        problems.flag("hostname-override", "is needed, as the hostname is empty");
    }
    name
}

fn source(raw: &KubeletConfiguration, problems: &mut Problems) -> SourceConfig {
    SourceConfig {
        static_pod_path: file_path(&raw.static_pod_path),
        file_check_frequency: problems.period(&raw.file_check_frequency),
    }
}

fn paths(raw: &KubeletConfiguration, flags: &NodeFlags, problems: &mut Problems) -> PathsConfig {
    const RULE: &str = "must be an absolute path without \".\", \"..\" or empty parts";
    let root_dir: PathBuf = flags.root_dir.components().collect();
    if !is_absolute_and_clean(&root_dir) {
        problems.flag("root-dir", RULE);
    }
    let pod_logs_dir = file_path(&raw.pod_logs_dir).unwrap_or_default();
    if !is_absolute_and_clean(&pod_logs_dir) {
        problems.add(raw.pod_logs_dir.invalid(RULE));
    }
    if !pod_logs_dir.as_os_str().is_ascii() {
        problems.add(raw.pod_logs_dir.invalid("must be ASCII"));
    }
    if flags.exit_on_lock_contention == Some(true) && given(&flags.lock_file).is_none() {
        problems.flag("exit-on-lock-contention", "needs --lock-file");
    }
    PathsConfig {
        root_dir,
        pod_logs_dir,
        volume_plugin_dir: file_path(&raw.volume_plugin_dir).unwrap_or_default(),
        lock_file: given(&flags.lock_file).map(PathBuf::from),
        exit_on_lock_contention: flags.exit_on_lock_contention.unwrap_or(false),
    }
}

fn is_absolute_and_clean(path: &Path) -> bool {
    // Iterating over a path drops what does not change its meaning, except "..".
    let cleaned: PathBuf = path.components().collect();
    let is_lexical = !path.components().any(|part| part == Component::ParentDir);
    path.is_absolute() && cleaned.as_os_str() == path.as_os_str() && is_lexical
}

/// A path; relative ones in a file are relative to the file's directory, those on the
/// command line to the working directory. Empty is none.
fn file_path(setting: &Setting<String>) -> Option<PathBuf> {
    let path = PathBuf::from(text(setting)?);
    match &setting.origin {
        Origin::File { path: file, .. } => {
            let directory = file.parent().unwrap_or(Path::new(""));
            Some(directory.join(path))
        }
        _ => Some(path),
    }
}

/// A text; empty is none.
pub(super) fn text(setting: &Setting<String>) -> Option<String> {
    setting.value.clone().filter(|text| !text.is_empty())
}

/// Collects what is wrong while values are turned into their types. Each method answers
/// with the value, or with a stand-in after noting the problem.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<ConfigError>);

impl Problems {
    pub(super) fn add(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// A problem with a flag that is no field.
    pub(super) fn flag(&mut self, name: &str, why: impl Into<String>) {
        self.add(ConfigError {
            origin: flags::origin(name),
            field: String::new(),
            problem: Problem::Invalid(why.into()),
        });
    }

    /// A number of things.
    pub(super) fn count(&mut self, setting: &Setting<i32>) -> u32 {
        u32::try_from(setting.get()).unwrap_or_else(|_| {
            self.add(setting.invalid("must not be negative"));
            0
        })
    }

    /// A large number of things.
    fn not_negative(&mut self, setting: &Setting<i64>) -> u64 {
        u64::try_from(setting.get()).unwrap_or_else(|_| {
            self.add(setting.invalid("must not be negative"));
            0
        })
    }

    /// A number between two others.
    pub(super) fn within(&mut self, setting: &Setting<i32>, range: RangeInclusive<i32>) -> i32 {
        let value = setting.get();
        if !range.contains(&value) {
            let (low, high) = (range.start(), range.end());
            self.add(setting.invalid(format!("must be from {low} to {high}, is {value}")));
        }
        value
    }

    /// A share in percent.
    fn percent(&mut self, setting: &Setting<i32>) -> u8 {
        u8::try_from(self.within(setting, 0..=100)).unwrap_or(0)
    }

    /// A port to listen on.
    fn port(&mut self, setting: &Setting<i32>) -> u16 {
        u16::try_from(self.within(setting, 1..=65535)).unwrap_or(0)
    }

    /// A port to listen on, or 0 for none.
    fn optional_port(&mut self, setting: &Setting<i32>) -> Option<u16> {
        (setting.get() != 0).then(|| self.port(setting))
    }

    /// A length of time.
    pub(super) fn period(&mut self, setting: &Setting<GoDuration>) -> Duration {
        if setting.get().is_negative() {
            self.add(setting.invalid("must not be negative"));
        }
        setting.get().to_std()
    }

    /// A length of time between two others.
    fn period_within(
        &mut self,
        setting: &Setting<GoDuration>,
        range: RangeInclusive<GoDuration>,
    ) -> Duration {
        let value = setting.get();
        if !range.contains(&value) {
            let (low, high) = (range.start(), range.end());
            self.add(setting.invalid(format!("must be from {low} to {high}, is {value}")));
        }
        value.to_std()
    }

    /// An address; `None` only with a problem.
    pub(super) fn ip(&mut self, setting: &Setting<String>) -> Option<IpAddr> {
        let text = setting.get();
        let ip = text.parse().ok();
        if ip.is_none() {
            self.add(setting.invalid(format!("{text:?} is not an IP address")));
        }
        ip
    }

    /// One of a few words, or `None` with a problem.
    pub(super) fn one_of<T: Clone>(
        &mut self,
        setting: &Setting<String>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let given = setting.get();
        let chosen = choices.iter().find(|(word, _)| *word == given);
        if chosen.is_none() {
            let words: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("{word:?}"))
                .collect();
            let words = words.join(", ");
            self.add(setting.invalid(format!("must be one of {words}, is {given:?}")));
        }
        chosen.map(|(_, value)| value.clone())
    }

    /// A token bucket; a rate of zero is none.
    fn rate(&mut self, per_second: &Setting<i32>, burst: &Setting<i32>) -> Option<RateLimit> {
        let burst = self.count(burst);
        NonZeroU32::new(self.count(per_second)).map(|per_second| RateLimit { per_second, burst })
    }

    /// Resources by name, each a quantity that is not negative.
    fn quantities(
        &mut self,
        setting: &Setting<TextMap>,
        names: &[&str],
    ) -> BTreeMap<String, String> {
        let mut quantities = BTreeMap::new();
        for (name, entry) in setting.get() {
            let given = entry.get();
            if !names.contains(&name.as_str()) {
                let known = names.join(", ");
                self.add(entry.invalid(format!("{name:?} is not one of {known}")));
            }
            match Quantity::parse(&given) {
                Err(_) => self.add(entry.invalid(format!(
                    "{given:?} is not a quantity like \"100m\" or \"1Gi\""
                ))),
                Ok(quantity) if quantity.is_negative() => {
                    self.add(entry.invalid("must not be negative"));
                }
                Ok(_) => {}
            }
            quantities.insert(name, given);
        }
        quantities
    }
}
