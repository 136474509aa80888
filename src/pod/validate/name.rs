//! The shapes that names and numbers must have.

use super::FieldError;

/// What a name may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 1123 label: one component of a DNS name.
    Label,
    /// RFC 1123 subdomain: labels joined by dots.
    Subdomain,
    /// RFC 6335 service name.
    PortName,
    /// Whatever is safe as the name of a directory and of a cgroup.
    Uid,
    EnvName,
}

impl Format {
    fn max_len(self) -> usize {
        match self {
            Self::Label => 63,
            Self::Subdomain => 253,
            Self::PortName => 15,
            // A systemd slice of the same name must stay below 255.
            Self::Uid => 128,
            Self::EnvName => usize::MAX,
        }
    }

    fn accepts(self, name: &str) -> bool {
        match self {
            Self::Label => is_label(name),
            Self::Subdomain => name.split('.').all(is_label),
            Self::PortName => {
                is_label(name)
                    && name.bytes().any(|b| b.is_ascii_lowercase())
                    && !name.contains("--")
            }
            Self::Uid => name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
            Self::EnvName => name
                .bytes()
                .all(|b| (b' '..=b'~').contains(&b) && b != b'='),
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Label => {
                "must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character"
            }
            Self::Subdomain => {
                "must consist of lower case alphanumeric characters, '-' or '.', and every part \
                 must start and end with an alphanumeric character"
            }
            Self::PortName => {
                "must consist of lower case alphanumeric characters or single '-', with at \
                 least one letter"
            }
            Self::Uid => "must consist of alphanumeric characters, '-' or '_'",
            Self::EnvName => "must consist of printable ASCII characters other than '='",
        }
    }

    /// The error of a non-empty name, if it has one.
    pub(super) fn check(self, path: &str, name: &str) -> Option<FieldError> {
        if name.len() > self.max_len() {
            let rule = format!("must be no more than {} characters", self.max_len());
            return Some(FieldError::invalid(path, name, &rule));
        }
        (!self.accepts(name)).then(|| FieldError::invalid(path, name, self.rule()))
    }
}

fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}
