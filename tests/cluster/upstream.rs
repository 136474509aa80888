//! What upstream's node cannot do: tests that are skipped when the node is upstream's.

/// Tests by name, each with the reason why upstream's node fails it.
pub const CANNOT: &[(&str, &str)] = &[];
