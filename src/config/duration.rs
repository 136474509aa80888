//! Durations as Go writes them (`1h30m`, `0s`, `1.5s`, `-1ns`), which is how every duration
//! in `KubeletConfiguration` and on the command line is spelled.
//!
//! Input: text. Output: [`GoDuration`], a signed count of nanoseconds, and back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A signed duration with nanosecond resolution, as Go's `time.Duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GoDuration(i64);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Not of the form number-unit.
    #[error("{0:?} is not a duration; write a number and a unit, like \"10s\" or \"1h30m\"")]
    Malformed(String),
    /// More than about 292 years.
    #[error("{0:?} is too long for a duration")]
    OutOfRange(String),
}

/// Units by name, with their length in nanoseconds.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5 micro sign
    ("μs", 1_000), // U+03BC Greek mu
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// Zero, which in a file means "use the default".
    pub const ZERO: Self = Self(0);

    /// A duration of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// A duration of `millis` milliseconds, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// A duration of `secs` seconds, saturating.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// True below zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// The same length as a [`Duration`]; zero for negative ones.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseDurationError::Malformed(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut nanos: i128 = 0;
        while !rest.is_empty() {
            let (part, tail) = parse_part(rest).ok_or_else(malformed)?;
            nanos = nanos.saturating_add(part);
            rest = tail;
        }
        let signed = if negative { -nanos } else { nanos };
        i64::try_from(signed)
            .map(Self)
            .map_err(|_| ParseDurationError::OutOfRange(text.to_owned()))
    }
}

/// Reads one `1.5h` off the front of `text`: its nanoseconds and what follows.
fn parse_part(text: &str) -> Option<(i128, &str)> {
    let number_len = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(number_len);
    let unit_len = rest
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    let (_, unit_nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    Some((scale(whole, fraction, i128::from(*unit_nanos)), rest))
}

/// `whole.fraction × unit`, truncated; absurd lengths saturate and are refused by the caller.
fn scale(whole: &str, fraction: &str, unit: i128) -> i128 {
    let digit = |d: u8| i128::from(d - b'0');
    let total = whole
        .bytes()
        .fold(0_i128, |n, d| n.saturating_mul(10).saturating_add(digit(d)));
    let (part, _) = fraction.bytes().fold((0_i128, unit), |(sum, unit), d| {
        // Digits beyond the nanosecond add nothing.
        (sum + digit(d) * unit / 10, unit / 10)
    });
    total.saturating_mul(unit).saturating_add(part)
}

/// Go's spelling: `1h30m0s`, `1.5s`, `100ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < SECOND {
            let (unit, name) = match nanos {
                0..1_000 => (1, "ns"),
                1_000..1_000_000 => (1_000, "µs"),
                _ => (1_000_000, "ms"),
            };
            return write_decimal(f, nanos, unit).and_then(|()| f.write_str(name));
        }
        let minutes = nanos / (60 * SECOND);
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        write_decimal(f, nanos % (60 * SECOND), SECOND)?;
        f.write_str("s")
    }
}

/// Writes `value / unit` as a decimal without trailing zeros; `unit` is a power of ten.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u64, unit: u64) -> fmt::Result {
    write!(f, "{}", value / unit)?;
    let fraction = value % unit;
    if fraction > 0 {
        let width = unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))?;
    }
    Ok(())
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// For `#[serde(serialize_with)]` on [`Duration`] fields.
pub(super) fn as_go_string<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&GoDuration::from(*duration))
}

/// As Kubernetes writes durations: `1m30s`.
impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// For `#[serde(serialize_with)]` on optional [`Duration`] fields.
pub(super) fn option_as_go_string<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration
        .map(|d| GoDuration::from(d).to_string())
        .serialize(serializer)
}
