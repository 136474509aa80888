//! The service proxy's effects on a real kernel: iptables, and what it tells.
//!
//! Needs root and iptables of both kinds. Every test runs in a process with network
//! and mount namespaces of its own, which are gone when it ends.

mod apply;
mod hosts;
mod isolate;
mod nftables;
mod watch;
