//! Names of rotated container logs. Pure.
//!
//! ```text
//! 3.log                          the log that the runtime writes to
//! 3.log.20260102-030405          what was in it until then
//! 3.log.20260102-030405-001      rotated in the same second
//! 3.log.20260102-030405.gz       compressed
//! 3.log.20260102-030405.tmp      being compressed
//! ```
//!
//! Times are UTC. Stamps of one log only grow, even when the clock steps back,
//! so their order is the order of what was written.

use std::fmt;

use jiff::Timestamp;

#[cfg(test)]
mod tests;

const COMPRESSED: &str = ".gz";
const TEMPORARY: &str = ".tmp";

/// When a log was rotated; ordered as the logs are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// `20260102-030405`.
    second: String,
    /// Tells rotations within one second apart.
    number: u32,
}

/// What has become of a rotated log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As it was written.
    Plain,
    Compressed,
    /// The beginning of a compressed one; worth nothing.
    Temporary,
}

/// The name of a rotated log, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RotatedLog {
    pub stamp: Stamp,
    pub form: Form,
}

impl Stamp {
    /// The stamp of a rotation at `now` of a log whose newest rotated part is
    /// `newest`.
    #[must_use]
    pub fn next(now: Timestamp, newest: Option<&Self>) -> Self {
        let of_now = Self {
            second: now.strftime("%Y%m%d-%H%M%S").to_string(),
            number: 0,
        };
        match newest {
            Some(newest) if *newest >= of_now => Self {
                second: newest.second.clone(),
                number: newest.number.saturating_add(1),
            },
            _ => of_now,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (second, number) = match text.split_at_checked(15)? {
            (second, "") => (second, 0),
            (second, rest) => (second, digits(rest.strip_prefix('-')?)?),
        };
        let (day, time) = second.split_once('-')?;
        (day.len() == 8 && digits(day).is_some() && digits(time).is_some()).then(|| Self {
            second: second.to_owned(),
            number,
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.second)?;
        if self.number > 0 {
            write!(f, "-{:03}", self.number)?;
        }
        Ok(())
    }
}

impl RotatedLog {
    /// Reads the name of a file that lies beside the log named `log`; `None` if
    /// it is not a rotated part of it.
    #[must_use]
    pub fn parse(log: &str, file: &str) -> Option<Self> {
        let rest = file.strip_prefix(log)?.strip_prefix('.')?;
        let (stamp, form) = if let Some(stamp) = rest.strip_suffix(COMPRESSED) {
            (stamp, Form::Compressed)
        } else if let Some(stamp) = rest.strip_suffix(TEMPORARY) {
            (stamp, Form::Temporary)
        } else {
            (rest, Form::Plain)
        };
        let stamp = Stamp::parse(stamp)?;
        Some(Self { stamp, form })
    }

    /// The file's name, for the log named `log`.
    #[must_use]
    pub fn file_name(&self, log: &str) -> String {
        let suffix = match self.form {
            Form::Plain => "",
            Form::Compressed => COMPRESSED,
            Form::Temporary => TEMPORARY,
        };
        format!("{log}.{}{suffix}", self.stamp)
    }
}

fn digits(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}
