use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode};

use super::*;

fn pairs(query: &str) -> Pairs {
    let uri = format!("/?{query}").parse().expect("URI");
    let Query(pairs) = Query::try_from_uri(&uri).expect("query");
    Pairs(pairs)
}

#[test]
fn streams_are_those_asked_for() {
    let cases = [
        ("input=1&output=1&error=1", Some("in out err")),
        ("input=1&output=1&error=1&tty=1", Some("in out tty")),
        ("output=1", Some("out")),
        // Only `1` is a yes, and the first value counts.
        ("output=true&input=1", Some("in")),
        ("output=0&output=1&error=1", Some("err")),
        ("", None),
        ("tty=1", None),
        ("error=1&tty=1", None),
    ];
    for (query, wanted) in cases {
        match (streams(&pairs(query)), wanted) {
            (Ok(got), Some(wanted)) => {
                let flags = [
                    (got.stdin, "in"),
                    (got.stdout, "out"),
                    (got.stderr, "err"),
                    (got.tty, "tty"),
                ];
                let set = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
                assert_eq!(set.collect::<Vec<_>>().join(" "), wanted, "{query}");
            }
            (Err(refusal), None) => {
                assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
                assert_eq!(
                    refusal.message,
                    "you must specify at least 1 of stdin, stdout, stderr"
                );
            }
            (got, _) => panic!("{query}: {got:?}"),
        }
    }
}

#[test]
fn commands_keep_their_words() {
    let exec = |query| exec_command(&pairs(query));
    assert_eq!(
        exec("command=sh&command=-c&command=echo+a%20%26+b&output=1&command="),
        ["sh", "-c", "echo a & b", ""]
    );
    assert!(exec("output=1").is_empty());
    let run = |query| run_command(&pairs(query));
    assert_eq!(run("cmd=ls+-l%20/"), ["ls", "-l", "/"]);
    assert_eq!(run("cmd=a++b"), ["a", "", "b"]);
    assert_eq!(run(""), [""]);
}

#[test]
fn a_websocket_names_the_ports_it_wants() {
    let websocket = Some(Upgrade::WebSocket);
    let cases = [
        ("port=80", Ok(vec![80])),
        ("port=80,443&port=65535", Ok(vec![80, 443, 65535])),
        ("", Err("query parameter \"port\" is required")),
        ("port=", Err("query parameter \"port\" cannot be empty")),
        ("port=0", Err("port \"0\" must be > 0")),
        (
            "port=65536",
            Err("unable to parse \"65536\" as a port: number too large to fit in target type"),
        ),
        (
            "port=80,x",
            Err("unable to parse \"80,x\" as a port: invalid digit found in string"),
        ),
    ];
    for (query, wanted) in cases {
        let got = ports(&pairs(query), websocket);
        let wanted = wanted.map_err(Refusal::bad_request);
        assert_eq!(got, wanted, "{query}");
        assert_eq!(ports(&pairs(query), Some(Upgrade::Other)), Ok(Vec::new()));
    }
}

#[test]
fn the_last_timeout_of_a_checkpoint_counts() {
    let limit = |query| checkpoint_limit(&pairs(query));
    assert_eq!(limit(""), Ok(None));
    assert_eq!(limit("timeout=0"), Ok(None));
    assert_eq!(
        limit("timeout=x&timeout=7"),
        Ok(Some(Duration::from_secs(7)))
    );
    for bad in ["timeout=", "timeout=7&timeout=x", "timeout=-1"] {
        let refusal = limit(bad).expect_err(bad);
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
        assert_eq!(refusal.message, "cannot parse value of timeout parameter");
    }
}

#[test]
fn an_upgrade_is_asked_for_by_two_headers() {
    let cases: [(&[(&str, &str)], _); 6] = [
        (
            &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")],
            Some(Upgrade::Other),
        ),
        (
            &[
                ("connection", "keep-alive, upgrade"),
                ("upgrade", "WebSocket"),
            ],
            Some(Upgrade::WebSocket),
        ),
        (
            &[
                ("connection", "keep-alive"),
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
            ],
            Some(Upgrade::WebSocket),
        ),
        (&[("connection", "Upgrade")], None),
        (&[("upgrade", "SPDY/3.1")], None),
        (&[], None),
    ];
    for (headers, wanted) in cases {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().expect("name");
            map.append(name, value.parse().expect("value"));
        }
        assert_eq!(upgrade(&map), wanted, "{headers:?}");
    }
}
