//! What upstream's node cannot do: tests that are skipped when the node is upstream's.

/// Tests by name, each with the reason why upstream's node fails it.
pub const CANNOT: &[(&str, &str)] = &[
    (
        "deletion::a_shorter_grace_cuts_a_long_one",
        "a stop that is under way keeps the grace period that it began with",
    ),
    (
        "faults::agent::crash_back_off_survives_a_restart",
        "it keeps back-off in memory only",
    ),
    (
        "static_pods::bad_manifests_are_reported_by_file_and_reason",
        "it ignores fields that it does not know, and does not say where in a file an error is",
    ),
];
