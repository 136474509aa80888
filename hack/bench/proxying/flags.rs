//! How our agent is told to be the proxy, as `hack/cluster` tells kube-proxy.

use std::path::PathBuf;

use anyhow::Result;

use crate::cluster::{Cluster, Kind};

/// Flags for our agent, with a configuration file that is written already.
#[derive(Debug)]
pub(crate) struct Flags {
    config: String,
}

impl Flags {
    /// Writes the configuration that kube-proxy has here.
    pub(crate) fn write(cluster: &Cluster) -> Result<Self> {
        let directory = PathBuf::from(cluster.fact("DIR")).join("bench");
        std::fs::create_dir_all(&directory)?;
        let file = directory.join("proxy.yaml");
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
             kind: KubeProxyConfiguration\n\
             mode: iptables\n\
             clusterCIDR: {}\n\
             # nf_conntrack_max cannot be written inside a network namespace.\n\
             conntrack: {{ maxPerCore: 0 }}\n",
            cluster.fact("POD_CIDR"),
        );
        std::fs::write(&file, text)?;
        Ok(Self {
            config: file.display().to_string(),
        })
    }

    /// Upstream's node has a proxy without being told.
    pub(crate) fn of(&self, kind: Kind) -> Vec<&str> {
        match kind {
            Kind::Ours => vec!["--service-proxy=on", "--proxy-config", &self.config],
            Kind::Upstream | Kind::None => Vec::new(),
        }
    }
}
