//! Reading a log as its caller wants it. Blocking, in bounded pieces.

use std::io;

use super::decode::{Appetite, Decoder};
use super::files::{LogFiles, OpenLog};
use super::options::{LogOptions, Until};

/// Bytes read at a time.
const BLOCK: usize = 64 << 10;
/// Output at which a piece is complete; it may grow beyond by what one block
/// comes to.
const PIECE: usize = 64 << 10;
/// Bytes read without any output before the caller may have a say again.
const STRETCH: usize = 4 << 20;

/// How far a reading came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// There is more.
    Somewhere,
    /// The end of the file that is written to.
    Live,
    /// The end of a file that was put aside.
    Rotated,
    /// All that was asked for.
    Enough,
}

/// What is there after a file that was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Following {
    /// A file that was put aside as well: nobody writes to this one any more.
    PutAside,
    /// The live file: the runtime is about to let go of this one.
    Live,
}

/// A log that is being read.
#[derive(Debug)]
pub(super) struct LogReader {
    files: LogFiles,
    log: OpenLog,
    decoder: Decoder,
    /// Bytes still to be read; what is written later is not asked for.
    left: u64,
}

impl LogReader {
    /// Opens the log at the first entry that is wanted.
    pub(super) fn open(files: LogFiles, options: &LogOptions) -> io::Result<Self> {
        let mut log = files.open_newest()?;
        let start = match options.tail {
            Some(entries) => log.seek_tail(entries)?,
            None => 0,
        };
        let left = match options.until {
            Until::Now => log.length()?.saturating_sub(start),
            Until::Exit => u64::MAX,
        };
        Ok(Self {
            files,
            log,
            decoder: Decoder::new(options),
            left,
        })
    }

    pub(super) fn files(&self) -> &LogFiles {
        &self.files
    }

    /// The next piece of output.
    pub(super) fn read(&mut self) -> io::Result<(Vec<u8>, Reached)> {
        let mut out = Vec::new();
        let mut block = vec![0; BLOCK];
        let mut stretch = 0;
        while out.len() < PIECE && stretch < STRETCH {
            if self.decoder.appetite() == Appetite::Sated {
                return Ok((out, Reached::Enough));
            }
            let wanted = usize::try_from(self.left).map_or(BLOCK, |left| left.min(BLOCK));
            let count = match wanted {
                0 => 0,
                wanted => self.log.read(&mut block[..wanted])?,
            };
            if count == 0 {
                return Ok((out, self.end()?));
            }
            stretch += count;
            if self.left != u64::MAX {
                self.left -= count as u64;
            }
            self.decoder.feed(&block[..count], &mut out);
        }
        Ok((out, Reached::Somewhere))
    }

    /// What is there after this file.
    pub(super) fn following(&self) -> io::Result<Option<Following>> {
        let next = self.files.next(&self.log)?;
        Ok(next.map(|next| {
            if next.is_put_aside() {
                Following::PutAside
            } else {
                Following::Live
            }
        }))
    }

    /// Goes on with the file after this one, if it is there. What this one held
    /// of an incomplete line is its last output.
    pub(super) fn advance(&mut self) -> io::Result<Vec<u8>> {
        match self.files.next(&self.log)? {
            None => Ok(Vec::new()),
            Some(next) => {
                self.log = next;
                Ok(self.finish())
            }
        }
    }

    /// The output of an incomplete last line.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.decoder.finish(&mut out);
        out
    }

    fn end(&self) -> io::Result<Reached> {
        if self.left == 0 {
            return Ok(Reached::Enough);
        }
        Ok(if self.files.is_live(&self.log)? {
            Reached::Live
        } else {
            Reached::Rotated
        })
    }
}
