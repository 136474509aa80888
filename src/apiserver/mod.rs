//! The API server: the only holder of a `kube::Client`.
//!
//! Out: reflected objects: our pods and our node as snapshots, Services and
//! EndpointSlices one by one into sinks. In: narrow write ports, each with just
//! the calls that one user needs, and the event recorder.
//! Nothing here blocks on the API server being there.

mod backoff;
mod calls;
mod client;
mod connection;
mod enrolment;
mod error;
mod event;
mod feed;
mod followed;
mod identity;
mod kubeconfig;
mod lean;
mod limit;
mod port;
mod refs;
mod reviews;
mod services;
mod signing;
mod sink;
mod standalone;
#[cfg(test)]
mod tests;

pub(crate) use backoff::Backoff;
pub use client::{ApiServer, ApiSettings, Credentials, connect, connect_later};
pub use connection::{Connection, Reconnect};
pub use enrolment::{EnrolmentError, enrol};
pub use error::{ApiError, Disposition};
pub use event::{EventRecorder, EventTask, RecorderMetrics};
pub use feed::{NodeFeed, NodeReflector, PodFeed, PodReflector, PodSnapshot};
pub use followed::ObjectReflector;
pub use identity::{
    Bootstrap, BootstrapFile, Identity, IdentityMetrics, IdentitySettings, Renewal, Standing, Via,
    register_ttl,
};
pub use kubeconfig::KubeconfigError;
pub use limit::Rate;
pub use port::{
    BoundToken, Changes, EventSink, Following, LeasePort, NodeEvent, NodePort, ObjectKind,
    ObjectName, ObjectRefs, PodStatusPort, ProxyEvent, ProxyEventAbout, TokenRequestSpec, Tokens,
};
pub use reviews::Reviews;
pub use services::{Proxied, ServiceEnv, ServiceFeed, ServiceReflector, SliceReflector};
pub use signing::{Signing, SigningOutcome};
pub use sink::{ObjectSink, Sinks};
pub use standalone::NoApiServer;
