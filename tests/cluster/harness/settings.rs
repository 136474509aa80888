//! The suite's settings: environment variables and the command line in, one value out.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use libtest_mimic::Arguments;

use crate::upstream;

/// Whose node agent is under test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    Ours,
    Upstream,
}

impl NodeKind {
    /// As `hack/cluster` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Upstream => "upstream",
        }
    }
}

pub struct Settings {
    pub node: NodeKind,
    /// `1.6` or `2`, as `hack/cluster/up --containerd` takes it.
    pub containerd: String,
    /// The binary under test when the node is ours.
    pub kubelet: PathBuf,
    /// How long the API server is away in tests of that.
    pub outage: Duration,
    /// Whether clusters of failed tests stay up.
    pub keep: bool,
    /// Whether tests that this node is known to fail run too.
    include_ignored: bool,
}

impl Settings {
    pub fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let node = match variable("KUBELET_RS_NODE").as_deref() {
            None | Some("ours") => NodeKind::Ours,
            Some("upstream") => NodeKind::Upstream,
            Some(other) => bail!("KUBELET_RS_NODE is '{other}', it can be ours or upstream"),
        };
        let containerd = variable("KUBELET_RS_CONTAINERD").unwrap_or_else(|| "1.6".to_owned());
        ensure!(
            ["1.6", "2"].contains(&containerd.as_str()),
            "KUBELET_RS_CONTAINERD is '{containerd}', it can be 1.6 or 2"
        );
        let flag = |name: &str| variable(name).is_some_and(|value| value == "1");
        let built_with_the_tests = || env!("CARGO_BIN_EXE_kubelet").to_owned();
        Ok(Self {
            node,
            containerd,
            kubelet: variable("KUBELET_RS_KUBELET")
                .unwrap_or_else(built_with_the_tests)
                .into(),
            outage: Duration::from_secs(if flag("KUBELET_RS_LONG") { 300 } else { 40 }),
            keep: flag("KUBELET_RS_KEEP"),
            include_ignored: arguments.include_ignored,
        })
    }

    /// Why this test is to be skipped, if it is.
    pub fn why_not(&self, test: &str) -> Option<&'static str> {
        let known = self.node == NodeKind::Upstream && !self.include_ignored;
        let cannot = || upstream::CANNOT.iter().find(|(name, _)| *name == test);
        known.then(cannot)?.map(|(_, reason)| *reason)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = match self.node {
            NodeKind::Ours => "our node",
            NodeKind::Upstream => "upstream's node",
        };
        write!(f, "{node} on containerd {}", self.containerd)
    }
}
