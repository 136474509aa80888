//! The command line: what the process was asked to do.
//!
//! Input: argv. Output: a [`Cli`]; running the agent is what happens without a subcommand,
//! as service files of installers expect. Unknown flags and arguments are errors. Whether
//! the values are sensible is decided by [`super::load()`], together with the files'.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::error::{ConfigError, ConfigWarning};
use super::flags::{self, FlagValue};
use super::proxy::{ProxyArgs, ProxyCommand, ServiceProxyMode};

/// The Kubernetes version whose behaviour this agent has. It is what `--version` prints,
/// which installers parse, and what the node reports as its kubelet version.
pub const KUBERNETES_VERSION: &str = "v1.36.3";

/// What the process was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Cli {
    /// Be the node agent.
    Run(Box<RunArgs>),
    /// Ask the running agent about a pod.
    Explain(ExplainArgs),
    /// Be the service proxy alone, or do something else about it.
    Proxy(Box<ProxyArgs>),
    /// Print this text and exit.
    Version(String),
}

/// The command line of an agent that is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunArgs {
    pub(super) node: NodeFlags,
    pub(super) fields: Vec<FlagValue>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigWarning>,
}

/// Why a command line is not one; prints itself as help, hint or version.
pub type CliError = clap::Error;

/// `kubelet explain`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ExplainArgs {
    /// The pod to explain
    #[arg(value_name = "NAMESPACE/POD", value_parser = parse_pod_name)]
    pub pod: PodName,
    /// For a person or for a script
    #[arg(long, short, value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,
    /// Root directory of the running agent
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT_DIR, conflicts_with = "socket")]
    root_dir: PathBuf,
    /// Socket of the running agent, instead of the one in its root directory
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl ExplainArgs {
    /// The socket of the agent to ask.
    pub fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| super::sections::explain_socket(&self.root_dir))
    }
}

/// A pod, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// For whom `explain` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A person.
    Text,
    /// A script.
    Json,
}

/// Flags of the agent that are not fields of `KubeletConfiguration`. An empty text is as
/// good as no flag, for service files that pass variables.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct NodeFlags {
    /// KubeletConfiguration file
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub(super) config: Option<String>,
    /// Directory of *.conf drop-ins merged over --config, in lexical order
    #[arg(long, value_name = "DIR", help_heading = "Configuration")]
    pub(super) config_dir: Option<String>,

    /// How to reach the API server; without it, the agent runs static pods alone
    #[arg(long, value_name = "FILE", help_heading = "API server")]
    pub(super) kubeconfig: Option<String>,
    /// Credentials used to obtain those in --kubeconfig
    #[arg(long, value_name = "FILE", help_heading = "API server")]
    pub(super) bootstrap_kubeconfig: Option<String>,
    /// Directory of the agent's certificates
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/kubelet/pki",
        help_heading = "API server"
    )]
    pub(super) cert_dir: PathBuf,

    /// Name of the node, instead of the hostname
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub(super) hostname_override: Option<String>,
    /// Address of the node, a dual-stack pair, or 0.0.0.0 or :: to prefer a family
    #[arg(long, value_name = "IP[,IP]", help_heading = "Node")]
    pub(super) node_ip: Option<String>,
    /// Labels set when the node registers
    #[arg(long, value_name = "KEY=VALUE,…", help_heading = "Node")]
    pub(super) node_labels: Vec<String>,
    /// "external" if a cloud controller manager initializes the node
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub(super) cloud_provider: Option<String>,

    /// Do the work of kube-proxy on this node: on, off, or auto, which is if nobody else does
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t = ServiceProxyMode::Auto,
        hide_possible_values = true,
        help_heading = "Service proxy"
    )]
    pub(super) service_proxy: ServiceProxyMode,
    /// KubeProxyConfiguration file; without it, upstream's defaults and detectLocalMode
    /// NodeCIDR. What it says about clients, names and logs has no effect in the agent
    #[arg(long, value_name = "FILE", help_heading = "Service proxy")]
    pub(super) proxy_config: Option<String>,

    /// Directory of the agent's state
    #[arg(
        long,
        value_name = "DIR",
        default_value = DEFAULT_ROOT_DIR,
        help_heading = "Process"
    )]
    pub(super) root_dir: PathBuf,
    /// CredentialProviderConfig file, or directory of such files
    #[arg(long, value_name = "PATH", help_heading = "Process")]
    pub(super) image_credential_provider_config: Option<String>,
    /// Directory of the credential provider plugins
    #[arg(long, value_name = "DIR", help_heading = "Process")]
    pub(super) image_credential_provider_bin_dir: Option<String>,
    /// Cgroup of the container runtime
    #[arg(long, value_name = "CGROUP", help_heading = "Process")]
    pub(super) runtime_cgroups: Option<String>,
    /// File locked while the agent runs
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub(super) lock_file: Option<String>,
    /// Exit when another process wants the lock file
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Process"
    )]
    pub(super) exit_on_lock_contention: Option<bool>,
    /// Leave eviction thresholds out of allocatable (deprecated)
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_short_help = true,
        help_heading = "Process"
    )]
    pub(super) experimental_allocatable_ignore_eviction: Option<bool>,
}

