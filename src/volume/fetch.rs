//! Getting what files are made from, before any disk is touched.
//!
//! In: what a pod's volumes need. Out: each answer or the reason for its
//! absence, and when a token must be renewed. Calls run side by side, and
//! tokens that are still fresh cost no call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::BoundObjectReference;

use super::payload::{Fetched, Needs, Outcome};
use super::plan::TokenKey;
use super::tokens::{self, RETRY, TokenCache};
use crate::apiserver::{
    BoundToken, Changes, Following, ObjectKind, ObjectName, ObjectRefs, TokenRequestSpec, Tokens,
};
use crate::pod::DesiredPod;

/// Calls of one pod that may be under way at a time.
const MAX_CALLS: usize = 8;

/// The ports that contents come from.
pub(super) struct Fetcher {
    pub(super) tokens: Arc<dyn Tokens>,
    pub(super) objects: Arc<dyn ObjectRefs>,
}

impl Fetcher {
    /// Follows the objects in `needs`, and no others any more. They are then
    /// read from what is followed.
    pub(super) fn follow(
        &self,
        pod: &DesiredPod,
        needs: &Needs,
        followed: &mut BTreeMap<ObjectName, Following>,
        changes: &Changes,
    ) {
        let name = |kind, name: &String| ObjectName {
            kind,
            namespace: pod.name.namespace.to_string(),
            name: name.clone(),
        };
        let config_maps = needs.config_maps.iter();
        let secrets = needs.secrets.iter();
        let wanted: BTreeSet<ObjectName> = config_maps
            .map(|object| name(ObjectKind::ConfigMap, object))
            .chain(secrets.map(|object| name(ObjectKind::Secret, object)))
            .collect();
        followed.retain(|object, _| wanted.contains(object));
        for object in wanted {
            followed
                .entry(object)
                .or_insert_with_key(|object| self.objects.follow(object, changes));
        }
    }

    /// Gets everything in `needs`. The time is when the first of the tokens
    /// must be renewed.
    pub(super) async fn fetch(
        &self,
        pod: &DesiredPod,
        needs: Needs,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> (Fetched, Option<Timestamp>) {
        let namespace = &*pod.name.namespace;
        let config_maps = stream::iter(needs.config_maps).map(async |name| {
            let outcome = self.objects.config_map(namespace, &name).await;
            (name, outcome.map_err(Arc::new))
        });
        let secrets = stream::iter(needs.secrets).map(async |name| {
            let outcome = self.objects.secret(namespace, &name).await;
            (name, outcome.map_err(Arc::new))
        });
        let jitter = tokens::jitter(&pod.uid);
        let (fresh, due): (Vec<_>, Vec<_>) = needs
            .tokens
            .into_iter()
            .partition(|key| cache.fresh(key, now, jitter).is_some());
        let renewed = stream::iter(due).map(async |key| {
            let outcome = self.tokens.request(&request(pod, &key)).await;
            (key, outcome.map_err(Arc::new))
        });
        let (config_maps, secrets, renewed) = tokio::join!(
            config_maps.buffer_unordered(MAX_CALLS).collect(),
            secrets.buffer_unordered(MAX_CALLS).collect(),
            renewed.buffer_unordered(MAX_CALLS).collect::<Vec<_>>(),
        );
        let mut fetched = Fetched {
            config_maps,
            secrets,
            ..Fetched::default()
        };
        let mut refresh = Vec::new();
        for (key, outcome) in renewed {
            let (token, at) = settle(cache, &key, outcome, now, jitter);
            refresh.push(at);
            fetched.tokens.insert(key, token);
        }
        for key in fresh {
            if let Some(token) = cache.fresh(&key, now, jitter) {
                refresh.push(tokens::renew_at(token, jitter));
                fetched.tokens.insert(key, Ok(token.token.clone()));
            }
        }
        (fetched, refresh.into_iter().min())
    }
}

/// Takes in the answer to a token request: a new token, or, if that failed, the
/// old one for as long as it is valid.
fn settle(
    cache: &mut TokenCache,
    key: &TokenKey,
    outcome: Outcome<BoundToken>,
    now: Timestamp,
    jitter: std::time::Duration,
) -> (Outcome<String>, Timestamp) {
    let soon = now.checked_add(RETRY).unwrap_or(Timestamp::MAX);
    match outcome {
        Ok(token) => {
            let at = tokens::renew_at(&token, jitter).max(soon);
            let text = token.token.clone();
            cache.insert(key.clone(), token);
            (Ok(text), at)
        }
        Err(error) => {
            let is_news = cache.note_failure(key);
            let Some(token) = cache.valid(key, now) else {
                return (Err(error), soon);
            };
            if is_news {
                tracing::warn!(
                    service_account = %key.service_account,
                    expires_at = %token.expires_at,
                    error = %crate::error::chain(&error),
                    "cannot renew a service-account token; keeping the old one"
                );
            }
            (Ok(token.token.clone()), soon)
        }
    }
}

fn request(pod: &DesiredPod, key: &TokenKey) -> TokenRequestSpec {
    TokenRequestSpec {
        namespace: pod.name.namespace.to_string(),
        service_account: key.service_account.clone(),
        audiences: key.audience.iter().cloned().collect(),
        expiration_seconds: key.expiration_seconds,
        bound_to: BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.name.to_string()),
            uid: Some(pod.uid.to_string()),
        },
    }
}
