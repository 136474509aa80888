use proptest::prelude::*;

use super::*;

fn shown(head: &Head<'_>) -> String {
    let mut out = Vec::new();
    append_time(head, &mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn entries_are_split() {
    let table: &[(&str, Stream, Ending, &str)] = &[
        ("stdout F text\n", Stream::Stdout, Ending::Line, "text\n"),
        ("stderr P text\n", Stream::Stderr, Ending::Partial, "text\n"),
        ("stdout P:X text", Stream::Stdout, Ending::Partial, "text"),
        ("stdout X  a b \n", Stream::Stdout, Ending::Line, " a b \n"),
        ("stdout F \n", Stream::Stdout, Ending::Line, "\n"),
        ("stdout F ", Stream::Stdout, Ending::Line, ""),
    ];
    for (rest, stream, ending, text) in table {
        let line = format!("2026-01-02T03:04:05.5Z {rest}");
        let (head, found) = cri(line.as_bytes()).expect(rest);
        assert_eq!((head.stream, head.ending), (*stream, *ending), "{rest}");
        assert_eq!(found, text.as_bytes());
        assert_eq!(head.time, "2026-01-02T03:04:05.5Z".parse().expect("time"));
    }
}

#[test]
fn other_lines_are_none() {
    for line in [
        "",
        "\n",
        "text\n",
        "2026-01-02T03:04:05Z\n",
        "2026-01-02T03:04:05Z stdout\n",
        "2026-01-02T03:04:05Z stdout F\n",
        "2026-01-02T03:04:05Z stdin F text\n",
        "yesterday stdout F text\n",
        " stdout F text\n",
        "{\"log\":\"text\"}\n",
    ] {
        assert_eq!(cri(line.as_bytes()), None, "{line:?}");
    }
}

#[test]
fn times_have_nine_digits_in_the_runtimes_offset() {
    for (written, wanted) in [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000000Z"),
        ("2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05.100000000Z"),
        (
            "2026-01-02T03:04:05.123456789+02:00",
            "2026-01-02T03:04:05.123456789+02:00",
        ),
        // Valid, and not as any runtime writes it.
        ("20260102T030405.25Z", "2026-01-02T03:04:05.250000000Z"),
    ] {
        let line = format!("{written} stdout F x");
        let (head, _) = cri(line.as_bytes()).expect(written);
        assert_eq!(shown(&head), wanted);
    }
}

#[test]
fn dockers_entries_are_read() {
    let line = br#"{"log":"text\n","stream":"stderr","time":"2026-01-02T03:04:05.5Z"}"#;
    let entry = DockerEntry::parse(line).expect("an entry");
    assert_eq!(entry.log, "text\n");
    let head = entry.head().expect("a head");
    assert_eq!(head.stream, Stream::Stderr);
    assert_eq!(shown(&head), "2026-01-02T03:04:05.500000000Z");
    assert!(DockerEntry::parse(b"{").is_none());
    let odd = DockerEntry::parse(br#"{"log":"x","stream":"tape","time":"2026-01-02T03:04:05Z"}"#);
    assert!(odd.expect("an entry").head().is_none());
}

proptest! {
    #[test]
    fn no_line_is_too_odd(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some((head, text)) = cri(&line) {
            prop_assert!(line.ends_with(text));
            shown(&head);
        }
        let _ = DockerEntry::parse(&line);
    }

    #[test]
    fn what_was_written_is_read(seconds in 0i64..4_000_000_000, nanos in 0i32..1_000_000_000,
                                text in "[^\n]{0,80}") {
        let time = Timestamp::new(seconds, nanos).expect("in range");
        let line = format!("{time} stdout F {text}\n");
        let (head, found) = cri(line.as_bytes()).expect("an entry");
        prop_assert_eq!(head.time, time);
        prop_assert_eq!(found, &line.as_bytes()[line.len() - text.len() - 1..]);
        prop_assert_eq!(shown(&head), format!("{time:.9}"));
    }
}
