//! What the API server holds for this node, reflected: our pods and our Node.
//!
//! In: watch streams. Out: level-triggered snapshots on `watch` channels, with
//! objects shared, never copied. A relist replaces a snapshot in one step when
//! it is complete; while the API server is away the last snapshot stays.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::client::ApiServer;
use crate::error::chain;
use crate::pod::PodUid;

/// A watch call ends after this many seconds and is resumed where it stood.
const WATCH_SECONDS: u32 = 285;

/// All pods that the API server has bound to this node, mirror pods included.
#[derive(Debug, Clone, Default)]
pub struct PodSnapshot {
    /// Whether the API server has listed our pods at least once.
    pub synced: bool,
    pub pods: Arc<BTreeMap<PodUid, Arc<Pod>>>,
}

/// The newest snapshot of our pods, and a signal of each change.
pub type PodFeed = watch::Receiver<PodSnapshot>;
/// Our Node object; `None` before it is registered, or once it is deleted.
pub type NodeFeed = watch::Receiver<Option<Arc<Node>>>;

/// Keeps a [`PodFeed`] up to date.
#[derive(Debug)]
pub struct PodReflector {
    api: Api<Pod>,
    selector: String,
    out: watch::Sender<PodSnapshot>,
}

/// Keeps a [`NodeFeed`] up to date.
#[derive(Debug)]
pub struct NodeReflector {
    api: Api<Node>,
    selector: String,
    out: watch::Sender<Option<Arc<Node>>>,
}

impl ApiServer {
    /// Our pods of all namespaces. Nothing happens until the reflector runs.
    #[must_use]
    pub fn reflect_pods(&self) -> (PodReflector, PodFeed) {
        let (out, feed) = watch::channel(PodSnapshot::default());
        let reflector = PodReflector {
            api: Api::all(self.client.clone()),
            selector: format!("spec.nodeName={}", self.node_name),
            out,
        };
        (reflector, feed)
    }

    /// Our Node object. Nothing happens until the reflector runs.
    #[must_use]
    pub fn reflect_node(&self) -> (NodeReflector, NodeFeed) {
        let (out, feed) = watch::channel(None);
        let reflector = NodeReflector {
            api: Api::all(self.client.clone()),
            selector: format!("metadata.name={}", self.node_name),
            out,
        };
        (reflector, feed)
    }
}

impl PodReflector {
    /// Follows our pods until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut listed = BTreeMap::new();
        let out = self.out;
        let fold = |event| fold_pod(&out, &mut listed, event);
        let selection = watcher::Config::default().fields(&self.selector);
        follow(Topic::loud("pods"), self.api, selection, &shutdown, fold).await;
    }
}

impl NodeReflector {
    /// Follows our Node until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut listed = None;
        let out = self.out;
        let fold = |event| fold_node(&out, &mut listed, event);
        let selection = watcher::Config::default().fields(&self.selector);
        follow(Topic::loud("node"), self.api, selection, &shutdown, fold).await;
    }
}

/// Takes one event into the snapshot; `listed` gathers a relist until it is
/// complete.
fn fold_pod(
    out: &watch::Sender<PodSnapshot>,
    listed: &mut BTreeMap<PodUid, Arc<Pod>>,
    event: Event<Pod>,
) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(pod) => {
            listed.extend(by_uid(pod));
        }
        Event::InitDone => {
            let pods = Arc::new(std::mem::take(listed));
            out.send_replace(PodSnapshot { synced: true, pods });
        }
        Event::Apply(pod) => {
            if let Some((uid, pod)) = by_uid(pod) {
                out.send_modify(|snapshot| {
                    Arc::make_mut(&mut snapshot.pods).insert(uid, pod);
                });
            }
        }
        Event::Delete(pod) => {
            if let Some((uid, _)) = by_uid(pod) {
                out.send_modify(|snapshot| {
                    Arc::make_mut(&mut snapshot.pods).remove(&uid);
                });
            }
        }
    }
}

/// The API server gives every object a UID; one without cannot be told from
/// its successor of the same name and is left out.
fn by_uid(pod: Pod) -> Option<(PodUid, Arc<Pod>)> {
    let uid = PodUid::from(pod.metadata.uid.as_deref()?);
    Some((uid, Arc::new(pod)))
}

