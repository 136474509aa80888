//! CRI's messages and clients, generated from `proto/cri/v1.proto`.

#[allow(
    clippy::all,
    clippy::pedantic,
    reason = "generated code is not ours to tidy"
)]
mod generated {
    tonic::include_proto!("runtime.v1");
}

pub(super) use generated::*;

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthConfig(redacted)")
    }
}
