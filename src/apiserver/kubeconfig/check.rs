//! Every field of a kubeconfig that matters here, looked at by itself.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use secrecy::ExposeSecret as _;

use super::{KubeconfigError, beside};
use crate::certificate::split;

/// What the current context names.
pub(super) struct Found {
    pub(super) cluster: String,
    /// PEM; `None`: the system's.
    pub(super) authority: Option<Vec<u8>>,
    pub(super) user: Option<String>,
    pub(super) certificate: Option<ClientPem>,
}

/// A client's certificate and its chain, and its key.
pub(super) struct ClientPem {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl ClientPem {
    /// Of one text that has both.
    pub(super) fn of_one(text: &str) -> Self {
        let (certificate, key) = split(text);
        Self { certificate, key }
    }
}

impl std::fmt::Debug for ClientPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientPem").finish_non_exhaustive()
    }
}

/// Where a credential of a kubeconfig may stand: inline or in a file.
struct Material<'a> {
    field: String,
    inline: Option<&'a str>,
    path: Option<&'a str>,
}

pub(super) struct Checker<'a> {
    pub(super) file: &'a Path,
}

impl Checker<'_> {
    pub(super) fn check(&self, kubeconfig: &Kubeconfig) -> Result<Found, KubeconfigError> {
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
        let prefix = format!("clusters[{}].cluster", context.cluster);
        let mut found = Found {
            cluster: context.cluster.clone(),
            authority: self.check_cluster(&prefix, cluster)?,
            user: None,
            certificate: None,
        };
        let Some(user_name) = context.user.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(found);
        };
        let user = kubeconfig
            .auth_infos
            .iter()
            .find(|named| named.name == user_name)
            .and_then(|named| named.auth_info.as_ref())
            .ok_or_else(|| self.missing(&format!("{field}.user"), "user", user_name))?;
        found.user = Some(user_name.to_owned());
        found.certificate = self.check_user(&format!("users[{user_name}].user"), user)?;
        Ok(found)
    }

    fn check_cluster(
        &self,
        prefix: &str,
        cluster: &Cluster,
    ) -> Result<Option<Vec<u8>>, KubeconfigError> {
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
            authority => Ok(authority.map(|(_, pem)| pem)),
        }
    }

    fn check_user(
        &self,
        prefix: &str,
        user: &AuthInfo,
    ) -> Result<Option<ClientPem>, KubeconfigError> {
        self.check_plugins(prefix, user)?;
        if let Some(token_file) = &user.token_file {
            let path = beside(self.file, token_file);
            self.read(&format!("{prefix}.tokenFile"), &path)?;
        }
        self.check_certificate(prefix, user)
    }

    fn check_plugins(&self, prefix: &str, user: &AuthInfo) -> Result<(), KubeconfigError> {
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
        Ok(())
    }

    fn check_certificate(
        &self,
        prefix: &str,
        user: &AuthInfo,
    ) -> Result<Option<ClientPem>, KubeconfigError> {
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
        let ((certificate_field, certificate), (key_field, key)) = match (certificate, key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (Some((field, _)), None) => {
                return Err(self.field(field, "needs a client-key beside it"));
            }
            (None, Some((field, _))) => {
                return Err(self.field(field, "needs a client-certificate beside it"));
            }
            (None, None) => return Ok(None),
        };
        if !contains(&certificate, b"-----BEGIN CERTIFICATE-----") {
            return Err(self.field(certificate_field, "holds no PEM certificate"));
        }
        if !contains(&key, b"PRIVATE KEY-----") {
            return Err(self.field(key_field, "holds no PEM private key"));
        }
        Ok(Some(ClientPem {
            certificate: split(&String::from_utf8_lossy(&certificate)).0,
            key: split(&String::from_utf8_lossy(&key)).1,
        }))
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
