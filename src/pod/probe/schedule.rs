//! When a probe is run.
//!
//! In: the probe's settings and times gone by. Out: how long to wait. Every
//! probe has a ticker of its own that keeps its phase: what comes late does not
//! shift what follows, and ticks that passed unused are not made up for.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// Tries within one period, of probes that could not be carried out.
pub const TRIES: u32 = 3;
/// First pause while a container is waited for to become ready.
const EAGER: Duration = Duration::from_secs(1);

/// A probe's times, with the API's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the container's start to the first probe.
    pub initial_delay: Duration,
    /// At least 1 s.
    pub period: Duration,
    /// For one try; at least 1 s.
    pub timeout: Duration,
}

impl Timing {
    #[must_use]
    pub fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default| {
            let value = u64::try_from(value.unwrap_or_default()).unwrap_or_default();
            Duration::from_secs(if value == 0 { default } else { value })
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
        }
    }
}

/// How long the first tick is put off when the agent has been up for `uptime`:
/// an agent that has just started adopts all its pods at once, and should not
/// probe them all at once for ever. `fraction`: random, from 0 up to 1.
#[must_use]
pub fn jitter(uptime: Duration, period: Duration, fraction: f64) -> Duration {
    if uptime < period {
        period.mul_f64(fraction.clamp(0.0, 1.0))
    } else {
        Duration::ZERO
    }
}

/// The next tick, counted from the ticker's first one, when `elapsed` has gone
/// by since that.
#[must_use]
pub fn next_tick(elapsed: Duration, period: Duration) -> Duration {
    let into = Duration::from_nanos(
        u64::try_from(elapsed.as_nanos() % period.as_nanos().max(1)).unwrap_or_default(),
    );
    elapsed + (period - into)
}

/// The pause before a container that was not ready at `tries` probes is asked
/// again: short at first, so that it is ready soon after it could be, then the
/// ticker's (`None`).
#[must_use]
pub fn eager_pause(tries: u32, period: Duration) -> Option<Duration> {
    let doublings = tries.saturating_sub(1).min(16);
    let pause = EAGER * 2_u32.pow(doublings);
    (tries > 0 && pause < period).then_some(pause)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn times_have_defaults() {
        let timing = |probe: serde_json::Value| {
            let timing = Timing::of(&serde_json::from_value(probe).unwrap());
            (
                timing.initial_delay.as_secs(),
                timing.period.as_secs(),
                timing.timeout.as_secs(),
            )
        };
        for (probe, wanted) in [
            (serde_json::json!({}), (0, 10, 1)),
            (
                serde_json::json!({"initialDelaySeconds": 5, "periodSeconds": 2, "timeoutSeconds": 3}),
                (5, 2, 3),
            ),
            (
                serde_json::json!({"initialDelaySeconds": -5, "periodSeconds": 0, "timeoutSeconds": -1}),
                (0, 10, 1),
            ),
        ] {
            assert_eq!(timing(probe), wanted);
        }
    }

    #[test]
    fn only_a_young_agent_waits() {
        assert_eq!(jitter(9 * S, 10 * S, 0.5), 5 * S);
        assert_eq!(jitter(10 * S, 10 * S, 0.5), Duration::ZERO);
        assert_eq!(jitter(Duration::ZERO, 10 * S, 0.0), Duration::ZERO);
    }

    #[test]
    fn ticks_keep_their_phase() {
        for (elapsed, wanted) in [(0, 10), (1, 10), (9_999, 10), (10_000, 20), (47_300, 50)] {
            let elapsed = Duration::from_millis(elapsed);
            assert_eq!(next_tick(elapsed, 10 * S), wanted * S, "{elapsed:?}");
        }
    }

    #[test]
    fn eagerness_ends_with_the_period() {
        let pauses = |period| (0..7).map(|n| eager_pause(n, period)).collect::<Vec<_>>();
        let ten = [
            None,
            Some(S),
            Some(2 * S),
            Some(4 * S),
            Some(8 * S),
            None,
            None,
        ];
        assert_eq!(pauses(10 * S), ten);
        assert_eq!(pauses(S), [None; 7]);
        assert_eq!(eager_pause(u32::MAX, 10 * S), None);
    }

    proptest! {
        #[test]
        fn the_next_tick_is_ahead_and_on_the_grid(elapsed in 0_u64..1 << 40, period in 1_u64..1 << 20) {
            let (elapsed, period) = (Duration::from_millis(elapsed), Duration::from_millis(period));
            let next = next_tick(elapsed, period);
            prop_assert!(next > elapsed && next - elapsed <= period);
            prop_assert_eq!(next.as_nanos() % period.as_nanos(), 0);
        }
    }
}
