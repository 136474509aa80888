//! Rotation of container logs.

mod names;

pub use names::{Form, RotatedLog, Stamp};
