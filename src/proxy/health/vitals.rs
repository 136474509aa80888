//! What is known of the proxy's health, and what it means. Pure: time is given.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde::Serialize;

use crate::proxy::model::Family;

/// Cluster Autoscaler's taint of a node that it is about to remove: load balancers
/// are to send it nothing new.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// How Go writes a time that never was.
const NEVER: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// What the Node says about taking new connections from load balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodePart {
    /// Not read yet, or there is none to read: standalone.
    #[default]
    Unknown,
    /// It takes connections.
    Eligible,
    /// There is no Node, or it is about to go.
    Leaving,
}

impl NodePart {
    /// What this Node says; `None`: the API server has none.
    #[must_use]
    pub fn of(node: Option<&Node>) -> Self {
        let Some(node) = node else {
            return Self::Leaving;
        };
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
        let is_to_go = taints
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == TO_BE_DELETED);
        if is_to_go || node.metadata.deletion_timestamp.is_some() {
            Self::Leaving
        } else {
            Self::Eligible
        }
    }
}

/// Upstream's answer to those who ask. `/livez` says nothing of the Node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When rules were brought up to date last, in any family; now, if all is well.
    pub last_updated: Timestamp,
    pub current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_eligible: Option<bool>,
    /// Whether the proxy does its work, whatever the Node says.
    pub healthy: bool,
    /// By `IPv4` and `IPv6`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<&'static str, FamilyReport>,
}

/// One family's part of a [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyReport {
    pub last_updated: Timestamp,
    pub healthy: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Vitals {
    patience: Duration,
    families: BTreeMap<Family, Pulse>,
    node: NodePart,
}

#[derive(Debug, Default)]
struct Pulse {
    /// When the oldest change came that the rules do not have.
    waiting_since: Option<Instant>,
    /// When the newest change came.
    last_queued: Option<Instant>,
    updated: Option<Timestamp>,
}

impl Vitals {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            families: BTreeMap::new(),
            node: NodePart::default(),
        }
    }

    pub(super) fn queued(&mut self, family: Family, at: Instant) {
        let pulse = self.families.entry(family).or_default();
        pulse.waiting_since.get_or_insert(at);
        pulse.last_queued = Some(at);
    }

    pub(super) fn updated(&mut self, family: Family, began: Instant, now: Timestamp) {
        let pulse = self.families.entry(family).or_default();
        // What came while the rules were written waits for the next round.
        pulse.waiting_since = pulse.last_queued.filter(|queued| *queued >= began);
        pulse.updated = Some(now);
    }

    pub(super) fn rest(&mut self) {
        self.families.clear();
    }

    pub(super) fn set_node(&mut self, node: NodePart) {
        self.node = node;
    }

    pub(super) fn report(&self, at: Instant, now: Timestamp) -> Report {
        let status: BTreeMap<&'static str, FamilyReport> = self
            .families
            .iter()
            .filter_map(|(family, pulse)| Some((family.as_str(), self.judge(pulse, at)?)))
            .collect();
        let last_updated = status.values().map(|family| family.last_updated).max();
        Report {
            last_updated: last_updated.unwrap_or(NEVER),
            current_time: now,
            node_eligible: Some(self.node != NodePart::Leaving),
            healthy: status.values().all(|family| family.healthy),
            status,
        }
    }

    /// `None`: a family that never had rules, and need not have them yet.
    fn judge(&self, pulse: &Pulse, at: Instant) -> Option<FamilyReport> {
        let waits = |since| at.saturating_duration_since(since) >= self.patience;
        let is_late = pulse.waiting_since.is_some_and(waits);
        (is_late || pulse.updated.is_some()).then(|| FamilyReport {
            last_updated: pulse.updated.unwrap_or(NEVER),
            healthy: !is_late,
        })
    }
}

#[cfg(test)]
mod tests;
