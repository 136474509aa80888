//! The pure part of recording: which occurrences become an Event object, which
//! raise the count of an earlier one, which are combined and which are dropped.
//!
//! Time comes with each occurrence. Memory is bounded: what was least recently
//! seen is forgotten, which at worst makes a new Event object of a repeat.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use lru::LruCache;

use crate::apiserver::limit::{Rate, TokenBucket};
use crate::pod::Severity;

/// Entries in each memory: ten different events for each of a hundred pods.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
/// Messages of one kind within [`SIMILAR_WINDOW`] that are told one by one.
const SIMILAR_TOLD: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
const COMBINED: &str = "(combined from similar events): ";
/// Events about one object and of one type.
const SPAM_RATE: Rate = Rate {
    per_second: 1.0 / 300.0,
    burst: 25,
};

/// Who tells: the agent does two components' work, and selectors rely on their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reporter {
    Kubelet,
    KubeProxy {
        /// The event's field of that name, which kubelet's events lack.
        action: &'static str,
    },
}

impl Reporter {
    fn component(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::KubeProxy { .. } => "kube-proxy",
        }
    }

    fn action(self) -> Option<&'static str> {
        match self {
            Self::Kubelet => None,
            Self::KubeProxy { action } => Some(action),
        }
    }

    /// Which of the component's instances it is.
    fn instance(self, node_name: &str) -> String {
        match self {
            Self::Kubelet => node_name.to_owned(),
            Self::KubeProxy { .. } => format!("kube-proxy-{node_name}"),
        }
    }
}

/// Something that happened, as recorded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Occurrence {
    pub(super) regarding: ObjectReference,
    pub(super) reporter: Reporter,
    pub(super) severity: Severity,
    pub(super) reason: Cow<'static, str>,
    pub(super) message: String,
    pub(super) at: Timestamp,
}

/// What to write about an occurrence.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// A new object.
    Create(Event),
    /// An object that was written before, as it should be now: its count, last
    /// time and message have changed.
    Repeat(Event),
    /// Too much about this object already.
    Drop,
}

/// What an event is about, without its message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    object: Object,
    reporter: Reporter,
    field_path: Option<String>,
    severity: Severity,
    reason: Cow<'static, str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Object {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

/// Messages of one [`Kind`] told lately.
#[derive(Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

/// The object that stands for all repeats.
#[derive(Debug)]
struct Told {
    name: String,
    first: Timestamp,
    count: i32,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Correlator {
    node_name: Arc<str>,
    similar: LruCache<Kind, Similar>,
    /// Keyed by message too; `None`: the combined event of that kind.
    told: LruCache<(Kind, Option<String>), Told>,
    spam: LruCache<(Object, Reporter, Severity), TokenBucket>,
}

impl Correlator {
    pub(super) fn new(node_name: Arc<str>) -> Self {
        Self {
            node_name,
            similar: LruCache::new(REMEMBERED),
            told: LruCache::new(REMEMBERED),
            spam: LruCache::new(REMEMBERED),
        }
    }

    /// Decides about one occurrence and remembers it.
    pub(super) fn judge(&mut self, occurrence: Occurrence) -> Verdict {
        let kind = Kind::of(&occurrence);
        let spam_key = (kind.object.clone(), kind.reporter, kind.severity);
        let combined = self.is_one_too_many(&kind, &occurrence);
        // Dropped occurrences count as well: the next one that is told says so.
        let verdict = self.count(kind, combined, &occurrence);
        if self.is_spam(spam_key, occurrence.at) {
            Verdict::Drop
        } else {
            verdict
        }
    }

    /// Whether there were too many messages of this kind lately to tell each.
    fn is_one_too_many(&mut self, kind: &Kind, occurrence: &Occurrence) -> bool {
        let similar = self.similar.get_or_insert_mut(kind.clone(), || Similar {
            messages: BTreeSet::new(),
            last: occurrence.at,
        });
        if age(similar.last, occurrence.at) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = occurrence.at;
        if similar.messages.contains(&occurrence.message) {
            return false;
        }
        if similar.messages.len() >= SIMILAR_TOLD {
            return true;
        }
        similar.messages.insert(occurrence.message.clone());
        false
    }

    fn count(&mut self, kind: Kind, combined: bool, occurrence: &Occurrence) -> Verdict {
        let key = (kind, (!combined).then(|| occurrence.message.clone()));
        let told = self.told.get_or_insert_mut(key, || Told {
            name: event_name(occurrence),
            first: occurrence.at,
            count: 0,
        });
        told.count = told.count.saturating_add(1);
        let message = if combined {
            format!("{COMBINED}{}", occurrence.message)
        } else {
            occurrence.message.clone()
        };
        let event = render(&self.node_name, told, occurrence, message);
        if told.count == 1 {
            Verdict::Create(event)
        } else {
            Verdict::Repeat(event)
        }
    }

    fn is_spam(&mut self, key: (Object, Reporter, Severity), at: Timestamp) -> bool {
        let since_epoch = Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
        let bucket = self
            .spam
            .get_or_insert_mut(key, || TokenBucket::full(SPAM_RATE, since_epoch));
        !bucket.try_take(since_epoch)
    }
}

impl Kind {
    fn of(occurrence: &Occurrence) -> Self {
        let regarding = &occurrence.regarding;
        Self {
            object: Object {
                kind: regarding.kind.clone(),
                namespace: regarding.namespace.clone(),
                name: regarding.name.clone(),
                uid: regarding.uid.clone(),
            },
            reporter: occurrence.reporter,
            field_path: regarding.field_path.clone(),
            severity: occurrence.severity,
            reason: occurrence.reason.clone(),
        }
    }
}

fn age(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or_default()
}

/// Unique for an object, as long as two of its events are a nanosecond apart.
fn event_name(occurrence: &Occurrence) -> String {
    let object = occurrence.regarding.name.as_deref().unwrap_or_default();
    format!("{object}.{:x}", occurrence.at.as_nanosecond())
}

fn render(node_name: &Arc<str>, told: &Told, occurrence: &Occurrence, message: String) -> Event {
    // Events of objects without a namespace live in this one.
    let namespace = occurrence.regarding.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| "default".into());
    let reporter = occurrence.reporter;
    Event {
        metadata: ObjectMeta {
            name: Some(told.name.clone()),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: occurrence.regarding.clone(),
        type_: Some(occurrence.severity.as_str().into()),
        reason: Some(occurrence.reason.to_string()),
        message: Some(message),
        count: Some(told.count),
        first_timestamp: Some(Time(told.first)),
        last_timestamp: Some(Time(occurrence.at)),
        action: reporter.action().map(str::to_owned),
        source: Some(EventSource {
            component: Some(reporter.component().into()),
            host: Some(node_name.to_string()),
        }),
        reporting_component: Some(reporter.component().into()),
        reporting_instance: Some(reporter.instance(node_name)),
        ..Event::default()
    }
}
