//! Waiting for what the API server shows: a watch, a predicate, a deadline.
//!
//! A watch that breaks, as when the API server is away, starts anew until the deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::anyhow;
use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event};
use serde_json::Value;

use super::report;

/// Between two attempts to reach an API server that is away.
const RETRY: Duration = Duration::from_millis(500);

/// Watches until the selected objects, by name, satisfy `done`; gives them as they were.
pub async fn until(
    api: Api<DynamicObject>,
    selected: watcher::Config,
    what: &str,
    within: Duration,
    mut done: impl FnMut(&BTreeMap<String, Value>) -> bool,
) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    let watching = async {
        let mut events = std::pin::pin!(watcher::watcher(api, selected));
        let mut next = BTreeMap::new();
        let mut complete = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => next = BTreeMap::new(),
                Ok(Event::InitApply(object)) => insert(&mut next, object)?,
                Ok(Event::InitDone) => {
                    objects = std::mem::take(&mut next);
                    complete = true;
                }
                Ok(Event::Apply(object)) => insert(&mut objects, object)?,
                Ok(Event::Delete(object)) => {
                    objects.remove(&object.metadata.name.unwrap_or_default());
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
            if complete && done(&objects) {
                return Ok(());
            }
        }
        Err(anyhow!("the watch has ended"))
    };
    match tokio::time::timeout(within, watching).await {
        Ok(outcome) => outcome.map(|()| objects),
        Err(_) => {
            let seen: Vec<String> = objects.values().map(report::summary).collect();
            Err(anyhow!(
                "{what}: not within {within:?}; last seen: [{}]",
                seen.join("; ")
            ))
        }
    }
}

fn insert(objects: &mut BTreeMap<String, Value>, object: DynamicObject) -> anyhow::Result<()> {
    let name = object.metadata.name.clone().unwrap_or_default();
    objects.insert(name, serde_json::to_value(object)?);
    Ok(())
}
