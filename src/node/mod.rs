//! The agent's own node: what this machine is and has, told to the API server
//! as a Node object with a status, and kept alive with a Lease.
//!
//! In: [`MachineFacts`] and [`Readings`] of the machine, the runtime's health,
//! the images it has, conditions of other parts of the agent, the Node as the API
//! server has it. Out: calls of the node
//! and lease ports, [`NodeEvent`](crate::apiserver::NodeEvent)s, and the Node's
//! UID once it is known.
//!
//! | file | |
//! |---|---|
//! | `settings` | what the configuration says about the node |
//! | `facts` | reads the machine (effects) |
//! | `address` | picks the node's addresses (pure), finds candidates (effects) |
//! | `resources` | capacity and allocatable (pure) |
//! | `pressure` | readings against thresholds (pure) |
//! | `conditions`, `status` | the Node's status (pure) |
//! | `registration` | the first Node object, the repair of an old one (pure) |
//! | `patch`, `events` | the difference to send and to tell (pure) |
//! | `task`, `lease` | the two loops |
//! | `process`, `root_dir`, `tunables` | set-up of the process, its directory, the kernel |

pub mod address;
mod conditions;
pub mod events;
pub mod facts;
mod lease;
mod patch;
pub mod pressure;
pub mod process;
pub mod registration;
pub mod resources;
pub mod root_dir;
mod settings;
pub mod status;
mod task;
pub mod tunables;

pub use conditions::ExtraCondition;
pub use facts::{MachineFacts, Readings};
pub use lease::LeaseTask;
pub use settings::{HardEviction, NodeIps, NodeSettings, Reserved, Threshold};
pub use task::{EventSender, HostProbe, NodeDeps, NodeTask, NodeUid, Probe};
