//! The gRPC health check protocol (`grpc.health.v1`), as far as probes use it:
//! `Check`, without TLS.
//!
//! In: an address and a service's name. Out: whether it serves. The two messages
//! are written out here; they have one field each.

use tonic::Code;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const CHECK: &str = "/grpc.health.v1.Health/Check";

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Why a server does not count as healthy. In the words of upstream's events.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum GrpcError {
    #[error("error: cannot address service {authority:?}")]
    Address {
        authority: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("error: failed to connect service {authority:?}")]
    Connect {
        authority: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error(
        "error: this server does not implement the grpc health protocol \
         (grpc.health.v1.Health): {message}"
    )]
    NoHealth { message: String },
    #[error("error: health rpc failed: {message}")]
    Rpc { message: String },
    #[error("service unhealthy (responded with \"{status}\")")]
    Unhealthy { status: &'static str },
}

/// Opens a connection. The caller limits the time.
///
/// # Errors
/// If nobody listens at `authority`, or it does not speak HTTP/2.
pub(in crate::worker) async fn connect(
    authority: &str,
    user_agent: &str,
) -> Result<Channel, GrpcError> {
    let address = |source| GrpcError::Address {
        authority: authority.to_owned(),
        source,
    };
    Endpoint::from_shared(format!("http://{authority}"))
        .and_then(|endpoint| endpoint.user_agent(user_agent.to_owned()))
        .map_err(address)?
        .connect()
        .await
        .map_err(|source| GrpcError::Connect {
            authority: authority.to_owned(),
            source,
        })
}

/// Asks for the health of `service`; empty: of the server as a whole.
///
/// # Errors
/// If it does not serve, or does not say.
pub(in crate::worker) async fn check(channel: Channel, service: &str) -> Result<(), GrpcError> {
    let mut client = Grpc::new(channel);
    let rpc = |message: String| GrpcError::Rpc { message };
    client
        .ready()
        .await
        .map_err(|error| rpc(error.to_string()))?;
    let request = tonic::Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    let answer = client
        .unary(request, PathAndQuery::from_static(CHECK), codec)
        .await
        .map_err(|status| {
            let message = status.message().to_owned();
            if status.code() == Code::Unimplemented {
                GrpcError::NoHealth { message }
            } else {
                rpc(format!("{}: {message}", status.code()))
            }
        })?;
    let status = match answer.into_inner().status() {
        ServingStatus::Serving => return Ok(()),
        ServingStatus::Unknown => "UNKNOWN",
        ServingStatus::NotServing => "NOT_SERVING",
        ServingStatus::ServiceUnknown => "SERVICE_UNKNOWN",
    };
    Err(GrpcError::Unhealthy { status })
}

#[cfg(test)]
mod tests;
