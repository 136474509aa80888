//! A certificate and its key from PEM, and what the certificate says of itself.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Files of certificates and keys that cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no PEM that can be used: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("certificate {} and key {} do not go together", certificate.display(), key.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate has expired at {at}")]
    Expired { at: Timestamp },
}

/// Reads both files, which may be the same one.
///
/// # Errors
/// If they cannot be read or do not go together.
pub fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, PemError> {
    let chain = read_file(certificate)?;
    let key_pem = if key == certificate {
        chain.clone()
    } else {
        read_file(key)?
    };
    key_pair((certificate, &chain), (key, &key_pem))
}

/// The same of what has been read already; the paths are for the errors.
///
/// # Errors
/// If it cannot be used or does not go together.
pub fn key_pair(
    (certificate, certificate_pem): (&Path, &[u8]),
    (key, key_pem): (&Path, &[u8]),
) -> Result<CertifiedKey, PemError> {
    let unusable = |path: &Path, reason: String| PemError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(certificate, "no certificate".to_owned()));
    }
    let der =
        PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| unusable(key, error.to_string()))?;
    let signer = any_supported_type(&der).map_err(|error| unusable(key, error.to_string()))?;
    let pair = CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        // "Unknown": a kind of key that cannot tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(pair)
        }
        Err(_) => Err(PemError::Mismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }),
    }
}

/// From when to when the certificate is valid.
#[must_use]
pub fn validity(pair: &CertifiedKey) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(pair.cert.first()?).ok()?;
    let validity = certificate.validity();
    let second = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((second(validity.not_before)?, second(validity.not_after)?))
}

/// A PEM text's blocks: those that are no private keys, and those that are.
/// Upstream keeps both kinds in one file, which clients want apart.
#[must_use]
pub fn split(pem: &str) -> (String, String) {
    let (mut certificates, mut keys) = (String::new(), String::new());
    let mut block = String::new();
    for line in pem.lines().map(str::trim_end) {
        if line.starts_with("-----BEGIN ") {
            block.clear();
        }
        block.push_str(line);
        block.push('\n');
        if let Some(label) = line.strip_prefix("-----END ") {
            let out = if label.contains("PRIVATE KEY") {
                &mut keys
            } else {
                &mut certificates
            };
            out.push_str(&block);
        }
    }
    (certificates, keys)
}

/// Makes the directory and those above it.
///
/// # Errors
/// If that fails.
pub fn make_directory(path: &Path) -> Result<(), PemError> {
    fs::create_dir_all(path).map_err(|source| PemError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file as a whole, readable by its owner only. Whoever reads it, even
/// after a loss of power, sees the old content or the new.
///
/// # Errors
/// If that fails; the old content is there then.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), PemError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || {
        remove_if_there(&part)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        sync_parent(path)
    };
    write().map_err(|source| PemError::Write {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a rename in the file's directory outlast a loss of power.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, PemError> {
    fs::read(path).map_err(|source| PemError::Read {
        path: path.to_owned(),
        source,
    })
}
