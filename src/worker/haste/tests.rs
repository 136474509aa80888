//! How graces shrink, and what hurries whom.

use super::*;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn only_full_seconds_are_taken_off() {
    let clock = Hurry::new().pace().clock(seconds(10));
    assert_eq!(clock.left(), seconds(10));
    tokio::time::advance(Duration::from_millis(2900)).await;
    assert_eq!(clock.left(), seconds(8));
    tokio::time::advance(seconds(100)).await;
    assert_eq!(clock.left(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_grace_runs_out_sooner_when_it_is_shortened_and_never_later() {
    let hurry = Hurry::new();
    let begun = Instant::now();
    let mut clock = hurry.pace().clock(seconds(100));
    let shorten = async {
        for (pause, grace) in [(10, 50), (1, 60), (1, 3)] {
            tokio::time::sleep(seconds(pause)).await;
            hurry.end_within(seconds(grace));
        }
    };
    tokio::join!(clock.run_out(), shorten);
    assert_eq!(begun.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_clock_started_late_knows_what_was_told_before() {
    let hurry = Hurry::new();
    hurry.end_within(seconds(4));
    assert_eq!(hurry.pace().clock(seconds(30)).left(), seconds(4));
    assert_eq!(hurry.pace().clock(seconds(3)).left(), seconds(3));
}

#[tokio::test(start_paused = true)]
async fn hooks_are_given_up_for_the_pods_end_and_for_the_agents() {
    for tell in [Hurry::leave, |hurry: &Hurry| hurry.end_within(seconds(30))] {
        let hurry = Hurry::new();
        let pace = hurry.pace();
        let told = async {
            tokio::time::sleep(seconds(5)).await;
            tell(&hurry);
        };
        tokio::join!(pace.hurried(), told);
    }
    let pace = Pace::leisurely();
    let never = tokio::time::timeout(seconds(3600), pace.hurried());
    assert!(never.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_nothing_off_a_grace() {
    let hurry = Hurry::new();
    let clock = hurry.pace().clock(seconds(30));
    hurry.leave();
    assert_eq!(clock.left(), seconds(30));
    hurry.end_within(Duration::MAX);
    assert_eq!(clock.left(), seconds(30));
}
