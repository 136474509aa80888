//! Reads what a container left as its termination message.
//!
//! The file and the log are written by the container, so nothing in them is
//! trusted: whatever is not a regular file is not read, and no more than the
//! end of it is.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::decode::LastWords;
use super::regular::open_regular;

#[cfg(test)]
mod tests;

/// Bytes of a termination message file that count: its last.
const FILE_BYTES: u64 = 4096;
/// Lines, and bytes of text, that are taken from a log.
const LOG_LINES: usize = 80;
const LOG_TEXT_BYTES: usize = 2048;
/// How much of the log's end is searched for them. Log lines carry a prefix
/// of some 40 bytes.
const LOG_BYTES: u64 = 64 << 10;

/// The message, empty if there is none. Blocks for as long as the disk does.
pub(super) fn read(words: &LastWords) -> String {
    let file = words.file.as_deref().map(|path| tail(path, FILE_BYTES));
    let message = match file {
        Some(Ok(tail)) => String::from_utf8_lossy(&tail.bytes).into_owned(),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Some(Err(error)) => format!("Error on reading termination log: {error}"),
        None => String::new(),
    };
    match &words.log {
        Some(log) if message.is_empty() => tail(log, LOG_BYTES)
            .map(|tail| log_text(&tail))
            .unwrap_or_default(),
        _ => message,
    }
}

/// The end of a file.
struct Tail {
    bytes: Vec<u8>,
    /// Whether there was more before it.
    cut: bool,
}

fn tail(path: &Path, limit: u64) -> io::Result<Tail> {
    let mut file = open_regular(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // Whoever still writes to it does not make us read on.
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Tail {
        bytes,
        cut: start > 0,
    })
}

/// The text of the last lines of a CRI log, without timestamps and tags.
fn log_text(tail: &Tail) -> String {
    let whole_lines = tail
        .bytes
        .split_inclusive(|byte| *byte == b'\n')
        .skip(usize::from(tail.cut));
    let lines: Vec<_> = whole_lines.collect();
    let mut text = Vec::new();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        append_log_line(line, &mut text);
    }
    let start = text.len().saturating_sub(LOG_TEXT_BYTES);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

/// Appends the text of `<time> <stream> <tags> <text>`; a line of any other
/// form is skipped.
fn append_log_line(line: &[u8], text: &mut Vec<u8>) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (Some(_time), Some(b"stdout" | b"stderr"), Some(tags), Some(content)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return;
    };
    text.extend_from_slice(content);
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    if !partial {
        text.push(b'\n');
    }
}
