//! The service-account tokens that one pod has, and when each must be renewed.
//!
//! In: tokens as the API server gave them. Out: the one to write now, and when
//! to ask for the next. In memory only: an agent that was restarted asks anew.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::plan::TokenKey;
use crate::apiserver::BoundToken;
use crate::pod::PodUid;

/// A token is renewed after this share of its life…
const LIFETIME_PERCENT: i32 = 80;
/// …or after this time, whatever its life.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Renewals of different pods are spread over this time.
const MAX_JITTER_MILLIS: u64 = 10_000;
/// How soon to try again what could not be renewed. Also the least time
/// between two renewals, should this node's clock be wrong.
pub(super) const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// Tokens by what they are for.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    tokens: BTreeMap<TokenKey, BoundToken>,
    /// Tokens whose last renewal failed.
    failing: BTreeSet<TokenKey>,
}

impl TokenCache {
    /// A token that needs no renewal yet.
    pub(super) fn fresh(
        &self,
        key: &TokenKey,
        now: Timestamp,
        jitter: Duration,
    ) -> Option<&BoundToken> {
        self.tokens
            .get(key)
            .filter(|token| now < renew_at(token, jitter))
    }

    /// A token that the API server still accepts, fresh or not.
    pub(super) fn valid(&self, key: &TokenKey, now: Timestamp) -> Option<&BoundToken> {
        self.tokens.get(key).filter(|token| now < token.expires_at)
    }

    pub(super) fn insert(&mut self, key: TokenKey, token: BoundToken) {
        self.failing.remove(&key);
        self.tokens.insert(key, token);
    }

    /// Notes that a renewal failed; true if it is the first in a row, which is
    /// the one worth a warning.
    pub(super) fn note_failure(&mut self, key: &TokenKey) -> bool {
        self.failing.insert(key.clone())
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// When to ask for the next token.
pub(super) fn renew_at(token: &BoundToken, jitter: Duration) -> Timestamp {
    let life = token.expires_at.duration_since(token.issued_at);
    let share = life / 100 * LIFETIME_PERCENT;
    let jitter = SignedDuration::try_from(jitter).unwrap_or_default();
    let age = share.min(MAX_AGE).saturating_sub(jitter);
    token.issued_at.checked_add(age).unwrap_or(token.expires_at)
}

/// The share of the jitter that a pod has: always the same, so that nothing is
/// random here, and different from pod to pod.
pub(super) fn jitter(uid: &PodUid) -> Duration {
    let mut hasher = DefaultHasher::new();
    hasher.write(uid.as_str().as_bytes());
    Duration::from_millis(hasher.finish() % MAX_JITTER_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(issued: &str, expires: &str) -> BoundToken {
        BoundToken {
            token: "t".into(),
            issued_at: issued.parse().unwrap(),
            expires_at: expires.parse().unwrap(),
        }
    }

    fn key() -> TokenKey {
        TokenKey {
            service_account: "default".into(),
            audience: None,
            expiration_seconds: 3600,
        }
    }

    #[test]
    fn a_token_is_renewed_at_80_percent_or_after_a_day() {
        let cases = [
            ("2024-01-01T01:00:00Z", 0, "2024-01-01T00:48:00Z"),
            ("2024-01-01T00:10:00Z", 0, "2024-01-01T00:08:00Z"),
            ("2024-01-01T01:00:00Z", 10_000, "2024-01-01T00:47:50Z"),
            ("2025-01-01T00:00:00Z", 0, "2024-01-02T00:00:00Z"),
            ("2025-01-01T00:00:00Z", 5_000, "2024-01-01T23:59:55Z"),
        ];
        for (expires, jitter, expected) in cases {
            let token = token("2024-01-01T00:00:00Z", expires);
            let at = renew_at(&token, Duration::from_millis(jitter));
            assert_eq!(at, expected.parse().unwrap(), "{expires} {jitter}");
        }
    }

    #[test]
    fn a_token_is_fresh_then_only_valid_then_neither() {
        let mut cache = TokenCache::default();
        cache.insert(key(), token("2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z"));
        let state = |at: &str| {
            let now = at.parse().unwrap();
            let fresh = cache.fresh(&key(), now, Duration::ZERO).is_some();
            (fresh, cache.valid(&key(), now).is_some())
        };
        assert_eq!(state("2024-01-01T00:47:59Z"), (true, true));
        assert_eq!(state("2024-01-01T00:48:00Z"), (false, true));
        assert_eq!(state("2024-01-01T01:00:00Z"), (false, false));
    }

    #[test]
    fn jitter_is_the_pods_own_and_bounded() {
        let one = jitter(&"8d4a".into());
        assert_eq!(one, jitter(&"8d4a".into()));
        assert_ne!(one, jitter(&"8d4b".into()));
        assert!(one < Duration::from_millis(MAX_JITTER_MILLIS));
    }
}
