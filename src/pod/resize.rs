//! In-place resize: which resources a pod has been given, and what a new wish
//! changes. Pure.
//!
//! A pod is run with its *allocation*: the resources that this node granted it.
//! A new wish becomes the allocation if the node has room for it, and is
//! deferred otherwise. Whoever runs or restarts the pod's containers sees the pod
//! as [`allocate`] returns it, with its allocation in the place of the wish.
//!
//! The allocation is kept in the pod's own status, where readers look for it
//! (`resources` of its containers), and nowhere else: an agent that was restarted
//! reads it there ([`Allocation::recorded`]). A status that was never delivered
//! means that the wish is judged again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::Serialize;

use super::cgroup::PodCgroup;
use super::containers::{init, regular};
use super::memory::Failure;
use super::model::{DesiredPod, Intent};
use super::observed::ContainerId;
use super::resources::{CPU, MEMORY, Resources};

/// The condition of a resize that is being carried out.
pub const IN_PROGRESS: &str = "PodResizeInProgress";
/// The condition of a resize that waits.
pub const PENDING: &str = "PodResizePending";
/// Why one waits.
pub const DEFERRED: &str = "Deferred";
/// Why one does not get on.
pub const ERROR: &str = "Error";

/// The only resources of a running pod that may change.
const RESIZABLE: [&str; 2] = [CPU, MEMORY];

/// Requests and limits by container name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allocation(BTreeMap<String, ResourceRequirements>);

impl Allocation {
    /// What the pod asks for.
    #[must_use]
    pub fn wished(pod: &Pod) -> Self {
        let entry = |c: &Container| (c.name.clone(), c.resources.clone().unwrap_or_default());
        Self(containers(pod).map(entry).collect())
    }

    /// What the pod was given, as its status has it; what it asks for where the
    /// status says nothing.
    #[must_use]
    pub fn recorded(pod: &Pod) -> Self {
        let mut allocation = Self::wished(pod);
        let Some(status) = &pod.status else {
            return allocation;
        };
        let statuses = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .flatten();
        for told in statuses {
            if let Some(entry) = allocation.0.get_mut(&told.name)
                && let Some(given) = &told.resources
            {
                adopt(entry, given);
            }
        }
        allocation
    }

    /// The containers whose CPU or memory differ, and which of the two.
    #[must_use]
    pub fn changes(&self, to: &Self) -> BTreeMap<String, BTreeSet<String>> {
        let changed = |name: &String, wish: &ResourceRequirements| {
            let (old, new) = (
                Resources::read(self.0.get(name)),
                Resources::read(Some(wish)),
            );
            RESIZABLE
                .iter()
                .filter(|resource| {
                    old.requests.get(resource) != new.requests.get(resource)
                        || old.limits.get(resource) != new.limits.get(resource)
                })
                .map(|resource| (*resource).to_owned())
                .collect::<BTreeSet<_>>()
        };
        to.0.iter()
            .map(|(name, wish)| (name.clone(), changed(name, wish)))
            .filter(|(_, changed)| !changed.is_empty())
            .collect()
    }

    /// The pod with this allocation in the place of what it asks for.
    fn give(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if let Some(spec) = &mut pod.spec {
            let init = spec.init_containers.iter_mut().flatten();
            for container in spec.containers.iter_mut().chain(init) {
                if let Some(given) = self.0.get(&container.name) {
                    adopt(container.resources.get_or_insert_default(), given);
                }
            }
        }
        pod
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    regular(pod).iter().chain(init(pod))
}

/// Takes over what can be resized; all else stays.
fn adopt(into: &mut ResourceRequirements, from: &ResourceRequirements) {
    let take = |into: &mut Option<BTreeMap<String, ApiQuantity>>,
                from: &Option<BTreeMap<String, ApiQuantity>>| {
        let mut list = into.take().unwrap_or_default();
        for resource in RESIZABLE {
            match from.as_ref().and_then(|from| from.get(resource)) {
                Some(amount) => list.insert(resource.to_owned(), amount.clone()),
                None => list.remove(resource),
            };
        }
        *into = (!list.is_empty()).then_some(list);
    };
    take(&mut into.requests, &from.requests);
    take(&mut into.limits, &from.limits);
}

/// A wish, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocated {
    /// The pod to run.
    pub pod: Arc<DesiredPod>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The pod has what it asks for.
    Unchanged,
    /// It gets what it asks for. By container: which resources change.
    Granted(BTreeMap<String, BTreeSet<String>>),
    /// It keeps what it has, for this reason.
    Deferred(String),
}

/// The pod with what its status says it was given.
#[must_use]
pub fn recorded(wish: &Arc<DesiredPod>) -> Arc<DesiredPod> {
    keep(wish, &Allocation::recorded(&wish.pod))
}

