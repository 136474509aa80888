//! Who may use which image, on disk: pulls that were begun, and with what the
//! finished ones were allowed.
//!
//! Two directories of small JSON files, in upstream's format and with its names,
//! so that a node that changes from one agent to the other keeps its knowledge:
//! `pulling/` has one file for each image whose pull is under way (or was, when
//! the agent died), `pulled/` one for each image ID. Secrets are only there as
//! hashes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::access::Trace;
use crate::pod::spec::PullCredential;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND_PULLED: &str = "ImagePulledRecord";
const KIND_INTENT: &str = "ImagePullIntent";
/// Secrets remembered for each image; the oldest goes.
const MOST_SECRETS: usize = 100;

/// `ImagePulledRecord`: what is known about an image that was pulled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PulledRecord {
    kind: String,
    api_version: String,
    #[serde(default)]
    pub(super) last_updated_time: Option<Timestamp>,
    /// The runtime's ID of it.
    pub(super) image_ref: String,
    /// By the name under which it was pulled, without tag and digest.
    #[serde(default)]
    pub(super) credential_mapping: BTreeMap<String, Credentials>,
}

/// Who proved to have access.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Credentials {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kubernetes_secrets: Vec<SecretRecord>,
    /// Not used by this agent; kept as found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_service_accounts: Vec<serde_json::Value>,
    /// Pulled without credentials, or with the node's: every pod may.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) node_pods_accessible: bool,
}

/// A pull secret, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecretRecord {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) credential_hash: String,
}

impl SecretRecord {
    /// `None`: the credentials are the node's.
    pub(super) fn of(credential: &PullCredential) -> Option<Self> {
        let secret = credential.secret.as_ref()?;
        let auth = &credential.auth;
        let mut hash = Sha256::new();
        for part in [
            &auth.username,
            &auth.password,
            &auth.auth,
            &auth.identity_token,
            &auth.registry_token,
        ] {
            // With its length, so that no text can be moved between two parts.
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        Some(Self {
            uid: secret.uid.clone(),
            namespace: secret.namespace.clone(),
            name: secret.name.clone(),
            credential_hash: hex::encode(hash.finalize()),
        })
    }

    pub(super) fn is_same_object(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

/// What a record or an intent cannot be.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("cannot write {path:?}", path = .0)]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot read {path:?}", path = .0)]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot remove {path:?}", path = .0)]
    Remove(PathBuf, #[source] io::Error),
    #[error("no record of a pull: {path:?}", path = .0)]
    Content(PathBuf, #[source] serde_json::Error),
    #[error("the agent is shutting down")]
    Interrupted,
}

/// The two directories. Every call is a few small file operations. Clones
/// belong together.
#[derive(Debug, Clone)]
pub(super) struct PullRecords {
    pulling: PathBuf,
    pulled: PathBuf,
    /// How many pulls of each image are under way: the last one to end takes the
    /// intent away. Also what makes changes of records one after the other.
    under_way: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// A pull that was recorded as begun. Dropped without being settled, as when
/// its waiters are gone, it leaves the intent: the image may be half there.
#[derive(Debug)]
pub(super) struct PullIntent {
    records: PullRecords,
    image: String,
}

impl PullRecords {
    /// `directory`: `image_manager` below the agent's root. Made when needed.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            pulling: directory.join("pulling"),
            pulled: directory.join("pulled"),
            under_way: Arc::default(),
        }
    }

    /// What is known of an image: by its ID if it was pulled, by the name that
    /// a pod wrote while it was being pulled.
    pub(super) fn trace(&self, image: &str, id: &str) -> Trace {
        match self.read::<PulledRecord>(&self.pulled.join(file_name(id))) {
            Ok(Some(record)) if record.image_ref == id => return Trace::Pulled(record),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%image, error = %crate::error::chain(&error), "a pull's record is lost");
                return Trace::Unreadable;
            }
        }
        match self.read::<Intent>(&self.pulling.join(file_name(image))) {
            Ok(Some(intent)) if intent.image == image => Trace::Begun,
            Ok(_) => Trace::None,
            Err(error) => {
                tracing::warn!(%image, error = %crate::error::chain(&error), "a pull's intent is lost");
                Trace::Unreadable
            }
        }
    }

    /// A pull is about to begin.
    pub(super) fn begin(&self, image: &str) -> Result<PullIntent, RecordError> {
        let mut under_way = self.under_way();
        let intent = Intent {
            kind: KIND_INTENT.to_owned(),
            api_version: API_VERSION.to_owned(),
            image: image.to_owned(),
        };
        write(&self.pulling.join(file_name(image)), &intent)?;
        *under_way.entry(image.to_owned()).or_default() += 1;
        Ok(PullIntent {
            records: self.clone(),
            image: image.to_owned(),
        })
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// `name` was pulled as the image `id`, or may be used as it. `secret`: with
    /// what; `None`: with what every pod of the node has.
    pub(super) fn learn(
        &self,
        name: &str,
        id: &str,
        secret: Option<SecretRecord>,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        let path = self.pulled.join(file_name(id));
        let _one_at_a_time = self.under_way();
        // One that cannot be read is as good as none: nobody is let in by it.
        let found = self.read::<PulledRecord>(&path).ok().flatten();
        let mut record = found
            .filter(|record| record.image_ref == id)
            .unwrap_or_else(|| PulledRecord {
                kind: KIND_PULLED.to_owned(),
                api_version: API_VERSION.to_owned(),
                last_updated_time: None,
                image_ref: id.to_owned(),
                credential_mapping: BTreeMap::new(),
            });
        let known = record
            .credential_mapping
            .entry(name.to_owned())
            .or_default();
        let before = known.clone();
        known.add(secret);
        if *known == before && record.last_updated_time.is_some() {
            return Ok(());
        }
        // The API's times have whole seconds.
        record.last_updated_time = Timestamp::from_second(now.as_second()).ok();
        write(&path, &record)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, RecordError> {
        let content = match fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RecordError::Read(path.to_owned(), error)),
        };
        serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| RecordError::Content(path.to_owned(), error))
    }
}

