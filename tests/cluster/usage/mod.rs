//! What the node tells of CPU, memory, network and disk: `/stats/summary`,
//! `/metrics/resource`, `/metrics/cadvisor`, and `kubectl top` on top of them. Asked
//! through the API server's node proxy, as its users do.

mod exposition;
mod metrics_server;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::harness::{
    FOREVER, PATIENCE, Scene, Test, container, number, poll_until, shell, tests, text,
};
use crate::lifecycle::container_id;
use exposition::{Exposition, Sample};
use metrics_server::{MetricsServer, top};

pub const TESTS: &[Test] = tests!(Shared:
    the_node_tells_of_itself,
    a_pod_that_burns_cpu_shows_it,
    memory_counts_what_is_in_a_tmpfs,
    network_counters_grow_with_traffic,
    a_pod_on_the_host_network_has_no_counters,
    ephemeral_storage_grows_with_what_is_written,
    a_restarted_container_leaves_no_row_behind,
    all_that_dashboards_read_is_there,
    what_is_only_cpu_and_memory_is_no_more,
);

pub const TOP: &[Test] = tests!(Own:
    kubectl_top_works_through_metrics_server,
);

const MIB: i64 = 1 << 20;
/// Half a CPU of a thousand, at most: tests share two of them.
const BURN: &str = "while :; do :; done";

/// Metrics of `/metrics/cadvisor` with the labels that they have beyond those of all,
/// as kube-prometheus' dashboards and rules read them, for a container.
const OF_CONTAINERS: [(&str, &[&str]); 18] = [
    ("container_cpu_usage_seconds_total", &["cpu"]),
    ("container_cpu_user_seconds_total", &[]),
    ("container_cpu_system_seconds_total", &[]),
    ("container_cpu_cfs_periods_total", &[]),
    ("container_cpu_cfs_throttled_periods_total", &[]),
    ("container_cpu_cfs_throttled_seconds_total", &[]),
    ("container_memory_usage_bytes", &[]),
    ("container_memory_working_set_bytes", &[]),
    ("container_memory_rss", &[]),
    ("container_memory_cache", &[]),
    ("container_memory_swap", &[]),
    ("container_memory_failcnt", &[]),
    ("container_oom_events_total", &[]),
    ("container_processes", &[]),
    ("container_threads", &[]),
    ("container_spec_cpu_quota", &[]),
    ("container_spec_memory_limit_bytes", &[]),
    ("container_start_time_seconds", &[]),
];

/// The same for a sandbox.
const OF_SANDBOXES: [&str; 6] = [
    "container_network_receive_bytes_total",
    "container_network_receive_packets_total",
    "container_network_receive_packets_dropped_total",
    "container_network_transmit_bytes_total",
    "container_network_transmit_packets_total",
    "container_network_transmit_packets_dropped_total",
];

/// The same for the machine.
const OF_MACHINES: [&str; 6] = [
    "machine_cpu_cores",
    "machine_memory_bytes",
    "cadvisor_version_info",
    "container_fs_usage_bytes",
    "container_fs_limit_bytes",
    "container_scrape_error",
];

// === asking ===

async fn summary(t: &Scene) -> anyhow::Result<Value> {
    let text = t.node_raw("stats/summary").await?;
    serde_json::from_str(&text).context("the summary is no JSON")
}

async fn metrics(t: &Scene, path: &str) -> anyhow::Result<Exposition> {
    let text = t.node_raw(path).await?;
    Exposition::parse(&text).with_context(|| path.to_owned())
}

/// The summary's entry of this test's pod; null while there is none.
fn of_pod(t: &Scene, summary: &Value, name: &str) -> Value {
    let pods = summary["pods"].as_array().into_iter().flatten();
    let is_it = |pod: &&Value| {
        text(pod, "/podRef/name") == name && text(pod, "/podRef/namespace") == t.namespace
    };
    pods.into_iter().find(is_it).cloned().unwrap_or_default()
}

/// Waits until the summary of a pod is as wanted.
async fn pod_summary_until(
    t: &Scene,
    name: &str,
    what: &str,
    done: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    // Upstream's summary fails as a whole while a container of any pod comes or goes.
    let look = || async {
        let summary = summary(t).await.map_err(|error| format!("{error:#}"));
        let found = summary.map(|summary| of_pod(t, &summary, name));
        Ok(found.and_then(|pod| {
            if done(&pod) {
                Ok(pod)
            } else {
                Err(pod.to_string())
            }
        }))
    };
    poll_until(&format!("the summary of {name} {what}"), PATIENCE, look).await
}

