//! `/metrics/resource`, which metrics-server reads. Pure; names, labels and
//! types are upstream's.

use std::time::Duration;

use jiff::Timestamp;

use super::exposition::{Exposition, Kind, Labels, Value};
use super::model::{CgroupUsage, Limit, Snapshot};

/// A row of one subject: node, pod or container.
struct Row<'a> {
    labels: Labels,
    cgroup: &'a CgroupUsage,
    created_at: Timestamp,
}

/// The three subjects' metric names.
struct Names {
    cpu: &'static str,
    memory: &'static str,
    swap: &'static str,
}

/// The text for Prometheus; without a snapshot only that there was an error.
#[must_use]
pub fn resource(snapshot: Option<&Snapshot>) -> String {
    let mut text = Exposition::default();
    if let Some(snapshot) = snapshot {
        let containers = containers(snapshot);
        let names = Names {
            cpu: "container_cpu_usage_seconds_total",
            memory: "container_memory_working_set_bytes",
            swap: "container_swap_usage_bytes",
        };
        write(&mut text, &names, &containers);
        write_container_extras(&mut text, &containers);
        let names = Names {
            cpu: "node_cpu_usage_seconds_total",
            memory: "node_memory_working_set_bytes",
            swap: "node_swap_usage_bytes",
        };
        write(&mut text, &names, &[node(snapshot)]);
        let names = Names {
            cpu: "pod_cpu_usage_seconds_total",
            memory: "pod_memory_working_set_bytes",
            swap: "pod_swap_usage_bytes",
        };
        write(&mut text, &names, &pods(snapshot));
    }
    let failed = Value::Count(u64::from(snapshot.is_none()));
    for name in ["resource_scrape_error", "scrape_error"] {
        text.family(
            name,
            Kind::Gauge,
            "1 if usage could not be read, 0 if it could",
        )
        .now(&Labels::default(), failed);
    }
    text.finish()
}

fn node(snapshot: &Snapshot) -> Row<'_> {
    Row {
        labels: Labels::default(),
        cgroup: &snapshot.node.cgroup,
        created_at: snapshot.node.started_at,
    }
}

fn pods(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let row = |pod: &'_ super::model::PodUsage| {
        Labels::new(&[("namespace", &pod.name.namespace), ("pod", &pod.name.name)])
    };
    let pods = snapshot.pods.iter();
    pods.filter_map(|pod| {
        Some(Row {
            labels: row(pod),
            cgroup: pod.cgroup.as_ref()?,
            created_at: pod.started_at,
        })
    })
    .collect()
}

fn containers(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let pods = snapshot.pods.iter();
    pods.flat_map(|pod| {
        pod.containers.iter().map(|container| Row {
            labels: Labels::new(&[
                ("container", &container.name),
                ("namespace", &pod.name.namespace),
                ("pod", &pod.name.name),
            ]),
            cgroup: &container.cgroup,
            created_at: container.created_at,
        })
    })
    .collect()
}

fn write(text: &mut Exposition, names: &Names, rows: &[Row<'_>]) {
    let mut family = text.family(names.cpu, Kind::Counter, "CPU time used, in core-seconds");
    for Row { labels, cgroup, .. } in rows {
        let reading = &cgroup.reading;
        family.at(labels, Value::Time(reading.cpu.total), reading.at);
    }
    let mut family = text.family(
        names.memory,
        Kind::Gauge,
        "Memory that cannot be had back without effort, in bytes",
    );
    for Row { labels, cgroup, .. } in rows {
        if let Some(memory) = cgroup.reading.memory {
            family.at(labels, Value::Count(memory.working_set), cgroup.reading.at);
        }
    }
    let mut family = text.family(names.swap, Kind::Gauge, "Swap space used, in bytes");
    for Row { labels, cgroup, .. } in rows {
        if let Some(swap) = cgroup.reading.swap {
            family.at(labels, Value::Count(swap.usage), cgroup.reading.at);
        }
    }
}

fn write_container_extras(text: &mut Exposition, rows: &[Row<'_>]) {
    let mut family = text.family(
        "container_swap_limit_bytes",
        Kind::Gauge,
        "Swap space that can be used, in bytes",
    );
    for Row { labels, cgroup, .. } in rows {
        if let Some(limit) = cgroup
            .reading
            .swap
            .and_then(|swap| swap.limit)
            .and_then(Limit::bound)
        {
            family.at(labels, Value::Count(limit), cgroup.reading.at);
        }
    }
    let mut family = text.family(
        "container_start_time_seconds",
        Kind::Gauge,
        "When the container was made, in seconds since the epoch",
    );
    for row in rows {
        family.now(&row.labels, since_epoch(row.created_at));
    }
}

/// A moment as a metric's value; moments before the epoch count as it.
pub(super) fn since_epoch(at: Timestamp) -> Value {
    let since = at.duration_since(Timestamp::UNIX_EPOCH);
    Value::Time(Duration::try_from(since).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::samples;

    #[test]
    fn what_metrics_server_reads() {
        insta::assert_snapshot!(resource(Some(&samples::snapshot())));
    }

    #[test]
    fn a_failure_is_told_in_its_own_metric() {
        insta::assert_snapshot!(resource(None), @r"
        # HELP resource_scrape_error 1 if usage could not be read, 0 if it could
        # TYPE resource_scrape_error gauge
        resource_scrape_error 1
        # HELP scrape_error 1 if usage could not be read, 0 if it could
        # TYPE scrape_error gauge
        scrape_error 1
        ");
    }
}
