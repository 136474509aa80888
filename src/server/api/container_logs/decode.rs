//! From blocks of a log file to what the caller is sent. Pure.
//!
//! In: the file's bytes, in blocks of any size. Out: the text of the entries
//! that the options ask for. What is held between two blocks is bounded,
//! whatever the file holds: a line that is longer passes through in pieces.

use jiff::Timestamp;

use super::entry::{self, DockerEntry, Ending, Head};
use super::options::{LogOptions, Selection, Stamps, Until};

#[cfg(test)]
mod tests;

/// A line longer than this is passed on in pieces. Runtimes cut what a container
/// writes into entries of 16 KiB.
const LONGEST_HELD: usize = 64 << 10;
/// Docker's entries cannot be read in pieces; what is longer is left out.
const LONGEST_JSON: usize = 1 << 20;

/// Whether there is anything left to ask of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appetite {
    More,
    /// All that was asked for has been given.
    Sated,
}

/// The state between two blocks.
#[derive(Debug)]
pub(super) struct Decoder {
    place: Place,
    printer: Printer,
    /// Entries that may still be shown; `None`: any number.
    entries_left: Option<u64>,
}

#[derive(Debug)]
enum Place {
    /// In a line whose beginning is held.
    Line(Vec<u8>),
    /// In the text of a line that is too long to be held.
    Text { ending: Ending, shown: bool },
    /// In a line that nobody can read.
    Skipped,
}

impl Decoder {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            place: Place::Line(Vec::new()),
            printer: Printer {
                since: options.since,
                selection: options.selection,
                stamps: options.stamps,
                left: options.limit,
                at_line_start: true,
            },
            // Whoever follows wants all that comes after the tail as well.
            entries_left: options.tail.filter(|_| options.until == Until::Now),
        }
    }

    /// Takes the next bytes of the file and appends what they come to.
    pub(super) fn feed(&mut self, mut block: &[u8], out: &mut Vec<u8>) -> Appetite {
        while !block.is_empty() && self.appetite() == Appetite::More {
            let end = memchr::memchr(b'\n', block).map(|at| at + 1);
            let (piece, rest) = block.split_at(end.unwrap_or(block.len()));
            block = rest;
            if end.is_some() {
                self.line_end(piece, out);
            } else {
                self.line_part(piece, out);
            }
        }
        self.appetite()
    }

    /// The file is over: what is held will not be completed.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.appetite() == Appetite::More {
            self.line_end(b"", out);
        }
    }

    pub(super) fn appetite(&self) -> Appetite {
        if self.entries_left == Some(0) || self.printer.left == Some(0) {
            Appetite::Sated
        } else {
            Appetite::More
        }
    }

    /// The last piece of a line; ends with a line feed unless the file did.
    fn line_end(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.place, Place::Line(Vec::new())) {
            Place::Line(held) if held.is_empty() => self.whole_line(piece, out),
            Place::Line(mut held) => {
                held.extend_from_slice(piece);
                self.whole_line(&held, out);
                // Its memory serves the next line.
                held.clear();
                self.place = Place::Line(held);
            }
            Place::Text { ending, shown } => {
                if shown {
                    self.printer.text(text_of(piece, ending), out);
                }
                self.count_entry();
            }
            Place::Skipped => {}
        }
    }

    fn line_part(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match &mut self.place {
            Place::Line(held) => {
                held.extend_from_slice(piece);
                if held.len() > LONGEST_HELD {
                    self.long_line(out);
                }
            }
            Place::Text { shown: true, .. } => self.printer.text(piece, out),
            Place::Text { shown: false, .. } | Place::Skipped => {}
        }
    }

    /// What is held is long enough: its text is passed on as it comes.
    fn long_line(&mut self, out: &mut Vec<u8>) {
        let Place::Line(held) = std::mem::replace(&mut self.place, Place::Skipped) else {
            return;
        };
        if let Some((head, text)) = entry::cri(&held) {
            let shown = self.printer.begin(&head, out);
            if shown {
                self.printer.text(text, out);
            }
            let ending = head.ending;
            self.place = Place::Text { ending, shown };
        } else if held.first() == Some(&b'{') && held.len() <= LONGEST_JSON {
            self.place = Place::Line(held);
        }
    }

    fn whole_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if let Some((head, text)) = entry::cri(line) {
            self.show(&head, text_of(text, head.ending), out);
        } else if line.first() == Some(&b'{')
            && let Some(docker) = DockerEntry::parse(line)
            && let Some(head) = docker.head()
        {
            self.show(&head, docker.log.as_bytes(), out);
        }
    }

    fn show(&mut self, head: &Head<'_>, text: &[u8], out: &mut Vec<u8>) {
        if self.printer.begin(head, out) {
            self.printer.text(text, out);
        }
        self.count_entry();
    }

    fn count_entry(&mut self) {
        if let Some(left) = &mut self.entries_left {
            *left = left.saturating_sub(1);
        }
    }
}

/// A partial entry's line feed is the file's, not the container's.
fn text_of(text: &[u8], ending: Ending) -> &[u8] {
    match ending {
        Ending::Line => text,
        Ending::Partial => text.strip_suffix(b"\n").unwrap_or(text),
    }
}

/// Filters entries and bounds the output.
#[derive(Debug)]
struct Printer {
    since: Option<Timestamp>,
    selection: Selection,
    stamps: Stamps,
    /// Bytes that may still be shown; `None`: any number.
    left: Option<u64>,
    at_line_start: bool,
}

impl Printer {
    /// Begins an entry; whether it is shown at all.
    fn begin(&mut self, head: &Head<'_>, out: &mut Vec<u8>) -> bool {
        let is_wanted = self.since.is_none_or(|since| head.time >= since)
            && match self.selection {
                Selection::All => true,
                Selection::Only(stream) => stream == head.stream,
            };
        if is_wanted && self.stamps == Stamps::Shown && self.at_line_start {
            let mut time = Vec::with_capacity(40);
            entry::append_time(head, &mut time);
            time.push(b' ');
            self.push(&time, out);
        }
        // So that an entry without text ends a line, as it does upstream.
        self.at_line_start = is_wanted || self.at_line_start;
        is_wanted
    }

    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if let Some(last) = text.last() {
            self.at_line_start = *last == b'\n';
        }
        self.push(text, out);
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let length = match self.left {
            None => bytes.len(),
            Some(left) => usize::try_from(left).map_or(bytes.len(), |left| bytes.len().min(left)),
        };
        out.extend_from_slice(&bytes[..length]);
        if let Some(left) = &mut self.left {
            *left -= length as u64;
        }
    }
}