/// Waits until metrics are as wanted.
async fn metrics_until<T>(
    t: &Scene,
    path: &str,
    what: &str,
    done: impl Fn(&Exposition) -> Result<T, String>,
) -> anyhow::Result<T> {
    let look = || async { Ok(done(&metrics(t, path).await?)) };
    poll_until(&format!("{path} {what}"), PATIENCE, look).await
}

fn of_container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let containers = pod["containers"].as_array().into_iter().flatten();
    containers
        .into_iter()
        .find(|c| c["name"] == name)
        .unwrap_or(&Value::Null)
}

// === the node ===

async fn the_node_tells_of_itself(t: Scene) -> anyhow::Result<()> {
    let members = [
        "/cpu/usageCoreNanoSeconds",
        "/memory/workingSetBytes",
        "/memory/availableBytes",
        "/memory/usageBytes",
        "/fs/availableBytes",
        "/fs/capacityBytes",
        "/fs/usedBytes",
        "/fs/inodesFree",
        "/runtime/imageFs/usedBytes",
        "/runtime/imageFs/capacityBytes",
        "/runtime/containerFs/availableBytes",
        "/rlimit/maxpid",
        "/rlimit/curproc",
    ];
    let look = || async {
        let summary = summary(&t).await.map_err(|error| format!("{error:#}"));
        let complete = |mut summary: Value| {
            let node = summary["node"].take();
            let absent = members.iter().find(|member| number(&node, member) <= 0);
            absent.map_or(Ok(node.clone()), |member| {
                Err(format!("{member} of {node}"))
            })
        };
        Ok(summary.and_then(complete))
    };
    let node = poll_until("the summary tells of the node", PATIENCE, look).await?;
    ensure!(text(&node, "/nodeName") == t.cluster.node_name(), "{node}");
    for member in ["/startTime", "/cpu/time", "/memory/time"] {
        let time = text(&node, member);
        ensure!(time.parse::<jiff::Timestamp>().is_ok(), "{member}: {time}");
    }
    let interfaces = node
        .pointer("/network/interfaces")
        .and_then(Value::as_array);
    let counts = |interface: &Value| number(interface, "/rxBytes") > 0;
    ensure!(
        interfaces.is_some_and(|all| all.iter().any(counts)),
        "{node}"
    );
    let groups = node["systemContainers"]
        .as_array()
        .context("no systemContainers")?;
    let pods = groups.iter().find(|group| group["name"] == "pods");
    let pods = pods.context("no system container of all pods")?;
    ensure!(number(pods, "/memory/workingSetBytes") > 0, "{pods}");
    Ok(())
}

// === pods ===

async fn a_pod_that_burns_cpu_shows_it(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", BURN);
    main["resources"] = json!({ "limits": { "cpu": "200m", "memory": "64Mi" } });
    t.ready_pod("burns", json!([main])).await?;
    let about = |cpu: &Value| (100_000_000..=300_000_000).contains(&number(cpu, "/usageNanoCores"));
    let shows = |pod: &Value| about(&pod["cpu"]) && about(&of_container(pod, "main")["cpu"]);
    let pod = pod_summary_until(&t, "burns", "shows a fifth of a CPU", shows).await?;
    let limit = 64 * MIB;
    let available = number(of_container(&pod, "main"), "/memory/availableBytes");
    ensure!((limit / 2..=limit).contains(&available), "{pod}");

    let labels = [
        ("pod", "burns"),
        ("namespace", t.namespace.as_str()),
        ("container", "main"),
    ];
    let used = |text: &Exposition| {
        let mut samples = text.find("container_cpu_usage_seconds_total", &labels);
        samples
            .next()
            .cloned()
            .ok_or_else(|| "no sample".to_owned())
    };
    let mut before = metrics_until(&t, "metrics/resource", "has the container", &used).await?;
    let mut rate = 0.0;
    // On a busy machine it does not always get what it may have.
    for _ in 0..10 {
        let apart = |now: &Sample| {
            now.at
                .zip(before.at)
                .map_or(0, |(now, before)| now - before)
        };
        let later = |text: &Exposition| {
            let now = used(text)?;
            let apart = apart(&now);
            if apart >= 5000 {
                Ok(now)
            } else {
                Err(format!("{apart} ms on"))
            }
        };
        let now = metrics_until(&t, "metrics/resource", "goes on", later).await?;
        let seconds = Duration::from_millis(apart(&now).unsigned_abs()).as_secs_f64();
        rate = (now.value - before.value) / seconds;
        if (0.1..=0.3).contains(&rate) {
            return Ok(());
        }
        before = now;
    }
    bail!("{rate} CPUs");
}

