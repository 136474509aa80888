//! The files of a projected, ConfigMap, Secret or downward API volume.
//!
//! In: the volume's sources, what was fetched for them, and the pod. Out: path,
//! bytes, mode and owner of every file; or every reason why there is none.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, Pod, PodSpec, Secret, SecurityContext,
};

use super::downward::{self, DownwardError};
use super::path::{PathError, RelativePath};
use super::plan::{FileSource, FilesKind, FilesVolume, ObjectSource, Presence, TokenKey, mode};
use crate::apiserver::{ApiError, Disposition};
use crate::pod::downward::resource;
use crate::pod::facts::ComputeResources;

/// Mode of files that only their owner should read.
const TOKEN_MODE: u32 = 0o600;

/// The complete contents of a volume.
pub(super) type Payload = BTreeMap<RelativePath, File>;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    /// Permission bits, before the pod's group is let in.
    pub(super) mode: u32,
    /// The user to give the file to; `None`: root.
    pub(super) owner: Option<u32>,
}

// Files carry secrets; a log or a failed assertion must not.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("bytes", &self.bytes.len())
            .field("mode", &format_args!("{:o}", self.mode))
            .field("owner", &self.owner)
            .finish()
    }
}

/// What must be fetched before contents can be computed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Needs {
    pub(super) config_maps: BTreeSet<String>,
    pub(super) secrets: BTreeSet<String>,
    pub(super) tokens: BTreeSet<TokenKey>,
}

impl Needs {
    pub(super) fn add(&mut self, volume: &FilesVolume) {
        for source in &volume.sources {
            match source {
                FileSource::ServiceAccountToken { key, .. } => {
                    self.tokens.insert(key.clone());
                }
                FileSource::ConfigMap(object) => {
                    self.config_maps.insert(object.name.clone());
                }
                FileSource::Secret(object) => {
                    self.secrets.insert(object.name.clone());
                }
                FileSource::DownwardApi(_) => {}
            }
        }
    }
}

/// The outcome of one call; shared, as several volumes may ask for the same.
pub(super) type Outcome<T> = Result<T, Arc<ApiError>>;

/// The answers to [`Needs`]. `Ok(None)`: there is no such object.
#[derive(Default)]
pub(super) struct Fetched {
    pub(super) config_maps: BTreeMap<String, Outcome<Option<ConfigMap>>>,
    pub(super) secrets: BTreeMap<String, Outcome<Option<Secret>>>,
    pub(super) tokens: BTreeMap<TokenKey, Outcome<String>>,
}

/// Why one source of a volume gives no files.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SourceError {
    #[error("failed to fetch token")]
    Token(#[source] Arc<ApiError>),
    #[error("cannot get configmap \"{name}\"")]
    ConfigMap {
        name: String,
        #[source]
        source: Arc<ApiError>,
    },
    #[error("cannot get secret \"{name}\"")]
    Secret {
        name: String,
        #[source]
        source: Arc<ApiError>,
    },
    #[error("cannot set up {0} volume because no API server is configured")]
    Standalone(&'static str),
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("configmap references non-existent config key: {0}")]
    NoConfigKey(String),
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Downward(#[from] DownwardError),
    /// [`Needs`] left something out: a mistake of ours.
    #[error("a source was not fetched")]
    NotAsked,
    #[error("path {0} is both a file and a directory")]
    Overlap(String),
}

impl SourceError {
    /// Whether the same may work later without anything being changed in the
    /// cluster: the API server was not there, was busy or not ready.
    fn is_transient(&self) -> bool {
        match self {
            Self::Token(source) | Self::ConfigMap { source, .. } | Self::Secret { source, .. } => {
                matches!(source.disposition(), Disposition::Retry(_))
            }
            _ => false,
        }
    }
}

/// All that is wrong with a volume's sources; never empty.
#[derive(Debug)]
pub(super) struct PayloadError(Vec<SourceError>);

impl PayloadError {
    /// Whether waiting alone may mend it; see [`SourceError::is_transient`].
    pub(super) fn is_transient(&self) -> bool {
        self.0.iter().all(SourceError::is_transient)
    }
}

// Several errors have no one source, so each is shown here in full.
impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [error] = self.0.as_slice() {
            return crate::error::chain(error).fmt(f);
        }
        for (index, error) in self.0.iter().enumerate() {
            let before = if index == 0 { "[" } else { ", " };
            write!(f, "{before}{}", crate::error::chain(error))?;
        }
        f.write_str("]")
    }
}