/// The text of a flag that was given and is not empty.
pub(super) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

const DEFAULT_ROOT_DIR: &str = "/var/lib/kubelet";

/// Kubernetes node agent: runs the pods the API server assigns to this node, and those in
/// a directory of manifests.
#[derive(Debug, Parser)]
#[command(
    name = "kubelet",
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    disable_version_flag = true,
    max_term_width = 100
)]
struct Arguments {
    /// Print the Kubernetes version and exit; "raw" prints more
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    version: Option<VersionFlag>,
    #[command(flatten)]
    node: NodeFlags,
    #[command(subcommand)]
    subcommand: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Say what the running agent is doing about a pod, and why
    Explain(ExplainArgs),
    /// Run the service proxy alone, with the flags of kube-proxy
    Proxy(Box<ProxyCommand>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum VersionFlag {
    True,
    False,
    Raw,
}

impl Cli {
    /// Parses argv, the program's own name first.
    ///
    /// # Errors
    /// Help, or what is wrong with the command line; [`clap::Error::exit`] prints either
    /// and ends the process as is customary.
    pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Self, CliError> {
        let (argv, mut warnings) = normalize(argv);
        let table = &flags::KUBELET;
        let mut command = ProxyCommand::add_fields(table.add_to(Arguments::command()));
        let matches = command.try_get_matches_from_mut(argv)?;
        let proxy = ProxyCommand::matches(&matches);
        let removed = proxy.and_then(|matches| flags::PROXY.removed(matches));
        if let Some((name, advice)) = removed.or_else(|| table.removed(&matches)) {
            return Err(command.error(
                ErrorKind::UnknownArgument,
                format!("--{name} does not exist any more: {advice}"),
            ));
        }
        let arguments =
            Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let version = match &arguments.subcommand {
            Some(Sub::Proxy(command)) => command.version(),
            Some(Sub::Explain(_)) | None => arguments.version,
        };
        match version {
            Some(VersionFlag::True) => return Ok(Self::Version(version_line())),
            Some(VersionFlag::Raw) => return Ok(Self::Version(version_details())),
            Some(VersionFlag::False) | None => {}
        }
        match arguments.subcommand {
            Some(Sub::Explain(explain)) => return Ok(Self::Explain(explain)),
            Some(Sub::Proxy(command)) => {
                let args = command.into_args(proxy.unwrap_or(&matches), warnings);
                return Ok(Self::Proxy(Box::new(args)));
            }
            None => {}
        }
        warnings.extend(table.ignored(&matches));
        let mut errors = Vec::new();
        let fields = table.values(&matches, &mut errors);
        Ok(Self::Run(Box::new(RunArgs {
            node: arguments.node,
            fields,
            errors,
            warnings,
        })))
    }
}

/// `Kubernetes v1.36.3`: installers compare it by a strict pattern.
fn version_line() -> String {
    format!("Kubernetes {KUBERNETES_VERSION}")
}

fn version_details() -> String {
    format!(
        "{}\nkubelet-rs {} ({}-{})",
        version_line(),
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

/// Flag names may be written with underscores for dashes, as upstream tolerates.
fn normalize(argv: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<ConfigWarning>) {
    let mut warnings = Vec::new();
    let argv = argv
        .into_iter()
        .map(|arg| {
            let Some(flag) = arg.to_str().and_then(|arg| arg.strip_prefix("--")) else {
                return arg;
            };
            let (name, value) = flag
                .split_once('=')
                .map_or((flag, None), |(name, value)| (name, Some(value)));
            if !name.contains('_') {
                return arg;
            }
            let dashed = name.replace('_', "-");
            warnings.push(ConfigWarning {
                origin: flags::origin(name),
                field: String::new(),
                message: format!("flag names have dashes; read as --{dashed}"),
            });
            match value {
                Some(value) => format!("--{dashed}={value}").into(),
                None => format!("--{dashed}").into(),
            }
        })
        .collect();
    (argv, warnings)
}

fn parse_pod_name(text: &str) -> Result<PodName, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(PodName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
        _ => Err("write NAMESPACE/POD, like default/web".to_owned()),
    }
}