async fn memory_counts_what_is_in_a_tmpfs(t: Scene) -> anyhow::Result<()> {
    let script = format!("dd if=/dev/zero of=/memory/file bs=1M count=30; {FOREVER}");
    let mut main = shell("main", &script);
    main["volumeMounts"] = json!([{ "name": "memory", "mountPath": "/memory" }]);
    let volume = json!({ "name": "memory", "emptyDir": { "medium": "Memory" } });
    t.pod(
        "fills",
        json!({ "volumes": [volume], "containers": [main] }),
    )
    .await?;
    let is_full = |bytes: i64| (30 * MIB..60 * MIB).contains(&bytes);
    let volume = |pod: &Value| {
        let volumes = pod["volume"].as_array().into_iter().flatten();
        let mut volumes = volumes.filter(|volume| volume["name"] == "memory");
        volumes
            .next()
            .map_or(0, |volume| number(volume, "/usedBytes"))
    };
    let shows = |pod: &Value| {
        is_full(number(of_container(pod, "main"), "/memory/workingSetBytes"))
            && is_full(number(pod, "/memory/workingSetBytes"))
            && is_full(volume(pod))
    };
    let pod = pod_summary_until(&t, "fills", "shows the memory", shows).await?;
    let disk = number(&pod, "/ephemeral-storage/usedBytes");
    ensure!(disk < 30 * MIB, "memory counts as disk: {pod}");
    Ok(())
}

async fn network_counters_grow_with_traffic(t: Scene) -> anyhow::Result<()> {
    let server = "mkdir /tmp/web; dd if=/dev/zero of=/tmp/web/file bs=1M count=5; \
                  exec httpd -f -p 8080 -h /tmp/web";
    let pod = t.ready_pod("web", json!([shell("main", server)])).await?;
    let sent = |pod: &Value| number(pod, "/network/txBytes");
    let has_network = |pod: &Value| text(pod, "/network/name") == "eth0";
    let before = pod_summary_until(&t, "web", "has a network", has_network).await?;
    ensure!(sent(&before) < 5 * MIB, "{before}");
    let url = format!("http://{}:8080/file", text(&pod, "/status/podIP"));
    let fetch = || async {
        let command = [
            "curl",
            "--silent",
            "--fail",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            &url,
        ];
        Ok(t.cluster
            .exec(command)
            .await
            .map_err(|error| format!("{error:#}")))
    };
    poll_until("the file is fetched", PATIENCE, fetch).await?;
    let has_grown = |pod: &Value| (5 * MIB..8 * MIB).contains(&sent(pod));
    pod_summary_until(&t, "web", "shows the traffic", has_grown).await?;
    let labels = [
        ("pod", "web"),
        ("namespace", t.namespace.as_str()),
        ("container", ""),
        ("interface", "eth0"),
    ];
    let grown = |text: &Exposition| {
        let sample = text
            .find("container_network_transmit_bytes_total", &labels)
            .next();
        let bytes = sample.map_or(0.0, |sample| sample.value);
        if bytes > 5e6 {
            Ok(())
        } else {
            Err(format!("{bytes} bytes"))
        }
    };
    metrics_until(&t, "metrics/cadvisor", "shows the traffic", grown).await
}

async fn a_pod_on_the_host_network_has_no_counters(t: Scene) -> anyhow::Result<()> {
    let spec = json!({ "hostNetwork": true, "containers": [shell("main", FOREVER)] });
    t.pod("host", spec).await?;
    let has_cpu = |pod: &Value| number(of_container(pod, "main"), "/memory/workingSetBytes") > 0;
    let pod = pod_summary_until(&t, "host", "is there", has_cpu).await?;
    ensure!(pod["network"].is_null(), "{pod}");
    Ok(())
}

