//! Registry credentials, and to which images they apply.
//!
//! In: secrets of the types `kubernetes.io/dockerconfigjson` and
//! `kubernetes.io/dockercfg`, files of the same forms, or entries of a
//! credential provider; and an image. Out: the credentials that apply to the
//! image, the most specific entry first.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::reference::{DEFAULT_REGISTRY, ImageReference};
use super::spec::{PullCredential, RegistryAuth, SecretId};

const TYPE_CONFIG_JSON: &str = "kubernetes.io/dockerconfigjson";
const KEY_CONFIG_JSON: &str = ".dockerconfigjson";
const TYPE_CONFIG: &str = "kubernetes.io/dockercfg";
const KEY_CONFIG: &str = ".dockercfg";

/// What the default registry's credentials are commonly filed under.
const DEFAULT_REGISTRY_ENTRY: &str = "index.docker.io";

/// A secret that does not hold what its type says. Contents are not repeated.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("secret {secret:?} does not hold a valid registry configuration")]
    Json {
        secret: String,
        source: serde_json::Error,
    },
    #[error(
        "secret {secret:?}: unable to parse auth field of {registry:?}, must be formatted as \
         base64(username:password)"
    )]
    Auth { secret: String, registry: String },
}

/// A file of the node that is no registry configuration. Contents are not
/// repeated.
#[derive(Debug, thiserror::Error)]
pub enum CredentialFileError {
    #[error("not a registry configuration")]
    Json(#[source] serde_json::Error),
    #[error("the auth field of {registry:?} is not base64(username:password)")]
    Auth { registry: String },
}

/// The two forms of a registry configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialFile {
    /// `config.json`: entries below `auths`.
    ConfigJson,
    /// `.dockercfg`: just the entries.
    DockerCfg,
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// Overrides the two.
    #[serde(default)]
    auth: Option<String>,
}

/// Credentials by the registry (and path) they are for.
#[derive(Default)]
pub struct Keyring {
    entries: BTreeMap<String, Vec<PullCredential>>,
}

impl Keyring {
    /// Collects the credentials of all secrets. Secrets of other types, and
    /// empty ones, have none.
    ///
    /// # Errors
    /// If a secret's content cannot be read.
    pub fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Result<Self, CredentialsError> {
        let mut keyring = Self::default();
        for secret in secrets {
            for (registry, entry) in entries(secret)? {
                let auth = entry.decode().ok_or_else(|| CredentialsError::Auth {
                    secret: name(secret),
                    registry: registry.clone(),
                })?;
                keyring.add(&registry, auth, Some(id(secret)));
            }
        }
        Ok(keyring)
    }

    /// The credentials in a file of the node.
    ///
    /// # Errors
    /// If the file does not hold what its form says.
    pub fn of_file(form: CredentialFile, content: &[u8]) -> Result<Self, CredentialFileError> {
        let entries: BTreeMap<String, Entry> = match form {
            CredentialFile::ConfigJson => serde_json::from_slice::<ConfigJson>(content)
                .map(|config| config.auths.unwrap_or_default()),
            CredentialFile::DockerCfg => serde_json::from_slice(content),
        }
        .map_err(CredentialFileError::Json)?;
        let mut keyring = Self::default();
        for (registry, entry) in entries {
            match entry.decode() {
                Some(auth) => keyring.add(&registry, auth, None),
                None => return Err(CredentialFileError::Auth { registry }),
            }
        }
        Ok(keyring)
    }

    /// Credentials of the node by the place they are for.
    pub fn of_node<'a>(entries: impl Iterator<Item = (&'a str, RegistryAuth)>) -> Self {
        let mut keyring = Self::default();
        for (registry, auth) in entries {
            keyring.add(registry, auth, None);
        }
        keyring
    }

    fn add(&mut self, registry: &str, auth: RegistryAuth, secret: Option<SecretId>) {
        let credential = PullCredential { auth, secret };
        self.entries
            .entry(key(registry))
            .or_default()
            .push(credential);
    }

    /// What applies to an image; entries in reverse order of their names, so
    /// that a longer path comes before its own beginning.
    #[must_use]
    pub fn lookup(&self, image: &ImageReference) -> Vec<PullCredential> {
        let target = image.name();
        let matching: Vec<PullCredential> = self
            .entries
            .iter()
            .rev()
            .filter(|(entry, _)| applies(entry, &target))
            .flat_map(|(_, auths)| auths.clone())
            .collect();
        if !matching.is_empty() || image.registry != DEFAULT_REGISTRY {
            return matching;
        }
        let default = self.entries.get(DEFAULT_REGISTRY_ENTRY);
        default.cloned().unwrap_or_default()
    }
}

