use proptest::prelude::*;

use super::*;

/// `(text, value, milli value)` as k8s.io/apimachinery v0.36 computes them.
const UPSTREAM: &[(&str, i64, i64)] = &[
    ("0", 0, 0),
    ("1", 1, 1000),
    ("-1", -1, -1000),
    ("100m", 1, 100),
    ("1500m", 2, 1500),
    ("0.1", 1, 100),
    ("0.5", 1, 500),
    ("1.0005", 2, 1001),
    ("1.0001m", 1, 2),
    ("1n", 1, 1),
    ("1u", 1, 1),
    ("1m", 1, 1),
    ("1k", 1000, 1_000_000),
    ("1M", 1_000_000, 1_000_000_000),
    ("1G", 1_000_000_000, 1_000_000_000_000),
    ("1T", 1_000_000_000_000, 1_000_000_000_000_000),
    ("1P", 1_000_000_000_000_000, 1_000_000_000_000_000_000),
    ("1Ki", 1024, 1_024_000),
    ("1Mi", 1_048_576, 1_048_576_000),
    ("1Gi", 1_073_741_824, 1_073_741_824_000),
    ("1Ti", 1_099_511_627_776, 1_099_511_627_776_000),
    ("1Pi", 1_125_899_906_842_624, 1_125_899_906_842_624_000),
    ("1e3", 1000, 1_000_000),
    ("1E3", 1000, 1_000_000),
    ("1e+2", 100, 100_000),
    ("1e-3", 1, 1),
    ("1.5e2", 150, 150_000),
    ("1e-30", 1, 1),
    ("1e-99999", 1, 1),
    ("1e0000003", 1000, 1_000_000),
    ("0.1Ki", 103, 102_400),
    ("0.3Mi", 314_573, 314_572_800),
    ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
    ("-1500m", -2, -1500),
    ("-1.1", -2, -1100),
    ("-0.5Ki", -512, -512_000),
    ("-1n", -1, -1),
    ("0.000000000000000000001", 1, 1),
    ("+5", 5, 5000),
    ("1.", 1, 1000),
    (".5", 1, 500),
    ("00001", 1, 1000),
    ("0e99999", 0, 0),
    (
        "9223372036854775807m",
        9_223_372_036_854_776,
        9_223_372_036_854_775_807,
    ),
];

#[test]
fn reads_what_upstream_reads() {
    for &(text, value, milli) in UPSTREAM {
        let quantity = Quantity::parse(text).unwrap();
        assert_eq!(quantity.value(), value, "value of {text}");
        assert_eq!(quantity.milli_value(), milli, "milli value of {text}");
    }
}

#[test]
fn large_values_stop_at_the_end_of_the_range() {
    for (text, value) in [
        ("1E", 1_000_000_000_000_000_000),
        ("1Ei", 1 << 60),
        ("7Ei", 7 << 60),
        ("8Ei", i64::MAX),
        ("10E", i64::MAX),
        ("1e30", i64::MAX),
        ("1e99999", i64::MAX),
        ("9223372036854775807", i64::MAX),
        ("99999999999999999999999999999999999999999999", i64::MAX),
        ("123456789012345678.1", 123_456_789_012_345_679),
    ] {
        let quantity = Quantity::parse(text).unwrap();
        assert_eq!(quantity.value(), value, "value of {text}");
        assert_eq!(quantity.milli_value(), i64::MAX, "milli value of {text}");
    }
    assert_eq!(Quantity::parse("-10E").unwrap().milli_value(), i64::MIN);
}

#[test]
fn refuses_what_is_no_quantity() {
    for text in [
        "", " ", "-", ".", "  1", "1 ", "1e", "1Kii", "1KI", "1K", "abc", "1..2", "1.2.3", "0x1",
        "1e2Ki", "1e--2", "NaN", "inf", "1µ", "１",
    ] {
        assert!(Quantity::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn canonical_forms() {
    let units = Quantity::from_value;
    for (quantity, text) in [
        (units(0).to_binary(), "0"),
        (units(24_684_096 * 1024).to_binary(), "24684096Ki"),
        (units(1 << 30).to_binary(), "1Gi"),
        (units(1500).to_binary(), "1500"),
        (units(1000).to_binary(), "1k"),
        (Quantity::from_milli(2_048_500).to_binary(), "2048500m"),
        (units(i64::MAX).to_binary(), "9223372036854775807"),
        (units(-2048).to_binary(), "-2Ki"),
        (units(0).to_decimal(), "0"),
        (units(110).to_decimal(), "110"),
        (units(2000).to_decimal(), "2k"),
        (Quantity::from_milli(2000).to_decimal(), "2"),
        (Quantity::from_milli(1930).to_decimal(), "1930m"),
        (Quantity::from_milli(1_000_000).to_decimal(), "1k"),
        (Quantity::from_milli(0).to_decimal(), "0"),
        (Quantity::parse("1n").unwrap().to_decimal(), "1n"),
    ] {
        assert_eq!(quantity.0, text);
    }
}

proptest! {
    #[test]
    fn canonical_forms_read_back(text in "-?[0-9]{1,6}(\\.[0-9]{1,4})?(m|k|Mi|G)?") {
        let quantity = Quantity::parse(&text).unwrap();
        prop_assert_eq!(Quantity::try_from(&quantity.to_decimal()), Ok(quantity));
        prop_assert_eq!(Quantity::try_from(&quantity.to_binary()), Ok(quantity));
    }

    #[test]
    fn whole_numbers_come_back(n in any::<i64>()) {
        prop_assert_eq!(Quantity::parse(&n.to_string()).unwrap().value(), n.max(-i64::MAX));
        prop_assert_eq!(Quantity::parse(&format!("{n}m")).unwrap().milli_value(), n);
        prop_assert_eq!(Quantity::from_milli(n), Quantity::parse(&format!("{n}m")).unwrap());
    }

    #[test]
    fn suffixes_multiply(n in 0i64..8192) {
        for (suffix, factor) in [
            ("k", 1000i64), ("M", 1_000_000), ("Ki", 1 << 10), ("Mi", 1 << 20),
            ("Gi", 1 << 30), ("Ti", 1 << 40), ("Pi", 1 << 50), ("e3", 1000),
        ] {
            let quantity = Quantity::parse(&format!("{n}{suffix}")).unwrap();
            prop_assert_eq!(quantity.value(), n.saturating_mul(factor));
        }
    }

    #[test]
    fn no_text_panics(text in "[+-]?[0-9.]{0,60}[eEinumkKMGTP]{0,2}[+-]?[0-9]{0,12}|\\PC*") {
        let _ = Quantity::parse(&text);
    }

    #[test]
    fn sums_keep_order(a in any::<i64>(), b in 0..=i64::MAX) {
        let (a, b) = (Quantity::from_value(a), Quantity::from_value(b));
        prop_assert!(a + b >= a || a + b == Quantity::from_value(i64::MAX));
    }
}
