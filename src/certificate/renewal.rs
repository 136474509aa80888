//! When a certificate is to be renewed; pure.

use jiff::{SignedDuration, Timestamp};

/// The renewal of a certificate that is valid `from` … `to`: between 70 % and 90 %
/// of its life, as upstream, so that the nodes of a cluster do not ask all at once.
/// `chance` is from 0 to 1, drawn once for each certificate.
#[must_use]
pub fn renew_at((from, to): (Timestamp, Timestamp), chance: f64) -> Timestamp {
    let life = to.duration_since(from).as_secs_f64();
    let rest = SignedDuration::try_from_secs_f64(life * (0.7 + 0.2 * chance)).unwrap_or_default();
    from.saturating_add(rest).unwrap_or(to)
}
