//! Pulls: shared when equal, capped in number and rate, in turns between pods,
//! and given up when nobody waits for them any more.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::super::client::CriClient;
use super::super::settings::PullRate;
use super::super::{ImageError, RunningPull, cri, encode};
use super::turns::Turns;
use super::{present, text};
use crate::pod::spec::{PresentImage, PullCredential};
use crate::pod::{PodName, WaitingReason};

/// Starts of runtime errors that are reasons of their own; CRI fixes them.
const TELLING_PREFIXES: [(&str, WaitingReason, &str); 2] = [
    (
        "RegistryUnavailable",
        WaitingReason::RegistryUnavailable,
        "the registry is unavailable",
    ),
    (
        "SignatureValidationFailed",
        WaitingReason::SignatureValidationFailed,
        "the signature validation failed",
    ),
];

/// What to pull, and as whom. Equal orders are one pull.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) spec: cri::ImageSpec,
    /// Tried one after the other; none: anonymous.
    pub(super) credentials: Vec<PullCredential>,
}

#[derive(Debug, Clone)]
pub(super) struct Pulled {
    pub(super) image: PresentImage,
    /// The credentials that worked; `None`: anonymously.
    pub(super) used: Option<PullCredential>,
    /// Bytes.
    pub(super) size: u64,
    /// Without the wait for a turn.
    pub(super) took: Duration,
}

type Pull = BoxFuture<'static, Result<Pulled, ImageError>>;

pub(super) struct Puller {
    desk: Arc<Desk>,
    /// Pulls that somebody may still wait for. The waiters own the pull, so
    /// one that all of them left ends by itself.
    under_way: Mutex<Vec<UnderWay>>,
}

struct UnderWay {
    order: Order,
    /// For which pods, in the order in which they came. One that leaves stays.
    pods: Vec<PodName>,
    since: jiff::Timestamp,
    /// Whether it has had its turn.
    begun: Arc<AtomicBool>,
    pull: WeakShared<Pull>,
}

/// What a pull needs to run.
struct Desk {
    client: CriClient,
    turns: Option<Turns>,
    rate: Option<DefaultDirectRateLimiter>,
}

impl Puller {
    pub(super) fn new(
        client: CriClient,
        max_parallel: Option<NonZeroUsize>,
        rate: Option<PullRate>,
    ) -> Self {
        let rate = rate.map(|rate| {
            RateLimiter::direct(Quota::per_second(rate.per_second).allow_burst(rate.burst))
        });
        Self {
            desk: Arc::new(Desk {
                client,
                turns: max_parallel.map(Turns::new),
                rate,
            }),
            under_way: Mutex::default(),
        }
    }

    /// Joins an equal pull or begins one.
    pub(super) async fn pull(&self, pod: &PodName, order: Order) -> Result<Pulled, ImageError> {
        self.join(pod, order).await
    }

