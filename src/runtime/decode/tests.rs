use std::time::Duration;

use super::*;
use crate::pod::stamp::{ANNOTATION_BACKOFF, ANNOTATION_HASH};

/// 2026-01-02T03:04:05Z and the seconds after it.
const CREATED: i64 = 1_767_323_045_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanosecond((CREATED + seconds * SECOND).into()).expect("in range")
}

fn sandbox_status() -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        id: "s1".to_owned(),
        metadata: Some(cri::PodSandboxMetadata {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            uid: "uid-1".to_owned(),
            attempt: 1,
        }),
        state: cri::PodSandboxState::SandboxReady.into(),
        created_at: CREATED,
        network: Some(cri::PodSandboxNetworkStatus {
            ip: "10.0.0.7".to_owned(),
            additional_ips: vec![cri::PodIp {
                ip: "fd00::7".to_owned(),
            }],
        }),
        ..Default::default()
    }
}

fn container_status() -> cri::ContainerStatus {
    cri::ContainerStatus {
        id: "c1".to_owned(),
        metadata: Some(cri::ContainerMetadata {
            name: "main".to_owned(),
            attempt: 1,
        }),
        state: cri::ContainerState::ContainerExited.into(),
        created_at: CREATED,
        started_at: CREATED + SECOND,
        finished_at: CREATED + 2 * SECOND,
        exit_code: 3,
        image: Some(cri::ImageSpec {
            image: "docker.io/library/web:1".to_owned(),
            ..Default::default()
        }),
        image_ref: "docker.io/library/web@sha256:1".to_owned(),
        reason: "Error".to_owned(),
        annotations: [
            (ANNOTATION_HASH, "abc"),
            (ANNOTATION_BACKOFF, "20"),
            (ANNOTATION_RESTART_COUNT, "4"),
            (ANNOTATION_TERMINATION_PATH, "/dev/termination-log"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        mounts: vec![cri::Mount {
            container_path: "/dev/termination-log".to_owned(),
            host_path: "/host/log".to_owned(),
            ..Default::default()
        }],
        log_path: "/var/log/pods/x/main/4.log".to_owned(),
        ..Default::default()
    }
}

fn exit_of(status: &cri::ContainerStatus, termination: &str) -> Exit {
    match container(status, "s1", termination).expect("valid").state {
        ContainerState::Exited(exit) => exit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sandbox_is_read_with_all_its_addresses() {
    let status = cri::PodSandboxStatus {
        runtime_handler: "runsc".to_owned(),
        ..sandbox_status()
    };
    let seen = sandbox(&status, None).expect("valid");
    assert_eq!(
        seen,
        ObservedSandbox {
            id: SandboxId("s1".to_owned()),
            attempt: 1,
            state: SandboxState::Ready,
            created_at: at(0),
            ips: vec![[10, 0, 0, 7].into(), "fd00::7".parse().expect("address")],
            host_network: false,
            runtime_handler: "runsc".to_owned(),
        }
    );
}

#[test]
fn a_stopped_sandbox_keeps_its_addresses() {
    let before = sandbox(&sandbox_status(), None).expect("valid");
    let mut status = sandbox_status();
    status.network = None;
    let lost = sandbox(&status, Some(&before)).expect("valid");
    assert!(lost.ips.is_empty(), "one that is up has those it has");
    status.state = cri::PodSandboxState::SandboxNotready.into();
    let stopped = sandbox(&status, Some(&before)).expect("valid");
    assert_eq!(
        (stopped.state, stopped.ips),
        (SandboxState::NotReady, before.ips)
    );
}

#[test]
fn the_host_network_is_recognised() {
    let mut status = sandbox_status();
    status.linux = Some(cri::LinuxPodSandboxStatus {
        namespaces: Some(cri::Namespace {
            options: Some(cri::NamespaceOption {
                network: cri::NamespaceMode::Node.into(),
                ..Default::default()
            }),
        }),
    });
    assert!(sandbox(&status, None).expect("valid").host_network);
}

#[test]
fn a_container_is_read_with_what_was_left_on_it() {
    let seen = container(&container_status(), "s1", "bye").expect("valid");
    assert_eq!((seen.attempt, seen.name.as_str()), (4, "main"));
    assert_eq!(seen.stamp.hash, "abc");
    assert_eq!(seen.stamp.backoff, Some(Duration::from_secs(20)));
    assert_eq!(seen.image, "docker.io/library/web:1");
    assert_eq!(
        seen.state,
        ContainerState::Exited(Exit {
            code: 3,
            signal: None,
            reason: "Error".to_owned(),
            message: "bye".to_owned(),
            started_at: Some(at(1)),
            finished_at: at(2),
        })
    );
}

#[test]
fn last_words_come_after_the_runtimes() {
    let mut status = container_status();
    status.message = "killed".to_owned();
    let cases = [("", "killed"), ("bye", "killed: bye")];
    for (termination, expected) in cases {
        assert_eq!(exit_of(&status, termination).message, expected);
    }
}

#[test]
fn what_never_started_ended_without_a_start() {
    let mut status = container_status();
    status.started_at = 0;
    status.finished_at = 0;
    let exit = exit_of(&status, "");
    assert_eq!((exit.started_at, exit.finished_at), (None, at(0)));
}

#[test]
fn an_answer_that_lacks_what_cri_demands_is_invalid() {
    type Damage = fn(&mut cri::ContainerStatus);
    let damages: [(&str, Damage); 5] = [
        ("metadata", |s| s.metadata = None),
        ("image", |s| s.image = None),
        ("id", |s| s.id.clear()),
        ("image_ref", |s| s.image_ref.clear()),
        ("image.image", |s| s.image = Some(cri::ImageSpec::default())),
    ];
    for (field, damage) in damages {
        let mut status = container_status();
        damage(&mut status);
        let error = container(&status, "s1", "").expect_err(field).to_string();
        assert_eq!(
            error,
            format!("ContainerStatus: invalid answer: {field} is missing")
        );
    }
    let status = cri::PodSandboxStatus::default();
    assert!(matches!(
        sandbox(&status, None),
        Err(RuntimeError::Invalid { .. })
    ));
}

#[test]
fn last_words_are_looked_for_where_they_may_be() {
    type Edit = fn(&mut cri::ContainerStatus);
    /// File and log.
    type Places = (Option<&'static str>, Option<&'static str>);
    fn fall_back(status: &mut cri::ContainerStatus) {
        let policy = ANNOTATION_TERMINATION_POLICY.to_owned();
        let value = "FallbackToLogsOnError".to_owned();
        status.annotations.insert(policy, value);
    }
    let file = Some("/host/log");
    let log = Some("/var/log/pods/x/main/4.log");
    let cases: [(&str, Edit, Option<Places>); 7] = [
        ("a file", |_| {}, Some((file, None))),
        ("a log too", fall_back, Some((file, log))),
        (
            "no mount",
            |s| {
                fall_back(s);
                s.mounts.clear();
            },
            Some((None, log)),
        ),
        (
            "success",
            |s| {
                fall_back(s);
                s.exit_code = 0;
            },
            Some((file, None)),
        ),
        (
            "cannot run",
            |s| {
                fall_back(s);
                s.reason = "ContainerCannotRun".to_owned();
            },
            Some((file, None)),
        ),
        ("nothing asked", |s| s.annotations.clear(), None),
        (
            "running",
            |s| s.state = cri::ContainerState::ContainerRunning.into(),
            None,
        ),
    ];
    for (what, edit, expected) in cases {
        let mut status = container_status();
        edit(&mut status);
        let expected = expected.map(|(file, log)| LastWords {
            file: file.map(PathBuf::from),
            log: log.map(PathBuf::from),
        });
        assert_eq!(last_words(&status), expected, "{what}");
    }
}

#[test]
fn only_what_carries_a_pods_labels_is_a_pods() {
    let labels = |keys: &[&str]| {
        let pairs = keys.iter().map(|key| ((*key).to_owned(), "x".to_owned()));
        pairs.collect()
    };
    let all = [LABEL_POD_UID, LABEL_POD_NAME, LABEL_POD_NAMESPACE];
    let expected = (PodUid::from("x"), PodName::new("x", "x"));
    assert_eq!(owner(&labels(&all)), Some(expected));
    assert_eq!(owner(&labels(&all[..2])), None);
}
