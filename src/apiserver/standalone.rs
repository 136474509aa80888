//! What the read ports answer when no API server is configured.

use async_trait::async_trait;

use super::{ApiError, BoundToken, TokenRequestSpec, Tokens};

/// Stands where an [`ApiServer`](super::ApiServer) would: every question fails
/// with [`ApiError::Standalone`].
#[derive(Debug, Clone, Copy, Default)]
pub struct NoApiServer;

#[async_trait]
impl Tokens for NoApiServer {
    async fn request(&self, _: &TokenRequestSpec) -> Result<BoundToken, ApiError> {
        Err(ApiError::Standalone {
            call: "request token",
        })
    }
}
