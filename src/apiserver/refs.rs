//! ConfigMaps, Secrets and RuntimeClasses by name: one GET serves everyone who
//! asks for the same object within a moment.
//!
//! Ninety pods that start at once all want the same root certificate. The
//! answer is kept for just a second, so a pod created after an edit of the
//! object sees the edit; failures and absence are not kept at all.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use lru::LruCache;
use tokio::time::Instant;

use super::ApiError;

/// How long an answer may serve later callers, from the moment it was asked for.
const TTL: Duration = Duration::from_secs(1);
/// Objects remembered; what pods that start within [`TTL`] refer to.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// A found object, none, or the failure that all waiting callers share.
type Answer<T> = Result<Option<Arc<T>>, Arc<ApiError>>;
type Pending<T> = futures::future::Shared<BoxFuture<'static, Answer<T>>>;

/// Single-flight reads of one kind of object.
pub(super) struct Shared<T> {
    asked: Mutex<LruCache<(String, String), Asked<T>>>,
}

struct Asked<T> {
    at: Instant,
    answer: Pending<T>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            asked: Mutex::new(LruCache::new(CAPACITY)),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Shared<T> {
    /// Joins a read that is under way or fresh, else starts `fetch`.
    pub(super) async fn get(
        &self,
        namespace: &str,
        name: &str,
        fetch: impl Future<Output = Result<Option<T>, ApiError>> + Send + 'static,
    ) -> Result<Option<T>, ApiError> {
        let answer = self.join((namespace.into(), name.into()), fetch);
        match answer.await {
            Ok(object) => Ok(object.map(Arc::unwrap_or_clone)),
            Err(error) => Err(error.duplicate()),
        }
    }

    fn join(
        &self,
        key: (String, String),
        fetch: impl Future<Output = Result<Option<T>, ApiError>> + Send + 'static,
    ) -> Pending<T> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = asked.get(&key)
            && earlier.at.elapsed() < TTL
            && earlier.is_usable()
        {
            return earlier.answer.clone();
        }
        let answer = fetch
            .map(|fetched| fetched.map(|object| object.map(Arc::new)).map_err(Arc::new))
            .boxed()
            .shared();
        asked.put(
            key,
            Asked {
                at: Instant::now(),
                answer: answer.clone(),
            },
        );
        answer
    }
}

impl<T: Clone> Asked<T> {
    fn is_usable(&self) -> bool {
        match self.answer.peek() {
            None | Some(Ok(Some(_))) => true,
            Some(Ok(None) | Err(_)) => false,
        }
    }
}
