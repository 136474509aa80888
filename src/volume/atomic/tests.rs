//! Tests of [`super`]: contents change all at once, whenever a writer dies.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn payload(files: &[(&str, &str)]) -> Payload {
    let file = |(path, text): &(&str, &str)| {
        let file = File {
            bytes: text.as_bytes().to_vec(),
            mode: 0o640,
            owner: None,
        };
        (RelativePath::parse(path).unwrap(), file)
    };
    files.iter().map(file).collect()
}

fn now() -> Timestamp {
    "2026-01-31T08:09:10.5Z".parse().unwrap()
}

fn put(volume: &Path, files: &[(&str, &str)]) -> Written {
    write(volume, &payload(files), now(), || Ok(())).unwrap()
}

/// What a container sees: files below names that do not begin with `..`.
fn seen(volume: &Path) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(volume).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().as_bytes().starts_with(b"..") {
            continue;
        }
        for file in WalkDir::new(entry.path()).follow_links(true) {
            let file = file.unwrap();
            if file.file_type().is_file() {
                let path = file.path().strip_prefix(volume).unwrap();
                let text = fs::read_to_string(file.path()).unwrap();
                seen.push((path.to_str().unwrap().to_owned(), text));
            }
        }
    }
    seen.sort();
    seen
}

fn assert_shows(volume: &Path, files: &[(&str, &str)]) {
    let mut expected: Vec<_> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    expected.sort();
    assert_eq!(seen(volume), expected);
}

/// Only what is shown, and nothing that a crash or an older write left.
fn assert_tidy(volume: &Path, links: &[&str]) {
    let mut names: Vec<String> = fs::read_dir(volume)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let shown = shown_directory(volume)
        .unwrap()
        .unwrap()
        .into_string()
        .unwrap();
    let mut expected: Vec<String> = links.iter().map(|link| (*link).to_owned()).collect();
    expected.extend([DATA.to_owned(), shown]);
    expected.sort();
    assert_eq!(names, expected);
}

fn volume() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_form_is_upstreams() {
    let root = volume();
    put(root.path(), &[("token", "t"), ("certs/ca.crt", "c")]);
    let data = fs::read_link(root.path().join("..data")).unwrap();
    let data = data.to_str().unwrap();
    assert!(data.starts_with("..2026_01_31_08_09_10."), "{data}");
    for (link, target) in [("token", "..data/token"), ("certs", "..data/certs")] {
        assert_eq!(
            fs::read_link(root.path().join(link)).unwrap(),
            PathBuf::from(target)
        );
    }
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode(data), 0o755);
    assert_eq!(mode("token"), 0o640);
    assert_eq!(mode("certs/ca.crt"), 0o640);
    assert_tidy(root.path(), &["token", "certs"]);
    assert!(is_populated(root.path()));
}

#[test]
fn equal_contents_are_not_written_again() {
    let root = volume();
    let files = [("a", "1"), ("d/b", "2")];
    assert_eq!(put(root.path(), &files), Written::Replaced);
    let shown = shown_directory(root.path()).unwrap();
    assert_eq!(put(root.path(), &files), Written::Unchanged);
    assert_eq!(shown_directory(root.path()).unwrap(), shown);
}

