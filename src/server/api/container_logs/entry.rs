//! One entry of a log file. Pure.
//!
//! ```text
//! 2026-01-02T03:04:05.678901234Z stdout F what the container wrote
//! ```
//!
//! The tag `P` marks a piece of a line whose rest is in the next entry; `F` is
//! a whole line, or the last piece of one. Docker's JSON lines are read as well,
//! for runtimes that write them.

use jiff::Timestamp;
use serde::Deserialize;

use super::options::Stream;

#[cfg(test)]
mod tests;

/// Digits of a second's fraction in shown times.
const FRACTION_DIGITS: usize = 9;
/// `2026-01-02T03:04:05`.
const SECONDS_LENGTH: usize = 19;

/// What stands before an entry's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) time: Timestamp,
    /// As the runtime wrote it.
    pub(super) time_text: &'a str,
    pub(super) stream: Stream,
    pub(super) ending: Ending,
}

/// Whether an entry's text ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Line,
    /// The line goes on in the next entry.
    Partial,
}

/// Splits an entry in CRI's format. The text keeps the line feed, if the line
/// has one. `None`: the line is of another form.
pub(super) fn cri(line: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time_text = std::str::from_utf8(fields.next()?).ok()?;
    let stream = stream(fields.next()?)?;
    let tags = fields.next()?;
    let text = fields.next()?;
    let head = Head {
        time: time_text.parse().ok()?,
        time_text,
        stream,
        ending: if tags.split(|byte| *byte == b':').next() == Some(b"P") {
            Ending::Partial
        } else {
            Ending::Line
        },
    };
    Some((head, text))
}

/// An entry in Docker's format. Its text has the line feed inside.
#[derive(Debug, Deserialize)]
pub(super) struct DockerEntry {
    #[serde(default)]
    pub(super) log: String,
    #[serde(default)]
    stream: String,
    time: String,
}

impl DockerEntry {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    pub(super) fn head(&self) -> Option<Head<'_>> {
        Some(Head {
            time: self.time.parse().ok()?,
            time_text: &self.time,
            stream: stream(self.stream.as_bytes())?,
            ending: Ending::Line,
        })
    }
}

fn stream(name: &[u8]) -> Option<Stream> {
    match name {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

/// Appends the time with nine digits after the second, in the runtime's own
/// offset from UTC.
pub(super) fn append_time(head: &Head<'_>, out: &mut Vec<u8>) {
    match padded(head.time_text) {
        Some((seconds, fraction, offset)) => {
            out.extend_from_slice(seconds.as_bytes());
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
            out.resize(out.len() + FRACTION_DIGITS - fraction.len(), b'0');
            out.extend_from_slice(offset.as_bytes());
        }
        None => out.extend_from_slice(format!("{:.9}", head.time).as_bytes()),
    }
}

/// Seconds, fraction and offset of an RFC 3339 time; `None` if it is written in
/// some other way.
fn padded(text: &str) -> Option<(&str, &str, &str)> {
    let (seconds, rest) = text.split_at_checked(SECONDS_LENGTH)?;
    let layout = b"0000-00-00T00:00:00";
    let is_plain = seconds.bytes().zip(layout).all(|(byte, wanted)| {
        if *wanted == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == *wanted
        }
    });
    let (fraction, offset) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            rest.split_at(digits)
        }
    };
    (is_plain && fraction.len() <= FRACTION_DIGITS).then_some((seconds, fraction, offset))
}
