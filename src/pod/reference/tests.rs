use super::*;

fn parts(text: &str) -> (String, String, Option<String>, Option<String>) {
    let ImageReference {
        registry,
        repository,
        tag,
        digest,
    } = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    (registry, repository, tag, digest)
}

#[test]
fn references_have_their_parts() {
    let cases = [
        ("busybox", "docker.io", "library/busybox", None),
        ("busybox:1.37", "docker.io", "library/busybox", Some("1.37")),
        ("a/b:Tag_1.x-y", "docker.io", "a/b", Some("Tag_1.x-y")),
        (
            "index.docker.io/busybox",
            "docker.io",
            "library/busybox",
            None,
        ),
        ("docker.io/a/b", "docker.io", "a/b", None),
        // Without a slash, what looks like a host and a port is a name and a tag.
        (
            "example.com:5000",
            "docker.io",
            "library/example.com",
            Some("5000"),
        ),
        ("example.com:5000/a", "example.com:5000", "a", None),
        (
            "example.com:5000/a/b:v1",
            "example.com:5000",
            "a/b",
            Some("v1"),
        ),
        ("localhost/a", "localhost", "a", None),
        ("LOCAL/a", "LOCAL", "a", None),
        (
            "[2001:db8::1]:5000/a:v1",
            "[2001:db8::1]:5000",
            "a",
            Some("v1"),
        ),
        ("[::1]/a", "[::1]", "a", None),
        ("a_b.c/d", "a_b.c", "d", None),
        (
            "r.example/a.b_c__d-e---f",
            "r.example",
            "a.b_c__d-e---f",
            None,
        ),
    ];
    for (text, registry, repository, tag) in cases {
        let expected = (
            registry.to_owned(),
            repository.to_owned(),
            tag.map(str::to_owned),
            None,
        );
        assert_eq!(parts(text), expected, "{text}");
    }
}

#[test]
fn a_digest_stands_last_and_beside_a_tag() {
    for (algorithm, length) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
        let digest = format!("{algorithm}:{}", "0f".repeat(length / 2));
        let (_, _, tag, parsed) = parts(&format!("r.example:1/a:v1@{digest}"));
        assert_eq!(tag.as_deref(), Some("v1"));
        assert_eq!(parsed, Some(digest.clone()));
        let reference: ImageReference = format!("a@{digest}").parse().unwrap();
        assert_eq!(reference.tag, None);
        assert!(!reference.is_latest());
    }
}

#[test]
fn latest_is_meant_by_name_or_by_saying_nothing() {
    let meant = |text: &str| text.parse::<ImageReference>().unwrap().is_latest();
    assert!(meant("a"));
    assert!(meant("a:latest"));
    assert!(!meant("a:v1"));
}

#[test]
fn what_is_malformed_is_refused() {
    let long = format!("r.example/{}", "a/".repeat(127) + "aa");
    let longest_tag = format!("a:{}", "t".repeat(128));
    assert!(longest_tag.parse::<ImageReference>().is_ok());
    let too_long_tag = format!("{longest_tag}t");
    let hex = "a".repeat(64);
    let id_with_tag = format!("{hex}:v1");
    assert!(id_with_tag.parse::<ImageReference>().is_ok());
    let cases = [
        ("", ReferenceError::Empty),
        (":tag", ReferenceError::Format),
        ("a:", ReferenceError::Format),
        ("a b", ReferenceError::Format),
        ("-a", ReferenceError::Format),
        ("a-", ReferenceError::Format),
        ("a..b", ReferenceError::Format),
        ("a___b", ReferenceError::Format),
        ("a//b", ReferenceError::Format),
        ("/a", ReferenceError::Format),
        ("a/", ReferenceError::Format),
        ("a:.b", ReferenceError::Format),
        ("a:ä", ReferenceError::Format),
        ("r.example:x/a", ReferenceError::Format),
        ("-r.example/a", ReferenceError::Format),
        ("a@sha256", ReferenceError::Format),
        ("a@sha256:12", ReferenceError::Format),
        ("Upper", ReferenceError::Uppercase("library/Upper".into())),
        (
            "r.example/Upper:v1",
            ReferenceError::Uppercase("Upper".into()),
        ),
        (&hex, ReferenceError::LooksLikeId(hex.clone())),
        (&long, ReferenceError::TooLong),
        (&too_long_tag, ReferenceError::Format),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<ImageReference>(), Err(expected), "{text}");
    }
}

#[test]
fn a_digest_is_of_a_known_kind_and_whole() {
    let cases = [
        (
            format!("a@md5:{}", "0".repeat(32)),
            ReferenceError::DigestAlgorithm,
        ),
        (
            format!("a@sha256:{}", "0".repeat(63)),
            ReferenceError::DigestLength,
        ),
        (
            format!("a@sha256:{}", "F".repeat(64)),
            ReferenceError::DigestFormat,
        ),
        (
            format!("a@sha256:{}", "g".repeat(64)),
            ReferenceError::Format,
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<ImageReference>(), Err(expected), "{text}");
    }
}
