//! Whether somebody else programs Services on this node. Pure.
//!
//! In: the pods of this node, and which processes write rules into our chains. Out: a
//! [`Verdict`], whether to run with it, and what to tell: a condition of the Node, an
//! event, a log line.
//!
//! The rules of both have the same names, so that whoever stops leaves them to the
//! other and no connection is lost. Two who write at the same time lose some: the
//! agent's proxy steps back, unless it is told to stay.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, NodeCondition, Pod};

use crate::apiserver::{ProxyEvent, ProxyEventAbout};
use crate::pod::Severity;

/// The condition of the Node. False is what one wants to see.
pub const CONDITION: &str = "ServiceProxyConflict";

const KUBE_PROXY: &str = "kube-proxy";

/// So many writes of one process within [`WINDOW`] are no accident: somebody who
/// restores a saved set of rules does it once.
const WRITES: usize = 3;
const WINDOW: Duration = Duration::from_secs(600);
/// How long a process that wrote must have been silent before it counts as gone.
const SILENCE: Duration = Duration::from_secs(3600);
/// The same after a change that it should have followed. Upstream writes within its
/// `minSyncPeriod` of a second, and 30 s after a failure.
const FOLLOWS: Duration = Duration::from_secs(60);
/// It may hear of a change, and write, so long before we hear of the change.
const AHEAD: Duration = Duration::from_secs(3);
/// Writes that are remembered: enough for one process among several to be seen.
const REMEMBERED: usize = 64;

/// Whose work the Services of this node are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Ours.
    Alone,
    /// A kube-proxy runs in this pod, or is to run. Shown as `namespace/name`.
    KubeProxyPod { name: String },
    /// A process of this name, in no pod that we know, writes our rules again and
    /// again.
    RewrittenByAnother { process: String },
}

/// What `--service-proxy` says, if it is not `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Run if nobody else does.
    Auto,
    /// Run.
    On,
}

impl Mode {
    /// Whether the proxy is to run. One that is not leaves the rules as they are.
    #[must_use]
    pub fn runs(self, verdict: &Verdict) -> bool {
        self == Self::On || *verdict == Verdict::Alone
    }
}

/// The verdict from the pods that are bound to this node, static ones too, and the
/// process that [`Rewrites::culprit`] names.
#[must_use]
pub fn judge<'a>(pods: impl IntoIterator<Item = &'a Pod>, culprit: Option<&str>) -> Verdict {
    let names = pods
        .into_iter()
        .filter(|pod| is_kube_proxy(pod))
        .map(|pod| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let meta = &pod.metadata;
            format!("{}/{}", text(&meta.namespace), text(&meta.name))
        });
    // The first by name, so that the verdict is the same however pods are sorted.
    if let Some(name) = names.min() {
        return Verdict::KubeProxyPod { name };
    }
    match culprit {
        Some(process) => Verdict::RewrittenByAnother {
            process: process.to_owned(),
        },
        None => Verdict::Alone,
    }
}

/// Whether this pod is a kube-proxy that runs or is to run. One that is being deleted
/// counts for as long as it is there.
#[must_use]
pub fn is_kube_proxy(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    is_labelled(pod) || is_of_daemon_set(pod) || containers(pod).any(runs_kube_proxy)
}

fn is_labelled(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    pod.metadata.namespace.as_deref() == Some("kube-system")
        && labels
            .and_then(|labels| labels.get("k8s-app"))
            .map(String::as_str)
            == Some(KUBE_PROXY)
}

fn is_of_daemon_set(pod: &Pod) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners
        .iter()
        .any(|owner| owner.kind == "DaemonSet" && owner.name == KUBE_PROXY)
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

/// By its command. An image's own entry point is not known here.
fn runs_kube_proxy(container: &Container) -> bool {
    let command = container.command.as_deref().and_then(<[String]>::first);
    command.is_some_and(|path| path.rsplit('/').next() == Some(KUBE_PROXY))
}

/// Who wrote rules into our chains lately. Bounded.
#[derive(Debug, Clone, Default)]
pub struct Rewrites {
    /// Oldest first.
    writes: VecDeque<(Instant, String)>,
    culprit: Option<Culprit>,
}

/// A process that keeps writing our rules.
#[derive(Debug, Clone)]
struct Culprit {
    process: String,
    last: Instant,
    /// Since when there is a change that it has not written.
    owes: Option<Instant>,
}

impl Culprit {
    /// When it counts as gone, if it does not write before.
    fn gone_at(&self) -> Instant {
        let silent = self.last + SILENCE;
        self.owes
            .map_or(silent, |since| silent.min(since + FOLLOWS))
    }
}

