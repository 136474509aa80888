//! Failed API calls, and what is to be done about each.

use std::time::Duration;

/// A call to the API server that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server cannot be reached or did not answer in time.
    #[error("{call}: the API server cannot be reached")]
    Unreachable {
        call: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered with a failure status.
    #[error("{call}: {message} (HTTP {code}, {reason})")]
    Refused {
        call: &'static str,
        code: u16,
        reason: String,
        message: String,
        /// `Retry-After`, where the server gave one.
        retry_after: Option<Duration>,
    },
    /// No API server is configured: the agent runs standalone.
    #[error("{call}: no API server is configured")]
    Standalone { call: &'static str },
    /// The answer could not be understood.
    #[error("{call}: invalid answer")]
    Invalid {
        call: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a loop does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Try again, not before this pause if one is given.
    Retry(Option<Duration>),
    /// The object is not there.
    NotFound,
    /// Somebody else was faster: read, then decide anew.
    Conflict,
    /// The same call will fail again: give up until something changes.
    Permanent,
}

impl ApiError {
    /// What to do about it; see [`Disposition`].
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unreachable { .. } => Disposition::Retry(None),
            Self::Refused {
                code, retry_after, ..
            } => match code {
                404 => Disposition::NotFound,
                409 => Disposition::Conflict,
                // Credentials and bindings may be on their way (401, 403).
                401 | 403 | 408 | 429 | 500..=599 => Disposition::Retry(*retry_after),
                _ => Disposition::Permanent,
            },
            Self::Standalone { .. } | Self::Invalid { .. } => Disposition::Permanent,
        }
    }

    /// Whether no answer came at all, so that other calls will fare no better.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The client library's error in our words; `call` is what was tried.
    pub(super) fn of_client(call: &'static str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                call,
                code: status.code,
                retry_after: status
                    .details
                    .as_ref()
                    .filter(|details| details.retry_after_seconds > 0)
                    .map(|details| Duration::from_secs(details.retry_after_seconds.into())),
                reason: status.reason,
                message: status.message,
            },
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Invalid {
                call,
                source: Box::new(error),
            },
            other => Self::Unreachable {
                call,
                source: Box::new(other),
            },
        }
    }

    /// The same failure once more, for everyone who waited for one call.
    pub(super) fn duplicate(&self) -> Self {
        let text = |source: &(dyn std::error::Error + Send + Sync + 'static)| {
            crate::error::chain(source).to_string().into()
        };
        match self {
            Self::Unreachable { call, source } => Self::Unreachable {
                call,
                source: text(&**source),
            },
            Self::Refused {
                call,
                code,
                reason,
                message,
                retry_after,
            } => Self::Refused {
                call,
                code: *code,
                reason: reason.clone(),
                message: message.clone(),
                retry_after: *retry_after,
            },
            Self::Standalone { call } => Self::Standalone { call },
            Self::Invalid { call, source } => Self::Invalid {
                call,
                source: text(&**source),
            },
        }
    }
}
