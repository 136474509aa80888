//! Whether a caller may: SubjectAccessReview, remembered for as long as is
//! configured for "yes" and for "no".

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReviewSpec};
use moka::Expiry;
use moka::future::Cache;

use super::Caller;
use super::request::Attributes;
use crate::apiserver::{ApiError, Reviews};

/// Answers remembered at a time; one for each caller, verb and subresource.
const REMEMBERED_ANSWERS: u64 = 8192;

/// Who decides.
pub enum Authorizer {
    /// Everyone who is known may do everything.
    AlwaysAllow,
    /// The API server, about this node.
    Webhook(AccessReviews),
}

/// What was decided.
pub(super) enum Verdict {
    Allowed,
    Denied,
    /// Nobody could be asked.
    Unknown(Arc<ApiError>),
}

/// SubjectAccessReview, remembered.
pub struct AccessReviews {
    reviews: Arc<dyn Reviews>,
    node_name: String,
    answers: Cache<String, bool>,
}

impl Authorizer {
    pub(super) async fn authorize(&self, caller: &Caller, attributes: &Attributes) -> Verdict {
        match self {
            Self::AlwaysAllow => Verdict::Allowed,
            Self::Webhook(reviews) => reviews.any(caller, attributes).await,
        }
    }
}

impl AccessReviews {
    /// "Yes" is remembered for `allowed`, "no" for `denied`, failures not at all.
    #[must_use]
    pub fn new(
        reviews: Arc<dyn Reviews>,
        node_name: String,
        allowed: Duration,
        denied: Duration,
    ) -> Self {
        Self {
            reviews,
            node_name,
            answers: Cache::builder()
                .max_capacity(REMEMBERED_ANSWERS)
                .expire_after(Lives { allowed, denied })
                .build(),
        }
    }

    /// Asks about one subresource after the other; a failure counts only if no
    /// other one admits.
    async fn any(&self, caller: &Caller, attributes: &Attributes) -> Verdict {
        let mut verdict = Verdict::Denied;
        for subresource in attributes.subresources {
            let spec = self.question(caller, attributes.verb, subresource);
            match self.ask(spec).await {
                Ok(true) => return Verdict::Allowed,
                Ok(false) => {}
                Err(error) => verdict = Verdict::Unknown(error),
            }
        }
        verdict
    }

    async fn ask(&self, spec: SubjectAccessReviewSpec) -> Result<bool, Arc<ApiError>> {
        // The question itself is the key: equal questions have equal JSON.
        let key = serde_json::to_string(&spec).map_err(|error| {
            Arc::new(ApiError::Invalid {
                call: "review access",
                source: Box::new(error),
            })
        })?;
        self.answers
            .try_get_with(key, self.reviews.review_access(spec))
            .await
    }

    fn question(&self, caller: &Caller, verb: &str, subresource: &str) -> SubjectAccessReviewSpec {
        let Caller(user) = caller.clone();
        SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node_name.clone()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        }
    }
}

/// How long answers live.
struct Lives {
    allowed: Duration,
    denied: Duration,
}

impl Expiry<String, bool> for Lives {
    fn expire_after_create(&self, _: &String, is_allowed: &bool, _: Instant) -> Option<Duration> {
        Some(if *is_allowed {
            self.allowed
        } else {
            self.denied
        })
    }
}