    /// The pulls that somebody waits for.
    pub(super) fn pulls(&self) -> Vec<RunningPull> {
        self.under_way()
            .iter()
            .map(|pull| RunningPull {
                image: pull.order.spec.user_specified_image.clone(),
                pods: pull.pods.clone(),
                since: pull.since,
                begun: pull.begun.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Without those that have ended or were given up.
    fn under_way(&self) -> MutexGuard<'_, Vec<UnderWay>> {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let goes_on = |pull: Shared<Pull>| pull.peek().is_none();
        under_way.retain(|entry| entry.pull.upgrade().is_some_and(goes_on));
        under_way
    }

    fn join(&self, pod: &PodName, order: Order) -> Shared<Pull> {
        let mut under_way = self.under_way();
        let equal = under_way.iter_mut().find(|entry| entry.order == order);
        if let Some(entry) = equal
            && let Some(pull) = entry.pull.upgrade()
        {
            if !entry.pods.contains(pod) {
                entry.pods.push(pod.clone());
            }
            return pull;
        }
        let begun = Arc::new(AtomicBool::new(false));
        let serve = Arc::clone(&self.desk).serve(pod.clone(), order.clone(), begun.clone());
        let pull = serve.boxed().shared();
        if let Some(weak) = pull.downgrade() {
            under_way.push(UnderWay {
                order,
                pods: vec![pod.clone()],
                since: jiff::Timestamp::now(),
                begun,
                pull: weak,
            });
        }
        pull
    }
}

impl Desk {
    async fn serve(
        self: Arc<Self>,
        pod: PodName,
        order: Order,
        has_begun: Arc<AtomicBool>,
    ) -> Result<Pulled, ImageError> {
        let _turn = match &self.turns {
            Some(turns) => turns.take(&pod).await,
            None => None,
        };
        has_begun.store(true, Ordering::Relaxed);
        if self.rate.as_ref().is_some_and(|rate| rate.check().is_err()) {
            return Err(failed("pull QPS exceeded".to_owned()));
        }
        let begun = Instant::now();
        let (reference, used) = self.try_credentials(&order).await?;
        let took = begun.elapsed();
        let spec = cri::ImageSpec {
            image: reference,
            ..order.spec
        };
        let image = self
            .client
            .image_status(spec)
            .await
            .map_err(|error| failed(text(&error)))?
            .ok_or_else(|| failed("the image is gone right after its pull".to_owned()))?;
        Ok(Pulled {
            size: image.size,
            image: present(image),
            used,
            took,
        })
    }

    /// The reference of what was pulled with the first credentials that work,
    /// and these.
    async fn try_credentials(
        &self,
        order: &Order,
    ) -> Result<(String, Option<PullCredential>), ImageError> {
        let anonymous = order.credentials.is_empty().then_some(None);
        let known = order.credentials.iter().map(Some);
        let mut refusals = Vec::new();
        for credential in known.chain(anonymous) {
            let auth = credential.map(|credential| encode::auth_config(&credential.auth));
            match self.client.pull_image(order.spec.clone(), auth).await {
                Ok(reference) => return Ok((reference, credential.cloned())),
                Err(error) => refusals.push(text(&error)),
            }
        }
        Err(refused(&order.spec.image, refusals))
    }
}

/// The error that some refusals, at least one, come to.
fn refused(image: &str, mut refusals: Vec<String>) -> ImageError {
    refusals.dedup();
    for (prefix, reason, meaning) in TELLING_PREFIXES {
        if let Some(rest) = refusals.iter().find_map(|text| text.strip_prefix(prefix)) {
            return ImageError {
                reason,
                message: format!("image pull failed for {image} because {meaning}{rest}"),
            };
        }
    }
    failed(match <[String; 1]>::try_from(refusals) {
        Ok([only]) => only,
        Err(several) => format!("[{}]", several.join(", ")),
    })
}

fn failed(message: String) -> ImageError {
    ImageError {
        reason: WaitingReason::ErrImagePull,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_become_reasons() {
        let cases = [
            (vec!["not found"], WaitingReason::ErrImagePull, "not found"),
            (
                vec!["denied", "not found"],
                WaitingReason::ErrImagePull,
                "[denied, not found]",
            ),
            (
                vec!["denied", "denied"],
                WaitingReason::ErrImagePull,
                "denied",
            ),
            (
                vec!["RegistryUnavailable: connection refused"],
                WaitingReason::RegistryUnavailable,
                "image pull failed for x:1 because the registry is unavailable: connection refused",
            ),
            (
                vec!["SignatureValidationFailed: no key"],
                WaitingReason::SignatureValidationFailed,
                "image pull failed for x:1 because the signature validation failed: no key",
            ),
        ];
        for (refusals, reason, message) in cases {
            let texts = refusals.iter().map(ToString::to_string).collect();
            let error = refused("x:1", texts);
            assert_eq!((error.reason, error.message.as_str()), (reason, message));
        }
    }
}
