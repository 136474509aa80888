use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// A log that remembers.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn events() {
    tracing::error!(target: "kubelet", error = "no such file", "cannot start");
    tracing::warn!(target: "kubelet", "first line\nsecond line");
    tracing::info!(target: "kubelet", pods = 3, "ready");
    tracing::trace!(target: "kubelet", "details");
}

#[test]
fn lines_for_the_journal_have_priorities_and_no_time() {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(lines.clone())
        .with_ansi(false)
        .event_format(WithPriority(Format::default().without_time()))
        .finish();
    tracing::subscriber::with_default(log, events);
    insta::assert_snapshot!(lines.text(), @r#"
    <3>ERROR kubelet: cannot start error="no such file"
    <4> WARN kubelet: first line
    <4>second line
    <6> INFO kubelet: ready pods=3
    <7>TRACE kubelet: details
    "#);
}

#[test]
fn json_for_the_journal_is_json_after_the_priority() {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .fmt_fields(JsonFields::new())
        .event_format(WithPriority(Format::default().json()))
        .finish();
    tracing::subscriber::with_default(log, events);
    let text = lines.text();
    let first = text.lines().next().unwrap().strip_prefix("<3>").unwrap();
    let entry: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(entry["fields"]["message"], "cannot start");
    assert_eq!(entry["fields"]["error"], "no such file");
}

#[test]
fn the_journal_is_known_by_device_and_inode() {
    assert!(is_stream("8:4711", 8, 4711));
    for other in ["8:4712", "9:4711", "8", "", "8:4711:1", "eight:4711"] {
        assert!(!is_stream(other, 8, 4711), "{other}");
    }
}
