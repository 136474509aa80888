use proptest::prelude::*;

use super::*;
use crate::server::api::container_logs::options::{Instance, Stream};

pub(super) fn options() -> LogOptions {
    LogOptions {
        instance: Instance::Latest,
        until: Until::Now,
        stamps: Stamps::Hidden,
        since: None,
        tail: None,
        limit: None,
        selection: Selection::All,
    }
}

fn decode(options: &LogOptions, log: &[u8], block: usize) -> String {
    let mut decoder = Decoder::new(options);
    let mut out = Vec::new();
    for block in log.chunks(block.max(1)) {
        if decoder.feed(block, &mut out) == Appetite::Sated {
            break;
        }
    }
    decoder.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

const LOG: &str = "\
2026-01-01T00:00:01Z stdout F one
2026-01-01T00:00:02Z stderr P tw
2026-01-01T00:00:03Z stderr P o a
2026-01-01T00:00:04Z stderr F nd
not an entry
2026-01-01T00:00:05Z stdout F three
{\"log\":\"four\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:06Z\"}
2026-01-01T00:00:07Z stdout P five";

#[test]
fn options_select_what_is_shown() {
    let since = Some("2026-01-01T00:00:05Z".parse().expect("time"));
    let table: &[(LogOptions, &str)] = &[
        (options(), "one\ntwo and\nthree\nfour\nfive"),
        (LogOptions { since, ..options() }, "three\nfour\nfive"),
        (
            LogOptions {
                limit: Some(8),
                ..options()
            },
            "one\ntwo ",
        ),
        (
            LogOptions {
                selection: Selection::Only(Stream::Stderr),
                ..options()
            },
            "two and\n",
        ),
        (
            LogOptions {
                stamps: Stamps::Shown,
                ..options()
            },
            "2026-01-01T00:00:01.000000000Z one\n\
             2026-01-01T00:00:02.000000000Z two and\n\
             2026-01-01T00:00:05.000000000Z three\n\
             2026-01-01T00:00:06.000000000Z four\n\
             2026-01-01T00:00:07.000000000Z five",
        ),
        // As if the tail had begun here: it counts entries, not lines.
        (
            LogOptions {
                tail: Some(3),
                ..options()
            },
            "one\ntwo a",
        ),
        (
            LogOptions {
                tail: Some(0),
                ..options()
            },
            "",
        ),
        (
            LogOptions {
                tail: Some(1),
                until: Until::Exit,
                ..options()
            },
            "one\ntwo and\nthree\nfour\nfive",
        ),
    ];
    for (options, wanted) in table {
        for block in [1, 7, 64, 4096] {
            assert_eq!(
                decode(options, LOG.as_bytes(), block),
                *wanted,
                "{options:?} in blocks of {block}"
            );
        }
    }
}

#[test]
fn a_line_without_end_passes_through_in_pieces() {
    let mut decoder = Decoder::new(&options());
    let mut out = Vec::new();
    let mut shown = 0;
    decoder.feed(b"2026-01-01T00:00:01Z stdout P ", &mut out);
    let block = [b'x'; 32 << 10];
    for _ in 0..1024 {
        decoder.feed(&block, &mut out);
        shown += out.len();
        assert!(out.len() <= LONGEST_HELD * 2, "{}", out.len());
        out.clear();
        if let Place::Line(held) = &decoder.place {
            assert!(held.len() <= LONGEST_HELD * 2);
        }
    }
    decoder.feed(b"\n2026-01-01T00:00:01Z stdout F end\n", &mut out);
    shown += out.len();
    assert_eq!(shown, (32 << 20) + "end\n".len());
}

#[test]
fn long_lines_that_nobody_can_read_are_left_out() {
    for start in ["{", "garbage "] {
        let mut log = start.as_bytes().to_vec();
        log.resize(LONGEST_JSON * 2, b'x');
        log.extend_from_slice(b"\n2026-01-01T00:00:01Z stdout F good\n");
        assert_eq!(decode(&options(), &log, 8192), "good\n");
    }
}

#[test]
fn a_long_json_line_is_read_whole() {
    let text = "y".repeat(LONGEST_HELD * 2);
    let line = format!(
        "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:06Z\"}}\n"
    );
    assert_eq!(decode(&options(), line.as_bytes(), 4096), text + "\n");
}

proptest! {
    #[test]
    fn blocks_make_no_difference(
        log in proptest::collection::vec(prop_oneof![
            Just("2026-01-01T00:00:01Z stdout F one\n".to_owned()),
            Just("2026-01-01T00:00:02Z stderr P t\n".to_owned()),
            Just("{\"log\":\"j\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:03Z\"}\n".to_owned()),
            "[ -~\n]{0,40}",
        ], 0..30),
        block in 1usize..100,
        limit in proptest::option::of(0u64..300),
        tail in proptest::option::of(0u64..20),
        stamps in prop_oneof![Just(Stamps::Shown), Just(Stamps::Hidden)],
    ) {
        let log = log.concat();
        let options = LogOptions { limit, tail, stamps, ..options() };
        let whole = decode(&options, log.as_bytes(), log.len());
        prop_assert_eq!(decode(&options, log.as_bytes(), block), &*whole);
        if let Some(limit) = limit {
            prop_assert!(whole.len() as u64 <= limit);
        }
    }

    #[test]
    fn nothing_is_too_odd(log in proptest::collection::vec(any::<u8>(), 0..2000), block in 1usize..300) {
        decode(&options(), &log, block);
    }
}
