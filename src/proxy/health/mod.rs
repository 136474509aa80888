//! Whether the service proxy does its work, told to those who ask.
//!
//! In: from the loop that applies rules, when a change came and when the rules had
//! it; what the Node says; which Services want a health check port. Out: routes for
//! `healthzBindAddress` and `metricsBindAddress`, and a listener for each such port.
//!
//! | file | what |
//! |---|---|
//! | `vitals` | what is known, and what it means (pure) |
//! | `routes` | `/healthz`, `/livez`, `/proxyMode`, `/configz` |
//! | `service_checks` | the listeners of health check node ports |

mod routes;
mod service_checks;
mod vitals;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

pub use routes::{about_routes, health_routes};
pub use service_checks::{Check, EventSender, ServiceChecks, ServiceChecksDeps, WantedChecks};
pub use vitals::{NodePart, Report};

use super::model::Family;
use vitals::Vitals;

/// Where the proxy's parts tell how it goes, and servers ask. Clones are one.
#[derive(Debug, Clone)]
pub struct ProxyHealth(Arc<Mutex<Vitals>>);

impl ProxyHealth {
    /// `patience`: how long a change may wait for its rules; upstream's is twice
    /// `syncPeriod`.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self(Arc::new(Mutex::new(Vitals::new(patience))))
    }

    /// A change came that the rules of this family do not have yet.
    pub fn queued(&self, family: Family, at: Instant) {
        self.with(|vitals| vitals.queued(family, at.into_std()));
    }

    /// The rules of this family have every change that came before `began`.
    pub fn updated(&self, family: Family, began: Instant) {
        let now = Timestamp::now();
        self.with(|vitals| vitals.updated(family, began.into_std(), now));
    }

    /// The proxy stands aside: no change waits for it any more.
    pub fn rest(&self) {
        self.with(Vitals::rest);
    }

    /// What the Node says of itself; before the first call it is given the benefit
    /// of the doubt.
    pub fn set_node(&self, node: NodePart) {
        self.with(|vitals| vitals.set_node(node));
    }

    /// Whether changes find their way into the rules, whatever the Node says.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.report().healthy
    }

    /// All of it as of now.
    #[must_use]
    pub fn report(&self) -> Report {
        let (at, now) = (Instant::now().into_std(), Timestamp::now());
        self.with(|vitals| vitals.report(at, now))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vitals) -> T) -> T {
        // Every change of the vitals is complete, whatever happened to its caller.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