async fn ephemeral_storage_grows_with_what_is_written(t: Scene) -> anyhow::Result<()> {
    let script = format!(
        "dd if=/dev/zero of=/layer bs=1M count=20; dd if=/dev/zero of=/disk/file bs=1M count=10; \
         i=0; while [ $i -lt 20000 ]; do echo a line of about a hundred bytes ----------------\
         ---------------------------------------------; i=$((i+1)); done; sync; {FOREVER}"
    );
    let mut main = shell("main", &script);
    main["volumeMounts"] = json!([{ "name": "disk", "mountPath": "/disk" }]);
    let volumes = json!([{ "name": "disk", "emptyDir": {} }]);
    t.pod(
        "writes",
        json!({ "volumes": volumes, "containers": [main] }),
    )
    .await?;
    let shows = |pod: &Value| {
        let main = of_container(pod, "main");
        let used = |of: &Value, member: &str| number(of, &format!("/{member}/usedBytes"));
        let (layer, logs) = (used(main, "rootfs"), used(main, "logs"));
        let all = used(pod, "ephemeral-storage");
        (20 * MIB..25 * MIB).contains(&layer)
            && (2 * MIB..5 * MIB).contains(&logs)
            && (32 * MIB..40 * MIB).contains(&all)
    };
    let pod = pod_summary_until(&t, "writes", "shows what was written", shows).await?;
    for part in [
        "/ephemeral-storage",
        "/containers/0/rootfs",
        "/containers/0/logs",
    ] {
        let part = pod.pointer(part).unwrap_or(&Value::Null);
        for member in [
            "/capacityBytes",
            "/availableBytes",
            "/inodes",
            "/inodesUsed",
        ] {
            ensure!(number(part, member) > 0, "{member} of {part}");
        }
    }
    Ok(())
}

async fn a_restarted_container_leaves_no_row_behind(t: Scene) -> anyhow::Result<()> {
    let once =
        format!("[ -e /memory/lived ] || {{ touch /memory/lived; sleep 3; exit 1; }}; {FOREVER}");
    let mut main = shell("main", &once);
    main["volumeMounts"] = json!([{ "name": "memory", "mountPath": "/memory" }]);
    let volumes = json!([{ "name": "memory", "emptyDir": {} }]);
    t.pod("again", json!({ "volumes": volumes, "containers": [main] }))
        .await?;
    let runs_again = |pod: &Value| {
        let status = container(pod, "main");
        number(status, "/restartCount") == 1 && !status["state"]["running"].is_null()
    };
    let pod = t.pod_until("again", "runs again", runs_again).await?;
    let id = container_id(&pod, "main")?;
    let labels = [
        ("pod", "again"),
        ("namespace", t.namespace.as_str()),
        ("container", "main"),
    ];
    let rows = |text: &Exposition| {
        let samples = text.find("container_memory_working_set_bytes", &labels);
        samples
            .map(|sample| sample.labels.get("name").cloned())
            .collect::<Vec<_>>()
    };
    let only_new = |text: &Exposition| match rows(text).as_slice() {
        [Some(name)] if *name == id => Ok(()),
        other => Err(format!("{other:?}, not {id}")),
    };
    metrics_until(
        &t,
        "metrics/cadvisor",
        "has the new container alone",
        only_new,
    )
    .await?;
    let one = |text: &Exposition| match rows(text).as_slice() {
        [None] => Ok(()),
        other => Err(format!("{other:?}")),
    };
    metrics_until(&t, "metrics/resource", "has one container", one).await?;
    let one = |pod: &Value| {
        pod["containers"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    };
    pod_summary_until(&t, "again", "has one container", one).await?;
    Ok(())
}

async fn all_that_dashboards_read_is_there(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", FOREVER);
    main["resources"] = json!({ "limits": { "cpu": "100m", "memory": "64Mi" } });
    let pod = t.ready_pod("shown", json!([main])).await?;
    let id = container_id(&pod, "main")?;
    let namespace = t.namespace.as_str();
    let of_pod = [("pod", "shown"), ("namespace", namespace)];
    let complete = |text: &Exposition| {
        let mut missing = Vec::new();
        for (name, more) in OF_CONTAINERS {
            let labels = [of_pod[0], of_pod[1], ("container", "main"), ("name", id)];
            let wanted: BTreeSet<&str> = ["id", "name", "image", "container", "pod", "namespace"]
                .iter()
                .chain(more)
                .copied()
                .collect();
            let mut samples = text.find(name, &labels);
            let is_right = samples.next().is_some_and(|sample| {
                sample
                    .labels
                    .keys()
                    .map(String::as_str)
                    .collect::<BTreeSet<_>>()
                    == wanted
            });
            missing.extend((!is_right).then_some(name));
        }
        let sandbox = [
            of_pod[0],
            of_pod[1],
            ("container", ""),
            ("interface", "eth0"),
        ];
        missing.extend(
            OF_SANDBOXES
                .iter()
                .filter(|name| text.find(name, &sandbox).next().is_none()),
        );
        missing.extend(
            OF_MACHINES
                .iter()
                .filter(|name| text.find(name, &[]).next().is_none()),
        );
        let pod_row = [of_pod[0], of_pod[1], ("container", ""), ("name", "")];
        let own_row = text
            .find("container_memory_working_set_bytes", &pod_row)
            .next();
        missing.extend(own_row.is_none().then_some("the pod's own row"));
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join(", "))
        }
    };
    metrics_until(&t, "metrics/cadvisor", "has all", complete).await?;
    let text = metrics(&t, "metrics/cadvisor").await?;
    for (name, kind) in &text.types {
        let is_counter = name.ends_with("_total") || name == "container_memory_failcnt";
        let is_counter = is_counter && name != "container_fs_inodes_total";
        let wanted = if is_counter { "counter" } else { "gauge" };
        ensure!(kind == wanted, "{name} is a {kind}");
    }
    let labels = [("name", id)];
    let image = text.find("container_memory_rss", &labels).next();
    let image = image
        .and_then(|sample| sample.labels.get("image"))
        .map_or("", String::as_str);
    ensure!(image.contains("busybox"), "the image is '{image}'");
    Ok(())
}

