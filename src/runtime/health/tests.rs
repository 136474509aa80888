use super::*;

fn condition(kind: &str, status: bool) -> cri::RuntimeCondition {
    cri::RuntimeCondition {
        r#type: kind.to_owned(),
        status,
        reason: "Why".to_owned(),
        message: "because".to_owned(),
    }
}

fn report(runtime: bool, network: bool) -> Report {
    let conditions = vec![
        condition("RuntimeReady", runtime),
        condition("NetworkReady", network),
    ];
    Report {
        version: cri::VersionResponse {
            runtime_name: "containerd".to_owned(),
            ..Default::default()
        },
        status: cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            ..Default::default()
        },
    }
}

fn error() -> RuntimeError {
    RuntimeError::Unreachable {
        call: "Version",
        message: "no socket".to_owned(),
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

#[test]
fn the_runtimes_own_word_counts_at_once() {
    let unchecked = RuntimeHealth::default();
    let good = judge(
        &unchecked,
        Ok(report(true, true)),
        Some(Duration::ZERO),
        now(),
    );
    assert!(good.checked && good.runtime.is_none() && good.network.is_none());
    assert_eq!(good.last_good, Some(now()));
    let offline = judge(&good, Ok(report(true, false)), Some(Duration::ZERO), now());
    let why = ConditionFailure {
        reason: "Why".to_owned(),
        message: "because".to_owned(),
    };
    assert_eq!((offline.runtime, offline.network), (None, Some(why)));
}

#[test]
fn silence_counts_after_a_while_only() {
    let unchecked = RuntimeHealth::default();
    let never = judge(&unchecked, Err(error()), None, now());
    assert!(never.checked && never.runtime.is_some());
    let good = judge(
        &unchecked,
        Ok(report(true, true)),
        Some(Duration::ZERO),
        now(),
    );
    let short = judge(&good, Err(error()), Some(Duration::from_secs(29)), now());
    assert_eq!(short, good);
    let long = judge(&good, Err(error()), Some(Duration::from_secs(30)), now());
    let failure = long
        .runtime
        .as_ref()
        .map(|failure| failure.message.as_str());
    assert_eq!(
        failure,
        Some("container runtime is down: Version: the runtime cannot be reached: no socket")
    );
    assert_eq!(long.last_good, good.last_good);
}

#[test]
fn a_later_good_check_alone_is_no_news() {
    let good = judge(
        &RuntimeHealth::default(),
        Ok(report(true, true)),
        Some(Duration::ZERO),
        now(),
    );
    let later = RuntimeHealth {
        last_good: Some(now() + PERIOD),
        ..good.clone()
    };
    assert!(is_same(&good, &later));
    assert!(!is_same(&RuntimeHealth::default(), &good));
}
