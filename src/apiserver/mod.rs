//! The API server: the only holder of a `kube::Client`.
//!
//! Out: reflected objects (our pods, our node). In: narrow write ports, each
//! with just the calls that one user needs.

mod error;
mod port;

pub use error::{ApiError, Disposition};
pub use port::{
    BoundToken, EventSink, LeasePort, NodeEvent, NodePort, ObjectRefs, PodStatusPort,
    TokenRequestSpec, Tokens,
};
