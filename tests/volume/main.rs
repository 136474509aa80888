//! Volumes on a real kernel: mounts, ownership, full disks and clean-up.
//!
//! Needs root. Every test runs in a process and mount namespace of its own, so
//! that nothing it mounts is seen outside or stays behind.

mod clean;
mod contents;
mod ensure;
mod fakes;
mod isolate;
mod sub_paths;
