//! The environment of a container.
//!
//! In: the container's `env` and `envFrom`, the objects they refer to, the
//! pod's addresses and the node's facts. Out: the variables, each name once,
//! sorted; and the expansion of `$(VAR)` in commands and arguments.

mod expand;
pub mod file;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, Container, EnvFromSource, EnvVarSource, FileKeySelector,
    SecretKeySelector,
};

pub use self::expand::{expand, references};
pub use self::services::Services;
use super::downward::{self, DownwardError, PodView};
use super::inputs::{EnvFile, ResolvedRefs};

/// Why a container's environment cannot be made. The messages are upstream's,
/// for they reach people through the container's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("configmap {name:?} not found")]
    ConfigMapNotFound { name: String },
    #[error("secret {name:?} not found")]
    SecretNotFound { name: String },
    #[error("couldn't find key {key} in {object}")]
    KeyNotFound {
        key: String,
        /// e.g. `ConfigMap default/settings`.
        object: String,
    },
    #[error("the value of key {key} in {object} is not text")]
    NotText { key: String, object: String },
    #[error("couldn't parse env file")]
    File(#[from] file::EnvFileError),
    #[error("couldn't find env file {path:?} in volume {volume:?}")]
    FileNotFound { path: String, volume: String },
    #[error("environment variable key {key:?} not found in file")]
    FileKeyNotFound { key: String },
    #[error(transparent)]
    Downward(#[from] DownwardError),
}

/// Variables by name.
pub type Env = BTreeMap<String, String>;

/// The container's variables: `envFrom`, then `env`, each overriding what came
/// before it; service variables where nothing else has the name.
///
/// # Errors
/// If something that is referred to, and not optional, is not there.
pub fn render(
    view: &PodView<'_>,
    container: &Container,
    refs: &ResolvedRefs,
) -> Result<Env, EnvError> {
    let namespace = &*view.pod.name.namespace;
    let sources = Sources { namespace, refs };
    let services: BTreeMap<&str, &str> = refs
        .service_env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();

    let mut env = Env::new();
    for source in container.env_from.iter().flatten() {
        sources.add_all(source, &mut env)?;
    }
    for variable in container.env.iter().flatten() {
        let literal = variable.value.as_deref().unwrap_or_default();
        let value = match &variable.value_from {
            Some(source) if literal.is_empty() => match sources.value(source, view, container)? {
                Some(value) => value,
                None => continue,
            },
            _ => expand(literal, |name| {
                let own = env.get(name).map(String::as_str);
                own.or_else(|| services.get(name).copied())
            }),
        };
        env.insert(variable.name.clone(), value);
    }
    for (name, value) in services {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    Ok(env)
}

/// The files that a container's variables come from.
#[must_use]
pub fn files(container: &Container) -> BTreeSet<EnvFile> {
    let sources = container.env.iter().flatten();
    sources
        .filter_map(|variable| variable.value_from.as_ref()?.file_key_ref.as_ref())
        .map(EnvFile::of)
        .collect()
}

/// Expands `$(VAR)` in a command or its arguments.
#[must_use]
pub fn expand_all(texts: Option<&Vec<String>>, env: &Env) -> Vec<String> {
    let lookup = |name: &str| env.get(name).map(String::as_str);
    let texts = texts.into_iter().flatten();
    texts.map(|text| expand(text, lookup)).collect()
}

/// The objects that variables come from.
struct Sources<'a> {
    namespace: &'a str,
    refs: &'a ResolvedRefs,
}

impl Sources<'_> {
    fn add_all(&self, source: &EnvFromSource, env: &mut Env) -> Result<(), EnvError> {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(wanted) = &source.config_map_ref {
            match self.refs.config_maps.get(&wanted.name) {
                Some(map) => {
                    let data = map.data.iter().flatten();
                    env.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
                }
                None if is_optional(wanted.optional) => {}
                None => return Err(config_map_not_found(&wanted.name)),
            }
        } else if let Some(wanted) = &source.secret_ref {
            match self.refs.secrets.get(&wanted.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = self.secret_text(&wanted.name, key, value)?;
                        env.insert(format!("{prefix}{key}"), value);
                    }
                }
                None if is_optional(wanted.optional) => {}
                None => return Err(secret_not_found(&wanted.name)),
            }
        }
        Ok(())
    }

    /// The value of a variable; `None` if it is optional and not there.
    fn value(
        &self,
        source: &EnvVarSource,
        view: &PodView<'_>,
        container: &Container,
    ) -> Result<Option<String>, EnvError> {
        if let Some(field) = &source.field_ref {
            Ok(Some(downward::field(view, &field.field_path)?))
        } else if let Some(resource) = &source.resource_field_ref {
            Ok(Some(downward::resource(
                view.pod.pod.spec.as_ref(),
                Some(container),
                resource,
                &view.node.allocatable,
            )?))
        } else if let Some(wanted) = &source.config_map_key_ref {
            self.config_map_value(wanted)
        } else if let Some(wanted) = &source.secret_key_ref {
            self.secret_value(wanted)
        } else if let Some(wanted) = &source.file_key_ref {
            self.file_value(wanted)
        } else {
            Ok(Some(String::new()))
        }
    }

    fn config_map_value(&self, wanted: &ConfigMapKeySelector) -> Result<Option<String>, EnvError> {
        let map = self.refs.config_maps.get(&wanted.name);
        let value = map.and_then(|map| map.data.as_ref()?.get(&wanted.key));
        match (map, value) {
            (_, Some(value)) => Ok(Some(value.clone())),
            _ if is_optional(wanted.optional) => Ok(None),
            (None, _) => Err(config_map_not_found(&wanted.name)),
            (Some(_), None) => Err(EnvError::KeyNotFound {
                key: wanted.key.clone(),
                object: format!("ConfigMap {}/{}", self.namespace, wanted.name),
            }),
        }
    }

    fn secret_value(&self, wanted: &SecretKeySelector) -> Result<Option<String>, EnvError> {
        let secret = self.refs.secrets.get(&wanted.name);
        let value = secret.and_then(|secret| secret.data.as_ref()?.get(&wanted.key));
        match (secret, value) {
            (_, Some(value)) => self.secret_text(&wanted.name, &wanted.key, value).map(Some),
            _ if is_optional(wanted.optional) => Ok(None),
            (None, _) => Err(secret_not_found(&wanted.name)),
            (Some(_), None) => Err(EnvError::KeyNotFound {
                key: wanted.key.clone(),
                object: self.secret_name(&wanted.name),
            }),
        }
    }

    fn file_value(&self, wanted: &FileKeySelector) -> Result<Option<String>, EnvError> {
        let optional = is_optional(wanted.optional);
        let Some(text) = self.refs.files.get(&EnvFile::of(wanted)) else {
            return if optional {
                Ok(None)
            } else {
                Err(EnvError::FileNotFound {
                    path: wanted.path.clone(),
                    volume: wanted.volume_name.clone(),
                })
            };
        };
        match file::value(text, &wanted.key)? {
            Some(value) => Ok(Some(value.to_owned())),
            None if optional => Ok(None),
            None => Err(EnvError::FileKeyNotFound {
                key: wanted.key.clone(),
            }),
        }
    }

    /// Secrets hold bytes, CRI takes text.
    fn secret_text(&self, name: &str, key: &str, value: &ByteString) -> Result<String, EnvError> {
        String::from_utf8(value.0.clone()).map_err(|_| EnvError::NotText {
            key: key.to_owned(),
            object: self.secret_name(name),
        })
    }

    fn secret_name(&self, name: &str) -> String {
        format!("Secret {}/{name}", self.namespace)
    }
}

fn is_optional(optional: Option<bool>) -> bool {
    optional.unwrap_or(false)
}

fn config_map_not_found(name: &str) -> EnvError {
    EnvError::ConfigMapNotFound { name: name.into() }
}

fn secret_not_found(name: &str) -> EnvError {
    EnvError::SecretNotFound { name: name.into() }
}

#[cfg(test)]
mod tests;
