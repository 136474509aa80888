//! Who calls: a client certificate, a bearer token, or nobody in particular.
//!
//! The first that is good counts. A caller whose credentials are all bad is
//! refused even where anonymous callers are welcome, as with upstream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::UserInfo;
use moka::future::Cache;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Caller;
use crate::apiserver::{ApiError, Reviews};
use crate::server::tls::{ClientCa, ClientCertificateError};

const AUTHENTICATED: &str = "system:authenticated";
/// Tokens whose reviews are remembered at a time.
const REMEMBERED_TOKENS: u64 = 4096;

/// The certificates that a caller showed when it connected, its own first. That
/// it holds the key is proven by then; who signed them is not.
#[derive(Debug, Clone)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// The configured ways to know a caller.
pub struct Authenticator {
    /// `None`: certificates count for nothing.
    pub client_ca: Option<ClientCa>,
    /// `None`: tokens count for nothing.
    pub tokens: Option<TokenReviews>,
    /// Callers without credentials are `system:anonymous`.
    pub anonymous: Anonymous,
}

/// What becomes of callers without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    Allowed,
    Refused,
}

/// Why credentials that were shown are not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthenticateError {
    #[error("the client's certificate is not accepted")]
    Certificate {
        #[source]
        source: ClientCertificateError,
    },
    #[error("the bearer token is not valid")]
    Token,
    #[error("the bearer token cannot be reviewed")]
    Review {
        #[source]
        source: Arc<ApiError>,
    },
}

/// What a request brings to prove who sent it.
pub(super) struct Credentials {
    certificates: Option<PeerCertificates>,
    token: Option<String>,
}

impl Credentials {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            certificates: request.extensions().get().cloned(),
            token: bearer_token(request.headers()).map(str::to_owned),
        }
    }
}

impl Authenticator {
    /// `Ok(None)`: no credentials, and anonymous callers are refused.
    pub(super) async fn authenticate(
        &self,
        shown: &Credentials,
    ) -> Result<Option<Caller>, AuthenticateError> {
        let mut refused = None;
        if let (Some(ca), Some(shown)) = (&self.client_ca, &shown.certificates) {
            match ca.verify(&shown.0) {
                Ok(()) => return certified(&shown.0).map(Some),
                Err(source) => refused = Some(AuthenticateError::Certificate { source }),
            }
        }
        if let (Some(tokens), Some(token)) = (&self.tokens, &shown.token) {
            match tokens.review(token).await {
                Ok(caller) => return Ok(Some(caller)),
                Err(error) => refused = Some(error),
            }
        }
        match (refused, self.anonymous) {
            (Some(error), _) => Err(error),
            (None, Anonymous::Allowed) => Ok(Some(anonymous())),
            (None, Anonymous::Refused) => Ok(None),
        }
    }
}

/// TokenReview, remembered.
pub struct TokenReviews {
    reviews: Arc<dyn Reviews>,
    /// By a hash, so that no token lies about in memory; `None`: not valid.
    answers: Cache<[u8; 32], Option<Caller>>,
}

impl TokenReviews {
    /// Good and bad answers are remembered for `ttl`, failures not at all.
    #[must_use]
    pub fn new(reviews: Arc<dyn Reviews>, ttl: Duration) -> Self {
        Self {
            reviews,
            answers: Cache::builder()
                .max_capacity(REMEMBERED_TOKENS)
                .time_to_live(ttl)
                .build(),
        }
    }

    async fn review(&self, token: &str) -> Result<Caller, AuthenticateError> {
        let ask = async {
            let user = self.reviews.review_token(token).await?;
            Ok(user.map(|user| Caller(with_group(user, AUTHENTICATED))))
        };
        let key = Sha256::digest(token.as_bytes()).into();
        match self.answers.try_get_with(key, ask).await {
            Ok(Some(caller)) => Ok(caller),
            Ok(None) => Err(AuthenticateError::Token),
            Err(source) => Err(AuthenticateError::Review { source }),
        }
    }
}

/// RFC 6750: `Authorization: Bearer TOKEN`. WebSocket clients that cannot set
/// headers speak to the API server, never to a node.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// CN is the user, each O a group.
fn certified(chain: &[CertificateDer<'_>]) -> Result<Caller, AuthenticateError> {
    let unreadable = || AuthenticateError::Certificate {
        source: ClientCertificateError::Unreadable,
    };
    let own = chain.first().ok_or_else(unreadable)?;
    let (_, certificate) = X509Certificate::from_der(own).map_err(|_| unreadable())?;
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().ok().map(str::to_owned)
    };
    let username = subject
        .iter_common_name()
        .next()
        .and_then(text)
        .filter(|name| !name.is_empty())
        .ok_or_else(unreadable)?;
    let fingerprint = hex::encode(Sha256::digest(own));
    let user = UserInfo {
        username: Some(username),
        groups: Some(subject.iter_organization().filter_map(text).collect()),
        extra: Some(BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={fingerprint}")],
        )])),
        uid: None,
    };
    Ok(Caller(with_group(user, AUTHENTICATED)))
}

fn anonymous() -> Caller {
    let user = UserInfo {
        username: Some("system:anonymous".to_owned()),
        ..UserInfo::default()
    };
    Caller(with_group(user, "system:unauthenticated"))
}

fn with_group(mut user: UserInfo, group: &str) -> UserInfo {
    let groups = user.groups.get_or_insert_default();
    if !groups.iter().any(|known| known == group) {
        groups.push(group.to_owned());
    }
    user
}
