//! Certificates with their keys, one file for each, the newest behind a link.
//!
//! Upstream's names, so that either agent goes on with what the other has left:
//! `<name>-<time>.pem` behind `<name>-current.pem`. Beside them, while a request is
//! under way, its key, `<name>.key.tmp`: after a restart the request is found again.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::{fs, io};

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::sign::CertifiedKey;

use super::pem::{
    PemError, make_directory, read, remove_if_there, sync_parent, validity, write_private,
};

/// The files of one kind of certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    directory: PathBuf,
    name: &'static str,
}

impl Store {
    /// In `--cert-dir`; `name` is `kubelet-client` or `kubelet-server`.
    #[must_use]
    pub fn new(directory: PathBuf, name: &'static str) -> Self {
        Self { directory, name }
    }

    /// The link to the newest.
    #[must_use]
    pub fn current(&self) -> PathBuf {
        self.directory.join(format!("{}-current.pem", self.name))
    }

    /// The newest; `None` if there never was one.
    ///
    /// # Errors
    /// If there is something, and it cannot be used.
    pub fn load(&self) -> Result<Option<CertifiedKey>, PemError> {
        let current = self.current();
        match read(&current, &current) {
            Ok(pair) => Ok(Some(pair)),
            Err(PemError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a certificate and its chain, PEM, with its key, as the newest. `now`
    /// names the file.
    ///
    /// # Errors
    /// If they do not go together, are of the past, or cannot be written; what was the newest still
    /// is then.
    pub fn keep(
        &self,
        chain: &[u8],
        key: &KeyPair,
        now: Timestamp,
    ) -> Result<CertifiedKey, PemError> {
        let name = format!("{}-{}.pem", self.name, now.strftime("%Y-%m-%d-%H-%M-%S"));
        let path = self.directory.join(&name);
        let mut text = chain.to_vec();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(key.serialize_pem().as_bytes());
        // Before anything is written: the signer may have signed another's key.
        let pair = super::key_pair((&path, &text), (&path, &text))?;
        // A request that was filed long ago may have got its certificate long ago, too.
        if let Some((_, at)) = validity(&pair)
            && at <= now
        {
            return Err(PemError::Expired { at });
        }
        make_directory(&self.directory)?;
        write_private(&path, &text)?;
        self.point_to(&name).map_err(|source| PemError::Write {
            path: self.current(),
            source,
        })?;
        Ok(pair)
    }

    fn point_to(&self, name: &str) -> io::Result<()> {
        let link = self.directory.join(format!("{}-updated.pem", self.name));
        remove_if_there(&link)?;
        symlink(name, &link)?;
        fs::rename(&link, self.current())?;
        sync_parent(&self.current())
    }

    /// The key of the request under way, or a new one, which is kept as that. A
    /// request whose certificate is here is under way no more.
    ///
    /// # Errors
    /// If a new one cannot be kept. One that cannot be read is replaced.
    pub fn pending_key(&self) -> Result<KeyPair, PemError> {
        let path = self.pending();
        if let Some(key) = fs::read_to_string(&path)
            .ok()
            .and_then(|pem| KeyPair::from_pem(&pem).ok())
            .filter(|key| !matches!(self.load(), Ok(Some(pair)) if is_of(&pair, key)))
        {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(|error| PemError::Unusable {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        make_directory(&self.directory)?;
        write_private(&path, key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    /// Ends the request under way: the next one has a new key, and so a new name.
    ///
    /// # Errors
    /// If the key cannot be removed.
    pub fn forget_pending(&self) -> Result<(), PemError> {
        let path = self.pending();
        remove_if_there(&path).map_err(|source| PemError::Write { path, source })
    }

    fn pending(&self) -> PathBuf {
        self.directory.join(format!("{}.key.tmp", self.name))
    }
}

/// Whether the certificate is of this key.
fn is_of(pair: &CertifiedKey, key: &KeyPair) -> bool {
    pair.key
        .public_key()
        .is_some_and(|public| public.as_ref() == key.subject_public_key_info())
}
