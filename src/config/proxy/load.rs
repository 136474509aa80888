//! Reads the file a command line names and makes the proxy's configuration, for a process
//! of its own ([`load_proxy`]) and for the agent ([`read_for_agent`], [`for_agent`]).

use std::path::Path;

use super::args::ProxyArgs;
use super::raw::KubeProxyConfiguration;
use super::section::{ProxyConfig, ProxyProcessConfig, ServiceProxyMode};
use super::{defaults, resolve, support};
use crate::config::cli::{NodeFlags, given};
use crate::config::document::{Node, Value};
use crate::config::error::{ConfigError, ConfigErrors, ConfigWarning, Origin};
use crate::config::flags;
use crate::config::gates::Component;
use crate::config::layer::{self, ObjectKind};
use crate::config::load::resolve_gates;
use crate::config::resolve::{Problems, node_name, text};

const KIND: ObjectKind = ObjectKind {
    api_version: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
};

/// The configuration of a service proxy that is a process of its own, and what to tell
/// about it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedProxy {
    /// How it works.
    pub config: ProxyConfig,
    /// What concerns the process and its way to the API server.
    pub process: ProxyProcessConfig,
    /// What is set and has no effect, and the like; to be logged at start.
    pub warnings: Vec<ConfigWarning>,
}

/// Makes the configuration of `kubelet proxy` on this machine.
///
/// # Errors
/// Everything that makes the command line and the file it names unusable.
pub fn load_proxy(args: &ProxyArgs) -> Result<LoadedProxy, ConfigErrors> {
    // Without a name for the node the loading fails, and says so.
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    load_proxy_for_host(args, &hostname.to_string_lossy())
}

/// Makes the configuration of `kubelet proxy` on the machine called `hostname`.
///
/// # Errors
/// Everything that makes the command line and the file it names unusable.
pub fn load_proxy_for_host(args: &ProxyArgs, hostname: &str) -> Result<LoadedProxy, ConfigErrors> {
    let mut problems = Problems(args.errors.clone());
    let mut warnings = args.warnings.clone();
    let mut layers = file_layer(args.config_file(), &mut problems.0);
    flags::apply(args.fields(&mut warnings), &mut layers);
    if let Some(name) = given(&args.flags.hostname_override) {
        let name = Node {
            origin: flags::origin("hostname-override"),
            value: Value::Text(name.to_owned()),
        };
        layers.insert("hostnameOverride", name);
    }
    let mut raw: KubeProxyConfiguration = layer::fields(&layers, &mut problems.0);
    if problems.0.len() > args.errors.len() {
        // Rules between fields would only report the consequences.
        return Err(ConfigErrors::new(problems.0));
    }
    if given(&args.flags.master).is_some() {
        problems.flag(
            "master",
            "is not supported; name the server in the kubeconfig",
        );
    }
    let name = node_name(
        text(&raw.hostname_override).as_deref(),
        hostname,
        &mut problems,
    );
    let (config, process) = finish(&mut raw, &name, &mut problems, &mut warnings);
    let (unsupported, refused) = support::review_alone(&raw);
    warnings.extend(unsupported);
    problems.0.extend(refused);
    if problems.0.is_empty() {
        Ok(LoadedProxy {
            config,
            process,
            warnings,
        })
    } else {
        Err(ConfigErrors::new(problems.0))
    }
}

/// Reads what an agent's proxy is told, reporting what cannot be read.
pub(in crate::config) fn read_for_agent(
    flags: &NodeFlags,
    errors: &mut Vec<ConfigError>,
) -> KubeProxyConfiguration {
    let mut layers = match flags.service_proxy {
        ServiceProxyMode::Off => file_layer(None, errors),
        ServiceProxyMode::Auto | ServiceProxyMode::On => match given(&flags.proxy_config) {
            Some(file) => return layer::fields(&file_layer(Some(Path::new(file)), errors), errors),
            None => file_layer(None, errors),
        },
    };
    // Upstream's default needs to be told the cluster's ranges, and nobody did.
    let own_pods = Node {
        origin: Origin::Default,
        value: Value::Text("NodeCIDR".to_owned()),
    };
    layers.insert("detectLocalMode", own_pods);
    layer::fields(&layers, errors)
}

/// Makes the configuration of the proxy in the agent of node `node_name`.
pub(in crate::config) fn for_agent(
    mut raw: KubeProxyConfiguration,
    flags: &NodeFlags,
    node_name: &str,
    problems: &mut Problems,
    warnings: &mut Vec<ConfigWarning>,
) -> ProxyConfig {
    if flags.service_proxy == ServiceProxyMode::Off && given(&flags.proxy_config).is_some() {
        warnings.push(ConfigWarning {
            origin: flags::origin("proxy-config"),
            field: String::new(),
            message: "has no effect with --service-proxy=off".to_owned(),
        });
    }
    // The agent's own process is configured elsewhere; a wrong file is wrong nevertheless.
    let (config, _) = finish(&mut raw, node_name, problems, warnings);
    let (unsupported, refused) = support::review_in_agent(&raw, node_name);
    warnings.extend(unsupported);
    problems.0.extend(refused);
    config
}

/// The file, or nothing in its place.
fn file_layer(file: Option<&Path>, errors: &mut Vec<ConfigError>) -> Node {
    file.and_then(|file| layer::from_file::<KubeProxyConfiguration>(file, KIND, errors))
        .unwrap_or_else(|| Node::empty_map(Origin::Default))
}

/// Defaults, gates, rules and sections, once every field is known to have its type.
fn finish(
    raw: &mut KubeProxyConfiguration,
    node_name: &str,
    problems: &mut Problems,
    warnings: &mut Vec<ConfigWarning>,
) -> (ProxyConfig, ProxyProcessConfig) {
    defaults::apply(raw);
    let gates = resolve_gates(&raw.feature_gates, Component::Proxy, problems, warnings);
    let process = resolve::process(raw, problems);
    let mut config = resolve::config(raw, node_name, gates, problems);
    config.effective = KIND.document(raw);
    (config, process)
}

impl ProxyConfig {
    /// The configuration as a file, in YAML, with all its defaults.
    pub fn to_yaml(&self) -> String {
        // A tree of plain values has a form in YAML.
        serde_saphyr::to_string(&self.effective).unwrap_or_default()
    }
}
