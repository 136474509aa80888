//! Kubernetes quantities (`100Mi`, `250m`, `1e3`), as far as configuration needs them:
//! whether a text is one, its sign, and its size in whole units.

/// A parsed quantity: `mantissa × 10^exp10 × 2^exp2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantity {
    mantissa: i128,
    exp10: i32,
    exp2: u32,
}

/// Suffixes with their powers of ten and two.
const SUFFIXES: [(&str, i32, u32); 16] = [
    ("", 0, 0),
    ("n", -9, 0),
    ("u", -6, 0),
    ("m", -3, 0),
    ("k", 3, 0),
    ("M", 6, 0),
    ("G", 9, 0),
    ("T", 12, 0),
    ("P", 15, 0),
    ("E", 18, 0),
    ("Ki", 0, 10),
    ("Mi", 0, 20),
    ("Gi", 0, 30),
    ("Ti", 0, 40),
    ("Pi", 0, 50),
    ("Ei", 0, 60),
];

/// More digits than any real quantity has; keeps the arithmetic within 128 bits.
const MAX_DIGITS: usize = 30;

impl Quantity {
    /// Parses a quantity; `None` if the text is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let number_len = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > MAX_DIGITS || fraction.contains('.') {
            return None;
        }
        let (exp10, exp2) = parse_suffix(suffix)?;
        let magnitude: i128 = digits.parse().ok()?;
        let fraction_digits = i32::try_from(fraction.len()).ok()?;
        Some(Self {
            mantissa: if text.starts_with('-') {
                -magnitude
            } else {
                magnitude
            },
            exp10: exp10 - fraction_digits,
            exp2,
        })
    }

    /// True below zero.
    pub(super) fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// True for zero.
    pub(super) fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// The size in whole units, rounded up; zero for negative quantities, saturating.
    pub(super) fn ceil(self) -> u64 {
        let Ok(mantissa) = u128::try_from(self.mantissa) else {
            return 0;
        };
        let power = |exponent: u32| 10_u128.checked_pow(exponent).unwrap_or(u128::MAX);
        let scaled = mantissa
            .saturating_mul(power(u32::try_from(self.exp10).unwrap_or(0)))
            .saturating_mul(1_u128 << self.exp2);
        let divisor = power(self.exp10.min(0).unsigned_abs());
        u64::try_from(scaled.div_ceil(divisor)).unwrap_or(u64::MAX)
    }
}

fn parse_suffix(suffix: &str) -> Option<(i32, u32)> {
    let known = SUFFIXES.iter().find(|(name, ..)| *name == suffix);
    if let Some((_, exp10, exp2)) = known {
        return Some((*exp10, *exp2));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-30..=30).contains(&exponent).then_some((exponent, 0))
}
