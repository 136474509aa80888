use std::fmt::Write;
use std::path::PathBuf;

use super::*;

fn words(file: Option<PathBuf>, log: Option<PathBuf>) -> LastWords {
    LastWords { file, log }
}

#[test]
fn only_the_end_of_a_file_counts() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("message");
    let long = "x".repeat(5000) + "end";
    for (content, expected) in [
        ("bye\n", "bye\n"),
        ("", ""),
        (&long, &long[long.len() - 4096..]),
    ] {
        std::fs::write(&file, content).expect("write");
        assert_eq!(read(&words(Some(file.clone()), None)), expected);
    }
    assert_eq!(read(&words(Some(dir.path().join("none")), None)), "");
}

#[test]
fn of_a_huge_file_only_the_end_is_read() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("message");
    let file = std::fs::File::create(&path).expect("a file");
    // A hole: a terabyte that takes no room.
    file.set_len(1 << 40).expect("a long file");
    let message = read(&words(Some(path), None));
    assert_eq!(message.len(), 4096);
}

#[test]
fn bytes_that_are_no_text_are_made_text() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("message");
    std::fs::write(&path, b"bye\xff").expect("write");
    assert_eq!(read(&words(Some(path), None)), "bye\u{fffd}");
}

#[test]
fn what_is_not_a_regular_file_is_not_read() {
    let dir = tempfile::tempdir().expect("directory");
    let path = |name| dir.path().join(name);
    std::fs::write(path("secret"), "secret").expect("write");
    std::os::unix::fs::symlink(path("secret"), path("link")).expect("link");
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
    for hostile in [
        path("link"),
        path("fifo"),
        "/dev/zero".into(),
        dir.path().into(),
    ] {
        let message = read(&words(Some(hostile.clone()), None));
        assert!(
            message.starts_with("Error on reading termination log: "),
            "{hostile:?}: {message}"
        );
    }
}

#[test]
fn the_log_speaks_for_an_empty_file() {
    let dir = tempfile::tempdir().expect("directory");
    let path = |name| dir.path().join(name);
    let log = "2026-01-02T03:04:05.000000006Z stdout P one \n\
               2026-01-02T03:04:05.000000007Z stdout F line\n\
               not a log line\n\
               2026-01-02T03:04:05.000000008Z stderr F two\n";
    std::fs::write(path("log"), log).expect("write");
    std::fs::write(path("empty"), "").expect("write");
    std::fs::write(path("full"), "said").expect("write");
    let read = |file| read(&words(Some(path(file)), Some(path("log"))));
    assert_eq!(read("empty"), "one line\ntwo\n");
    assert_eq!(read("full"), "said");
}

#[test]
fn of_a_long_log_the_last_lines_count() {
    let dir = tempfile::tempdir().expect("directory");
    let log = dir.path().join("log");
    let text_of = |lines: usize, width: usize| {
        let mut text = String::new();
        for line in 0..lines {
            writeln!(text, "2026-01-02T03:04:05Z stdout F {line:0width$}").expect("write");
        }
        std::fs::write(&log, text).expect("write");
        read(&words(None, Some(log.clone())))
    };
    // By lines.
    let text = text_of(1000, 4);
    assert_eq!(text.lines().count(), 80);
    assert_eq!(
        (text.lines().next(), text.lines().last()),
        (Some("0920"), Some("0999"))
    );
    // By bytes.
    let text = text_of(20_000, 200);
    assert_eq!(text.len(), 2048);
    assert!(text.ends_with("19999\n"));
}
