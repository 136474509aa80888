//! What is wrong with an object, for the people who wrote it.
//!
//! A problem takes away only what is bad. It ends up in one event of the Service and
//! one line of the log.

use std::sync::Arc;

use super::model::ServiceName;

/// One thing in one object that cannot be, and what that leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where: `spec.ports[0].port`, or `EndpointSlice web-x2b9f: endpoints`.
    pub field: String,
    /// What is wrong there, and what is done about it.
    pub message: String,
}

impl Fault {
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// A [`Fault`] and the Service that it concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub service: Arc<ServiceName>,
    /// The Service's UID, which its events name. None where the object has none.
    pub uid: Option<Box<str>>,
    /// As in [`Fault`].
    pub field: String,
    /// As in [`Fault`].
    pub message: String,
}
