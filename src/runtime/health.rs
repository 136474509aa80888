//! Is the runtime well? Asked for every few seconds, published when the answer
//! changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::client::{CriClient, RUNTIME_API_VERSION};
use super::{ConditionFailure, RUNTIME_DOWN, RuntimeError, RuntimeHandler, RuntimeHealth, cri};

#[cfg(test)]
mod tests;

const PERIOD: Duration = Duration::from_secs(5);

/// How long a runtime may be silent before it counts as down; as upstream. A
/// restart of the runtime fits in, so it does not make the node unready.
const TOLERANCE: Duration = Duration::from_secs(30);

/// A check that hangs ends in time to be told within the tolerance.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// Asks the runtime for its health, until shutdown.
pub(super) struct HealthTask {
    pub(super) client: CriClient,
    pub(super) health: Arc<watch::Sender<RuntimeHealth>>,
}

/// What a check brought.
struct Report {
    version: cri::VersionResponse,
    status: cri::StatusResponse,
}

impl HealthTask {
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_good = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let report = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                report = self.check() => report,
            };
            let now = Instant::now();
            if report.is_ok() {
                last_good = Some(now);
            }
            let silence = last_good.map(|good| now.duration_since(good));
            self.publish(report, silence);
        }
    }

    async fn check(&self) -> Result<Report, RuntimeError> {
        let version = self.client.version(CHECK_LIMIT).await?;
        if version.version != RUNTIME_API_VERSION {
            return Err(RuntimeError::Invalid {
                call: "Version",
                message: format!("unknown runtime API version {:?}", version.version),
            });
        }
        let status = self.client.status(CHECK_LIMIT).await?;
        Ok(Report { version, status })
    }

    fn publish(&self, report: Result<Report, RuntimeError>, silence: Option<Duration>) {
        if let Err(error) = &report {
            tracing::warn!(
                error = %crate::error::chain(error),
                "the runtime's health cannot be checked"
            );
        }
        self.health.send_if_modified(|health| {
            let next = judge(health, report, silence, Timestamp::now());
            let changed = !is_same(health, &next);
            if changed {
                tracing::info!(runtime = ?next.runtime, network = ?next.network, "runtime health");
            }
            // The time of the last good check is kept up to date silently.
            *health = next;
            changed
        });
    }
}

/// Whether nobody has to act on the difference.
fn is_same(old: &RuntimeHealth, new: &RuntimeHealth) -> bool {
    let old = RuntimeHealth {
        last_good: new.last_good,
        ..old.clone()
    };
    old == *new
}

/// The health that follows a check. `silence`: time since the last good one;
/// `None` if there was none.
fn judge(
    previous: &RuntimeHealth,
    report: Result<Report, RuntimeError>,
    silence: Option<Duration>,
    now: Timestamp,
) -> RuntimeHealth {
    match report {
        Ok(report) => healthy(report, now),
        Err(_) if silence.is_some_and(|silence| silence < TOLERANCE) => previous.clone(),
        Err(error) => RuntimeHealth {
            checked: true,
            runtime: Some(ConditionFailure {
                reason: RUNTIME_DOWN.to_owned(),
                message: format!("container runtime is down: {}", crate::error::chain(&error)),
            }),
            ..previous.clone()
        },
    }
}

fn healthy(report: Report, now: Timestamp) -> RuntimeHealth {
    let Report { version, status } = report;
    let conditions = status.status.unwrap_or_default().conditions;
    RuntimeHealth {
        checked: true,
        runtime: failure(&conditions, "RuntimeReady"),
        network: failure(&conditions, "NetworkReady"),
        last_good: Some(now),
        name: version.runtime_name,
        version: version.runtime_version,
        handlers: status.runtime_handlers.into_iter().map(handler).collect(),
        supplemental_groups_policy: status
            .features
            .is_some_and(|features| features.supplemental_groups_policy),
    }
}

/// Why the condition is not true; a condition not told counts as false.
fn failure(conditions: &[cri::RuntimeCondition], kind: &str) -> Option<ConditionFailure> {
    let Some(condition) = conditions.iter().find(|c| c.r#type == kind) else {
        return Some(ConditionFailure {
            reason: "Unknown".to_owned(),
            message: format!("the runtime does not tell condition {kind}"),
        });
    };
    (!condition.status).then(|| ConditionFailure {
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    })
}

fn handler(handler: cri::RuntimeHandler) -> RuntimeHandler {
    let features = handler.features.unwrap_or_default();
    RuntimeHandler {
        name: handler.name,
        recursive_read_only_mounts: features.recursive_read_only_mounts,
        user_namespaces: features.user_namespaces,
    }
}
