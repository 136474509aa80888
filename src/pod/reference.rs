//! Image references: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
//!
//! In: the text of an `image` field. Out: its parts, with the default registry
//! filled in, or what is wrong with it. The grammar, the defaults and the words
//! of the errors are those of the distribution project, which upstream and
//! containerd parse with.
//!
//! Ours, because the crates that do this share one regular expression whose
//! compilation takes 0.1 s of CPU and keeps megabytes.

use std::str::FromStr;

#[cfg(test)]
mod tests;

/// The registry of images whose name has none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Another name of it.
const DEFAULT_REGISTRY_LEGACY: &str = "index.docker.io";
/// Where the default registry keeps repositories whose name has one part.
const OFFICIAL: &str = "library";

const MAX_REPOSITORY_LENGTH: usize = 255;
const MAX_TAG_LENGTH: usize = 128;

/// A reference that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// Host and perhaps port.
    pub registry: String,
    pub repository: String,
    /// As given.
    pub tag: Option<String>,
    /// As given, with its algorithm.
    pub digest: Option<String>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("repository name must have at least one component")]
    Empty,
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("repository name must not be more than {MAX_REPOSITORY_LENGTH} characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    #[error("invalid checksum digest length")]
    DigestLength,
    #[error("invalid checksum digest format")]
    DigestFormat,
}

impl ImageReference {
    /// Registry and repository: which image, without saying which version.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Whether neither tag nor digest says which image: it is `latest` then.
    #[must_use]
    pub fn is_unversioned(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Whether it means the tag `latest`, by name or by default.
    #[must_use]
    pub fn is_latest(&self) -> bool {
        self.is_unversioned() || self.tag.as_deref() == Some("latest")
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if is_id(text) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        let (registry, repository) = split_registry(name);
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(repository));
        }
        let is_well_formed = (is_host(&registry) || is_component(&registry))
            && repository.split('/').all(is_component)
            && tag.is_none_or(is_tag);
        if !is_well_formed {
            return Err(ReferenceError::Format);
        }
        if repository.len() > MAX_REPOSITORY_LENGTH {
            return Err(ReferenceError::TooLong);
        }
        digest.map_or(Ok(()), check_digest)?;
        Ok(Self {
            registry,
            repository,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// What stands before the first slash is a registry if it cannot be taken for a
/// part of a repository's name.
fn split_registry(name: &str) -> (String, String) {
    let is_registry = |left: &str| {
        left == "localhost"
            || left.contains(['.', ':'])
            || left.chars().any(|c| c.is_ascii_uppercase())
    };
    let (registry, rest) = match name.split_once('/') {
        Some((left, right)) if is_registry(left) => (left, right),
        _ => (DEFAULT_REGISTRY, name),
    };
    if registry != DEFAULT_REGISTRY && registry != DEFAULT_REGISTRY_LEGACY {
        return (registry.to_owned(), rest.to_owned());
    }
    let repository = if rest.contains('/') {
        rest.to_owned()
    } else {
        format!("{OFFICIAL}/{rest}")
    };
    (DEFAULT_REGISTRY.to_owned(), repository)
}

/// A registry's host, with or without a port.
fn is_host(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_address =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => is_address(address),
        None => host.split('.').all(is_label),
    };
    let is_port = |port: &str| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    is_host && port.is_none_or(is_port)
}

/// One part of a repository's name: runs of lower-case letters and digits,
/// joined by one point, one or two underscores, or any number of dashes.
fn is_component(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_joint =
        |joint: &str| matches!(joint, "" | "." | "_" | "__") || joint.chars().all(|c| c == '-');
    part.starts_with(is_plain) && part.ends_with(is_plain) && part.split(is_plain).all(is_joint)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= MAX_TAG_LENGTH
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

/// The name of an image by its ID, which is not pulled.
fn is_id(text: &str) -> bool {
    text.len() == 64 && is_lower_hex(text)
}

fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let (algorithm, hex) = digest.split_once(':').ok_or(ReferenceError::Format)?;
    if hex.len() < 32 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(ReferenceError::Format);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ReferenceError::DigestAlgorithm),
    };
    if hex.len() != length {
        return Err(ReferenceError::DigestLength);
    }
    if !is_lower_hex(hex) {
        return Err(ReferenceError::DigestFormat);
    }
    Ok(())
}

fn is_lower_hex(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'))
}
