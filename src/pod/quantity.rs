//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`) as exact numbers.
//!
//! In: the text of an API quantity. Out: a [`Quantity`] that adds, compares
//! and rounds as the API defines it: everything below the smallest step rounds
//! away from zero, so no request is ever lost. Where upstream's 64-bit results
//! wrap around, ours stop at the end of the range. And back: the canonical
//! text, which the API server gives for the same amount.

use std::ops::Add;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Serialize, Serializer};

/// Nanos in one unit: the API keeps nothing finer.
const NANO_DIGITS: i32 = 9;
const NANOS_PER_UNIT: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;

/// Digits of the mantissa that are kept exactly. Twenty hold every 64-bit
/// number, and leave room in 128 bits for the largest suffix (2⁶⁰).
const MANTISSA_DIGITS: usize = 20;

/// The largest magnitude, `i64::MAX` units: what the API caps values at.
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS_PER_UNIT;

/// An amount of a resource, exact to one billionth of its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity {
    nanos: i128,
}

/// The text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantity {text:?} is not a number with an optional suffix (n u m k M G T P E, Ki Mi Gi Ti Pi Ei) or exponent"
)]
pub struct ParseQuantityError {
    text: String,
}

/// What a number is multiplied with: `10^decimal * 2^binary`.
#[derive(Debug, Clone, Copy)]
struct Scale {
    decimal: i32,
    binary: u32,
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0 };

    /// Reads the text form.
    ///
    /// # Errors
    /// If the text is not a number followed by a known suffix or an exponent.
    pub fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        parse(text).ok_or_else(|| ParseQuantityError {
            text: text.chars().take(64).collect(),
        })
    }

    /// A whole number of units.
    #[must_use]
    pub fn from_value(value: i64) -> Self {
        Self {
            nanos: i128::from(value) * NANOS_PER_UNIT,
        }
    }

    /// A whole number of thousandths.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self {
            nanos: i128::from(milli) * NANOS_PER_MILLI,
        }
    }

    /// Whole units (bytes, cores), rounded away from zero.
    #[must_use]
    pub fn value(self) -> i64 {
        self.scaled(NANOS_PER_UNIT)
    }

    /// Thousandths (milli-CPU), rounded away from zero.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        self.scaled(NANOS_PER_MILLI)
    }

    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    #[must_use]
    pub fn is_positive(self) -> bool {
        self.nanos > 0
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// `2`, `1500m`, `2k`: the largest decimal suffix that leaves a whole
    /// number.
    #[must_use]
    pub fn to_decimal(self) -> ApiQuantity {
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        canonical(self.nanos, 1000, &SUFFIXES)
    }

    /// `24684096Ki`: the largest binary suffix that leaves a whole number. What
    /// is below 1024, or not whole itself, has no binary form and is written as
    /// decimal.
    #[must_use]
    pub fn to_binary(self) -> ApiQuantity {
        const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let units = self.nanos / NANOS_PER_UNIT;
        if units.abs() < 1024 || self.nanos % NANOS_PER_UNIT != 0 {
            return self.to_decimal();
        }
        canonical(units, 1024, &SUFFIXES)
    }

    fn scaled(self, step: i128) -> i64 {
        let magnitude =
            self.nanos.abs().div_euclid(step) + i128::from(self.nanos.abs().rem_euclid(step) != 0);
        let signed = magnitude * self.nanos.signum();
        i64::try_from(signed).unwrap_or(if signed < 0 { i64::MIN } else { i64::MAX })
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = ParseQuantityError;

    fn try_from(quantity: &ApiQuantity) -> Result<Self, Self::Error> {
        Self::parse(&quantity.0)
    }
}

/// Sums stop at the largest quantity there is.
impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            nanos: (self.nanos + other.nanos).clamp(-MAX_NANOS, MAX_NANOS),
        }
    }
}

/// As the number of nanos, which loses nothing.
impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}n", self.nanos))
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number_end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let magnitude = magnitude(whole, fraction, scale(suffix)?);
    Some(Quantity {
        nanos: if negative { -magnitude } else { magnitude },
    })
}

fn scale(suffix: &str) -> Option<Scale> {
    let decimal = |decimal| Some(Scale { decimal, binary: 0 });
    let binary = |binary| Some(Scale { decimal: 0, binary });
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => decimal(exponent(suffix.strip_prefix(['e', 'E'])?)?),
    }
}

/// A decimal exponent. One that is out of all bounds is as good as its bound.
fn exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bound = 1_000_000;
    let magnitude = digits.parse().unwrap_or(bound).min(bound);
    Some(if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    })
}

/// The number in nanos, rounded up, at most [`MAX_NANOS`].
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let digits = || whole.bytes().chain(fraction.bytes());
    let significant = || digits().skip_while(|d| *d == b'0');
    let mantissa = significant()
        .take(MANTISSA_DIGITS)
        .fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    if mantissa == 0 {
        return 0;
    }
    let dropped = significant().count().saturating_sub(MANTISSA_DIGITS);
    let inexact = significant().skip(MANTISSA_DIGITS).any(|d| d != b'0');
    let mantissa = (mantissa + u128::from(inexact)) << scale.binary;

    let exponent = i64::from(scale.decimal) + i64::from(NANO_DIGITS) - length(fraction)
        + i64::try_from(dropped).unwrap_or(i64::MAX / 2);
    let power = u32::try_from(exponent.unsigned_abs())
        .ok()
        .and_then(|exponent| 10u128.checked_pow(exponent));
    let nanos = match (exponent >= 0, power) {
        (true, Some(power)) => mantissa.saturating_mul(power),
        (true, None) => u128::MAX,
        (false, Some(power)) => mantissa.div_ceil(power),
        (false, None) => 1,
    };
    i128::try_from(nanos).unwrap_or(MAX_NANOS).min(MAX_NANOS)
}

fn canonical(amount: i128, step: i128, suffixes: &[&str]) -> ApiQuantity {
    if amount == 0 {
        return ApiQuantity("0".to_owned());
    }
    let mut number = amount;
    let mut suffixes = suffixes.iter().peekable();
    let mut suffix = suffixes.next();
    while number % step == 0 && suffixes.peek().is_some() {
        number /= step;
        suffix = suffixes.next();
    }
    ApiQuantity(format!("{number}{}", suffix.copied().unwrap_or_default()))
}

fn length(digits: &str) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests;
