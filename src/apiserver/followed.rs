//! ConfigMaps and Secrets that pods' volumes show, kept up to date: one watch
//! for each object, however many pods show it, and none that nobody needs.
//!
//! In: leases ([`Followed::follow`]) and watch events. Out: the newest object,
//! of which only the data is kept, and a word to every lease holder when it
//! has changed. While the API server is away the last object stays.
//!
//! What is immutable is not watched once it was read. It is read again when
//! somebody new follows it, since it may have been replaced by another object
//! of the same name.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::client::ApiServer;
use super::feed::{Topic, follow};
use super::port::{Changes, Following};

/// How long a reader waits for an object that was not read yet, as upstream.
const PATIENCE: Duration = Duration::from_secs(1);

/// A kind of object that can be followed.
pub(super) trait Kept:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + PartialEq
    + Send
    + Sync
    + 'static
{
    const WHAT: &'static str;

    /// The object without what no pod can show.
    fn essence(self) -> Self;

    fn is_immutable(&self) -> bool;
}

impl Kept for ConfigMap {
    const WHAT: &'static str = "ConfigMap";

    fn essence(self) -> Self {
        Self {
            metadata: ObjectMeta::default(),
            ..self
        }
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Kept for Secret {
    const WHAT: &'static str = "Secret";

    fn essence(self) -> Self {
        Self {
            metadata: ObjectMeta::default(),
            ..self
        }
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// Namespace and name.
type Key = (String, String);

/// The followed objects of one kind.
#[derive(Debug)]
pub(super) struct Followed<T> {
    table: Mutex<Table<T>>,
    /// Some entry waits for its watch.
    wanted: Notify,
}

#[derive(Debug)]
struct Table<T> {
    entries: BTreeMap<Key, Entry<T>>,
    /// Numbers of entries and leases; never used twice.
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    /// Tells this entry from a later one of the same key.
    number: u64,
    leases: BTreeMap<u64, Changes>,
    held: watch::Sender<Held<T>>,
    watching: Watching,
    /// A reader went away with another answer than the first one that the
    /// watch gave.
    overslept: bool,
}

#[derive(Debug)]
enum Watching {
    /// To be started.
    Wanted,
    /// Ends when the token is cancelled.
    UnderWay(CancellationToken),
    /// The object cannot change.
    Done,
}

/// What is known of an object.
#[derive(Debug)]
struct Held<T> {
    /// Whether `object` can be relied upon.
    known: bool,
    /// The newest one seen; `None`: there is none, or nothing is known yet.
    object: Option<Arc<T>>,
    /// Whether anything was ever known.
    seen: bool,
}

impl<T> Default for Followed<T> {
    fn default() -> Self {
        Self {
            table: Mutex::new(Table {
                entries: BTreeMap::new(),
                next: 0,
            }),
            wanted: Notify::new(),
        }
    }
}

impl<T> Table<T> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl<T: Kept> Followed<T> {
    fn table(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows an object for as long as the lease lives, and counts its changes
    /// in `changes`.
    pub(super) fn follow(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        changes: &Changes,
    ) -> Following {
        let key = (namespace.to_owned(), name.to_owned());
        let mut table = self.table();
        let (lease, number) = (table.number(), table.number());
        let entry = table
            .entries
            .entry(key.clone())
            .or_insert_with(|| Entry::new(number));
        entry.leases.insert(lease, changes.clone());
        if matches!(entry.watching, Watching::Done) {
            entry.watching = Watching::Wanted;
            entry.held.send_modify(|held| held.known = false);
        }
        if matches!(entry.watching, Watching::Wanted) {
            self.wanted.notify_one();
        }
        Following::new(Holding {
            followed: Arc::clone(self),
            key,
            lease,
        })
    }

    /// The object as far as it is followed. `None`: it is not, or nothing is
    /// known of it after a moment.
    pub(super) async fn get(&self, namespace: &str, name: &str) -> Option<Option<Arc<T>>> {
        let key = (namespace.to_owned(), name.to_owned());
        let (mut held, number) = {
            let table = self.table();
            let entry = table.entries.get(&key)?;
            (entry.held.subscribe(), entry.number)
        };
        let known = tokio::time::timeout(PATIENCE, held.wait_for(|held| held.known)).await;
        if let Ok(Ok(held)) = known {
            return Some(held.object.clone());
        }
        let mut table = self.table();
        if let Some(entry) = table.entries.get_mut(&key)
            && entry.number == number
        {
            entry.overslept = true;
        }
        None
    }

    /// Watches what is followed until shutdown.
    pub(super) async fn run(self: Arc<Self>, client: Client, shutdown: CancellationToken) {
        let mut watches = FuturesUnordered::new();
        loop {
            for (key, number, stop) in self.newly_wanted() {
                watches.push(self.watch(client.clone(), key, number, stop));
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wanted.notified() => {}
                Some(()) = watches.next() => {}
            }
        }
    }

    fn newly_wanted(&self) -> Vec<(Key, u64, CancellationToken)> {
        let mut table = self.table();
        let wanted = table
            .entries
            .iter_mut()
            .filter(|(_, entry)| matches!(entry.watching, Watching::Wanted));
        wanted
            .map(|(key, entry)| {
                let stop = CancellationToken::new();
                entry.watching = Watching::UnderWay(stop.clone());
                (key.clone(), entry.number, stop)
            })
            .collect()
    }

    async fn watch(&self, client: Client, key: Key, number: u64, stop: CancellationToken) {
        let api: Api<T> = Api::namespaced(client, &key.0);
        let selection = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
        let mut listed = None;
        let fold = |event| match event {
            Event::Init => listed = None,
            Event::InitApply(object) => listed = Some(object),
            Event::InitDone => self.publish(&key, number, listed.take()),
            Event::Apply(object) => self.publish(&key, number, Some(object)),
            Event::Delete(_) => self.publish(&key, number, None),
        };
        follow(Topic::quiet(T::WHAT), api, selection, &stop, fold).await;
    }

    /// Takes in what the watch of an entry says.
    fn publish(&self, key: &Key, number: u64, object: Option<T>) {
        let mut table = self.table();
        let entry = table.entries.get_mut(key);
        let Some(entry) = entry.filter(|entry| entry.number == number) else {
            return;
        };
        let object = object.map(|object| Arc::new(object.essence()));
        if object.as_ref().is_some_and(|object| object.is_immutable())
            && let Watching::UnderWay(stop) = std::mem::replace(&mut entry.watching, Watching::Done)
        {
            stop.cancel();
        }
        let mut is_change = false;
        entry.held.send_modify(|held| {
            is_change = held.seen && held.object != object;
            *held = Held {
                known: true,
                seen: true,
                object,
            };
        });
        if is_change || std::mem::take(&mut entry.overslept) {
            for changes in entry.leases.values() {
                changes.note();
            }
        }
    }

    fn release(&self, key: &Key, lease: u64) {
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(key) else {
            return;
        };
        entry.leases.remove(&lease);
        if entry.leases.is_empty()
            && let Some(entry) = table.entries.remove(key)
            && let Watching::UnderWay(stop) = entry.watching
        {
            stop.cancel();
        }
    }
}

impl<T> Entry<T> {
    fn new(number: u64) -> Self {
        Self {
            number,
            leases: BTreeMap::new(),
            held: watch::Sender::new(Held {
                known: false,
                object: None,
                seen: false,
            }),
            watching: Watching::Wanted,
            overslept: false,
        }
    }
}

/// One holder's part in an entry.
struct Holding<T: Kept> {
    followed: Arc<Followed<T>>,
    key: Key,
    lease: u64,
}

impl<T: Kept> Drop for Holding<T> {
    fn drop(&mut self) {
        self.followed.release(&self.key, self.lease);
    }
}

/// Keeps followed objects up to date.
#[derive(Debug)]
pub struct ObjectReflector {
    api: ApiServer,
}

impl ApiServer {
    /// Objects that are followed through [`ObjectRefs`](super::ObjectRefs).
    /// Nothing is watched until the reflector runs.
    #[must_use]
    pub fn reflect_objects(&self) -> ObjectReflector {
        ObjectReflector { api: self.clone() }
    }
}

impl ObjectReflector {
    /// Watches what is followed until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let ApiServer {
            client,
            followed_config_maps: config_maps,
            followed_secrets: secrets,
            ..
        } = self.api;
        tokio::join!(
            config_maps.run(client.clone(), shutdown.clone()),
            secrets.run(client, shutdown),
        );
    }
}