impl Rewrites {
    /// Another process, of this name, put rules into chains of ours. Removal of rules
    /// is no write: a firewall that is flushed is to be put right, as often as need be.
    pub fn note(&mut self, process: &str, at: Instant) {
        self.forget_gone(at);
        self.writes
            .retain(|(when, _)| at.saturating_duration_since(*when) < WINDOW);
        if self.writes.len() == REMEMBERED {
            self.writes.pop_front();
        }
        self.writes.push_back((at, process.to_owned()));
        let count = self.writes.iter().filter(|(_, who)| who == process).count();
        let is_known = matches!(&self.culprit, Some(known) if known.process == process);
        if is_known || count >= WRITES {
            self.culprit = Some(Culprit {
                process: process.to_owned(),
                last: at,
                owes: None,
            });
        }
    }

    /// Services have changed, so that whoever programs them has to write.
    pub fn expect(&mut self, at: Instant) {
        if let Some(culprit) = &mut self.culprit
            && at.saturating_duration_since(culprit.last) >= AHEAD
        {
            culprit.owes.get_or_insert(at);
        }
    }

    /// The process that keeps writing our rules: until it was silent for an hour, or for
    /// a minute although there was something to write.
    #[must_use]
    pub fn culprit(&self) -> Option<&str> {
        let culprit = self.culprit.as_ref()?;
        Some(&culprit.process)
    }

    /// When that process counts as gone, if it writes nothing until then.
    #[must_use]
    pub fn gone_at(&self) -> Option<Instant> {
        self.culprit.as_ref().map(Culprit::gone_at)
    }

    /// Forgets a process that counts as gone, with what it wrote.
    pub fn forget_gone(&mut self, now: Instant) {
        if let Some(gone) = self.culprit.take_if(|culprit| culprit.gone_at() <= now) {
            self.writes.retain(|(_, who)| *who != gone.process);
        }
    }
}

/// The Node's condition, without times. `None`: there is nobody else, and the Node says
/// nothing of it, as upstream's.
#[must_use]
pub fn condition(verdict: &Verdict, mode: Mode) -> Option<NodeCondition> {
    let reason = match verdict {
        Verdict::Alone => return None,
        Verdict::KubeProxyPod { .. } => "KubeProxyPod",
        Verdict::RewrittenByAnother { .. } => "RewrittenByAnother",
    };
    let status = if is_conflict(verdict, mode) {
        "True"
    } else {
        "False"
    };
    Some(NodeCondition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(describe(verdict, mode)),
        ..NodeCondition::default()
    })
}

/// The event of a change of verdict; `None` if it is not worth one. `before` is `None`
/// for the first verdict.
#[must_use]
pub fn event(before: Option<&Verdict>, verdict: &Verdict, mode: Mode) -> Option<ProxyEvent> {
    let is_news = match before {
        None => *verdict != Verdict::Alone,
        Some(before) => before != verdict,
    };
    let (severity, reason) = if is_conflict(verdict, mode) {
        (Severity::Warning, "ServiceProxyConflict")
    } else if mode.runs(verdict) {
        (Severity::Normal, "ServiceProxyTakesOver")
    } else {
        (Severity::Normal, "ServiceProxyStandsAside")
    };
    is_news.then(|| ProxyEvent {
        about: ProxyEventAbout::Node,
        severity,
        reason,
        action: "DetectKubeProxy",
        message: describe(verdict, mode),
    })
}

/// Whether somebody has to do something about it. To stand aside for a pod that the
/// cluster wants here is in order.
fn is_conflict(verdict: &Verdict, mode: Mode) -> bool {
    match verdict {
        Verdict::Alone => false,
        Verdict::KubeProxyPod { .. } => mode == Mode::On,
        Verdict::RewrittenByAnother { .. } => true,
    }
}

/// For people: what is, and what they can do about it.
#[must_use]
pub fn describe(verdict: &Verdict, mode: Mode) -> String {
    match (verdict, mode) {
        (Verdict::Alone, _) => "Services of this node are the agent's work alone".to_owned(),
        (Verdict::KubeProxyPod { name }, Mode::Auto) => format!(
            "Services of this node are the work of pod {name}; the agent's service proxy stands \
             aside, and takes over when that pod is gone"
        ),
        (Verdict::KubeProxyPod { name }, Mode::On) => format!(
            "pod {name} and the agent's service proxy both program Services of this node; keep \
             the pod off it, or set --service-proxy=auto"
        ),
        (Verdict::RewrittenByAnother { process }, Mode::Auto) => format!(
            "processes named {process} keep writing the rules of Services, so the agent's service \
             proxy stands aside; stop them, or set --service-proxy=off"
        ),
        (Verdict::RewrittenByAnother { process }, Mode::On) => format!(
            "processes named {process} keep writing the rules of Services, and so does the \
             agent's service proxy; stop them, or set --service-proxy=off"
        ),
    }
}

#[cfg(test)]
mod tests;
