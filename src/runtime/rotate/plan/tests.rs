use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    max_bytes: 10 << 20,
    interval: Duration::from_secs(10),
};

/// Lets a log grow for a time, `bytes_at` by `bytes_at`; gives the sizes at which
/// it was rotated, and the number of looks.
fn simulate(seconds: u64, mut rate_at: impl FnMut(Duration) -> u64) -> (Vec<u64>, usize) {
    let start = Instant::now();
    let (mut now, mut size) = (start, 0);
    let (mut before, mut rotated, mut looks) = (None, Vec::new(), 0);
    while now - start < Duration::from_secs(seconds) {
        let (verdict, mut look) = POLICY.judge(before.as_ref(), size, now);
        looks += 1;
        if verdict == Verdict::Rotate {
            rotated.push(size);
            size = 0;
            look = look.rotated();
        }
        let rate = rate_at(now - start);
        size += rate * u64::try_from(look.pause.as_millis()).expect("small") / 1000;
        now = look.next();
        before = Some(look);
    }
    (rotated, looks)
}

#[tokio::test(start_paused = true)]
async fn a_quiet_log_is_looked_at_once_an_interval() {
    let (rotated, looks) = simulate(1000, |_| 0);
    assert!(rotated.is_empty());
    assert!((100..125).contains(&looks), "{looks}");
    let (rotated, looks) = simulate(1000, |_| 1000);
    assert!(rotated.is_empty());
    assert!((100..125).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn a_log_of_any_speed_stays_near_the_limit() {
    for rate in [1 << 20, 10 << 20, 100 << 20] {
        let (rotated, _) = simulate(60, |_| rate);
        // The first pause and the shortest are what it may grow beyond.
        let slack = rate / 2 + rate / 10;
        assert!(rotated.len() > 3, "{rate}: {rotated:?}");
        assert!(
            rotated.iter().all(|size| *size <= POLICY.max_bytes + slack),
            "{rate}: {rotated:?}"
        );
        let settled = &rotated[2..];
        assert!(
            settled.iter().all(|size| *size <= POLICY.max_bytes * 2),
            "{rate}: {rotated:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bursts_are_met_with_short_pauses() {
    // 5 s at 100 MB/s, 5 s of silence, and so on.
    let rate_at = |time: Duration| {
        if time.as_secs() % 10 < 5 {
            100 << 20
        } else {
            0
        }
    };
    let (rotated, _) = simulate(100, rate_at);
    let largest = rotated.iter().max().copied().unwrap_or(0);
    // A quarter of the silence, as pauses go, and what comes on top.
    assert!(largest <= 2 * (100 << 20), "{largest}");
}

#[tokio::test(start_paused = true)]
async fn the_limit_itself_is_enough() {
    let now = Instant::now();
    for (size, verdict) in [
        (0, Verdict::Leave),
        ((10 << 20) - 1, Verdict::Leave),
        (10 << 20, Verdict::Rotate),
        (u64::MAX, Verdict::Rotate),
    ] {
        assert_eq!(POLICY.judge(None, size, now).0, verdict, "{size}");
    }
    let none = Policy {
        max_bytes: 0,
        ..POLICY
    };
    assert_eq!(none.judge(None, 0, now).0, Verdict::Leave);
    assert_eq!(none.judge(None, 1, now).0, Verdict::Rotate);
}

#[test]
fn only_calm_logs_are_compressed() {
    assert!(may_compress(None));
    assert!(may_compress(Some(Duration::from_secs(5))));
    assert!(!may_compress(Some(Duration::from_secs(4))));
}

proptest! {
    #[test]
    fn pauses_stay_in_bounds(
        sizes in proptest::collection::vec(any::<u64>(), 1..20),
        apart in 0u64..100_000,
        max_bytes in any::<u64>(),
    ) {
        let policy = Policy { max_bytes, ..POLICY };
        let mut now = Instant::now();
        let mut before = None;
        for size in sizes {
            let (_, look) = policy.judge(before.as_ref(), size, now);
            prop_assert!(look.pause >= SHORTEST_PAUSE && look.pause <= policy.interval);
            now += Duration::from_millis(apart);
            before = Some(look);
        }
    }
}
