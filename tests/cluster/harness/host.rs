//! Waiting for what only the host shows: files, mounts, cgroups, containers.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

/// Between two looks at the host.
const INTERVAL: Duration = Duration::from_millis(200);

/// Looks again and again until `look` gives an answer: `Ok(Err(why_not))` means not yet.
pub async fn poll_until<T, F>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Result<T, String>>>,
{
    let deadline = Instant::now() + within;
    loop {
        match look().await.with_context(|| what.to_owned())? {
            Ok(answer) => return Ok(answer),
            Err(why) if Instant::now() >= deadline => {
                return Err(anyhow!("{what}: not within {within:?}: {why}"));
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
