//! What is to be done about the client's certificate; pure.

use std::time::Duration;

use jiff::Timestamp;

/// Whether certificates are renewed while they are good (`rotateCertificates`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    InTime,
    /// Only got once, if there is none.
    Never,
}

/// As whom a certificate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// With the kubeconfig's credentials.
    Own,
    /// With the bootstrap kubeconfig's.
    Bootstrap,
}

/// Where a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the store, and the kubeconfig can be used.
    Store,
    /// In the store, but there is no kubeconfig that can be used.
    Unnamed,
    /// Only in the kubeconfig, or in files that it names.
    Kubeconfig,
}

/// The certificate that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) from: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) renew_at: Timestamp,
    pub(super) place: Place,
    /// It says that its holder is this node.
    pub(super) is_ours: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing for that long; `None`: until something changes.
    Rest(Option<Duration>),
    /// Make a kubeconfig of what is in the store.
    Adopt,
    Request(Via),
}

/// As upstream: without a good certificate one is asked for with the bootstrap
/// credentials, or with the kubeconfig's if there are no others. A good one is
/// replaced at once if it is another's, or if it is not in the store yet, and
/// otherwise in time.
pub(super) fn next(
    held: Option<&Held>,
    renewal: Renewal,
    has_bootstrap: bool,
    now: Timestamp,
) -> Next {
    let Some(held) = held.filter(|held| now < held.expires_at) else {
        return match (has_bootstrap, renewal) {
            (true, _) => Next::Request(Via::Bootstrap),
            (false, Renewal::InTime) => Next::Request(Via::Own),
            (false, Renewal::Never) => Next::Rest(None),
        };
    };
    let until = |at: Timestamp| at.duration_since(now).unsigned_abs();
    match (held.place, renewal) {
        (Place::Unnamed, _) => Next::Adopt,
        (_, Renewal::Never) => Next::Rest(Some(until(held.expires_at))),
        (Place::Kubeconfig, Renewal::InTime) => Next::Request(Via::Own),
        (Place::Store, Renewal::InTime) if !held.is_ours || held.renew_at <= now => {
            Next::Request(Via::Own)
        }
        (Place::Store, Renewal::InTime) => Next::Rest(Some(until(held.renew_at))),
    }
}