fn fold_node(
    out: &watch::Sender<Option<Arc<Node>>>,
    listed: &mut Option<Arc<Node>>,
    event: Event<Node>,
) {
    match event {
        Event::Init => *listed = None,
        Event::InitApply(node) => *listed = Some(Arc::new(node)),
        Event::InitDone => {
            out.send_replace(listed.take());
        }
        Event::Apply(node) => {
            out.send_replace(Some(Arc::new(node)));
        }
        Event::Delete(_) => {
            out.send_replace(None);
        }
    }
}

/// What a watch is about, in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topic {
    what: &'static str,
    manner: Manner,
    /// What is to be granted, and how, if the API server refuses the watch.
    permission: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum Manner {
    Loud,
    Quiet,
}

impl Topic {
    /// One of the few watches that everything hangs on: failures are warnings.
    pub(super) fn loud(what: &'static str) -> Self {
        Self::new(what, Manner::Loud)
    }

    /// One of many watches, which the others' warnings speak for.
    pub(super) fn quiet(what: &'static str) -> Self {
        Self::new(what, Manner::Quiet)
    }

    fn new(what: &'static str, manner: Manner) -> Self {
        Self {
            what,
            manner,
            permission: None,
        }
    }

    /// A watch that nodes may not make everywhere.
    pub(super) fn needing(self, permission: &'static str) -> Self {
        Self {
            permission: Some(permission),
            ..self
        }
    }

    fn failed(self, error: &watcher::Error) {
        let what = self.what;
        let missing = self.permission.filter(|_| is_forbidden(error));
        let error = chain(error);
        match (missing, self.manner) {
            (Some(missing), _) => {
                tracing::warn!(what, missing, %error, "the API server refuses a watch; it is tried again");
            }
            (None, Manner::Loud) => tracing::warn!(what, %error, "watch of the API server failed"),
            (None, Manner::Quiet) => {
                tracing::debug!(what, %error, "watch of the API server failed");
            }
        }
    }

    fn is_back(self) {
        let what = self.what;
        match self.manner {
            Manner::Loud => tracing::info!(what, "watch of the API server is back"),
            Manner::Quiet => tracing::debug!(what, "watch of the API server is back"),
        }
    }
}

/// A series of failures of one watch.
struct Failing {
    pauses: Backoff,
    /// Whether somebody has been told that a permission is missing: another
    /// matter than the server's being away, which may have come first.
    is_refusal_told: bool,
}

impl Failing {
    fn new() -> Self {
        Self {
            pauses: Backoff::new(),
            is_refusal_told: false,
        }
    }
}

/// Feeds `fold` with the events of a watch that heals itself, until shutdown.
pub(super) async fn follow<K>(
    topic: Topic,
    api: Api<K>,
    selection: watcher::Config,
    shutdown: &CancellationToken,
    mut fold: impl FnMut(Event<K>),
) where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = selection.timeout(WATCH_SECONDS);
    let start = || watcher(api.clone(), config.clone());
    let mut events = pin!(start());
    let mut failing: Option<Failing> = None;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                // `Init` is the watcher's own announcement, not an answer.
                if !matches!(event, Event::Init) && failing.take().is_some() {
                    topic.is_back();
                }
                fold(event.modify(|object| object.meta_mut().managed_fields = None));
            }
            Some(Err(error)) => {
                if needs_relist(&error) {
                    events.set(start());
                }
                let is_first = failing.is_none();
                let series = failing.get_or_insert_with(Failing::new);
                let is_refusal = topic.permission.is_some() && is_forbidden(&error);
                if is_first || (is_refusal && !series.is_refusal_told) {
                    topic.failed(&error);
                }
                series.is_refusal_told |= is_refusal;
                let pause = series.pauses.next();
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            None => events.set(start()),
        }
    }
}

/// Whether resuming is hopeless because the server does not know our version:
/// too old (410), or from before its store was restored (504).
fn needs_relist(error: &watcher::Error) -> bool {
    let is_listing = matches!(error, watcher::Error::InitialListFailed(_));
    !is_listing && matches!(code(error), Some(400 | 410 | 504))
}

fn is_forbidden(error: &watcher::Error) -> bool {
    code(error) == Some(403)
}

/// The HTTP status, if the server gave one.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}
