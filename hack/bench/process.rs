//! What a process has used, as the kernel tells it.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// One process, known by its pid for as long as the agent is not restarted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) i32);

impl Process {
    /// CPU time of all its threads, ended ones too, to the nanosecond; and of
    /// the children that it has waited for, to the clock tick.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.0))?;
        let own = Duration::from(clock.now()?);
        let stat = self.stat()?;
        let ticks: u64 = number(&stat, 16)? + number(&stat, 17)?;
        Ok(own + seconds(ticks)?)
    }

    /// When it was forked, since boot, to the clock tick.
    pub(crate) fn started(self) -> Result<Duration> {
        seconds(number(&self.stat()?, 22)?)
    }

    /// Resident memory in bytes, shared pages included.
    pub(crate) fn resident(self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .context("no VmRSS")?;
        Ok(kilobytes * 1024)
    }

    /// `/proc/PID/stat` from its third field on; the second may hold spaces.
    fn stat(self) -> Result<Vec<String>> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let (_, rest) = stat.rsplit_once(") ").context("unreadable stat")?;
        Ok(rest.split_whitespace().map(str::to_owned).collect())
    }
}

/// The processes whose name begins like this and that have `argument` on their
/// command line.
pub(crate) fn find(name: &str, argument: &str) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        // Processes end while one looks.
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split('\0');
        let program = words.next().unwrap_or_default();
        let is_named = program
            .rsplit('/')
            .next()
            .is_some_and(|p| p.starts_with(name));
        if is_named && words.any(|word| word == argument) {
            found.push(Process(pid));
        }
    }
    Ok(found)
}

/// Time since boot, on the clock that process start times are told by.
pub(crate) fn since_boot() -> Result<Duration> {
    Ok(ClockId::CLOCK_BOOTTIME.now()?.into())
}

/// Field `number` of stat, counted from one as proc(5) does.
fn number(stat: &[String], number: usize) -> Result<u64> {
    let field = stat.get(number - 3).context("a short stat")?;
    field.parse().context("stat")
}

fn seconds(ticks: u64) -> Result<Duration> {
    let rate = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ticks")]
    Ok(Duration::from_secs_f64(ticks as f64 / rate as f64))
}
