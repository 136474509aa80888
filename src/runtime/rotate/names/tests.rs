use proptest::prelude::*;

use super::*;

#[test]
fn names_are_read_and_written() {
    for (file, form) in [
        ("0.log.20260102-030405", Form::Plain),
        ("0.log.20260102-030405.gz", Form::Compressed),
        ("0.log.20260102-030405.tmp", Form::Temporary),
        ("0.log.20260102-030405-001", Form::Plain),
        ("0.log.20260102-030405-1234.gz", Form::Compressed),
    ] {
        let log = RotatedLog::parse("0.log", file).expect(file);
        assert_eq!(log.form, form, "{file}");
        assert_eq!(log.file_name("0.log"), file);
    }
}

#[test]
fn other_names_are_none() {
    for file in [
        "0.log",
        "0.log.",
        "0.log.gz",
        "0.logx20260102-030405",
        "10.log.20260102-030405",
        "0.log.20260102-03040",
        "0.log.2026010-2030405",
        "0.log.20260102-030405x",
        "0.log.20260102-030405-",
        "0.log.20260102-030405-x",
        "0.log.20260102-030405.gz.tmp",
        "0.log.+0260102-030405",
        "0.log.日本語日本語",
    ] {
        assert_eq!(RotatedLog::parse("0.log", file), None, "{file}");
    }
}

#[test]
fn stamps_only_grow() {
    let now: Timestamp = "2026-01-02T03:04:05.9Z".parse().expect("time");
    let first = Stamp::next(now, None);
    assert_eq!(first.to_string(), "20260102-030405");
    let second = Stamp::next(now, Some(&first));
    assert_eq!(second.to_string(), "20260102-030405-001");
    let past: Timestamp = "2025-01-01T00:00:00Z".parse().expect("time");
    let third = Stamp::next(past, Some(&second));
    assert_eq!(third.to_string(), "20260102-030405-002");
    let later: Timestamp = "2026-01-02T03:04:06Z".parse().expect("time");
    let fourth = Stamp::next(later, Some(&third));
    assert_eq!(fourth.to_string(), "20260102-030406");
    assert!(first < second && second < third && third < fourth);
}

proptest! {
    #[test]
    fn no_name_is_too_odd(file in "(0\\.log\\.)?[-0-9a-z.]{0,30}") {
        if let Some(log) = RotatedLog::parse("0.log", &file) {
            prop_assert_eq!(RotatedLog::parse("0.log", &log.file_name("0.log")), Some(log));
        }
    }

    #[test]
    fn stamps_follow_each_other(times in proptest::collection::vec(0i64..2_000_000_000, 1..20)) {
        let mut newest: Option<Stamp> = None;
        for time in times {
            let now = Timestamp::from_second(time).expect("in range");
            let next = Stamp::next(now, newest.as_ref());
            prop_assert!(newest.is_none_or(|newest| newest < next));
            prop_assert_eq!(Stamp::parse(&next.to_string()), Some(next.clone()));
            newest = Some(next);
        }
    }
}
