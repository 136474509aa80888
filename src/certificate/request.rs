//! What is sent to a signer; pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _, SanType};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha512_256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group of all nodes, the organisation in their certificates.
const NODES: &str = "system:nodes";

/// What a certificate is to be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub node_name: String,
    /// `spec.signerName`.
    pub signer: &'static str,
    /// `spec.usages`.
    pub usages: &'static [&'static str],
    /// Where its holder is reached; empty for a client.
    pub names: Names,
}

/// A request that can be filed, and filed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    /// Of the object. It follows from everything else, so that whoever asks for the
    /// same once more, as after a restart, finds what was filed before.
    pub name: String,
    /// PKCS #10, PEM.
    pub pem: String,
    pub signer: &'static str,
    pub usages: &'static [&'static str],
}

/// The names that a server's certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    pub dns: BTreeSet<String>,
    pub ips: BTreeSet<IpAddr>,
}

impl Wish {
    /// The request, signed with the key that the certificate will be of.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate.
    pub fn request(&self, key: &KeyPair) -> Result<SigningRequest, rcgen::Error> {
        let pem = self.params()?.serialize_request(key)?.pem()?;
        Ok(SigningRequest {
            name: self.object_name(key),
            pem,
            signer: self.signer,
            usages: self.usages,
        })
    }

    fn common_name(&self) -> String {
        format!("system:node:{}", self.node_name)
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let dns: Vec<_> = self.names.dns.iter().cloned().collect();
        let mut params = CertificateParams::new(dns)?;
        let ips = self.names.ips.iter().copied();
        params.subject_alt_names.extend(ips.map(SanType::IpAddress));
        params.distinguished_name = DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, NODES);
        name.push(DnType::CommonName, self.common_name());
        Ok(params)
    }

    /// Upstream's name for a request of this key, subject and usages, which says the
    /// same of a request that upstream's kubelet has left. Names come last, as
    /// upstream has them in none that are named so.
    fn object_name(&self, key: &KeyPair) -> String {
        let mut hash = Sha512_256::new();
        let mut add = |part: &[u8]| {
            hash.update(BASE64URL_NOPAD.encode(part));
            // Not in that alphabet, so that no two lists of parts read the same.
            hash.update(b"|");
        };
        add(&key.subject_public_key_info());
        add(self.common_name().as_bytes());
        add(NODES.as_bytes());
        for usage in self.usages {
            add(usage.as_bytes());
        }
        for name in &self.names.dns {
            add(name.as_bytes());
        }
        for ip in &self.names.ips {
            add(ip.to_string().as_bytes());
        }
        format!("node-csr-{}", BASE64URL_NOPAD.encode(&hash.finalize()))
    }
}

/// Whether the certificate says that its holder is this node.
#[must_use]
pub fn is_of_node(pair: &CertifiedKey, node_name: &str) -> bool {
    let Some(der) = pair.cert.first() else {
        return false;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let subject = certificate.subject();
    let wanted = format!("system:node:{node_name}");
    let has_name = subject
        .iter_common_name()
        .any(|name| name.as_str().is_ok_and(|name| name == wanted));
    let is_node = subject
        .iter_organization()
        .any(|group| group.as_str().is_ok_and(|group| group == NODES));
    has_name && is_node
}

/// The names in a certificate; `None` if it cannot be read.
#[must_use]
pub fn certified_names(pair: &CertifiedKey) -> Option<Names> {
    let (_, certificate) = X509Certificate::from_der(pair.cert.first()?).ok()?;
    let mut names = Names::default();
    let extension = certificate.subject_alternative_name().ok()?;
    for name in extension
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => {
                names.dns.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                names
                    .ips
                    .extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
    Some(names)
}
