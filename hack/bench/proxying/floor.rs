//! What nobody can do without: one tiny `iptables-restore` beside all the rules.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::report::Turn;
use crate::netns::{inside, result};
use crate::stats::Samples;

/// A chain that nothing leads to, with as many lines as a changed endpoint has.
const TINY: &str = "*nat\n:KUBE-RS-BENCH - [0:0]\n-A KUBE-RS-BENCH -j RETURN\nCOMMIT\n";
const GONE: &str = "*nat\n:KUBE-RS-BENCH - [0:0]\n-X KUBE-RS-BENCH\nCOMMIT\n";
const TIMES: u32 = 20;

/// Times it, with the node's rules as they are.
pub(crate) async fn measure(netns: &str) -> Result<Turn> {
    result(inside(netns, || {
        let before = children()?;
        let latency: Samples = (0..TIMES).map(|_| restore(TINY)).collect::<Result<_>>()?;
        let cpu = children()?.saturating_sub(before) / TIMES;
        restore(GONE)?;
        Ok(Turn {
            latency,
            cpu,
            ..Turn::default()
        })
    }))
    .await
}

fn restore(script: &str) -> Result<Duration> {
    let begun = Instant::now();
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait"])
        .stdin(Stdio::piped())
        .spawn()
        .context("iptables-restore")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(script.as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "iptables-restore: {status}");
    Ok(begun.elapsed())
}

/// CPU time of all children so far.
fn children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
