//! The node's network from inside: work that has to see it as the node does gets a
//! thread of its own there.

use std::fs::File;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// Runs `work` on a new thread inside the network namespace at this path. Its children
/// and the threads that it starts are in there as well.
pub(crate) fn inside<T: Send + 'static>(
    netns: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    let netns = netns.to_owned();
    std::thread::spawn(move || {
        let file = File::open(&netns).with_context(|| netns.clone())?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| netns.clone())?;
        work()
    })
}

/// Waits for such a thread without holding up others.
pub(crate) async fn result<T: Send + 'static>(thread: JoinHandle<Result<T>>) -> Result<T> {
    let join = tokio::task::spawn_blocking(move || thread.join());
    join.await?
        .map_err(|_| anyhow!("a thread in the node's network panicked"))?
}
