//! The agent's own log: tracing to standard error, which journald, a file or a
//! terminal keeps.

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat, Verbosity};

/// Installs the log for the life of the process. A second call does nothing:
/// tests build several agents in one process.
pub fn init(config: &LogConfig) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config))
        .with_writer(std::io::stderr)
        .with_target(true);
    let result = match config.format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // The only failure is that a log is installed already.
    drop(result);
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
