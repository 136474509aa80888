//! Who a container's processes are and what they may do, as the kernel has it.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::harness::{FOREVER, Scene, Test, container, shell, tests, text, truth};

pub const TESTS: &[Test] = tests!(Shared:
    capabilities_are_the_given_ones,
    privileges_are_not_gained_where_that_is_forbidden,
    privileged_containers_have_everything,
    system_calls_are_filtered_as_asked,
    a_localhost_profile_is_found_under_the_root_directory,
    a_read_only_root_is_read_only,
    an_image_of_root_does_not_run_as_non_root,
    groups_are_those_of_the_pod,
    strict_groups_are_the_pods_alone,
    sysctls_are_set_however_they_are_spelt,
    the_kernels_own_files_are_masked,
    processes_are_shared_on_demand,
    namespaces_of_the_host_are_shared_on_demand,
    a_user_namespace_has_ids_of_its_own,
    mounts_are_read_only_all_the_way_down,
);

/// Prints lines of the shell's own status, names without the colon.
fn status_of(fields: &[&str]) -> String {
    format!("grep -E '^({}):' /proc/self/status", fields.join("|"))
}

/// Runs a pod with one container of this script and security context; gives its log.
async fn told(t: &Scene, script: &str, context: Value) -> anyhow::Result<String> {
    let mut main = shell("main", script);
    main["securityContext"] = context;
    let (_, log) = t
        .run_to_end("told", json!({ "containers": [main] }))
        .await?;
    Ok(log)
}

/// A value of `/proc/self/status` as a log has it.
fn field<'a>(log: &'a str, name: &str) -> anyhow::Result<&'a str> {
    log.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .with_context(|| format!("no {name} in {log}"))
}

/// The node's word on the default handler of its runtime.
async fn handler_can(t: &Scene, feature: &str) -> anyhow::Result<bool> {
    let node = t.get::<Node>(t.cluster.node_name()).await?;
    let handlers = node["status"]["runtimeHandlers"].as_array();
    let default = |handler: &&Value| text(handler, "/name").is_empty();
    let handler = handlers.and_then(|handlers| handlers.iter().find(default));
    Ok(handler.is_some_and(|handler| truth(handler, &format!("/features/{feature}"))))
}

async fn capabilities_are_the_given_ones(t: Scene) -> anyhow::Result<()> {
    let context = json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } });
    let log = told(&t, &status_of(&["CapEff", "CapBnd"]), context).await?;
    for set in ["CapEff", "CapBnd"] {
        ensure!(field(&log, set)? == "0000000000000400", "{log}");
    }
    Ok(())
}

async fn privileges_are_not_gained_where_that_is_forbidden(t: Scene) -> anyhow::Result<()> {
    let script = status_of(&["NoNewPrivs"]);
    let mut containers = [("may", json!(true)), ("may-not", json!(false))].map(|(name, value)| {
        let mut container = shell(name, &script);
        container["securityContext"] = json!({ "allowPrivilegeEscalation": value });
        container
    });
    containers[1]["securityContext"]["runAsUser"] = 1000.into();
    let spec = json!({ "containers": containers });
    let (pod, log) = t.run_to_end("told", spec).await?;
    ensure!(field(&log, "NoNewPrivs")? == "0", "{log}");
    let log = t.log(&pod, "may-not", 0).await?;
    ensure!(field(&log, "NoNewPrivs")? == "1", "{log}");
    Ok(())
}

async fn privileged_containers_have_everything(t: Scene) -> anyhow::Result<()> {
    let script = "mount -t tmpfs tmpfs /mnt && echo mounted";
    let log = told(
        &t,
        &format!("mkdir -p /mnt; {script}"),
        json!({ "privileged": true }),
    )
    .await?;
    ensure!(log == "mounted\n", "{log}");
    Ok(())
}

async fn system_calls_are_filtered_as_asked(t: Scene) -> anyhow::Result<()> {
    let script = status_of(&["Seccomp"]);
    let with = |name: &str, profile: Value| {
        let mut container = shell(name, &script);
        container["securityContext"] = json!({ "seccompProfile": profile });
        container
    };
    // The pod's profile counts where a container has none.
    let spec = json!({
        "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [shell("pods", &script), with("own", json!({ "type": "Unconfined" }))],
    });
    let (pod, log) = t.run_to_end("told", spec).await?;
    ensure!(field(&log, "Seccomp")? == "2", "{log}");
    let log = t.log(&pod, "own", 0).await?;
    ensure!(field(&log, "Seccomp")? == "0", "{log}");
    Ok(())
}

