//! The serving certificate and its key: from PEM files, or made here and signed by
//! itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::sign::CertifiedKey;

use super::TlsError;
use super::fresh::Fresh;
use crate::certificate::{make_directory, read, validity, write_private};

/// How long a certificate lives that signed itself.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// One that has less than this left at a start is made anew.
const REST: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn from_files(
    certificate: PathBuf,
    key: PathBuf,
) -> Result<Fresh<CertifiedKey>, TlsError> {
    let files = vec![certificate.clone(), key.clone()];
    Fresh::new(files, move || Ok(read(&certificate, &key)?))
}

pub(super) fn self_signed(
    directory: &Path,
    node_name: &str,
) -> Result<Fresh<CertifiedKey>, TlsError> {
    let certificate = directory.join("kubelet.crt");
    let key = directory.join("kubelet.key");
    let is_good = read(&certificate, &key).is_ok_and(|pair| {
        let rest = jiff::SignedDuration::try_from(REST).unwrap_or_default();
        validity(&pair)
            .is_some_and(|(_, end)| end > Timestamp::now().saturating_add(rest).unwrap_or(end))
    });
    if !is_good {
        let (certificate_pem, key_pem) = generate(node_name)?;
        make_directory(directory)?;
        write_private(&key, key_pem.as_bytes())?;
        write_private(&certificate, certificate_pem.as_bytes())?;
    }
    from_files(certificate, key)
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
