//! What a person wants to see when a test failed: the scene's pods, its events, and what
//! the node agent wrote about them.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Resource;
use kube::api::ListParams;
use serde_json::Value;

use super::json::{number, text, truth};
use super::scene::Scene;

/// Lines of the agent's log in a report.
const LOG_LINES: usize = 30;
/// A line of a report is cut here.
const LINE_WIDTH: usize = 400;

/// A description of the scene. It never fails: it says what it could not find out.
pub async fn of(scene: &Scene) -> String {
    let mut report = format!("--- namespace {}\n", scene.namespace);
    let pods = list::<Pod>(scene).await;
    let events = list::<Event>(scene).await;
    let mut words = vec![scene.namespace.clone()];
    for (title, objects) in [("pod", &pods), ("event", &events)] {
        match objects {
            Ok(objects) => {
                for object in objects {
                    line(&mut report, &summary(object));
                }
            }
            Err(error) => line(&mut report, &format!("{title}s: {error:#}")),
        }
    }
    for pod in pods.iter().flatten() {
        words.push(text(pod, "/metadata/uid").to_owned());
    }
    report.push_str("--- the node agent's log about it\n");
    match scene.cluster.agent_log().await {
        Ok(log) => {
            let about: Vec<&str> = log
                .lines()
                .filter(|l| words.iter().any(|w| l.contains(w)))
                .collect();
            for text in about.iter().skip(about.len().saturating_sub(LOG_LINES)) {
                line(&mut report, text);
            }
        }
        Err(error) => line(&mut report, &format!("{error:#}")),
    }
    report
}

async fn list<K>(scene: &Scene) -> anyhow::Result<Vec<Value>>
where
    K: Resource<DynamicType = ()>,
{
    let objects = scene.api::<K>().list(&ListParams::default()).await?.items;
    let mut objects: Vec<Value> = objects
        .into_iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    for object in &mut objects {
        // The items of a list do not say their kind.
        object["kind"] = K::kind(&()).into();
    }
    objects.sort_by_key(|object| text(object, "/metadata/creationTimestamp").to_owned());
    Ok(objects)
}

/// One object in one line.
pub fn summary(object: &Value) -> String {
    let name = text(object, "/metadata/name");
    match text(object, "/kind") {
        "Pod" => format!("pod {name}: {}", pod_summary(object)),
        "Event" => format!(
            "event {} {} {} {} x{}: {}",
            text(object, "/lastTimestamp"),
            text(object, "/involvedObject/name"),
            text(object, "/type"),
            text(object, "/reason"),
            number(object, "/count").max(1),
            text(object, "/message"),
        ),
        kind => format!("{kind} {name}: {}", object["status"]),
    }
}

fn pod_summary(pod: &Value) -> String {
    let mut summary = text(pod, "/status/phase").to_owned();
    for (name, pointer) in [("reason", "/status/reason"), ("message", "/status/message")] {
        let value = text(pod, pointer);
        if !value.is_empty() {
            let _ = write!(summary, " {name}={value}");
        }
    }
    let deleted = text(pod, "/metadata/deletionTimestamp");
    if !deleted.is_empty() {
        let _ = write!(summary, " deleted at {deleted}");
    }
    for list in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for status in pod
            .pointer(list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let _ = write!(
                summary,
                ", {} ready={} restarts={} {}",
                text(status, "/name"),
                truth(status, "/ready"),
                number(status, "/restartCount"),
                status["state"],
            );
        }
    }
    for condition in pod
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let _ = write!(
            summary,
            ", {}={}",
            text(condition, "/type"),
            text(condition, "/status")
        );
    }
    summary
}

fn line(report: &mut String, text: &str) {
    let cut: String = text.chars().take(LINE_WIDTH).collect();
    let _ = writeln!(report, "  {cut}");
}