fn name(secret: &Secret) -> String {
    secret.metadata.name.clone().unwrap_or_default()
}

fn id(secret: &Secret) -> SecretId {
    SecretId {
        uid: secret.metadata.uid.clone().unwrap_or_default(),
        namespace: secret.metadata.namespace.clone().unwrap_or_default(),
        name: name(secret),
    }
}

fn entries(secret: &Secret) -> Result<BTreeMap<String, Entry>, CredentialsError> {
    let data = |key| {
        let bytes = secret.data.as_ref()?.get(key)?;
        Some(bytes.0.as_slice()).filter(|bytes| !bytes.is_empty())
    };
    let parsed = match secret.type_.as_deref() {
        Some(TYPE_CONFIG_JSON) => data(KEY_CONFIG_JSON).map(|json| {
            serde_json::from_slice::<ConfigJson>(json).map(|c| c.auths.unwrap_or_default())
        }),
        Some(TYPE_CONFIG) => data(KEY_CONFIG).map(serde_json::from_slice),
        _ => None,
    };
    parsed
        .unwrap_or_else(|| Ok(BTreeMap::new()))
        .map_err(|source| CredentialsError::Json {
            secret: name(secret),
            source,
        })
}

impl Entry {
    fn decode(self) -> Option<RegistryAuth> {
        let auth = |username: &str, password: &str| RegistryAuth {
            username: username.to_owned(),
            password: password.to_owned(),
            ..RegistryAuth::default()
        };
        let Some(encoded) = self.auth.filter(|auth| !auth.is_empty()) else {
            return Some(auth(
                &self.username.unwrap_or_default(),
                &self.password.unwrap_or_default(),
            ));
        };
        let encoded = encoded.trim();
        let decoded = if encoded.ends_with('=') {
            STANDARD.decode(encoded)
        } else {
            STANDARD_NO_PAD.decode(encoded)
        };
        let text = String::from_utf8(decoded.ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(auth(username, password))
    }
}

/// The place an entry stands for: host, port and path. The scheme says
/// nothing, and the path of a registry's API means the registry.
fn key(registry: &str) -> String {
    let bare = ["https://", "http://"]
        .iter()
        .find_map(|scheme| registry.strip_prefix(scheme))
        .unwrap_or(registry);
    let (host, path) = split_host(bare);
    let path = ["/v1/", "/v2/"]
        .iter()
        .find_map(|api| path.strip_prefix(api))
        .map_or_else(|| path.to_owned(), |rest| format!("/{rest}"));
    match path.as_str() {
        "/" => host.to_owned(),
        path => format!("{host}{path}"),
    }
}

/// Splits before the first slash.
fn split_host(place: &str) -> (&str, &str) {
    place.split_at(place.find('/').unwrap_or(place.len()))
}

/// Whether an entry is for an image: the host's labels match as globs, the
/// port is the same, the path begins with the entry's.
#[must_use]
pub fn applies(entry: &str, image: &str) -> bool {
    let ((entry_host, entry_path), (host, path)) = (split_host(entry), split_host(image));
    let ((entry_host, entry_port), (host, port)) = (split_port(entry_host), split_port(host));
    let (patterns, labels) = (entry_host.split('.'), host.split('.'));
    entry_port == port
        && path.starts_with(entry_path)
        && patterns.clone().count() == labels.clone().count()
        && patterns
            .zip(labels)
            .all(|(pattern, label)| glob(pattern, label))
}

fn split_port(host: &str) -> (&str, &str) {
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// Shell globs of one label: `*` is any text, `?` any character.
fn glob(pattern: &str, label: &str) -> bool {
    let (pattern, label): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), label.chars().collect());
    let (mut p, mut l) = (0, 0);
    // Where the last `*` stands, and where the text behind it was tried.
    let mut star = None;
    while l < label.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, l));
                p += 1;
            }
            Some(c) if *c == '?' || *c == label[l] => {
                p += 1;
                l += 1;
            }
            _ => match star {
                Some((at, tried)) => {
                    star = Some((at, tried + 1));
                    p = at + 1;
                    l = tried + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests;