impl std::error::Error for PayloadError {}

/// Computes the files of a volume.
///
/// # Errors
/// Everything that is wrong, over all sources.
pub(super) fn payload(
    volume: &FilesVolume,
    fetched: &Fetched,
    pod: &Pod,
    allocatable: &ComputeResources,
) -> Result<Payload, PayloadError> {
    let builder = Builder {
        fetched,
        pod,
        allocatable,
        kind: kind_name(volume.kind),
        default_mode: volume.default_mode,
    };
    let mut payload = Payload::new();
    let mut errors = Vec::new();
    for source in &volume.sources {
        match builder.source(source) {
            Ok(files) => payload.extend(files),
            Err(found) => errors.extend(found),
        }
    }
    errors.extend(overlap(&payload));
    if errors.is_empty() {
        Ok(payload)
    } else {
        Err(PayloadError(errors))
    }
}

fn kind_name(kind: FilesKind) -> &'static str {
    match kind {
        FilesKind::ConfigMap => "configMap",
        FilesKind::Secret => "secret",
        FilesKind::DownwardApi => "downwardAPI",
        FilesKind::Projected => "projected",
    }
}

/// A file that another file would have to be inside of.
fn overlap(payload: &Payload) -> Option<SourceError> {
    let paths: BTreeSet<&Path> = payload.keys().map(RelativePath::as_path).collect();
    let parent = paths.iter().find_map(|path| {
        let mut parents = path.ancestors().skip(1);
        parents.find(|parent| paths.contains(parent))
    })?;
    Some(SourceError::Overlap(parent.display().to_string()))
}

/// What all sources of a volume have in common.
struct Builder<'a> {
    fetched: &'a Fetched,
    pod: &'a Pod,
    allocatable: &'a ComputeResources,
    /// The volume's type, as the API spells it.
    kind: &'static str,
    default_mode: u32,
}

type Files = Vec<(RelativePath, File)>;

