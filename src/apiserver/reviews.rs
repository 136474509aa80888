//! Questions to the API server about people who call this node: who holds a
//! token, and who may do what (TokenReview, SubjectAccessReview).

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::client::ApiServer;
use super::{ApiError, NoApiServer};

/// Who calls, and whether they may. Nothing is remembered here.
#[async_trait]
pub trait Reviews: Send + Sync {
    /// Whom the token belongs to; `None`: it is not valid.
    async fn review_token(&self, token: &str) -> Result<Option<UserInfo>, ApiError>;
    /// Whether the API server's authorizers allow it.
    async fn review_access(&self, spec: SubjectAccessReviewSpec) -> Result<bool, ApiError>;
}

#[async_trait]
impl Reviews for ApiServer {
    async fn review_token(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let work = reviews.create(&params, &review);
        let answer = self.reviews.call("review token", work).await?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user)
    }

    async fn review_access(&self, spec: SubjectAccessReviewSpec) -> Result<bool, ApiError> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let params = PostParams::default();
        let work = reviews.create(&params, &review);
        let answer = self.reviews.call("review access", work).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

#[async_trait]
impl Reviews for NoApiServer {
    async fn review_token(&self, _: &str) -> Result<Option<UserInfo>, ApiError> {
        Err(ApiError::Standalone {
            call: "review token",
        })
    }

    async fn review_access(&self, _: SubjectAccessReviewSpec) -> Result<bool, ApiError> {
        Err(ApiError::Standalone {
            call: "review access",
        })
    }
}
