//! Services without a control plane: what an API server and its controllers
//! would make of the Services and pods of the manifest folder. Pure.
//!
//! - [`Addresses`] gives each Service its cluster IP and node ports and fills in
//!   the API's defaults, as the API server does;
//! - [`slices`] makes the EndpointSlices of one Service, as the controller of
//!   EndpointSlices does.

mod addresses;
mod defaults;
mod endpoints;
#[cfg(test)]
mod tests;

pub use addresses::{Addresses, Conflict, Granted, Ranges};
pub use endpoints::{Backend, slices};
