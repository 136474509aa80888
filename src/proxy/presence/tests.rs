//! Tables; time and pods are made up.

use serde_json::{Value, json};

use super::*;

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn labelled(namespace: &str, name: &str) -> Pod {
    pod(json!({"metadata": {
        "namespace": namespace, "name": name, "labels": {"k8s-app": "kube-proxy"},
    }}))
}

fn commanded(command: &[&str]) -> Pod {
    pod(json!({
        "metadata": {"namespace": "edge", "name": "p"},
        "spec": {"containers": [
            {"name": "sidecar"},
            {"name": "main", "command": command},
        ]},
    }))
}

fn owned(kind: &str, name: &str) -> Pod {
    pod(json!({"metadata": {
        "namespace": "net", "name": "p",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u"}],
    }}))
}

fn in_phase(phase: &str) -> Pod {
    let mut pod = labelled("kube-system", "p");
    pod.status.get_or_insert_default().phase = Some(phase.to_owned());
    pod
}

#[test]
fn which_pods_are_kube_proxies() {
    for (pod, expected) in [
        (labelled("kube-system", "kube-proxy-x"), true),
        (labelled("default", "kube-proxy-x"), false),
        (owned("DaemonSet", "kube-proxy"), true),
        (owned("DaemonSet", "kube-proxy-exporter"), false),
        (owned("ReplicaSet", "kube-proxy"), false),
        (
            commanded(&["/usr/local/bin/kube-proxy", "--config=x"]),
            true,
        ),
        (commanded(&["kube-proxy"]), true),
        (commanded(&["/bin/not-kube-proxy"]), false),
        (commanded(&["/bin/sh", "kube-proxy"]), false),
        (commanded(&[]), false),
        (in_phase("Pending"), true),
        (in_phase("Running"), true),
        (in_phase("Succeeded"), false),
        (in_phase("Failed"), false),
        (Pod::default(), false),
    ] {
        assert_eq!(is_kube_proxy(&pod), expected, "{pod:?}");
    }
}

#[test]
fn a_pod_explains_more_than_a_process() {
    let other = Pod::default();
    let pods = [
        labelled("kube-system", "b"),
        other.clone(),
        labelled("kube-system", "a"),
    ];
    let culprit = Some("iptables-restor");
    let name = "kube-system/a".to_owned();
    assert_eq!(judge(&pods, culprit), Verdict::KubeProxyPod { name });
    let process = "iptables-restor".to_owned();
    assert_eq!(
        judge([&other], culprit),
        Verdict::RewrittenByAnother { process }
    );
    assert_eq!(judge([&other], None), Verdict::Alone);
}

