//! A kubeconfig file in, a client configuration out.
//!
//! The file is checked field by field before any client is built, so that an
//! operator reads which file and which field is wrong. Reading the file is the
//! only effect; the API server is not asked.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::config::{AuthInfo, Cluster, Config, KubeConfigOptions, Kubeconfig};
use secrecy::ExposeSecret as _;

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

/// Loads the current context of the file.
pub(super) async fn load(file: &Path) -> Result<Config, KubeconfigError> {
    let mut kubeconfig = Kubeconfig::read_from(file).map_err(|error| match error {
        kube::config::KubeconfigError::ReadConfig(source, file) => {
            KubeconfigError::Read { file, source }
        }
        other => KubeconfigError::Parse {
            file: file.into(),
            source: Box::new(other),
        },
    })?;
    Checker { file }.check(&kubeconfig)?;
    for user in &mut kubeconfig.auth_infos {
        resolve_token_file(file, user.auth_info.as_mut());
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|source| KubeconfigError::Client {
            file: file.into(),
            source: Box::new(source),
        })?;
    // A proxy of the environment is for the host's other programs; one that
    // the file itself names was refused above.
    config.proxy_url = None;
    Ok(config)
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

/// Where a credential of a kubeconfig may stand: inline or in a file.
struct Material<'a> {
    field: String,
    inline: Option<&'a str>,
    path: Option<&'a str>,
}

struct Checker<'a> {
    file: &'a Path,
}

impl Checker<'_> {
    fn check(&self, kubeconfig: &Kubeconfig) -> Result<(), KubeconfigError> {
        let current = kubeconfig
            .current_context
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| self.field("current-context", "must name a context"))?;
        let context = kubeconfig
            .contexts
            .iter()
            .find(|named| named.name == current)
            .and_then(|named| named.context.as_ref())
            .ok_or_else(|| self.missing("current-context", "context", current))?;
        let field = format!("contexts[{current}].context");
        let cluster = kubeconfig
            .clusters
            .iter()
            .find(|named| named.name == context.cluster)
            .and_then(|named| named.cluster.as_ref())
            .ok_or_else(|| {
                self.missing(&format!("{field}.cluster"), "cluster", &context.cluster)
            })?;
        self.check_cluster(&format!("clusters[{}].cluster", context.cluster), cluster)?;
        let Some(user_name) = context.user.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let user = kubeconfig
            .auth_infos
            .iter()
            .find(|named| named.name == user_name)
            .and_then(|named| named.auth_info.as_ref())
            .ok_or_else(|| self.missing(&format!("{field}.user"), "user", user_name))?;
        self.check_user(&format!("users[{user_name}].user"), user)
    }

    fn check_cluster(&self, prefix: &str, cluster: &Cluster) -> Result<(), KubeconfigError> {
        let field = format!("{prefix}.server");
        let server = cluster.server.as_deref().unwrap_or_default();
        let url: http::Uri = server
            .parse()
            .map_err(|error| self.field(&field, format!("{server:?} is not a URL ({error})")))?;
        if url.host().is_none() || !matches!(url.scheme_str(), Some("https" | "http")) {
            return Err(self.field(&field, format!("{server:?} is not an http(s) URL")));
        }
        if cluster
            .proxy_url
            .as_deref()
            .is_some_and(|url| !url.is_empty())
        {
            return Err(self.field(format!("{prefix}.proxy-url"), "proxies are not supported"));
        }
        let authority = self.material(&Material {
            field: format!("{prefix}.certificate-authority"),
            inline: cluster.certificate_authority_data.as_deref(),
            path: cluster.certificate_authority.as_deref(),
        })?;
        match authority {
            Some((field, pem)) if !contains(&pem, b"-----BEGIN CERTIFICATE-----") => {
                Err(self.field(field, "holds no PEM certificate"))
            }
            _ => Ok(()),
        }
    }

    fn check_user(&self, prefix: &str, user: &AuthInfo) -> Result<(), KubeconfigError> {
        for (name, present) in [
            ("exec", user.exec.is_some()),
            ("auth-provider", user.auth_provider.is_some()),
        ] {
            if present {
                return Err(self.field(
                    format!("{prefix}.{name}"),
                    "credential plugins are not supported",
                ));
            }
        }
        let certificate = self.material(&Material {
            field: format!("{prefix}.client-certificate"),
            inline: user.client_certificate_data.as_deref(),
            path: user.client_certificate.as_deref(),
        })?;
        let key = self.material(&Material {
            field: format!("{prefix}.client-key"),
            inline: user
                .client_key_data
                .as_ref()
                .map(|data| data.expose_secret()),
            path: user.client_key.as_deref(),
        })?;
        match (&certificate, &key) {
            (Some((field, _)), None) => {
                return Err(self.field(field, "needs a client-key beside it"));
            }
            (None, Some((field, _))) => {
                return Err(self.field(field, "needs a client-certificate beside it"));
            }
            _ => {}
        }
        for (material, marker, what) in [
            (&certificate, "-----BEGIN CERTIFICATE-----", "certificate"),
            (&key, "PRIVATE KEY-----", "private key"),
        ] {
            if let Some((field, pem)) = material
                && !contains(pem, marker.as_bytes())
            {
                return Err(self.field(field, format!("holds no PEM {what}")));
            }
        }
        if let Some(token_file) = &user.token_file {
            let path = beside(self.file, token_file);
            self.read(&format!("{prefix}.tokenFile"), &path)?;
        }
        Ok(())
    }

    /// The bytes of a credential, with the name of the field they came from.
    /// Inline data wins, as in every other client.
    fn material(&self, from: &Material<'_>) -> Result<Option<(String, Vec<u8>)>, KubeconfigError> {
        if let Some(data) = from.inline.filter(|data| !data.is_empty()) {
            let field = format!("{}-data", from.field);
            return match BASE64.decode(data) {
                Ok(bytes) => Ok(Some((field, bytes))),
                Err(error) => Err(self.field(field, format!("is not base64 ({error})"))),
            };
        }
        let Some(path) = from.path.filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let bytes = self.read(&from.field, Path::new(path))?;
        Ok(Some((from.field.clone(), bytes)))
    }

    fn read(&self, field: &str, path: &Path) -> Result<Vec<u8>, KubeconfigError> {
        std::fs::read(path).map_err(|source| KubeconfigError::ReferencedFile {
            file: self.file.into(),
            field: field.into(),
            path: path.into(),
            source,
        })
    }

    fn field(&self, field: impl Into<String>, problem: impl Into<String>) -> KubeconfigError {
        KubeconfigError::Field {
            file: self.file.into(),
            field: field.into(),
            problem: problem.into(),
        }
    }

    fn missing(&self, field: &str, kind: &str, name: &str) -> KubeconfigError {
        self.field(field, format!("there is no {kind} {name:?}"))
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
