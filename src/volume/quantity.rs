//! Amounts written as Kubernetes quantities (`64Mi`, `250m`, `1.5`), as far as
//! volumes need them: sizes, and the numbers that resource fields show.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

const NANOS_PER_UNIT: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;

/// A quantity that is not one, or that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid quantity {0:?}")]
pub(super) struct ParseQuantityError(String);

/// An amount in billionths, the finest unit that a quantity can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Quantity(i128);

impl Quantity {
    pub(super) fn from_value(value: i64) -> Self {
        Self(i128::from(value) * NANOS_PER_UNIT)
    }

    pub(super) fn from_milli(milli: i64) -> Self {
        Self(i128::from(milli) * NANOS_PER_MILLI)
    }

    pub(super) fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Whole units, rounded up, saturating.
    pub(super) fn value(self) -> i64 {
        ceil_div(self.0, NANOS_PER_UNIT)
    }

    /// Thousandths, rounded up, saturating.
    pub(super) fn milli_value(self) -> i64 {
        ceil_div(self.0, NANOS_PER_MILLI)
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = ParseQuantityError;

    fn try_from(quantity: &ApiQuantity) -> Result<Self, Self::Error> {
        parse(&quantity.0).ok_or_else(|| ParseQuantityError(quantity.0.clone()))
    }
}

/// Division rounding towards positive infinity; the divisor is positive.
fn ceil_div(value: i128, divisor: i128) -> i64 {
    let quotient = value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0);
    i64::try_from(quotient).unwrap_or(if quotient < 0 { i64::MIN } else { i64::MAX })
}

fn parse(text: &str) -> Option<Quantity> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || fraction.contains('.') {
        return None;
    }
    let (base, exponent) = scale(suffix)?;
    let mut nanos = digits.parse::<i128>().ok()?.checked_mul(NANOS_PER_UNIT)?;
    let mut divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let power = i128::from(base).checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 {
        nanos = nanos.checked_mul(power)?;
    } else {
        divisor = divisor.checked_mul(power)?;
    }
    // What is finer than a billionth is rounded up, away from zero.
    let magnitude = nanos / divisor + i128::from(nanos % divisor != 0);
    Some(Quantity(if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    }))
}

/// Base and exponent of a suffix.
fn scale(suffix: &str) -> Option<(i64, i32)> {
    Some(match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        "Pi" => (1024, 5),
        "Ei" => (1024, 6),
        _ => (10, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Result<Quantity, ParseQuantityError> {
        Quantity::try_from(&ApiQuantity(text.to_owned()))
    }

    #[test]
    fn amounts_are_read_and_rounded_up() {
        let cases = [
            ("64Mi", 64 << 20, 64_000 << 20),
            ("250m", 1, 250),
            ("1.5", 2, 1500),
            ("1e3", 1000, 1_000_000),
            ("1E3", 1000, 1_000_000),
            ("2k", 2000, 2_000_000),
            ("100n", 1, 1),
            ("0", 0, 0),
            ("-1500m", -1, -1500),
            ("8Ei", i64::MAX, i64::MAX),
        ];
        for (text, units, millis) in cases {
            let amount = amount(text).unwrap();
            assert_eq!(
                (amount.value(), amount.milli_value()),
                (units, millis),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "Mi",
            "1.2.3",
            "1 Mi",
            "1mi",
            "1e999",
            "0x10",
            "99999999999999999999Ei",
        ] {
            assert!(amount(text).is_err(), "{text:?}");
        }
    }
}