impl Builder<'_> {
    fn source(&self, source: &FileSource) -> Result<Files, Vec<SourceError>> {
        let one = |error| vec![error];
        match source {
            FileSource::ServiceAccountToken { key, path } => self.token(key, path).map_err(one),
            FileSource::ConfigMap(object) => self.config_map(object).map_err(one),
            FileSource::Secret(object) => self.secret(object).map_err(one),
            FileSource::DownwardApi(items) => self.downward(items),
        }
    }

    fn token(&self, key: &TokenKey, path: &str) -> Result<Files, SourceError> {
        let token = match self.fetched.tokens.get(key) {
            Some(Ok(token)) => token,
            Some(Err(error)) => return Err(self.unavailable(error, SourceError::Token)),
            None => return Err(SourceError::NotAsked),
        };
        let owner = self.pod.spec.as_ref().and_then(common_user);
        let is_private = owner.is_some() || fs_group(self.pod).is_some();
        let file = File {
            bytes: token.clone().into_bytes(),
            mode: if is_private {
                TOKEN_MODE
            } else {
                self.default_mode
            },
            owner,
        };
        Ok(vec![(RelativePath::parse(path)?, file)])
    }

    fn config_map(&self, source: &ObjectSource) -> Result<Files, SourceError> {
        let name = || source.name.clone();
        let object = match self.fetched.config_maps.get(&source.name) {
            Some(Ok(Some(object))) => object,
            Some(Ok(None)) if source.presence == Presence::Optional => return Ok(Files::new()),
            Some(Ok(None)) => return Err(SourceError::NoConfigMap(name())),
            Some(Err(error)) => {
                let wrap = |source| SourceError::ConfigMap {
                    name: name(),
                    source,
                };
                return Err(self.unavailable(error, wrap));
            }
            None => return Err(SourceError::NotAsked),
        };
        let text = object.data.iter().flatten();
        let text = text.map(|(key, value)| (key.as_str(), value.as_bytes()));
        let binary = object.binary_data.iter().flatten();
        let binary = binary.map(|(key, value)| (key.as_str(), value.0.as_slice()));
        self.select(
            source,
            text.chain(binary).collect(),
            SourceError::NoConfigKey,
        )
    }

    fn secret(&self, source: &ObjectSource) -> Result<Files, SourceError> {
        let name = || source.name.clone();
        let object = match self.fetched.secrets.get(&source.name) {
            Some(Ok(Some(object))) => object,
            Some(Ok(None)) if source.presence == Presence::Optional => return Ok(Files::new()),
            Some(Ok(None)) => return Err(SourceError::NoSecret(name())),
            Some(Err(error)) => {
                let wrap = |source| SourceError::Secret {
                    name: name(),
                    source,
                };
                return Err(self.unavailable(error, wrap));
            }
            None => return Err(SourceError::NotAsked),
        };
        let data = object.data.iter().flatten();
        let data = data.map(|(key, value)| (key.as_str(), value.0.as_slice()));
        self.select(source, data.collect(), SourceError::NoSecretKey)
    }

    fn unavailable(
        &self,
        error: &Arc<ApiError>,
        wrap: impl FnOnce(Arc<ApiError>) -> SourceError,
    ) -> SourceError {
        match **error {
            ApiError::Standalone { .. } => SourceError::Standalone(self.kind),
            _ => wrap(Arc::clone(error)),
        }
    }

    /// The wanted keys of an object as files.
    fn select(
        &self,
        source: &ObjectSource,
        data: BTreeMap<&str, &[u8]>,
        missing: fn(String) -> SourceError,
    ) -> Result<Files, SourceError> {
        let file = |bytes: &[u8], mode| File {
            bytes: bytes.to_vec(),
            mode,
            owner: None,
        };
        if source.items.is_empty() {
            let all = data.into_iter();
            return all
                .map(|(key, bytes)| Ok((RelativePath::parse(key)?, file(bytes, self.default_mode))))
                .collect();
        }
        let mut files = Files::new();
        for item in &source.items {
            let mode = mode(item.mode).unwrap_or(self.default_mode);
            match (data.get(item.key.as_str()), source.presence) {
                (Some(bytes), _) => {
                    files.push((RelativePath::parse(&item.path)?, file(bytes, mode)));
                }
                (None, Presence::Optional) => {}
                (None, Presence::Required) => return Err(missing(item.key.clone())),
            }
        }
        Ok(files)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile]) -> Result<Files, Vec<SourceError>> {
        let mut files = Files::new();
        let mut errors = Vec::new();
        for item in items {
            match self.downward_item(item) {
                Ok(file) => files.push(file),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(files)
        } else {
            Err(errors)
        }
    }

    fn downward_item(
        &self,
        item: &DownwardAPIVolumeFile,
    ) -> Result<(RelativePath, File), SourceError> {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => downward::field(self.pod, &selector.field_path)?,
            (None, Some(selector)) => {
                resource(self.pod.spec.as_ref(), None, selector, self.allocatable)
                    .map_err(DownwardError::from)?
            }
            (None, None) => return Err(DownwardError::NoSource(item.path.clone()).into()),
        };
        let file = File {
            bytes: value.into_bytes(),
            mode: mode(item.mode).unwrap_or(self.default_mode),
            owner: None,
        };
        Ok((RelativePath::parse(&item.path)?, file))
    }
}

/// `securityContext.fsGroup`.
pub(super) fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// The user that every container of the pod runs as, if it is one and the same
/// and the spec says so.
fn common_user(spec: &PodSpec) -> Option<u32> {
    let pod_user = spec
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    let user = |context: &Option<SecurityContext>| {
        context
            .as_ref()
            .and_then(|context| context.run_as_user)
            .or(pod_user)
    };
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let mut users = containers
        .map(|container| user(&container.security_context))
        .chain(ephemeral.map(|container| user(&container.security_context)));
    let first = users.next()??;
    let is_common = users.all(|user| user == Some(first));
    is_common.then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests;
