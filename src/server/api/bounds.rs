//! What short requests may take: so many at a time, and so long.
//!
//! Log followers and sessions last, and have bounds of their own.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

/// Requests at a time.
const AT_A_TIME: usize = 128;
/// Time for one, waiting included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shared by all short requests of the agent. Clonable.
#[derive(Debug, Clone)]
pub struct Bounds {
    slots: Arc<Semaphore>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }
}

impl Bounds {
    /// Puts the bounds around these routes.
    pub fn around(&self, routes: Router) -> Router {
        routes.route_layer(middleware::from_fn_with_state(self.clone(), bound))
    }
}

async fn bound(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let answer = async {
        // The semaphore is never closed.
        let _slot = bounds.slots.acquire().await.ok()?;
        Some(next.run(request).await)
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            "the node did not answer in time",
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_answered_and_gives_its_slot_back() {
        let bounds = Bounds::default();
        let routes = Router::new().route("/", get(std::future::pending::<()>));
        let router = bounds.around(routes);
        let request = Request::new(Body::empty());
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(bounds.slots.available_permits(), AT_A_TIME);
    }
}