/// The pod with what it `held` before, whatever it asks for now.
#[must_use]
pub fn keep(wish: &Arc<DesiredPod>, held: &Allocation) -> Arc<DesiredPod> {
    if held.changes(&Allocation::wished(&wish.pod)).is_empty() {
        return wish.clone();
    }
    Arc::new(DesiredPod {
        pod: Arc::new(held.give(&wish.pod)),
        ..DesiredPod::clone(wish)
    })
}

/// Judges a wish of a pod that was given `held`. `room`: takes the room that the
/// node has for the pod as wished, or tells why there is none; called only if it
/// is needed. A pod that ends keeps what it has.
#[must_use]
pub fn allocate(
    wish: &Arc<DesiredPod>,
    held: &Allocation,
    room: impl FnOnce() -> Result<(), String>,
) -> Allocated {
    let changes = held.changes(&Allocation::wished(&wish.pod));
    let (pod, verdict) = if changes.is_empty() {
        (wish.clone(), Verdict::Unchanged)
    } else if wish.intent != Intent::Run {
        (keep(wish, held), Verdict::Unchanged)
    } else {
        match room() {
            Ok(()) => (wish.clone(), Verdict::Granted(changes)),
            Err(why) => (keep(wish, held), Verdict::Deferred(why)),
        }
    };
    Allocated { pod, verdict }
}

/// What is remembered of a pod's resize.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ResizeMemory {
    /// Why the last wish was not granted.
    pub deferred: Option<String>,
    /// A wish that was granted and is being carried out.
    pub underway: Option<Underway>,
}

impl ResizeMemory {
    /// What the last status told of, for an agent that was restarted meanwhile.
    #[must_use]
    pub fn recorded(pod: &Pod) -> Self {
        Self {
            deferred: condition(pod, PENDING).and_then(|told| told.message.clone()),
            underway: Underway::recorded(pod),
        }
    }
}

/// A condition that the last status told to be true.
fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let mut told = conditions.iter();
    told.find(|c| c.type_ == kind && c.status == "True")
}

/// A resize on its way.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Underway {
    /// Containers created later have the new resources from the start.
    pub since: Timestamp,
    /// By container: which resources change.
    pub changes: BTreeMap<String, BTreeSet<String>>,
    /// Instances that have the new resources by now.
    pub done: BTreeSet<ContainerId>,
    /// The pod's cgroup as it was; `None`: not known, or none.
    pub from: Option<PodCgroup>,
    /// What the pod's cgroup has by now; `None`: what it had.
    pub cgroup: Option<CgroupAim>,
    /// Why it did not get on, and when it is tried again.
    pub failure: Option<Failure>,
}

impl Underway {
    /// The resize that the last status told of, for an agent that was restarted
    /// in the middle of it: everything is done again, which changes nothing where
    /// it was done before.
    #[must_use]
    pub fn recorded(pod: &Pod) -> Option<Self> {
        let told = condition(pod, IN_PROGRESS)?;
        let all = || RESIZABLE.iter().map(|name| (*name).to_owned()).collect();
        Some(Self {
            since: told.last_transition_time.as_ref()?.0,
            changes: containers(pod).map(|c| (c.name.clone(), all())).collect(),
            done: BTreeSet::new(),
            from: None,
            cgroup: None,
            failure: None,
        })
    }
}

/// What the pod's cgroup is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum CgroupAim {
    /// Room for old and new, as some containers still have the old.
    Both,
    /// The new values.
    New,
}

/// Values that hurt neither what was nor what is to be: what the pod's cgroup
/// has while its containers change one after the other.
#[must_use]
pub fn envelope(from: &PodCgroup, to: &PodCgroup) -> PodCgroup {
    let looser = |a: Option<u64>, b: Option<u64>| Some(a?.max(b?));
    PodCgroup {
        cpu_shares: from.cpu_shares.max(to.cpu_shares),
        cpu_quota: looser(from.cpu_quota, to.cpu_quota),
        memory_limit: looser(from.memory_limit, to.memory_limit),
        ..to.clone()
    }
}

/// What events say about a resize, after its name and a colon: JSON with the
/// fields of upstream's, in their order.
#[must_use]
pub fn event_detail(pod: &Pod, error: Option<&str>) -> String {
    let detail = Detail {
        init_containers: init(pod).iter().map(Told::of).collect(),
        containers: regular(pod).iter().map(Told::of).collect(),
        generation: pod.metadata.generation.unwrap_or_default(),
        error,
    };
    // Maps with names for keys always have a JSON form.
    serde_json::to_string(&detail).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Told<'a>>,
    containers: Vec<Told<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

impl<'a> Told<'a> {
    fn of(container: &'a Container) -> Self {
        Self {
            name: &container.name,
            resources: container.resources.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