impl PullIntent {
    /// The pull has ended, and what came of it is on record.
    pub(super) fn settle(self) -> Result<(), RecordError> {
        let under_way = self.records.under_way();
        if under_way.get(&self.image).is_some_and(|pulls| *pulls > 1) {
            return Ok(());
        }
        let path = self.records.pulling.join(file_name(&self.image));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RecordError::Remove(path, error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for PullIntent {
    fn drop(&mut self) {
        let mut under_way = self.records.under_way();
        if let Some(pulls) = under_way.get_mut(&self.image) {
            *pulls -= 1;
            if *pulls == 0 {
                under_way.remove(&self.image);
            }
        }
    }
}

impl Credentials {
    fn add(&mut self, secret: Option<SecretRecord>) {
        let Some(secret) = secret else {
            // Who may is not of interest any more.
            *self = Self {
                node_pods_accessible: true,
                ..Self::default()
            };
            return;
        };
        if self.node_pods_accessible || self.kubernetes_secrets.contains(&secret) {
            return;
        }
        self.kubernetes_secrets
            .retain(|known| !known.is_same_object(&secret));
        if self.kubernetes_secrets.len() >= MOST_SECRETS {
            self.kubernetes_secrets.remove(0);
        }
        self.kubernetes_secrets.push(secret);
    }
}

/// Names of images are no names of files.
fn file_name(of: &str) -> String {
    format!("sha256-{}", hex::encode(Sha256::digest(of.as_bytes())))
}

/// In one go: a reader sees the old content or the new one.
fn write(path: &Path, content: &impl Serialize) -> Result<(), RecordError> {
    let written = || {
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let temporary = path.with_extension("tmp");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        fs::rename(&temporary, path)
    };
    written().map_err(|error| RecordError::Write(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec::{RegistryAuth, SecretId};

    const NAME: &str = "registry.example/app";

    fn credential(uid: &str, password: &str) -> PullCredential {
        PullCredential {
            auth: RegistryAuth {
                username: "u".into(),
                password: password.into(),
                ..RegistryAuth::default()
            },
            secret: Some(SecretId {
                uid: uid.into(),
                namespace: "ns".into(),
                name: "pull".into(),
            }),
        }
    }

    fn secret(uid: &str, password: &str) -> SecretRecord {
        SecretRecord::of(&credential(uid, password)).unwrap()
    }

    fn known(records: &PullRecords) -> Credentials {
        match records.trace("app:1", "sha256:1") {
            Trace::Pulled(record) => record.credential_mapping[NAME].clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pull_leaves_an_intent_until_its_end_is_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        assert_eq!(records.trace("app:1", "sha256:1"), Trace::None);
        let first = records.begin("app:1").unwrap();
        let second = records.begin("app:1").unwrap();
        first.settle().unwrap();
        assert_eq!(records.trace("app:1", "sha256:1"), Trace::Begun);
        second.settle().unwrap();
        assert_eq!(records.trace("app:1", "sha256:1"), Trace::None);
        // Given up in the middle, or the agent died.
        drop(records.begin("app:1").unwrap());
        let after_restart = PullRecords::new(dir.path());
        assert_eq!(after_restart.trace("app:1", "sha256:1"), Trace::Begun);
    }

    #[test]
    fn what_worked_is_remembered_over_restarts_without_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        let now = Timestamp::UNIX_EPOCH;
        let learn = |secret| records.learn(NAME, "sha256:1", secret, now).unwrap();
        learn(Some(secret("u1", "one")));
        learn(Some(secret("u2", "two")));
        // Rotated.
        learn(Some(secret("u1", "three")));
        let after_restart = PullRecords::new(dir.path());
        let secrets = known(&after_restart).kubernetes_secrets;
        assert_eq!(secrets, [secret("u2", "two"), secret("u1", "three")]);
        let path = dir.path().join("pulled").join(file_name("sha256:1"));
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("three"), "{text}");
        // Once open, always open.
        learn(None);
        learn(Some(secret("u1", "one")));
        let open = known(&records);
        assert!(open.node_pods_accessible && open.kubernetes_secrets.is_empty());
    }

    #[test]
    fn a_broken_record_lets_nobody_in_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        let now = Timestamp::UNIX_EPOCH;
        records.learn(NAME, "sha256:1", None, now).unwrap();
        let path = dir.path().join("pulled").join(file_name("sha256:1"));
        fs::write(path, "{").unwrap();
        assert_eq!(records.trace("app:1", "sha256:1"), Trace::Unreadable);
        let again = Some(secret("u1", "one"));
        records.learn(NAME, "sha256:1", again, now).unwrap();
        assert!(!known(&records).node_pods_accessible);
    }

    #[test]
    fn hashes_tell_parts_apart() {
        let of = |username: &str, password: &str| {
            let mut credential = credential("u", password);
            credential.auth.username = username.into();
            SecretRecord::of(&credential).unwrap().credential_hash
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_eq!(of("ab", "c"), of("ab", "c"));
    }
}
