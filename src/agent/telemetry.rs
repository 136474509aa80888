//! The agent's own log: tracing to standard error, which journald, a file or a
//! terminal keeps.
//!
//! If it is the journal (`JOURNAL_STREAM` names standard error's socket), lines carry
//! their priority in front, as `<3>`, which the journal takes off: `journalctl -p err`
//! works. A time of their own they do not have then, unless they are JSON.

use std::fmt::{self, Display, Write as _};
use std::io::IsTerminal;
use std::panic;

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogConfig, LogFormat, Verbosity};

#[cfg(test)]
mod tests;

/// Installs the log for the life of the process. A second call does nothing:
/// tests build several agents in one process.
pub fn init(config: &LogConfig) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config))
        .with_writer(std::io::stderr);
    let result = match (config.format, to_journal()) {
        (LogFormat::Text, false) => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        (LogFormat::Text, true) => builder
            .with_ansi(false)
            .event_format(WithPriority(Format::default().without_time()))
            .try_init(),
        (LogFormat::Json, false) => builder.json().try_init(),
        (LogFormat::Json, true) => builder
            .fmt_fields(JsonFields::new())
            .event_format(WithPriority(Format::default().json()))
            .try_init(),
    };
    // The only failure is that a log is installed already.
    if result.is_ok() && to_journal() {
        panic::set_hook(Box::new(|panic| complain(panic)));
    }
}

/// Says on standard error what went wrong before there is a log, or beside it.
pub fn complain(what: &dyn Display) {
    let text = what.to_string();
    if to_journal() {
        eprint!("{}", with_priority(Level::ERROR, &text));
    } else {
        eprintln!("{text}");
    }
}

/// Whether the journal reads standard error.
fn to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(std::io::stderr()).is_ok_and(|file| is_stream(&stream, file.st_dev, file.st_ino))
}

/// Whether `JOURNAL_STREAM` (device and inode, decimal, with a colon) is this file.
/// Standard error may have been led elsewhere since it was set.
fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// Syslog's priorities: 3 err, 4 warning, 6 info, 7 debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The text with its priority before every line, as the journal takes each line for
/// an entry.
fn with_priority(level: Level, text: &str) -> String {
    let priority = priority(level);
    text.lines().fold(String::new(), |mut lines, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "<{priority}>{line}");
        lines
    })
}

/// A format whose lines carry their priority.
struct WithPriority<F>(F);

impl<F, S, N> FormatEvent<S, N> for WithPriority<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0
            .format_event(context, Writer::new(&mut text), event)?;
        writer.write_str(&with_priority(*event.metadata().level(), &text))
    }
}

/// klog's verbosity in tracing's levels: state changes at 0, decisions and
/// their inputs from 2, everything from 5. Libraries stay one level behind.
fn filter(config: &LogConfig) -> EnvFilter {
    let level = level(config.verbosity);
    let libraries = match config.verbosity.0 {
        0..=3 => "warn",
        4..=6 => "info",
        _ => "debug",
    };
    // kube calls every refused request an error, and tells of each try; we decide
    // what is worth a line.
    let mut directives = format!("{libraries},kube_client=off,kube_runtime=error,kubelet={level}");
    for (pattern, verbosity) in &config.modules {
        let module = pattern.trim_end_matches('*');
        directives.push_str(&format!(",kubelet::{module}={}", self::level(*verbosity)));
    }
    EnvFilter::new(directives)
}

fn level(verbosity: Verbosity) -> &'static str {
    match verbosity.0 {
        0 | 1 => "info",
        2..=4 => "debug",
        _ => "trace",
    }
}
