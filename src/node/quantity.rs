//! Writes Kubernetes quantities in the canonical form that the API server
//! gives back, so that a status can be compared as text. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// `24684096Ki`: the largest binary suffix that divides the number.
pub(super) fn binary(amount: i64) -> Quantity {
    scaled(amount, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

/// `110`, `2k`: the largest decimal suffix that divides the number.
pub(super) fn decimal(amount: i64) -> Quantity {
    scaled(amount, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

/// `2`, `1500m`: thousandths.
pub(super) fn milli(amount: i64) -> Quantity {
    scaled(amount, 1000, &["m", "", "k", "M", "G", "T", "P"])
}

fn scaled(amount: i64, step: i64, suffixes: &[&str]) -> Quantity {
    if amount == 0 {
        return Quantity("0".to_owned());
    }
    let mut number = amount;
    let mut suffixes = suffixes.iter().peekable();
    let mut suffix = suffixes.next();
    while number % step == 0 && suffixes.peek().is_some() {
        number /= step;
        suffix = suffixes.next();
    }
    Quantity(format!("{number}{}", suffix.copied().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (quantity, text) in [
            (binary(0), "0"),
            (binary(24_684_096 * 1024), "24684096Ki"),
            (binary(1 << 30), "1Gi"),
            (binary(1500), "1500"),
            (binary(i64::MAX), "9223372036854775807"),
            (decimal(0), "0"),
            (decimal(110), "110"),
            (decimal(2000), "2k"),
            (milli(2000), "2"),
            (milli(1930), "1930m"),
            (milli(1_000_000), "1k"),
            (milli(0), "0"),
        ] {
            assert_eq!(quantity.0, text);
        }
    }
}