/// Who wrote and when, asked when, and who is found.
type Row<'a> = (&'a [(&'a str, u64)], u64, Option<&'a str>);

#[test]
fn who_writes_again_and_again_is_found() {
    let start = Instant::now();
    let at = |second: u64| start + Duration::from_secs(second);
    let table: &[Row<'_>] = &[
        (&[], 0, None),
        (&[("a", 0), ("a", 1)], 2, None),
        (&[("a", 0), ("a", 1), ("a", 2)], 2, Some("a")),
        // Different processes.
        (&[("a", 0), ("b", 1), ("a", 2), ("b", 3)], 3, None),
        // Once a quarter of an hour is somebody's habit.
        (&[("a", 0), ("a", 900), ("a", 1800)], 1800, None),
        (&[("a", 0), ("a", 300), ("a", 599)], 599, Some("a")),
        (&[("a", 0), ("a", 300), ("a", 601)], 601, None),
        // Silent for an hour.
        (&[("a", 0), ("a", 1), ("a", 2)], 3601, Some("a")),
        (&[("a", 0), ("a", 1), ("a", 2)], 3602, None),
        // Once found, each write counts.
        (
            &[("a", 0), ("a", 1), ("a", 2), ("a", 3000)],
            6599,
            Some("a"),
        ),
    ];
    for (number, (writes, asked, expected)) in table.iter().enumerate() {
        let mut rewrites = Rewrites::default();
        for (who, second) in *writes {
            rewrites.note(who, at(*second));
        }
        rewrites.forget_gone(at(*asked));
        assert_eq!(rewrites.culprit(), *expected, "row {number}");
    }
}

#[test]
fn who_does_not_follow_a_change_is_gone() {
    let start = Instant::now();
    let at = |second: u64| start + Duration::from_secs(second);
    let asked = |rewrites: &mut Rewrites, second| {
        rewrites.forget_gone(at(second));
        rewrites.culprit().is_some()
    };
    let mut rewrites = Rewrites::default();
    rewrites.expect(at(0));
    assert_eq!(rewrites.gone_at(), None);
    for second in [1, 2, 3] {
        rewrites.note("a", at(second));
    }
    assert_eq!(rewrites.gone_at(), Some(at(3 + 3600)));
    // It was faster than our watch.
    rewrites.expect(at(5));
    assert_eq!(rewrites.gone_at(), Some(at(3 + 3600)));
    // A change that it follows, and another one.
    rewrites.expect(at(100));
    rewrites.expect(at(110));
    assert_eq!(rewrites.gone_at(), Some(at(160)));
    rewrites.note("b", at(150));
    rewrites.note("a", at(159));
    assert!(asked(&mut rewrites, 200));
    rewrites.expect(at(200));
    assert!(asked(&mut rewrites, 259));
    assert!(!asked(&mut rewrites, 260));
    // It is back: again it takes a few writes.
    for second in [261, 262] {
        rewrites.note("a", at(second));
        assert!(!asked(&mut rewrites, second));
    }
    rewrites.note("a", at(263));
    assert!(asked(&mut rewrites, 263));
}

#[test]
fn memory_is_bounded_and_the_busiest_is_still_found() {
    let start = Instant::now();
    let mut rewrites = Rewrites::default();
    for number in 0..10_000 {
        rewrites.note(&format!("p{number}"), start);
        assert!(rewrites.writes.len() <= REMEMBERED);
    }
    assert_eq!(rewrites.culprit(), None);
    for _ in 0..WRITES {
        rewrites.note("a", start);
    }
    assert_eq!(rewrites.culprit(), Some("a"));
}

fn verdicts() -> [Verdict; 3] {
    [
        Verdict::Alone,
        Verdict::KubeProxyPod {
            name: "kube-system/kube-proxy-x".to_owned(),
        },
        Verdict::RewrittenByAnother {
            process: "iptables-restor".to_owned(),
        },
    ]
}

#[test]
fn what_is_told() {
    let mut told = Vec::new();
    for mode in [Mode::Auto, Mode::On] {
        for verdict in verdicts() {
            let condition = condition(&verdict, mode).map_or("no condition".to_owned(), |said| {
                format!("{CONDITION}={} {}", said.status, said.reason.unwrap())
            });
            let event = event(None, &verdict, mode);
            told.push(format!(
                "{mode:?}: runs={} {condition} | {} | {}",
                mode.runs(&verdict),
                event.map_or("no event", |event| event.reason),
                describe(&verdict, mode),
            ));
        }
    }
    insta::assert_snapshot!(told.join("\n"), @r"
    Auto: runs=true no condition | no event | Services of this node are the agent's work alone
    Auto: runs=false ServiceProxyConflict=False KubeProxyPod | ServiceProxyStandsAside | Services of this node are the work of pod kube-system/kube-proxy-x; the agent's service proxy stands aside, and takes over when that pod is gone
    Auto: runs=false ServiceProxyConflict=True RewrittenByAnother | ServiceProxyConflict | processes named iptables-restor keep writing the rules of Services, so the agent's service proxy stands aside; stop them, or set --service-proxy=off
    On: runs=true no condition | no event | Services of this node are the agent's work alone
    On: runs=true ServiceProxyConflict=True KubeProxyPod | ServiceProxyConflict | pod kube-system/kube-proxy-x and the agent's service proxy both program Services of this node; keep the pod off it, or set --service-proxy=auto
    On: runs=true ServiceProxyConflict=True RewrittenByAnother | ServiceProxyConflict | processes named iptables-restor keep writing the rules of Services, and so does the agent's service proxy; stop them, or set --service-proxy=off
    ");
}

#[test]
fn only_news_is_an_event() {
    let [alone, pod, process] = verdicts();
    for (before, after, expected) in [
        (None, &alone, None),
        (None, &pod, Some("ServiceProxyStandsAside")),
        (Some(&pod), &pod, None),
        (Some(&pod), &alone, Some("ServiceProxyTakesOver")),
        (Some(&alone), &process, Some("ServiceProxyConflict")),
        (Some(&process), &alone, Some("ServiceProxyTakesOver")),
    ] {
        let event = event(before, after, Mode::Auto);
        let reason = event.as_ref().map(|event| event.reason);
        assert_eq!(reason, expected, "{before:?} {after:?}");
    }
}
