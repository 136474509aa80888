//! Why an agent cannot start.

/// All of these need a person.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("swap is on; switch it off, or set failSwapOn: false in the kubelet configuration")]
    SwapOn,
    #[error(
        "this machine uses cgroup v1; set failCgroupV1: false in the kubelet configuration to run \
         on it all the same"
    )]
    CgroupV1,
    #[error("cannot prepare the root directory")]
    RootDirectory(#[from] crate::node::root_dir::CreateDirectoryError),
    #[error("protectKernelDefaults: kernel parameters are not as they must be")]
    Tunables(#[from] crate::node::tunables::WrongTunables),
    #[error("cannot read what this machine is")]
    Facts(#[from] crate::node::facts::FactsError),
    #[error("cannot set up the cgroup tree for pods")]
    Cgroup(#[from] crate::cgroup::CgroupError),
    #[error("cannot give pods user namespaces")]
    UserNamespaces(#[from] crate::pod::userns::IdRangeError),
    #[error("cannot enforce the {who} limits on cgroup {cgroup:?}")]
    Reserved {
        who: &'static str,
        cgroup: String,
        #[source]
        source: crate::cgroup::CgroupError,
    },
    #[error("cannot use the credentials for the API server")]
    Kubeconfig(#[from] crate::apiserver::KubeconfigError),
    #[error("cannot set up TLS for the node's API")]
    Tls(#[from] crate::server::tls::TlsError),
    #[error("cannot tell what is used")]
    Stats(#[from] crate::stats::StatsError),
    #[error("cannot listen on the {what}")]
    Listen {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}
