use std::io::{Cursor, Write as _};

use proptest::prelude::*;

use super::*;

fn tail(log: &[u8], entries: u64) -> u64 {
    tail_start(&mut Cursor::new(log), entries).expect("no error in memory")
}

#[test]
fn a_tail_begins_at_a_line() {
    let log = b"one\ntwo\nthree\nincompl";
    for (entries, start) in [(0, 14), (1, 8), (2, 4), (3, 0), (4, 0), (u64::MAX, 0)] {
        assert_eq!(tail(log, entries), start, "{entries}");
    }
    assert_eq!(tail(b"", 1), 0);
    assert_eq!(tail(b"no line", 0), 0);
}

#[test]
fn a_tail_is_found_across_blocks() {
    let mut log = Vec::new();
    for number in 0..40_000 {
        writeln!(log, "line {number}").expect("in memory");
    }
    for entries in [1u64, 10_000, 39_999] {
        let start = usize::try_from(tail(&log, entries)).expect("in memory");
        let text = std::str::from_utf8(&log[start..]).expect("text");
        assert_eq!(text.lines().count() as u64, entries);
        assert_eq!(
            text.lines().next(),
            Some(&*format!("line {}", 40_000 - entries))
        );
    }
}

proptest! {
    #[test]
    fn a_tail_is_what_counting_lines_gives(log in "[a\n]{0,60}", entries in 0u64..20) {
        let complete: Vec<_> = log.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        let skipped = complete.len().saturating_sub(usize::try_from(entries).expect("small"));
        let start: usize = complete[..skipped].iter().map(|line| line.len()).sum();
        prop_assert_eq!(tail(log.as_bytes(), entries), start as u64);
    }
}
