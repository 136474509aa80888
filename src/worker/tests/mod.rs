//! Workers and their manager on the in-memory runtime, under a paused clock.

mod admission;
mod endings;
mod hooks;
mod life;
mod probes;
mod resize;
mod restart;
mod runtime;
mod volumes;
pub(super) mod world;
