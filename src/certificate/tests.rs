//! Requests, deadlines, and files that survive what happens in between.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::sign::CertifiedKey;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn wish(names: Names) -> Wish {
    Wish {
        node_name: "worker".to_owned(),
        signer: "example.org/signer",
        usages: &["digital signature", "client auth"],
        names,
    }
}

fn names() -> Names {
    Names {
        dns: ["worker".to_owned()].into(),
        ips: ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
    }
}

/// A certificate of this key that signed itself, with a node's subject.
fn certificate(key: &KeyPair, node: &str, group: &str) -> String {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, group);
    name.push(DnType::CommonName, format!("system:node:{node}"));
    params.self_signed(key).unwrap().pem()
}

fn store(directory: &Path) -> Store {
    Store::new(directory.join("pki"), "kubelet-client")
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory.join("pki"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_same_wish_with_the_same_key_has_the_same_name() {
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let name = |key, names| wish(names).request(key).unwrap().name;
    let first = name(&key, Names::default());
    assert_eq!(first, name(&key, Names::default()));
    assert_ne!(first, name(&other, Names::default()));
    assert_ne!(first, name(&key, names()));
    let digest = first.strip_prefix("node-csr-").unwrap();
    // 256 bits in base64.
    assert_eq!(digest.len(), 43, "{first}");
}

/// Computed from the same key with upstream's `digestedName`.
#[test]
fn the_name_is_the_one_that_upstream_gives() {
    let key = KeyPair::from_pem(include_str!("testdata/key.pem")).unwrap();
    let name = wish(Names::default()).request(&key).unwrap().name;
    assert_eq!(name, include_str!("testdata/name.txt").trim());
}

#[test]
fn the_request_is_for_the_node_and_its_names() {
    use x509_parser::prelude::{FromDer as _, X509CertificationRequest};
    let key = KeyPair::generate().unwrap();
    let request = wish(names()).request(&key).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(request.pem.as_bytes()).unwrap();
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    assert_eq!(
        parsed.certification_request_info.subject.to_string(),
        "O=system:nodes, CN=system:node:worker"
    );
    assert_eq!(parsed.requested_extensions().unwrap().count(), 1);
    let bare = wish(Names::default()).request(&key).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(bare.pem.as_bytes()).unwrap();
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    // The approver of client certificates refuses requests with names.
    assert!(parsed.requested_extensions().is_none());
}

#[test]
fn a_certificate_says_whose_it_is() {
    let key = KeyPair::generate().unwrap();
    let pair = |node, group| -> CertifiedKey {
        let text = certificate(&key, node, group) + &key.serialize_pem();
        let pem = (Path::new("pem"), text.as_bytes());
        key_pair(pem, pem).unwrap()
    };
    assert!(is_of_node(&pair("worker", "system:nodes"), "worker"));
    assert!(!is_of_node(&pair("worker", "system:nodes"), "other"));
    assert!(!is_of_node(&pair("worker", "system:masters"), "worker"));
    assert_eq!(
        certified_names(&pair("worker", "system:nodes")),
        Some(Names::default())
    );
}

proptest! {
    #[test]
    fn renewals_are_between_seven_and_nine_tenths_of_a_life(
        from in 0_i64..4_000_000_000, life in 1_i64..1_000_000_000, chance in 0.0..1.0_f64,
    ) {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let due = renew_at((at(from), at(from + life)), chance);
        // A second for rounding.
        prop_assert!(due >= at(from + life * 7 / 10 - 1));
        prop_assert!(due <= at(from + life * 9 / 10 + 1));
    }

    #[test]
    fn splitting_puts_every_block_on_one_side(kinds in prop::collection::vec(any::<bool>(), 0..6)) {
        let key = KeyPair::generate().unwrap();
        let (own, secret) = (certificate(&key, "n", "g"), key.serialize_pem());
        let text: String = kinds.iter().map(|is_key| if *is_key { &*secret } else { &*own }).collect();
        let (certificates, keys) = split(&text);
        let count = |text: &str, label: &str| text.matches(label).count();
        let wanted = kinds.iter().filter(|is_key| **is_key).count();
        prop_assert_eq!(count(&keys, "BEGIN PRIVATE KEY"), wanted);
        prop_assert_eq!(count(&certificates, "BEGIN CERTIFICATE"), kinds.len() - wanted);
        prop_assert!(!certificates.contains("PRIVATE") && !keys.contains("CERTIFICATE"));
    }
}

#[test]
fn the_newest_is_behind_the_link_and_nobody_else_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    assert!(store.load().unwrap().is_none());
    let key = store.pending_key().unwrap();
    let chain = certificate(&key, "worker", "system:nodes");
    let pair = store.keep(chain.as_bytes(), &key, NOW).unwrap();
    store.forget_pending().unwrap();
    assert_eq!(store.load().unwrap().unwrap().cert, pair.cert);
    assert_eq!(
        entries(directory.path()),
        [
            "kubelet-client-1970-01-01-00-00-00.pem",
            "kubelet-client-current.pem",
        ]
    );
    assert_eq!(mode(&store.current()), 0o600);
    // A second one within the same second.
    let key = store.pending_key().unwrap();
    let chain = certificate(&key, "worker", "system:nodes");
    let second = store.keep(chain.as_bytes(), &key, NOW).unwrap();
    assert_ne!(second.cert, pair.cert);
    assert_eq!(store.load().unwrap().unwrap().cert, second.cert);
}

#[test]
fn a_key_stays_until_its_request_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let pending = directory.path().join("pki/kubelet-client.key.tmp");
    let first = store.pending_key().unwrap().serialize_pem();
    assert_eq!(store.pending_key().unwrap().serialize_pem(), first);
    assert_eq!(mode(&pending), 0o600);
    store.forget_pending().unwrap();
    store.forget_pending().unwrap();
    assert_ne!(store.pending_key().unwrap().serialize_pem(), first);
    fs::write(&pending, "cut off by a power los").unwrap();
    let mended = store.pending_key().unwrap();
    assert_eq!(
        store.pending_key().unwrap().serialize_pem(),
        mended.serialize_pem()
    );
    // Killed after the certificate was kept, before its key was forgotten: the next
    // request must not get the same answer.
    let chain = certificate(&mended, "worker", "system:nodes");
    store.keep(chain.as_bytes(), &mended, NOW).unwrap();
    assert_ne!(
        store.pending_key().unwrap().serialize_pem(),
        mended.serialize_pem()
    );
}

