//! A certificate and its key: from PEM files, or made here and signed by itself.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use super::fresh::Fresh;

/// How long a certificate lives that signed itself.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// One that has less than this left at a start is made anew.
const REST: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn from_files(
    certificate: PathBuf,
    key: PathBuf,
) -> Result<Fresh<CertifiedKey>, TlsError> {
    let files = vec![certificate.clone(), key.clone()];
    Fresh::new(files, move || read(&certificate, &key))
}

pub(super) fn self_signed(
    directory: &Path,
    node_name: &str,
) -> Result<Fresh<CertifiedKey>, TlsError> {
    let certificate = directory.join("kubelet.crt");
    let key = directory.join("kubelet.key");
    let is_good = read(&certificate, &key).is_ok_and(|pair| {
        let rest = jiff::SignedDuration::try_from(REST).unwrap_or_default();
        expiry(&pair).is_some_and(|end| end > Timestamp::now().saturating_add(rest).unwrap_or(end))
    });
    if !is_good {
        let (certificate_pem, key_pem) = generate(node_name)?;
        make_directory(directory)?;
        write_private(&key, key_pem.as_bytes())?;
        write_private(&certificate, certificate_pem.as_bytes())?;
    }
    from_files(certificate, key)
}

/// Reads both files, which may be the same one.
pub(super) fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let unusable = |path: &Path, reason: String| TlsError::Pem {
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(&read_file(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(certificate, "no certificate".to_owned()));
    }
    let der = PrivateKeyDer::from_pem_slice(&read_file(key)?)
        .map_err(|error| unusable(key, error.to_string()))?;
    let signer = any_supported_type(&der).map_err(|error| unusable(key, error.to_string()))?;
    let pair = CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        // "Unknown": a kind of key that cannot tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(pair)
        }
        Err(_) => Err(TlsError::Mismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }),
    }
}

/// When the certificate ceases to be valid.
pub(super) fn expiry(pair: &CertifiedKey) -> Option<Timestamp> {
    validity(pair).map(|(_, end)| end)
}

/// From when to when the certificate is valid.
pub(super) fn validity(pair: &CertifiedKey) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(pair.cert.first()?).ok()?;
    let validity = certificate.validity();
    let second = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((second(validity.not_before)?, second(validity.not_after)?))
}

fn generate(node_name: &str) -> Result<(String, String), TlsError> {
    let failed = |source| TlsError::Generate { source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(vec![node_name.to_owned()]).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, node_name);
    let now = std::time::SystemTime::now();
    // Some clocks are behind.
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + LIFE).into();
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

pub(super) fn make_directory(path: &Path) -> Result<(), TlsError> {
    fs::create_dir_all(path).map_err(|source| TlsError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file as a whole, readable by its owner only.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    let part = path.with_extension("tmp");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|source| TlsError::Write {
        path: path.to_owned(),
        source,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}
