//! The command line of `kubelet proxy`, which is kube-proxy's.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, Subcommand};

use super::support::is_logging;
use crate::config::cli::{VersionFlag, given};
use crate::config::error::{ConfigError, ConfigWarning};
use crate::config::flags::{self, FlagValue};

/// What `kubelet proxy` was asked to do, and with which settings.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyArgs {
    pub(super) action: ProxyAction,
    pub(super) flags: ProxyFlags,
    pub(super) fields: Vec<FlagValue>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigWarning>,
}

/// What `kubelet proxy` can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyAction {
    /// Be the node's service proxy.
    Run,
    /// Set what takes full privileges, and exit (`--init-only`).
    InitOnly,
    /// Write the configuration with all its defaults to a file, and exit
    /// (`--write-config-to`).
    WriteConfig(PathBuf),
    /// Remove the proxy's rules, and exit (`--cleanup` or `kubelet proxy cleanup`).
    Cleanup,
}

impl ProxyArgs {
    /// What to do.
    pub fn action(&self) -> &ProxyAction {
        &self.action
    }

    /// `--config`. A proxy ends when this file changes, to be started anew with it.
    pub fn config_file(&self) -> Option<&Path> {
        given(&self.flags.config).map(Path::new)
    }

    /// The flags that count. With a configuration file these are the ones about logging,
    /// and every other one is warned about.
    pub(super) fn fields(&self, warnings: &mut Vec<ConfigWarning>) -> Vec<&FlagValue> {
        let has_file = self.config_file().is_some();
        let (counting, ignored): (Vec<_>, Vec<_>) = self
            .fields
            .iter()
            .partition(|flag| !has_file || is_logging(flag.field()));
        warnings.extend(ignored.into_iter().map(|flag| ConfigWarning {
            origin: flag.origin().clone(),
            field: String::new(),
            message: "is ignored, as there is a --config file".to_owned(),
        }));
        counting
    }
}

/// Flags of the proxy that are not fields of `KubeProxyConfiguration`, or not only. An empty
/// text is as good as no flag.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(in crate::config) struct ProxyFlags {
    /// KubeProxyConfiguration file; all flags but --hostname-override and those about
    /// logging are ignored then
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<String>,
    /// Name of the node, instead of the file's or the hostname
    #[arg(long, value_name = "NAME")]
    pub(super) hostname_override: Option<String>,
    /// Not supported: name the server in the kubeconfig
    #[arg(long, value_name = "URL", hide = true)]
    pub(super) master: Option<String>,
    /// Print the Kubernetes version and exit; "raw" prints more
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    version: Option<VersionFlag>,
}

/// `kubelet proxy`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(in crate::config) struct ProxyCommand {
    #[command(flatten)]
    flags: ProxyFlags,
    /// Write the configuration with all its defaults to a file and exit
    #[arg(long, value_name = "FILE")]
    write_config_to: Option<String>,
    /// Set what takes full privileges and exit
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    init_only: Option<bool>,
    /// Remove all rules of service proxies and exit, like the command "cleanup"
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    cleanup: Option<bool>,
    #[command(subcommand)]
    subcommand: Option<ProxySub>,
}

#[derive(Debug, Subcommand)]
enum ProxySub {
    /// Remove all rules of service proxies and exit
    Cleanup(ProxyFlags),
}

impl ProxyCommand {
    /// Adds the flags that set fields to the program's command.
    pub(in crate::config) fn add_fields(program: Command) -> Command {
        let table = &flags::PROXY;
        program.mut_subcommand("proxy", |proxy| {
            table
                .add_to(proxy)
                .mut_subcommand("cleanup", |cleanup| table.add_to(cleanup))
        })
    }

    /// What the program's matches say about this command, if it was given.
    pub(in crate::config) fn matches(program: &ArgMatches) -> Option<&ArgMatches> {
        let proxy = program.subcommand_matches("proxy")?;
        Some(proxy.subcommand_matches("cleanup").unwrap_or(proxy))
    }

    /// Whether to print the version instead of doing anything.
    pub(in crate::config) fn version(&self) -> Option<VersionFlag> {
        match &self.subcommand {
            Some(ProxySub::Cleanup(flags)) => flags.version,
            None => self.flags.version,
        }
    }

    /// What was asked for, with the matches of the command itself.
    pub(in crate::config) fn into_args(
        self,
        matches: &ArgMatches,
        warnings: Vec<ConfigWarning>,
    ) -> ProxyArgs {
        let mut errors = Vec::new();
        let fields = flags::PROXY.values(matches, &mut errors);
        let action = self.action();
        let flags = match self.subcommand {
            Some(ProxySub::Cleanup(flags)) => flags,
            None => self.flags,
        };
        ProxyArgs {
            action,
            flags,
            fields,
            errors,
            warnings,
        }
    }

    /// Of several actions, upstream does the first in this order.
    fn action(&self) -> ProxyAction {
        if let Some(path) = given(&self.write_config_to) {
            ProxyAction::WriteConfig(path.into())
        } else if self.subcommand.is_some() || self.cleanup == Some(true) {
            ProxyAction::Cleanup
        } else if self.init_only == Some(true) {
            ProxyAction::InitOnly
        } else {
            ProxyAction::Run
        }
    }
}
