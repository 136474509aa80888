//! Who calls the node's API, and whether they may.
//!
//! In: a request's method, path, certificate and bearer token. Out: the request,
//! with its [`Caller`] attached, or the answer that turns it away. No handler
//! runs before that.
//!
//! | file | what |
//! |---|---|
//! | `request` | what a request asks for, in the words of RBAC; pure |
//! | `authenticate` | certificates, tokens, anonymous callers |
//! | `authorize` | SubjectAccessReview, one for each subresource that would do |

mod authenticate;
mod authorize;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::authentication::v1::UserInfo;
use tracing::{debug, warn};

pub use authenticate::{Anonymous, Authenticator, PeerCertificates, TokenReviews};
pub use authorize::{AccessReviews, Authorizer};

use crate::error::chain;
use authenticate::{AuthenticateError, Credentials};
use authorize::Verdict;
use request::Attributes;

/// Who called: `username`, `groups` and the rest of what SubjectAccessReview is
/// told.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller(pub UserInfo);

/// Both halves of the gate in front of the handlers.
pub struct Gate {
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
}

/// Middleware: lets a request through, or answers it.
pub async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let credentials = Credentials::of(&request);
    let caller = match gate.authenticator.authenticate(&credentials).await {
        Ok(Some(caller)) => caller,
        Ok(None) => return unauthorized(),
        Err(error) => {
            tell_of_failed_authentication(&error);
            return unauthorized();
        }
    };
    let attributes = Attributes::of(request.method(), request.uri().path());
    match gate.authorizer.authorize(&caller, &attributes).await {
        Verdict::Allowed => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Verdict::Denied => (
            StatusCode::FORBIDDEN,
            refusal("Forbidden", &caller, &attributes),
        )
            .into_response(),
        Verdict::Unknown(error) => {
            warn!(error = %chain(&*error), user = caller.name(), "cannot authorize a request");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                refusal("Authorization error", &caller, &attributes),
            )
                .into_response()
        }
    }
}

impl Caller {
    /// `username`; empty only if the API server named none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.username.as_deref().unwrap_or_default()
    }
}

fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, "Unauthorized").into_response()
}

/// Upstream's words, which name everything but the node.
fn refusal(what: &str, caller: &Caller, attributes: &Attributes) -> String {
    format!(
        "{what} (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
        caller.name(),
        attributes.verb,
        attributes.subresources.join(" ")
    )
}

/// Anyone can send a bad token, so only what is wrong with this node's means of
/// checking is worth a warning.
fn tell_of_failed_authentication(error: &AuthenticateError) {
    match error {
        AuthenticateError::Review { .. } => {
            warn!(error = %chain(error), "cannot check a bearer token");
        }
        AuthenticateError::Certificate { .. } | AuthenticateError::Token => {
            debug!(error = %chain(error), "refused a caller");
        }
    }
}
