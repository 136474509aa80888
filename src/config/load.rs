//! Reads the files a command line names and makes the configuration.
//!
//! Layers, each over the one before: built-in defaults for running without a file, the
//! `--config` file, the drop-ins of `--config-dir`, flags. Fields still unset then get
//! their defaults. Every layer is checked by itself, so an error in a file is reported even
//! if a later layer would hide it, and all errors of all layers are reported together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::cli::{RunArgs, given};
use super::document::Node;
use super::error::{ConfigError, ConfigErrors, ConfigWarning, Origin, Problem};
use super::gates::{self, Component, GateNotice, Resolution};
use super::layer::{self, ObjectKind};
use super::proxy::{self, KubeProxyConfiguration};
use super::raw::KubeletConfiguration;
use super::resolve::{self, Inputs, Problems};
use super::schema::Setting;
use super::sections::Config;
use super::{defaults, flags, support, validate};

const KIND: ObjectKind = ObjectKind {
    api_version: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
};

/// A configuration, and what to tell about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is set and has no effect, and the like; to be logged at start.
    pub warnings: Vec<ConfigWarning>,
}

/// Makes the configuration of an agent on this machine.
///
/// # Errors
/// Everything that makes the command line and the files it names unusable.
pub fn load(args: &RunArgs) -> Result<Loaded, ConfigErrors> {
    // Without a name for the node the loading fails, and says so.
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    load_for_host(args, &hostname.to_string_lossy())
}

/// Makes the configuration of an agent on the machine called `hostname`.
///
/// # Errors
/// Everything that makes the command line and the files it names unusable.
pub fn load_for_host(args: &RunArgs, hostname: &str) -> Result<Loaded, ConfigErrors> {
    let mut problems = Problems(args.errors.clone());
    let mut tree = base_layer(args, &mut problems.0);
    if let Some(directory) = given(&args.node.config_dir) {
        for drop_in in drop_ins(Path::new(directory), &mut problems.0) {
            if let Some(layer) = read_layer(&drop_in, &mut problems.0) {
                tree.merge(layer);
            }
        }
    }
    flags::apply(&args.fields, &mut tree);
    let raw = layer::fields(&tree, &mut problems.0);
    let proxy = proxy::read_for_agent(&args.node, &mut problems.0);
    if problems.0.len() > args.errors.len() {
        // Rules between fields would only report the consequences.
        return Err(ConfigErrors::new(problems.0));
    }
    finish(args, hostname, raw, proxy, problems)
}

/// Defaults, gates, rules and sections, once every field is known to have its type.
fn finish(
    args: &RunArgs,
    hostname: &str,
    mut raw: KubeletConfiguration,
    proxy: KubeProxyConfiguration,
    mut problems: Problems,
) -> Result<Loaded, ConfigErrors> {
    let mut warnings = args.warnings.clone();
    let gates = resolve_gates(
        &raw.feature_gates,
        Component::Node,
        &mut problems,
        &mut warnings,
    );
    defaults::apply(&mut raw);
    validate::check(&raw, &gates, &mut problems);
    let node_name =
        resolve::node_name(given(&args.node.hostname_override), hostname, &mut problems);
    let proxy = proxy::for_agent(proxy, &args.node, &node_name, &mut problems, &mut warnings);
    let inputs = Inputs {
        raw: &raw,
        flags: &args.node,
        node_name,
        proxy,
        gates,
    };
    let mut config = resolve::config(&inputs, &mut problems);
    config.effective = effective(&raw);
    let (unsupported, refused) = support::review(&raw, &defaults::pristine(), support::support);
    warnings.extend(unsupported);
    problems.0.extend(refused);
    if problems.0.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(ConfigErrors::new(problems.0))
    }
}

/// The configuration as a whole file would have it. Headers may carry secrets.
fn effective(raw: &KubeletConfiguration) -> serde_json::Value {
    let mut shown = raw.clone();
    for values in shown.static_pod_url_header.value.iter_mut().flatten() {
        for value in values.1 {
            "<masked>".clone_into(value);
        }
    }
    KIND.document(&shown)
}

/// The gates set for a component, with problems and warnings about them.
pub(super) fn resolve_gates(
    setting: &Setting<BTreeMap<String, Setting<bool>>>,
    component: Component,
    problems: &mut Problems,
    warnings: &mut Vec<ConfigWarning>,
) -> gates::FeatureGates {
    let requested = setting.get();
    let Resolution {
        gates,
        errors,
        notices,
    } = gates::resolve(
        component,
        &requested
            .iter()
            .map(|(gate, value)| (gate.clone(), value.get()))
            .collect(),
    );
    for (gate, error) in errors {
        match requested.get(&gate) {
            Some(value) => problems.add(value.invalid(format!("{gate} {error}"))),
            // A gate that is on by default needs one that was turned off.
            None => problems.add(setting.invalid(format!("{gate} {error}"))),
        }
    }
    for (gate, notice) in notices {
        let what = match notice {
            GateNotice::NotImplemented => "is not supported yet and has no effect",
            GateNotice::AlwaysOn => "cannot be turned off here",
        };
        warnings.push(ConfigWarning {
            origin: requested
                .get(&gate)
                .map_or_else(Origin::default, |value| value.origin.clone()),
            field: setting.path.clone(),
            message: format!("{gate} {what}"),
        });
    }
    gates
}

/// The `--config` file, or what stands in for it.
fn base_layer(args: &RunArgs, errors: &mut Vec<ConfigError>) -> Node {
    let Some(file) = given(&args.node.config) else {
        return defaults::legacy_layer();
    };
    match read_layer(Path::new(file), errors) {
        Some(mut layer) => {
            defaults::complete_eviction_hard(&mut layer);
            layer
        }
        None => defaults::legacy_layer(),
    }
}

fn read_layer(file: &Path, errors: &mut Vec<ConfigError>) -> Option<Node> {
    layer::from_file::<KubeletConfiguration>(file, KIND, errors)
}

/// The `*.conf` files below a directory, in the order of their paths.
fn drop_ins(directory: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in WalkDir::new(directory).sort_by_file_name() {
        match entry {
            Ok(entry) => {
                let is_conf = entry.path().extension().is_some_and(|ext| ext == "conf");
                if is_conf && !entry.file_type().is_dir() {
                    files.push(entry.into_path());
                }
            }
            Err(error) => {
                let path = error.path().unwrap_or(directory).to_path_buf();
                let why = error
                    .io_error()
                    .map_or_else(|| error.to_string(), ToString::to_string);
                errors.push(ConfigError::whole_file(&path, Problem::Unreadable(why)));
            }
        }
    }
    files
}
