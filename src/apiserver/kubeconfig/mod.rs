//! A kubeconfig file in, a client configuration out; and the kubeconfig of a node
//! that has got its certificate.
//!
//! The file is checked field by field before any client is built (`check`), so that
//! an operator reads which file and which field is wrong. The certificates and keys
//! that it names are read along with it, so that whoever reads it again can tell
//! whether anything has changed. Files are the only effect; the API server is not
//! asked.

mod check;
mod write;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use kube::config::{AuthInfo, Cluster, Config, KubeConfigOptions, Kubeconfig};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use crate::certificate::{self, PemError, Store};
use check::{Checker, ClientPem};

pub(super) use write::write;

/// A kubeconfig that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("cannot read kubeconfig {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("kubeconfig {} cannot be parsed", file.display())]
    Parse {
        file: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("kubeconfig {}: {field}: {problem}", file.display())]
    Field {
        file: PathBuf,
        /// Path of the field, list entries by name: `users[node].user.token`.
        field: String,
        problem: String,
    },
    #[error("kubeconfig {}: {field}: cannot read {}", file.display(), path.display())]
    ReferencedFile {
        file: PathBuf,
        field: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("kubeconfig {}: the client's certificate cannot be used", file.display())]
    Certificate {
        file: PathBuf,
        #[source]
        source: PemError,
    },
    #[error("cannot write kubeconfig {}", file.display())]
    Write {
        file: PathBuf,
        #[source]
        source: PemError,
    },
    /// Neither `--kubeconfig` nor `--bootstrap-kubeconfig` can be used.
    #[error("neither kubeconfig nor bootstrap kubeconfig can be used ({bootstrap})")]
    Neither {
        /// What is wrong with the bootstrap kubeconfig.
        bootstrap: String,
        /// What is wrong with the kubeconfig.
        #[source]
        source: Box<KubeconfigError>,
    },
    #[error("no kubeconfig is given, and this is no pod with a service account")]
    ServiceAccount {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("kubeconfig {}: no client can be made of its certificates and keys", file.display())]
    Client {
        file: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A kubeconfig that has been checked, with what its current context names.
#[derive(Debug)]
pub(super) struct Checked {
    file: PathBuf,
    kubeconfig: Kubeconfig,
    cluster: String,
    user: Option<String>,
    certificate: Option<ClientPem>,
}

/// Tells one content of a kubeconfig and its files from another.
pub(super) type Fingerprint = [u8; 32];

/// Reads and checks the file.
pub(super) fn read(file: &Path) -> Result<Checked, KubeconfigError> {
    let mut kubeconfig = Kubeconfig::read_from(file).map_err(|error| match error {
        kube::config::KubeconfigError::ReadConfig(source, file) => {
            KubeconfigError::Read { file, source }
        }
        other => KubeconfigError::Parse {
            file: file.into(),
            source: Box::new(other),
        },
    })?;
    let found = Checker { file }.check(&kubeconfig)?;
    for user in &mut kubeconfig.auth_infos {
        resolve_token_file(file, user.auth_info.as_mut());
    }
    let mut checked = Checked {
        file: file.into(),
        kubeconfig,
        cluster: found.cluster,
        user: found.user,
        certificate: None,
    };
    if let Some(authority) = found.authority {
        checked.use_authority(&authority);
    }
    if let Some(certificate) = found.certificate {
        checked.use_certificate(certificate);
    }
    Ok(checked)
}

impl Checked {
    /// The client's certificate; `None` if it has none.
    pub(super) fn key_pair(&self) -> Result<Option<CertifiedKey>, KubeconfigError> {
        let parse = |pem: &ClientPem| {
            let (certificate, key) = (pem.certificate.as_bytes(), pem.key.as_bytes());
            certificate::key_pair((&self.file, certificate), (&self.file, key))
        };
        let pair = self.certificate.as_ref().map(parse).transpose();
        pair.map_err(|source| KubeconfigError::Certificate {
            file: self.file.clone(),
            source,
        })
    }

    /// Replaces the client's certificate by the one in the store, if there is one
    /// that has not expired.
    pub(super) fn prefer(&mut self, store: &Store, now: Timestamp) {
        let path = store.current();
        let Ok(text) = std::fs::read_to_string(&path) else {
            return;
        };
        let pem = (path.as_path(), text.as_bytes());
        let is_good = certificate::key_pair(pem, pem)
            .ok()
            .and_then(|pair| certificate::validity(&pair))
            .is_some_and(|(_, end)| now < end);
        if is_good {
            self.use_certificate(ClientPem::of_one(&text));
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        // A map of strings; if it could not be shown, it would be new each time.
        let text = serde_json::to_vec(&self.kubeconfig).unwrap_or_default();
        Sha256::digest(text).into()
    }

    /// The settings of a client.
    pub(super) async fn config(self) -> Result<Config, KubeconfigError> {
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(self.kubeconfig, &options)
            .await
            .map_err(|source| KubeconfigError::Client {
                file: self.file,
                source: Box::new(source),
            })?;
        // A proxy of the environment is for the host's other programs; one that
        // the file itself names was refused above.
        config.proxy_url = None;
        Ok(config)
    }

    fn cluster(&self) -> Option<&Cluster> {
        let mut named = self.kubeconfig.clusters.iter();
        let current = named.find(|named| named.name == self.cluster)?;
        current.cluster.as_ref()
    }

    fn use_authority(&mut self, pem: &[u8]) {
        let named = self.kubeconfig.clusters.iter_mut();
        for cluster in named
            .filter(|named| named.name == self.cluster)
            .filter_map(|named| named.cluster.as_mut())
        {
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = Some(BASE64.encode(pem));
        }
    }

    fn use_certificate(&mut self, pem: ClientPem) {
        let named = self.kubeconfig.auth_infos.iter_mut();
        for user in named
            .filter(|named| Some(&named.name) == self.user.as_ref())
            .filter_map(|named| named.auth_info.as_mut())
        {
            user.client_certificate = None;
            user.client_key = None;
            user.client_certificate_data = Some(BASE64.encode(&pem.certificate));
            user.client_key_data = Some(BASE64.encode(&pem.key).into());
        }
        self.certificate = Some(pem);
    }
}

/// Paths in a kubeconfig are relative to the file; the client library makes
/// all but this one absolute.
fn resolve_token_file(file: &Path, user: Option<&mut AuthInfo>) {
    if let Some(token_file) = user.and_then(|user| user.token_file.as_mut()) {
        *token_file = beside(file, token_file).to_string_lossy().into_owned();
    }
}

fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent()
        .map_or_else(|| path.into(), |dir| dir.join(path))
}