async fn a_localhost_profile_is_found_under_the_root_directory(t: Scene) -> anyhow::Result<()> {
    let directory = t
        .cluster
        .path("KUBELET_ROOT")
        .join("seccomp")
        .join(&t.namespace);
    tokio::fs::create_dir_all(&directory).await?;
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
    });
    tokio::fs::write(directory.join("no-mkdir.json"), profile.to_string()).await?;
    let name = format!("{}/no-mkdir.json", t.namespace);
    let context = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": name } });
    let log = told(&t, "mkdir /tmp/x || echo refused", context).await?;
    // Its complaint comes on another stream, sooner or later.
    ensure!(log.lines().any(|line| line == "refused"), "{log}");
    tokio::fs::remove_dir_all(&directory).await?;
    Ok(())
}

async fn a_read_only_root_is_read_only(t: Scene) -> anyhow::Result<()> {
    let mut main = shell(
        "main",
        "touch /x || echo refused; touch /data/x && echo written",
    );
    main["securityContext"] = json!({ "readOnlyRootFilesystem": true });
    main["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    let spec = json!({
        "containers": [main],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    let (_, log) = t.run_to_end("told", spec).await?;
    ensure!(
        log.contains("refused\n") && log.contains("written\n"),
        "{log}"
    );
    Ok(())
}

async fn an_image_of_root_does_not_run_as_non_root(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", FOREVER);
    main["securityContext"] = json!({ "runAsNonRoot": true });
    t.pod("rooted", json!({ "containers": [main] })).await?;
    let refused = |pod: &Value| {
        let waiting = &container(pod, "main")["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError"
    };
    let pod = t.pod_until("rooted", "is refused", refused).await?;
    let message = text(container(&pod, "main"), "/state/waiting/message").to_owned();
    let wanted = format!(
        "container has runAsNonRoot and image will run as root (pod: \"rooted_{}({})\", container: main)",
        t.namespace,
        text(&pod, "/metadata/uid")
    );
    ensure!(message == wanted, "{message}");
    let error = format!("Error: {wanted}");
    t.event("rooted", "Failed", |message| message == error)
        .await?;
    Ok(())
}

async fn groups_are_those_of_the_pod(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "securityContext": { "runAsUser": 1000, "runAsGroup": 2000,
            "fsGroup": 3000, "supplementalGroups": [4000, 5000] },
        "containers": [shell("main", "id -u; id -g; grep Groups: /proc/self/status")],
    });
    let (_, log) = t.run_to_end("told", spec).await?;
    ensure!(log.starts_with("1000\n2000\n"), "{log}");
    let groups: Vec<_> = field(&log, "Groups")?.split(' ').collect();
    for group in ["3000", "4000", "5000"] {
        ensure!(groups.contains(&group), "{log}");
    }
    Ok(())
}

/// Where the runtime knows of it (containerd 2); elsewhere nothing is asked.
async fn strict_groups_are_the_pods_alone(t: Scene) -> anyhow::Result<()> {
    let node = t.get::<Node>(t.cluster.node_name()).await?;
    if !truth(&node, "/status/features/supplementalGroupsPolicy") {
        return Ok(());
    }
    let spec = json!({
        "securityContext": { "supplementalGroups": [4000], "supplementalGroupsPolicy": "Strict" },
        "containers": [shell("main", "grep Groups: /proc/self/status")],
    });
    let (_, log) = t.run_to_end("told", spec).await?;
    let groups: Vec<_> = field(&log, "Groups")?.split(' ').collect();
    let is_own = |group: &&str| ["0", "4000"].contains(group);
    ensure!(
        groups.contains(&"4000") && groups.iter().all(is_own),
        "{log}"
    );
    Ok(())
}

async fn sysctls_are_set_however_they_are_spelt(t: Scene) -> anyhow::Result<()> {
    let script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/tcp_syncookies";
    let spec = json!({
        "securityContext": { "sysctls": [
            { "name": "kernel/shm_rmid_forced", "value": "1" },
            { "name": "net.ipv4.tcp_syncookies", "value": "0" },
        ] },
        "containers": [shell("main", script)],
    });
    let (_, log) = t.run_to_end("told", spec).await?;
    ensure!(log == "1\n0\n", "{log}");
    Ok(())
}

