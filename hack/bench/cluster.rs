//! The cluster under test, by the scripts of `hack/cluster` and the facts that
//! they wrote down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Whose agent the node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Upstream,
    None,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    name: String,
    facts: BTreeMap<String, String>,
    kubelet: Option<PathBuf>,
}

impl Cluster {
    /// Reads the facts of a cluster that is up. `kubelet`: our program;
    /// without it, `hack/cluster` finds one.
    pub(crate) fn open(name: &str, kubelet: Option<PathBuf>) -> Result<Self> {
        let state = std::env::var("KUBELET_RS_STATE").unwrap_or("/var/lib/kubelet-rs".into());
        let file = Path::new(&state).join("clusters").join(name).join("env");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("no cluster {name}: {}", file.display()))?;
        let facts = text.lines().filter_map(|line| line.split_once('='));
        Ok(Self {
            name: name.to_owned(),
            facts: facts.map(|(k, v)| (k.into(), v.into())).collect(),
            kubelet,
        })
    }

    /// A fact by its name in the cluster's `env` file; empty if there is none.
    pub(crate) fn fact(&self, key: &str) -> &str {
        self.facts.get(key).map_or("", String::as_str)
    }

    /// Gives the node another agent, and waits until it is ready.
    pub(crate) fn switch(&self, kind: Kind) -> Result<()> {
        self.switch_with(kind, &[])
    }

    /// The same, with these flags for the agent.
    pub(crate) fn switch_with(&self, kind: Kind, flags: &[&str]) -> Result<()> {
        let mut args = vec!["node", &self.name];
        let kubelet = self.kubelet.as_ref().map(|path| path.display().to_string());
        match kind {
            Kind::Ours => args.push("ours"),
            Kind::Upstream => args.push("upstream"),
            Kind::None => args.push("none"),
        }
        if let (Kind::Ours, Some(kubelet)) = (kind, &kubelet) {
            args.extend(["--kubelet", kubelet]);
        }
        if !flags.is_empty() {
            args.push("--");
            args.extend(flags);
        }
        script(&args).map(drop)
    }

    /// `hack/cluster/ctl` with the agent as its component.
    pub(crate) fn control_agent(&self, action: &str) -> Result<String> {
        self.control("kubelet", action)
    }

    /// The same with any component.
    pub(crate) fn control(&self, component: &str, action: &str) -> Result<String> {
        script(&["ctl", &self.name, action, component])
    }

    pub(crate) fn agent_pid(&self) -> Result<i32> {
        self.pid("kubelet")
    }

    /// The process of one of the cluster's components.
    pub(crate) fn pid(&self, component: &str) -> Result<i32> {
        let pid = script(&["ctl", &self.name, "pid", component])?;
        let pid = pid.trim().parse();
        pid.with_context(|| format!("the pid of {component}"))
    }
}

/// Runs a script of `hack/cluster`; its output, or an error with what it said.
fn script(args: &[&str]) -> Result<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/cluster");
    let output = Command::new(Path::new(path).join(args[0]))
        .args(&args[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("hack/cluster/{}", args[0]))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("hack/cluster/{}: {}", args.join(" "), said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
