//! Hooks as authors write them, and as they are found again on containers.

use serde_json::{Value, json};

use super::*;

fn ports() -> Vec<ContainerPort> {
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        ..ContainerPort::default()
    };
    vec![port("web", 8080), port("huge", 70_000)]
}

fn hook(handler: Value) -> Hook {
    Hook::of(
        &serde_json::from_value(handler).expect("a handler"),
        &ports(),
    )
}

#[test]
fn every_form_is_read() {
    let table = [
        (
            json!({"exec": {"command": ["sh", "-c", "a b"]}}),
            Hook::Exec {
                command: vec!["sh".into(), "-c".into(), "a b".into()],
            },
        ),
        (
            json!({"sleep": {"seconds": 3}}),
            Hook::Sleep(Duration::from_secs(3)),
        ),
        (
            json!({"sleep": {"seconds": 0}}),
            Hook::Sleep(Duration::ZERO),
        ),
        (json!({"tcpSocket": {"port": 1}}), Hook::Invalid),
        (json!({}), Hook::Invalid),
    ];
    for (handler, wanted) in table {
        assert_eq!(hook(handler.clone()), wanted, "{handler}");
    }
}

#[test]
fn a_request_goes_to_the_pod_unless_the_hook_names_a_host() {
    let request = |get: Value| {
        let Hook::HttpGet(hook) = hook(json!({"httpGet": get})) else {
            panic!("no request");
        };
        hook.request("10.0.0.7").map(|request| request.to_string())
    };
    let table = [
        (json!({"port": "web"}), "http://10.0.0.7:8080/"),
        (
            json!({"port": 81, "scheme": "HTTPS", "host": "example.org", "path": "/bye?now=1"}),
            "https://example.org:81/bye?now=1",
        ),
    ];
    for (get, wanted) in table {
        assert_eq!(request(get.clone()), Ok(wanted.to_owned()), "{get}");
    }
    for port in [json!("admin"), json!("huge"), json!(0)] {
        assert!(request(json!({"port": port})).is_err(), "{port}");
    }
}

#[test]
fn a_request_says_who_asks() {
    let hook = Hook::of(
        &serde_json::from_value(json!({"httpGet": {"port": 80}})).expect("a handler"),
        &[],
    );
    let Hook::HttpGet(hook) = hook else {
        panic!("{hook:?}");
    };
    let headers = hook.request("10.0.0.7").expect("a request").headers;
    assert!(headers.contains(&("User-Agent".into(), "kube-lifecycle/1.36".into())));
}

#[test]
fn a_hook_is_found_again_on_the_container() {
    let annotations = HashMap::from([
        (
            ANNOTATION_PRE_STOP.to_owned(),
            r#"{"httpGet":{"port":"web","path":"/"}}"#.to_owned(),
        ),
        (
            ANNOTATION_PORTS.to_owned(),
            r#"[{"name":"web","containerPort":80}]"#.to_owned(),
        ),
    ]);
    let Some(Hook::HttpGet(hook)) = stamped_pre_stop(&annotations) else {
        panic!("no hook in {annotations:?}");
    };
    let request = hook.request("fd00::7").expect("a request");
    assert_eq!(request.to_string(), "http://[fd00::7]:80/");
    for unreadable in ["", "null", "[]", "{\"exec\": 1}"] {
        let annotations = HashMap::from([(ANNOTATION_PRE_STOP.into(), unreadable.into())]);
        assert_eq!(stamped_pre_stop(&annotations), None, "{unreadable}");
    }
    assert_eq!(stamped_pre_stop(&HashMap::new()), None);
}