async fn the_kernels_own_files_are_masked(t: Scene) -> anyhow::Result<()> {
    let log = told(&t, "cat /proc/mounts; wc -c < /proc/keys", json!({})).await?;
    let is_read_only = |line: &str| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/proc/sys") && words.nth(1).is_some_and(|o| o.starts_with("ro,"))
    };
    ensure!(log.lines().any(is_read_only), "{log}");
    ensure!(log.ends_with("\n0\n"), "{log}");
    Ok(())
}

async fn processes_are_shared_on_demand(t: Scene) -> anyhow::Result<()> {
    let script = "cat /proc/1/comm";
    let shared = json!({ "shareProcessNamespace": true, "containers": [shell("main", script)] });
    let (_, log) = t.run_to_end("shared", shared).await?;
    ensure!(log == "pause\n", "{log}");
    let alone = json!({ "containers": [shell("main", script)] });
    let (_, log) = t.run_to_end("alone", alone).await?;
    ensure!(!log.contains("pause"), "{log}");
    Ok(())
}

async fn namespaces_of_the_host_are_shared_on_demand(t: Scene) -> anyhow::Result<()> {
    let script = "for n in pid ipc; do readlink /proc/self/ns/$n; done";
    let hosts = t.cluster.exec(["sh", "-c", script]).await?;
    let spec = |host: bool| json!({ "hostPID": host, "hostIPC": host, "containers": [shell("main", script)] });
    let (_, log) = t.run_to_end("with-host", spec(true)).await?;
    ensure!(log == hosts, "{log} is not {hosts}");
    let (_, log) = t.run_to_end("alone", spec(false)).await?;
    for (own, hosts) in log.lines().zip(hosts.lines()) {
        ensure!(own != hosts, "{log} and {hosts}");
    }
    Ok(())
}

/// Two pods have different IDs of the host, and each owns what is mounted into it. Where
/// the runtime or the kernel cannot do it, the pod is refused in so many words.
async fn a_user_namespace_has_ids_of_its_own(t: Scene) -> anyhow::Result<()> {
    let script = "cat /proc/self/uid_map; \
        touch /data/x && stat -c %u /data/x /etc/hosts /dev/termination-log; \
        grep -q ' /proc/sys ' /proc/mounts || echo unmasked";
    let mut main = shell("main", &format!("{script}; {FOREVER}"));
    main["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    main["securityContext"] = json!({ "procMount": "Unmasked" });
    let spec = json!({
        "hostUsers": false,
        "containers": [main],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    if !handler_can(&t, "userNamespaces").await? {
        t.pod("first", spec).await?;
        let words = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
        t.event("first", "FailedCreatePodSandBox", |message| {
            message.contains(words)
        })
        .await?;
        return Ok(());
    }
    let mut firsts = Vec::new();
    for name in ["first", "second"] {
        t.pod(name, spec.clone()).await?;
        let runs = |pod: &Value| container(pod, "main")["ready"] == true;
        let pod = t.pod_until(name, "runs", runs).await?;
        let log = t.log_until(&pod, "main", "unmasked").await?;
        let mut lines = log.lines();
        let map: Vec<u32> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        let [0, first, 65_536] = map[..] else {
            anyhow::bail!("{log}");
        };
        ensure!(first >= 65_536 && first % 65_536 == 0, "{log}");
        ensure!(lines.by_ref().take(3).eq(["0", "0", "0"]), "{log}");
        firsts.push(first);
    }
    ensure!(firsts[0] != firsts[1], "{firsts:?}");
    Ok(())
}

/// Where the runtime can do that.
async fn mounts_are_read_only_all_the_way_down(t: Scene) -> anyhow::Result<()> {
    // What touch itself says goes another way than the echo, and may come after it.
    let mut main = shell("main", "touch /data/x 2>/dev/null || echo refused");
    main["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data", "readOnly": true,
        "recursiveReadOnly": "IfPossible" }]);
    if handler_can(&t, "recursiveReadOnlyMounts").await? {
        main["volumeMounts"][0]["recursiveReadOnly"] = "Enabled".into();
    }
    let spec = json!({
        "containers": [main],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    let (_, log) = t.run_to_end("told", spec).await?;
    ensure!(log.ends_with("refused\n"), "{log}");
    Ok(())
}
