//! Files that change under a running listener, and what TLS is offered.

use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use super::*;

fn write_pair(directory: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
}

fn serving(directory: &Path) -> Result<Serving, TlsError> {
    Serving::files(directory.join("tls.crt"), directory.join("tls.key"))
}

fn served(serving: &Serving) -> Vec<u8> {
    match serving {
        Serving::Files(files) => files.get().cert[0].to_vec(),
        Serving::Signed(_) => unreachable!("made of files"),
    }
}

/// The value is looked at again after a second.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_served() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "first");
    let serving = serving(directory.path()).unwrap();
    let first = served(&serving);
    write_pair(directory.path(), "second");
    until("the new pair is served", || served(&serving) != first).await;
}

#[tokio::test]
async fn what_became_unusable_is_told_and_the_last_good_value_stays() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("number");
    std::fs::write(&file, "1").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let (path, counted) = (file.clone(), Arc::clone(&reads));
    let read = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.parse::<u32>().map_err(|error| {
            TlsError::Files(PemError::Unusable {
                path: path.clone(),
                reason: error.to_string(),
            })
        })
    };
    let fresh = Fresh::new(vec![file.clone()], read).unwrap();
    std::fs::write(&file, "nothing of use").unwrap();
    let has_looked = || {
        let value = *fresh.get();
        assert_eq!(value, 1);
        reads.load(Ordering::SeqCst) == 2
    };
    until("the broken file was read", has_looked).await;
    std::fs::remove_file(&file).unwrap();
    until("the missing file was noticed", || {
        assert_eq!(*fresh.get(), 1);
        reads.load(Ordering::SeqCst) == 3
    })
    .await;
    std::fs::write(&file, "2").unwrap();
    until("the mended file counts", || *fresh.get() == 2).await;
}

#[test]
fn a_key_of_another_certificate_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "first");
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(directory.path().join("tls.key"), other).unwrap();
    assert!(matches!(
        serving(directory.path()),
        Err(TlsError::Files(PemError::Mismatch { .. }))
    ));
    std::fs::write(directory.path().join("tls.crt"), "").unwrap();
    assert!(matches!(
        serving(directory.path()),
        Err(TlsError::Files(PemError::Unusable { .. }))
    ));
    assert!(matches!(
        serving(Path::new("/nowhere")),
        Err(TlsError::Files(PemError::Read { .. }))
    ));
}

#[test]
fn a_self_signed_certificate_survives_a_restart_and_its_key_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    let first = served(&Serving::self_signed(&path, "worker").unwrap());
    let second = served(&Serving::self_signed(&path, "worker").unwrap());
    assert_eq!(first, second);
    let mode = std::fs::metadata(path.join("kubelet.key"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    std::fs::write(path.join("kubelet.crt"), "cut off by a power los").unwrap();
    let third = served(&Serving::self_signed(&path, "worker").unwrap());
    assert_ne!(first, third);
}

#[test]
fn versions_and_suites_have_kubernetes_names() {
    for (min, count) in [
        (None, 2),
        (Some("VersionTLS10"), 2),
        (Some("VersionTLS12"), 2),
        (Some("VersionTLS13"), 1),
    ] {
        assert_eq!(protocol::versions(min).unwrap().len(), count, "{min:?}");
    }
    assert!(protocol::versions(Some("SSL3")).is_err());
    let names = [
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_RSA_WITH_AES_128_CBC_SHA",
    ];
    let chosen = protocol::provider(&names.map(str::to_owned)).unwrap();
    let shown: Vec<_> = chosen
        .cipher_suites
        .iter()
        .filter(|suite| suite.tls13().is_none())
        .map(|suite| format!("{:?}", suite.suite()))
        .collect();
    assert_eq!(shown, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    let none = protocol::provider(&["TLS_RSA_WITH_RC4_128_SHA".to_owned()]);
    assert!(matches!(none, Err(ProtocolError::Suites { .. })));
}

#[test]
fn a_bundle_without_a_certificate_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.crt");
    std::fs::write(&file, "# later").unwrap();
    assert!(matches!(
        ClientCa::from_file(file),
        Err(TlsError::Files(PemError::Unusable { .. }))
    ));
}
