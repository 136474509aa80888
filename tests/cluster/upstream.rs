//! What upstream's node cannot do: tests that are skipped when the node is upstream's.

/// Tests by name, each with the reason why upstream's node fails it.
pub const CANNOT: &[(&str, &str)] = &[(
    "static_pods::bad_manifests_are_reported_by_file_and_reason",
    "it ignores fields that it does not know, and does not say where in a file an error is",
)];
