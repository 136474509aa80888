//! What probes and hooks do to a container, beyond the runtime's commands.
//!
//! In: requests that `pod::probe` has worked out. Out: what the other side said.
//! How long to wait is for the caller to say.

pub(super) mod grpc;
pub(super) mod http;
pub(super) mod tcp;
