//! Certificates from the cluster's signers (CertificateSigningRequest).

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::{await_condition, conditions::Condition};
use tracing::info;

use super::client::ApiServer;
use super::{ApiError, Disposition};
use crate::certificate::SigningRequest;

/// Time for somebody to approve a request, as upstream grants it.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningOutcome {
    /// The certificate and its chain, PEM.
    Issued(Vec<u8>),
    /// Denied or failed, and why.
    Refused(String),
    /// Nobody decided for a quarter of an hour.
    Undecided,
}

/// Where certificates are asked for.
#[async_trait]
pub trait Signing: Send + Sync {
    /// Files the request, unless it has been filed before, and waits until somebody
    /// has decided.
    async fn sign(&self, request: &SigningRequest) -> Result<SigningOutcome, ApiError>;
}

#[async_trait]
impl Signing for ApiServer {
    async fn sign(&self, request: &SigningRequest) -> Result<SigningOutcome, ApiError> {
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let name = request.name.as_str();
        let params = PostParams::default();
        let object = object(request);
        let work = requests.create(&params, &object);
        match self.calls.call("request certificate", work).await {
            Ok(_) => {}
            Err(error) if error.disposition() == Disposition::Conflict => {
                info!(name, "the certificate has been asked for before");
            }
            Err(error) => return Err(error),
        }
        let decided = await_condition(requests, name, Decided);
        match tokio::time::timeout(PATIENCE, decided).await {
            Err(_) => Ok(SigningOutcome::Undecided),
            Ok(Err(error)) => Err(ApiError::Unreachable {
                call: "watch certificate request",
                source: Box::new(error),
            }),
            Ok(Ok(object)) => Ok(object
                .filter(|object| object.spec.signer_name == request.signer)
                .and_then(|object| outcome(&object.status.unwrap_or_default()))
                .unwrap_or_else(|| {
                    SigningOutcome::Refused("the request was deleted or replaced".to_owned())
                })),
        }
    }
}

fn object(request: &SigningRequest) -> CertificateSigningRequest {
    let pem = request.pem.clone();
    CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(request.name.clone()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: request.signer.to_owned(),
            usages: Some(request.usages.iter().map(|&usage| usage.into()).collect()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// Holds once a request has its answer, or is gone.
struct Decided;

impl Condition<CertificateSigningRequest> for Decided {
    fn matches_object(&self, object: Option<&CertificateSigningRequest>) -> bool {
        object.is_none_or(|object| object.status.as_ref().and_then(outcome).is_some())
    }
}

/// The answer in a request's status; `None` while there is none. An approval is
/// not yet a certificate.
fn outcome(status: &CertificateSigningRequestStatus) -> Option<SigningOutcome> {
    let refused = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed"));
    if let Some(condition) = refused {
        let message = condition.message.clone().unwrap_or_default();
        let reason = condition.reason.clone().unwrap_or_default();
        let text = format!("{}: {reason} {message}", condition.type_);
        return Some(SigningOutcome::Refused(text.trim_end().to_owned()));
    }
    let certificate = status.certificate.as_ref()?;
    (!certificate.0.is_empty()).then(|| SigningOutcome::Issued(certificate.0.clone()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition;

    use super::*;

    fn condition(type_: &str) -> CertificateSigningRequestCondition {
        CertificateSigningRequestCondition {
            type_: type_.to_owned(),
            reason: Some("Because".to_owned()),
            ..CertificateSigningRequestCondition::default()
        }
    }

    #[test]
    fn only_a_certificate_or_a_refusal_is_an_answer() {
        let status = |types: &[&str], certificate: &str| CertificateSigningRequestStatus {
            conditions: Some(types.iter().map(|type_| condition(type_)).collect()),
            certificate: (!certificate.is_empty())
                .then(|| ByteString(certificate.as_bytes().to_vec())),
        };
        assert_eq!(outcome(&status(&[], "")), None);
        assert_eq!(outcome(&status(&["Approved"], "")), None);
        assert_eq!(
            outcome(&status(&["Approved"], "pem")),
            Some(SigningOutcome::Issued(b"pem".to_vec()))
        );
        assert_eq!(
            outcome(&status(&["Denied"], "pem")),
            Some(SigningOutcome::Refused("Denied: Because".to_owned()))
        );
        assert!(matches!(
            outcome(&status(&["Approved", "Failed"], "")),
            Some(SigningOutcome::Refused(_))
        ));
    }
}
