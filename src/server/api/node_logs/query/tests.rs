use super::*;

fn read(query: &[(&str, &str)]) -> Result<Option<NodeLogQuery>, BadQuery> {
    let pairs: Vec<_> = query
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    parse(&pairs)
}

fn arguments(query: &[(&str, &str)]) -> Vec<String> {
    match read(query) {
        Ok(Some(NodeLogQuery::Services(services, options))) => options.arguments(&services),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_query_the_path_counts() {
    for query in [&[][..], &[("other", "1")], &[("boot", "")]] {
        assert_eq!(read(query), Ok(None), "{query:?}");
    }
}

#[test]
fn services_become_arguments() {
    let plain = ["--utc", "--no-pager", "--output=short-precise"];
    let with = |more: &[&str]| -> Vec<String> {
        plain
            .iter()
            .chain(more)
            .map(|text| (*text).to_owned())
            .collect()
    };
    assert_eq!(
        arguments(&[("query", "kubelet"), ("query", "crio@1.x"), ("query", " ")]),
        with(&["--unit=kubelet", "--unit=crio@1.x"])
    );
    assert_eq!(
        arguments(&[
            ("query", "kubelet"),
            ("sinceTime", "2026-01-02T03:04:05+01:00"),
            ("untilTime", "2026-01-02T03:04:05Z"),
            ("tailLines", "100000"),
            ("boot", "-1"),
            ("pattern", "a b|--c"),
        ]),
        with(&[
            "--since=2026-01-02 02:04:05 UTC",
            "--until=2026-01-02 03:04:05 UTC",
            "--lines=100000",
            "--unit=kubelet",
            "--grep=a b|--c",
            "--boot=-1",
        ])
    );
}

#[test]
fn a_slash_makes_a_file() {
    for value in ["/foo.log", "sub/foo.log", "sub\\foo.log"] {
        let wanted = NodeLogQuery::File(value.replace('\\', "/"));
        assert_eq!(read(&[("query", value)]), Ok(Some(wanted)));
    }
}

#[test]
fn values_of_another_type_are_undecodable() {
    for query in [
        [("query", "kubelet"), ("sinceTime", "yesterday")],
        [("query", "kubelet"), ("untilTime", "1")],
        [("query", "kubelet"), ("tailLines", "many")],
        [("query", "kubelet"), ("boot", "0x1")],
        [("query", ""), ("query", "  ")],
    ] {
        assert!(
            matches!(read(&query), Err(BadQuery::Undecodable(_))),
            "{query:?}"
        );
    }
}

#[test]
fn what_does_not_go_together_is_not_acceptable() {
    let long = "x".repeat(257);
    for query in [
        &[("boot", "0")][..],
        &[("query", "/a"), ("query", "b")],
        &[("query", "/a"), ("query", "/b")],
        &[("query", "/a"), ("tailLines", "1")],
        &[("query", "a;b")],
        &[("query", "a b")],
        &[("query", "$(x)")],
        &[("query", &long)],
        &[
            ("query", "a"),
            ("query", "b"),
            ("query", "c"),
            ("query", "d"),
            ("query", "e"),
        ],
        &[("query", "a"), ("boot", "1")],
        &[("query", "a"), ("tailLines", "-1")],
        &[("query", "a"), ("tailLines", "100001")],
        &[("query", "a"), ("pattern", "(")],
        &[
            ("query", "a"),
            ("sinceTime", "2026-01-02T03:04:05Z"),
            ("untilTime", "2026-01-02T03:04:04Z"),
        ],
    ] {
        assert!(
            matches!(read(query), Err(BadQuery::NotAcceptable(_))),
            "{query:?}: {:?}",
            read(query)
        );
    }
}
