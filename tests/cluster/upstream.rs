//! What upstream's node cannot do: tests that are skipped when the node is upstream's,
//! unless the command line says `--include-ignored`.

/// Tests by name, each with the reason why upstream's node fails it.
pub const CANNOT: &[(&str, &str)] = &[
    (
        "admission::a_restart_does_not_judge_running_pods_anew",
        "it judges every pod anew when it starts, and fails those that no longer match the node",
    ),
    (
        "callers::silent_slow_and_oversize_callers_cost_nothing_that_lasts",
        "it keeps connections open for hours that never finish their TLS handshake",
    ),
    (
        "deletion::a_shorter_grace_cuts_a_long_one",
        "a stop that is under way keeps the grace period that it began with",
    ),
    (
        "faults::agent::crash_back_off_survives_a_restart",
        "it keeps back-off in memory only",
    ),
    (
        "faults::agent::kills_at_random_moments_break_nothing",
        "when a start was cut short, containerd can keep a task of a container that it calls \
         exited; it then tries in vain to remove the container, for ever (mostly it passes)",
    ),
    (
        "hooks::a_post_start_hook_that_hangs_does_not_keep_a_pod_from_being_deleted",
        "its pod worker waits for the hook",
    ),
    (
        "hooks::an_https_hook_makes_do_with_plain_http",
        "its recorder drops the event: it passes on what is about containers, and this is \
         about the pod",
    ),
    (
        "identity::a_request_outlives_the_agent_that_filed_it",
        "with rotateCertificates it keeps the key of its request in memory",
    ),
    (
        "live_volumes::an_immutable_object_is_shown",
        "it goes on showing an immutable object that was replaced by one of the same name",
    ),
    (
        "log_requests::a_container_that_writes_as_fast_as_it_can_does_not_fill_the_disk",
        "it looks at logs every three seconds at most",
    ),
    (
        "services::faults::rules_flushed_by_hand_come_back",
        "it looks at rules once an hour, and at whether somebody removed its chains from all \
         tables every 30 s",
    ),
    (
        "services::iptables::a_broken_iptables_harms_no_traffic_and_is_told",
        "it waits for a program that hangs for as long as it hangs, and tells failures in its \
         log alone",
    ),
    (
        "services::iptables::a_held_lock_harms_no_traffic_and_is_told",
        "it tells failures in its log alone",
    ),
    (
        "services::upgrade::a_kube_proxy_pod_and_the_agent_take_turns",
        "there is no second proxy on it that could take turns with it",
    ),
    (
        "services::upgrade::a_kube_proxy_process_and_the_agent_take_turns",
        "there is no second proxy on it that could take turns with it",
    ),
    (
        "static_pods::bad_manifests_are_reported_by_file_and_reason",
        "it ignores fields that it does not know, and does not say where in a file an error is",
    ),
    (
        "usage::a_pod_on_the_host_network_has_no_counters",
        "it counts the whole node's traffic as the pod's",
    ),
];