#[test]
fn any_difference_replaces_everything() {
    let root = volume();
    let steps: [&[(&str, &str)]; 7] = [
        &[("a", "1"), ("b", "1")],
        &[("a", "2"), ("b", "1")],
        &[("a", "2")],
        &[("a", "2"), ("d/e/f", "1")],
        &[("a/x", "2"), ("d", "1")],
        &[],
        &[("a", "1")],
    ];
    for files in steps {
        assert_eq!(put(root.path(), files), Written::Replaced, "{files:?}");
        assert_shows(root.path(), files);
        let tops: BTreeSet<&str> = files
            .iter()
            .map(|(path, _)| path.split('/').next().unwrap())
            .collect();
        assert_tidy(root.path(), &tops.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn empty_contents_are_contents() {
    let root = volume();
    assert!(!is_populated(root.path()));
    assert_eq!(put(root.path(), &[]), Written::Replaced);
    assert!(is_populated(root.path()));
    assert_eq!(put(root.path(), &[]), Written::Unchanged);
}

#[test]
fn a_write_that_fails_shows_the_old_and_leaves_nothing() {
    let root = volume();
    put(root.path(), &[("a", "old")]);
    let full = || Err(io::Error::from_raw_os_error(libc::ENOSPC));
    let error = write(root.path(), &payload(&[("a", "new")]), now(), full).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_shows(root.path(), &[("a", "old")]);
    assert_tidy(root.path(), &["a"]);
}

/// How far a write gets before the agent dies.
#[derive(Debug, Clone, Copy)]
enum Crash {
    HalfStaged,
    Staged,
    NextDataLeft,
    Shown,
    OneLinkMade,
}

const CRASHES: [Crash; 5] = [
    Crash::HalfStaged,
    Crash::Staged,
    Crash::NextDataLeft,
    Crash::Shown,
    Crash::OneLinkMade,
];

/// Leaves a volume as a writer that died at this point would.
fn die(volume: &Path, files: &Payload, crash: Crash) {
    let staged = directory_name(now());
    let directory = volume.join(&staged);
    if let Crash::HalfStaged = crash {
        let first: Payload = files
            .iter()
            .take(1)
            .map(|(path, file)| (path.clone(), file.clone()))
            .collect();
        return stage(&directory, &first).unwrap();
    }
    stage(&directory, files).unwrap();
    match crash {
        Crash::HalfStaged | Crash::Staged => {}
        Crash::NextDataLeft => {
            remove_if_present(&volume.join(NEXT_DATA)).unwrap();
            symlink(&staged, volume.join(NEXT_DATA)).unwrap();
        }
        Crash::Shown => show(volume, &staged).unwrap(),
        Crash::OneLinkMade => {
            show(volume, &staged).unwrap();
            if let Some(path) = files.keys().next_back() {
                let link = volume.join(path.top());
                remove_if_present(&link).unwrap();
                symlink(Path::new(DATA).join(path.top()), link).unwrap();
            }
        }
    }
}

#[test]
fn a_crash_leaves_old_or_new_and_the_next_write_mends_it() {
    let (old, new) = ([("a", "1"), ("gone", "1")], [("a", "2"), ("added", "2")]);
    for crash in CRASHES {
        for next in [&old, &new] {
            let root = volume();
            put(root.path(), &old);
            die(root.path(), &payload(&new), crash);
            let a = fs::read_to_string(root.path().join("a")).unwrap();
            let is_shown = matches!(crash, Crash::Shown | Crash::OneLinkMade);
            assert_eq!(a, if is_shown { "2" } else { "1" }, "{crash:?}");
            put(root.path(), next);
            assert_shows(root.path(), next);
            assert_tidy(root.path(), &[next[0].0, next[1].0]);
        }
    }
}

#[test]
fn a_broken_data_link_is_replaced() {
    for target in ["..gone", "/etc", "../..", "a"] {
        let root = volume();
        symlink(target, root.path().join(DATA)).unwrap();
        put(root.path(), &[("a", "1")]);
        assert_shows(root.path(), &[("a", "1")]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// After any history of writes and crashes, a write shows just its files.
    #[test]
    fn the_last_write_is_what_is_seen(
        history in prop::collection::vec(
            (prop::collection::btree_map("[ab](/[cd])?", "[xy]{0,2}", 0..4),
             prop::option::of(prop::sample::select(&CRASHES))),
            1..6,
        ),
    ) {
        let root = volume();
        for (files, crash) in history {
            let files: Vec<(&str, &str)> = files
                .iter()
                .map(|(path, text)| (path.as_str(), text.as_str()))
                .filter(|(path, _)| path.contains('/') || !files.keys().any(
                    |other| other.starts_with(&format!("{path}/"))))
                .collect();
            match crash {
                Some(crash) => die(root.path(), &payload(&files), crash),
                None => {
                    put(root.path(), &files);
                    assert_shows(root.path(), &files);
                }
            }
        }
    }
}
