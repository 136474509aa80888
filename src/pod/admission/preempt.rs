//! Which pods make room for a critical one.
//!
//! In: what is short, and the pods that are here. Out: the pods to end. As few
//! of the better classes as will do; within a class those that come closest to
//! what is missing.

use std::cmp::Ordering;

use super::claim::Claim;
use super::fit::Shortage;
use crate::pod::model::DesiredPod;
use crate::pod::qos::{self, QosClass};
use crate::pod::resources::{CPU, MEMORY};

/// Reason in the status and the event of a pod that had to make room.
pub const REASON: &str = "Preempting";
/// The same for people.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";

/// What `DisruptionTarget` says of a pod that has to make room.
pub const DISRUPTION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// A pod that is here, and what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub pod: &'a DesiredPod,
    pub claim: &'a Claim,
}

/// Even all pods that may be ended would not make enough room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no set of running pods found to reclaim resources: {}", list(.0))]
pub struct NotEnough(Vec<Need>);

/// How much of a resource must become free.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    resource: String,
    amount: i64,
}

fn list(needs: &[Need]) -> String {
    let needs: String = needs
        .iter()
        .map(|need| format!("(res: {}, q: {}), ", need.resource, need.amount))
        .collect();
    format!("[{needs}]")
}

/// Chooses the pods to end so that `shortages` are over.
///
/// # Errors
/// If there are not enough.
pub fn victims<'a>(
    preemptor: &DesiredPod,
    here: impl IntoIterator<Item = Candidate<'a>>,
    shortages: &[Shortage],
) -> Result<Vec<Candidate<'a>>, NotEnough> {
    let needs: Vec<Need> = shortages
        .iter()
        .map(|shortage| Need {
            resource: shortage.resource.clone(),
            amount: shortage.missing(),
        })
        .collect();
    let all: Vec<Candidate<'_>> = here
        .into_iter()
        .filter(|candidate| gives_way(candidate.pod, preemptor))
        .collect();
    let of = |class| -> Vec<_> {
        let in_class = |candidate: &&Candidate<'_>| qos::class(&candidate.pod.pod) == class;
        all.iter().filter(in_class).copied().collect()
    };
    let (best_effort, burstable) = (of(QosClass::BestEffort), of(QosClass::Burstable));
    let short = left(&needs, &all);
    if !short.is_empty() {
        return Err(NotEnough(short));
    }
    // Each class gives what the other two, the better one already reduced to
    // what it must give, leave open.
    let others = [best_effort.clone(), burstable.clone()].concat();
    let guaranteed = closest(of(QosClass::Guaranteed), left(&needs, &others))?;
    let others = [best_effort.clone(), guaranteed.clone()].concat();
    let burstable = closest(burstable, left(&needs, &others))?;
    let others = [burstable.clone(), guaranteed.clone()].concat();
    let best_effort = closest(best_effort, left(&needs, &others))?;
    Ok([best_effort, burstable, guaranteed].concat())
}

/// Critical pods stay, but for those of lower priority.
fn gives_way(pod: &DesiredPod, preemptor: &DesiredPod) -> bool {
    let priority = |pod: &DesiredPod| pod.pod.spec.as_ref().and_then(|spec| spec.priority);
    let is_lower = match (priority(pod), priority(preemptor)) {
        (Some(here), Some(comes)) => comes > here,
        _ => false,
    };
    qos::is_critical(preemptor) && !qos::is_critical(pod) || is_lower
}

/// What is still needed once all of `pods` are gone.
fn left(needs: &[Need], pods: &[Candidate<'_>]) -> Vec<Need> {
    let gone = Claim::sum(pods.iter().map(|candidate| candidate.claim));
    needs
        .iter()
        .map(|need| Need {
            resource: need.resource.clone(),
            amount: need.amount.saturating_sub(gone.amount(&need.resource)),
        })
        .filter(|need| need.amount > 0)
        .collect()
}

/// Takes the pod closest to the needs, until there are none.
fn closest<'a>(
    mut pods: Vec<Candidate<'a>>,
    mut needs: Vec<Need>,
) -> Result<Vec<Candidate<'a>>, NotEnough> {
    let mut taken = Vec::new();
    while !needs.is_empty() {
        let best = pods.iter().enumerate().min_by(|(_, a), (_, b)| {
            distance(&needs, a.claim)
                .total_cmp(&distance(&needs, b.claim))
                .then_with(|| by_size(a.claim, b.claim))
        });
        let Some((index, _)) = best else {
            return Err(NotEnough(needs));
        };
        let chosen = pods.swap_remove(index);
        needs = left(&needs, &[chosen]);
        taken.push(chosen);
    }
    Ok(taken)
}

/// The sum over resources of the part that would stay open, squared: 0 if the
/// claim covers all needs.
fn distance(needs: &[Need], claim: &Claim) -> f64 {
    needs
        .iter()
        .map(|need| {
            let open = need.amount.saturating_sub(claim.amount(&need.resource));
            (open.max(0) as f64 / need.amount as f64).powi(2)
        })
        .sum()
}

fn by_size(a: &Claim, b: &Claim) -> Ordering {
    let size = |claim: &Claim| (claim.amount(MEMORY), claim.amount(CPU));
    size(a).cmp(&size(b))
}
