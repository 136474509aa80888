use super::*;

const NOW: &str = "2026-01-02T03:04:05Z";

fn read(query: &str, streams: StreamChoice) -> Result<LogOptions, BadOptions> {
    let pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    parse(&pairs, streams, NOW.parse().expect("time"))
}

fn plain() -> LogOptions {
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

#[test]
fn options_are_read() {
    let since = |time: &str| Some(time.parse().expect("time"));
    let table: &[(&str, LogOptions)] = &[
        ("", plain()),
        ("unknown=1", plain()),
        (
            "follow=true&previous=1&timestamps",
            LogOptions {
                until: Until::Exit,
                instance: Instance::Previous,
                stamps: Stamps::Shown,
                ..plain()
            },
        ),
        ("follow=False&previous=0&timestamps=false", plain()),
        (
            "follow=perhaps",
            LogOptions {
                until: Until::Exit,
                ..plain()
            },
        ),
        (
            "tailLines=0",
            LogOptions {
                tail: Some(0),
                ..plain()
            },
        ),
        (
            "tail=7&tailLines=3",
            LogOptions {
                tail: Some(7),
                ..plain()
            },
        ),
        ("tail=all&tailLines=3", plain()),
        (
            "tail=&tailLines=3",
            LogOptions {
                tail: Some(3),
                ..plain()
            },
        ),
        (
            "limitBytes=1&limitBytes=2",
            LogOptions {
                limit: Some(1),
                ..plain()
            },
        ),
        (
            "sinceSeconds=5",
            LogOptions {
                since: since("2026-01-02T03:04:00Z"),
                ..plain()
            },
        ),
        (
            "sinceSeconds=9223372036854775807",
            LogOptions {
                since: Some(Timestamp::MIN),
                ..plain()
            },
        ),
        (
            "sinceTime=2026-01-01T00:00:00.5+01:00",
            LogOptions {
                since: since("2025-12-31T23:00:00.5Z"),
                ..plain()
            },
        ),
        ("sinceTime=", plain()),
        ("stream=All&tailLines=1", {
            LogOptions {
                tail: Some(1),
                ..plain()
            }
        }),
    ];
    for (query, wanted) in table {
        assert_eq!(
            read(query, StreamChoice::Refused).as_ref(),
            Ok(wanted),
            "{query}"
        );
    }
}

#[test]
fn a_single_stream_needs_the_gate() {
    let wanted = LogOptions {
        selection: Selection::Only(Stream::Stderr),
        ..plain()
    };
    assert_eq!(read("stream=Stderr", StreamChoice::Allowed), Ok(wanted));
    assert_eq!(
        read("stream=Stderr", StreamChoice::Refused),
        Err(BadOptions::StreamRefused("Stderr"))
    );
}

#[test]
fn what_is_wrong_is_refused() {
    use BadOptions::{Invalid, Undecodable};
    let table = [
        ("tailLines=x", Undecodable),
        ("tailLines=", Undecodable),
        ("tail=some", Undecodable),
        ("limitBytes=1.5", Undecodable),
        ("sinceSeconds=9223372036854775808", Undecodable),
        ("sinceTime=yesterday", Undecodable),
        ("tailLines=-1", Invalid),
        ("limitBytes=0", Invalid),
        ("limitBytes=-1", Invalid),
        ("sinceSeconds=0", Invalid),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", Invalid),
        ("stream=stdout", Invalid),
        ("stream=Stdout&tailLines=1", Invalid),
    ];
    for (query, wanted) in table {
        assert_eq!(read(query, StreamChoice::Allowed), Err(wanted), "{query}");
    }
}
