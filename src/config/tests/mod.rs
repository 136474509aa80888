//! Tests of the configuration as its users meet it: argv and files in, values, errors and
//! warnings out.

mod cli;
mod errors;
mod gates;
mod kubeadm;
mod layers;
mod proxy;
mod sections;
mod support;
mod values;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Cli, Config, ConfigErrors, Loaded, RunArgs, load_for_host};

/// First lines of every configuration file.
const HEADER: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

/// A directory of configuration files. `{dir}` in arguments stands for its path, and its
/// path reads `{dir}` in messages.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    /// Writes a file as it is.
    fn with(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Writes the fields of a KubeletConfiguration.
    fn with_fields(self, name: &str, fields: &str) -> Self {
        self.with(name, &format!("{HEADER}{fields}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self, args: &[&str]) -> Result<Loaded, ConfigErrors> {
        match self.parse(args) {
            Cli::Run(args) => load_for_host(&args, "Test-Host"),
            other => panic!("not a run: {other:?}"),
        }
    }

    fn parse(&self, args: &[&str]) -> Cli {
        let dir = self.dir.path().to_str().unwrap();
        let args: Vec<_> = args.iter().map(|arg| arg.replace("{dir}", dir)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        parse(&args).unwrap()
    }

    /// Text with this directory's path shown as `{dir}`.
    fn shown(&self, text: impl ToString) -> String {
        let dir = self.dir.path().to_str().unwrap();
        text.to_string().replace(dir, "{dir}")
    }

    /// The errors as printed.
    fn errors(&self, args: &[&str]) -> String {
        self.shown(self.load(args).unwrap_err())
    }

    /// The warnings as printed.
    fn warnings(&self, args: &[&str]) -> Vec<String> {
        let loaded = self.load(args).unwrap();
        loaded
            .warnings
            .iter()
            .map(|line| self.shown(line))
            .collect()
    }
}

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    let argv = std::iter::once("kubelet").chain(args.iter().copied());
    Cli::parse(argv.map(OsString::from))
}

fn run_args(args: &[&str]) -> RunArgs {
    match parse(args).unwrap() {
        Cli::Run(args) => *args,
        other => panic!("not a run: {other:?}"),
    }
}

/// The configuration from fields of one file and flags.
fn config_of(fields: &str, flags: &[&str]) -> Config {
    let files = Files::new().with_fields("config.yaml", fields);
    let args: Vec<_> = ["--config={dir}/config.yaml"]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    files.load(&args).unwrap().config
}

/// The errors from fields of one file and flags.
fn errors_of(fields: &str, flags: &[&str]) -> String {
    let files = Files::new().with_fields("config.yaml", fields);
    let args: Vec<_> = ["--config={dir}/config.yaml"]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    files.errors(&args)
}
