//! ConfigMaps and Secrets of a node without an API server: read from the
//! manifests' snapshot, and followed as it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::manifest::ManifestSnapshot;
use super::manifest::data::{Data, DataByName};
use crate::apiserver::{ApiError, Changes, Following, ObjectKind, ObjectName, ObjectRefs};

/// Answers from the manifests what would otherwise be asked of the API server.
#[derive(Debug)]
pub struct ManifestObjects {
    snapshots: watch::Receiver<ManifestSnapshot>,
    followers: Arc<Followers>,
}

/// Tells followers what changed.
#[derive(Debug)]
pub struct ManifestObjectsTask {
    snapshots: watch::Receiver<ManifestSnapshot>,
    /// What followers know.
    told: Arc<DataByName>,
    followers: Arc<Followers>,
}

#[derive(Debug, Default)]
struct Followers(Mutex<FollowersByNumber>);

#[derive(Debug, Default)]
struct FollowersByNumber {
    next: u64,
    followers: BTreeMap<u64, (ObjectName, Changes)>,
}

impl ManifestObjects {
    /// Objects of these snapshots. Followers hear of changes while the task
    /// runs.
    #[must_use]
    pub fn new(mut snapshots: watch::Receiver<ManifestSnapshot>) -> (Self, ManifestObjectsTask) {
        let followers = Arc::<Followers>::default();
        let told = Arc::clone(&snapshots.borrow_and_update().data);
        let task = ManifestObjectsTask {
            snapshots: snapshots.clone(),
            told,
            followers: Arc::clone(&followers),
        };
        let objects = Self {
            snapshots,
            followers,
        };
        (objects, task)
    }

    fn find(&self, kind: ObjectKind, namespace: &str, name: &str) -> Option<Data> {
        let name = ObjectName {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.snapshots.borrow().data.get(&name).cloned()
    }
}

#[async_trait]
impl ObjectRefs for ManifestObjects {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ApiError> {
        Ok(match self.find(ObjectKind::ConfigMap, namespace, name) {
            Some(Data::ConfigMap(_, object)) => Some(Arc::unwrap_or_clone(object)),
            _ => None,
        })
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ApiError> {
        Ok(match self.find(ObjectKind::Secret, namespace, name) {
            Some(Data::Secret(_, object)) => Some(Arc::unwrap_or_clone(object)),
            _ => None,
        })
    }

    async fn runtime_class(&self, _: &str) -> Result<Option<RuntimeClass>, ApiError> {
        Err(ApiError::Standalone {
            call: "get RuntimeClass",
        })
    }

    fn follow(&self, object: &ObjectName, changes: &Changes) -> Following {
        let number = self.followers.add(object, changes);
        Following::new(Membership {
            followers: Arc::clone(&self.followers),
            number,
        })
    }
}

impl Followers {
    fn add(&self, object: &ObjectName, changes: &Changes) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.next += 1;
        let number = all.next;
        all.followers
            .insert(number, (object.clone(), changes.clone()));
        number
    }

    /// Tells those whose object is not the same any more.
    fn tell(&self, old: &DataByName, new: &DataByName) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (object, changes) in all.followers.values() {
            if old.get(object) != new.get(object) {
                changes.note();
            }
        }
    }
}

/// One follower's place among them.
struct Membership {
    followers: Arc<Followers>,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut all = self
            .followers
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.followers.remove(&self.number);
    }
}

impl ManifestObjectsTask {
    /// Tells followers of changes until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.snapshots.changed() => if changed.is_err() {
                    // What was read last stays; there will be no news.
                    return shutdown.cancelled().await;
                }
            }
            let new = Arc::clone(&self.snapshots.borrow_and_update().data);
            self.followers.tell(&self.told, &new);
            self.told = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn snapshot(objects: &[(&str, &str)]) -> ManifestSnapshot {
        let data = objects.iter().map(|(name, value)| {
            let object = serde_json::from_value(json!({"data": {"k": value}})).unwrap();
            let name = named(name);
            (name.clone(), Data::ConfigMap(name, Arc::new(object)))
        });
        ManifestSnapshot {
            data: Arc::new(data.collect()),
            synced: true,
            ..ManifestSnapshot::default()
        }
    }

    fn named(name: &str) -> ObjectName {
        ObjectName {
            kind: ObjectKind::ConfigMap,
            namespace: "default".into(),
            name: name.into(),
        }
    }

    #[tokio::test]
    async fn followers_hear_of_their_own_object() {
        let (out, snapshots) = watch::channel(snapshot(&[("a", "1"), ("b", "1")]));
        let (objects, task) = ManifestObjects::new(snapshots);
        tokio::spawn(task.run(CancellationToken::new()));
        let of = async |name: &str| {
            let found = objects.config_map("default", name).await.unwrap();
            found.map(|map| map.data.unwrap()["k"].clone())
        };
        let (a, b, late) = (Changes::default(), Changes::default(), Changes::default());
        let _held = [
            objects.follow(&named("a"), &a),
            objects.follow(&named("c"), &late),
        ];
        drop(objects.follow(&named("b"), &b));
        assert_eq!(of("a").await.as_deref(), Some("1"));
        assert_eq!(of("c").await, None);
        assert_eq!(objects.secret("default", "a").await.unwrap(), None);
        // Followers are told in one go, in the order in which they came.
        out.send_replace(snapshot(&[("a", "1"), ("b", "2"), ("c", "1")]));
        late.subscribe()
            .wait_for(|count| *count == 1)
            .await
            .unwrap();
        assert_eq!((a.count(), b.count()), (0, 0));
        assert_eq!(of("c").await.as_deref(), Some("1"));
        out.send_replace(snapshot(&[("b", "2"), ("c", "1")]));
        a.subscribe().wait_for(|count| *count == 1).await.unwrap();
        assert_eq!(of("a").await, None);
        assert_eq!((b.count(), late.count()), (0, 1));
    }
}
