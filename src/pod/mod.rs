//! The pod domain, without effects: what is wanted ([`model`]), what is
//! observed ([`observed`]), what is remembered ([`memory`]), and the pure
//! functions between them: the planner, the renderer and the status.
//!
//! Nothing in here waits, reads a clock, a file or the network; `now` is an
//! argument. `tests/layers.rs` holds it to that.

pub mod admission;
pub mod annotation;
pub mod cgroup;
pub mod containers;
pub mod credentials;
pub mod deadline;
pub mod defaults;
pub mod dns;
pub mod downward;
pub mod env;
pub mod event;
pub mod facts;
pub mod hash;
pub mod hook;
pub mod hostname;
pub mod hosts;
pub mod inputs;
pub mod memory;
pub mod model;
pub mod observed;
pub mod plan;
pub mod probe;
pub mod qos;
pub mod quantity;
pub mod reference;
pub mod render;
pub mod resize;
pub mod resources;
#[cfg(test)]
pub(crate) mod samples;
pub mod spec;
pub mod stamp;
pub mod status;
pub mod support;
pub mod sysctl;
#[cfg(test)]
mod testing;
pub mod userns;
pub mod validate;

pub use event::{ContainerKind, ContainerRef, PodEvent, Severity};
pub use facts::NodeFacts;
pub use memory::PodMemory;
pub use model::{
    DesiredPod, DesiredPods, Intent, Origin, PodName, PodUid, SourcesReady, Termination,
    TerminationReason, WaitOn, WaitingReason, Wakeup,
};
pub use observed::{
    ContainerId, ContainerState, Exit, ObservedContainer, ObservedPod, ObservedSandbox, SandboxId,
    SandboxState,
};
