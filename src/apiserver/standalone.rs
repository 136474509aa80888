//! What the read ports answer when no API server is configured.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;

use super::{ApiError, BoundToken, ObjectRefs, TokenRequestSpec, Tokens};

/// Stands where an [`ApiServer`](super::ApiServer) would: every question fails
/// with [`ApiError::Standalone`].
#[derive(Debug, Clone, Copy, Default)]
pub struct NoApiServer;

#[async_trait]
impl ObjectRefs for NoApiServer {
    async fn config_map(&self, _: &str, _: &str) -> Result<Option<ConfigMap>, ApiError> {
        Err(ApiError::Standalone {
            call: "get ConfigMap",
        })
    }

    async fn secret(&self, _: &str, _: &str) -> Result<Option<Secret>, ApiError> {
        Err(ApiError::Standalone { call: "get Secret" })
    }

    async fn runtime_class(&self, _: &str) -> Result<Option<RuntimeClass>, ApiError> {
        Err(ApiError::Standalone {
            call: "get RuntimeClass",
        })
    }
}

#[async_trait]
impl Tokens for NoApiServer {
    async fn request(&self, _: &TokenRequestSpec) -> Result<BoundToken, ApiError> {
        Err(ApiError::Standalone {
            call: "request token",
        })
    }
}
