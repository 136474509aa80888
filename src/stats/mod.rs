//! What pods, containers and the node itself use, collected when somebody asks.
//!
//! In: cgroup files, the runtime's statistics, file systems. Out: plain numbers
//! with the time they were read at, and their forms for metrics-server,
//! Prometheus and `/stats/summary`.