async fn what_is_only_cpu_and_memory_is_no_more(t: Scene) -> anyhow::Result<()> {
    t.ready_pod("small", json!([shell("main", FOREVER)]))
        .await?;
    let look = || async {
        let text = t.node_raw("stats/summary?only_cpu_and_memory=true").await;
        let text = text.unwrap_or_else(|error| format!("{error:#}"));
        let summary: Value = serde_json::from_str(&text).unwrap_or_default();
        let pod = of_pod(&t, &summary, "small");
        let is_there = number(of_container(&pod, "main"), "/memory/workingSetBytes") > 0;
        Ok(if is_there {
            Ok((summary["node"].clone(), pod))
        } else {
            Err(text)
        })
    };
    let (node, pod) = poll_until("the summary has the pod", PATIENCE, look).await?;
    for (object, member) in [
        (&node, "fs"),
        (&node, "network"),
        (&pod, "network"),
        (&pod, "ephemeral-storage"),
        (of_container(&pod, "main"), "rootfs"),
    ] {
        ensure!(object[member].is_null(), "{member} in {object}");
    }
    Ok(())
}

// === metrics-server ===

async fn kubectl_top_works_through_metrics_server(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", BURN);
    main["resources"] = json!({ "limits": { "cpu": "200m", "memory": "64Mi" } });
    t.ready_pod("burns", json!([main])).await?;
    let server = MetricsServer::start(&t).await?;
    let node = top(&t, &["node", "--no-headers"]).await?;
    ensure!(node.starts_with(t.cluster.node_name()), "{node}");
    ensure!(!node.contains("<unknown>"), "{node}");
    let arguments = [
        "pod",
        "--containers",
        "--no-headers",
        "--namespace",
        &t.namespace,
    ];
    let look = || async {
        let answer = top(&t, &arguments)
            .await
            .map_err(|error| format!("{error:#}"));
        Ok(answer.and_then(|text| {
            let cpu = text
                .split_whitespace()
                .nth(2)
                .and_then(|cpu| cpu.strip_suffix('m'));
            let cpu: u32 = cpu.and_then(|cpu| cpu.parse().ok()).unwrap_or_default();
            if (100..=300).contains(&cpu) {
                Ok(())
            } else {
                Err(text)
            }
        }))
    };
    poll_until("top shows a fifth of a CPU", PATIENCE, look).await?;
    server.withdraw(&t).await
}