#[test]
fn a_certificate_of_another_key_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let key = store.pending_key().unwrap();
    let good = certificate(&key, "worker", "system:nodes");
    let kept = store.keep(good.as_bytes(), &key, NOW).unwrap();
    let stranger = certificate(&KeyPair::generate().unwrap(), "worker", "system:nodes");
    for bad in [stranger.as_str(), "", "no PEM"] {
        assert!(store.keep(bad.as_bytes(), &key, NOW).is_err(), "{bad:?}");
        assert_eq!(store.load().unwrap().unwrap().cert, kept.cert);
    }
}

#[test]
fn what_a_kill_left_behind_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let key = store.pending_key().unwrap();
    let pki = directory.path().join("pki");
    for left in [
        "kubelet-client-1970-01-01-00-00-00.pem.part",
        "kubelet-client.key.tmp.part",
    ] {
        fs::write(pki.join(left), "half").unwrap();
    }
    std::os::unix::fs::symlink("nowhere", pki.join("kubelet-client-updated.pem")).unwrap();
    let chain = certificate(&key, "worker", "system:nodes");
    store.keep(chain.as_bytes(), &key, NOW).unwrap();
    store.forget_pending().unwrap();
    store.pending_key().unwrap();
    assert_eq!(
        entries(directory.path()),
        [
            "kubelet-client-1970-01-01-00-00-00.pem",
            "kubelet-client-current.pem",
            "kubelet-client.key.tmp",
        ]
    );
}
