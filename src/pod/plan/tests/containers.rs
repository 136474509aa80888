//! Sidecars, rules for exits, probes' verdicts, ephemeral containers.

use super::*;
use crate::pod::containers::find;
use crate::pod::observed::ObservedContainer;
use crate::pod::probe::Verdict;

/// `s` is a sidecar between the init containers `i` and `j`.
fn with_sidecar(policy: &str) -> DesiredPod {
    with_spec(json!({
        "restartPolicy": policy,
        "initContainers": [
            {"name": "i", "image": "img"},
            {"name": "s", "image": "img", "restartPolicy": "Always",
             "startupProbe": {}, "livenessProbe": {"terminationGracePeriodSeconds": 2}},
            {"name": "j", "image": "img"},
        ],
        "containers": [{"name": "a", "image": "img"}],
    }))
}

fn passed(mut memory: PodMemory, kind: ProbeKind, instance: &str, passed: bool) -> PodMemory {
    let name: String = instance.chars().take_while(|c| c.is_alphabetic()).collect();
    let verdict = Verdict {
        instance: ContainerId(instance.into()),
        passed,
    };
    let entry = memory.containers.entry(name).or_default();
    entry.probes.set(kind, verdict);
    memory
}

fn ready() -> PodMemory {
    with_images(prepared(), &["i", "s", "j", "a", "b", "e"])
}

fn first(name: &str) -> Step {
    start(name, NextAttempt::FromLogs, None)
}

fn again(name: &str, attempt: u32) -> Step {
    start(name, NextAttempt::Number(attempt), Some(10))
}

fn stopped(steps: &[Step]) -> Vec<(&str, StopReason, u64)> {
    let Some(Step::StopContainers(stops)) = steps.first() else {
        panic!("expected a stop, got {steps:?}");
    };
    stops
        .iter()
        .map(|stop| (stop.name.as_str(), stop.why, stop.grace.as_secs()))
        .collect()
}

#[test]
fn a_sidecar_holds_up_what_follows_until_it_has_started() {
    let pod = with_sidecar("Always");
    let i = || instance(&pod, "i", 0, exited(0, 1));
    let s = |state| instance(&pod, "s", 0, state);
    let j = |state| instance(&pod, "j", 0, state);
    let started = || passed(ready(), ProbeKind::Startup, "s0", true);
    let table: Vec<(Vec<ObservedContainer>, PodMemory, Vec<Step>)> = vec![
        (vec![i()], ready(), vec![first("s")]),
        (vec![s(running()), i()], ready(), vec![]),
        (vec![s(running()), i()], started(), vec![first("j")]),
        // Before it has started once, its exit holds up what follows as well.
        (vec![s(exited(0, 1)), i()], ready(), vec![again("s", 1)]),
        // Afterwards it is only restarted.
        (
            vec![j(running()), s(exited(1, 1)), i()],
            ready(),
            vec![again("s", 1)],
        ),
        (
            vec![j(exited(0, 1)), s(exited(1, 1)), i()],
            ready(),
            vec![again("s", 1), first("a")],
        ),
        (
            vec![instance(&pod, "a", 0, running()), s(exited(0, 1))],
            ready(),
            vec![again("s", 1)],
        ),
        // One whose record is gone is missed.
        (
            vec![instance(&pod, "a", 0, running())],
            ready(),
            vec![first("s")],
        ),
    ];
    for (containers, memory, expected) in table {
        let observed = up(containers);
        let plan = decide(&pod, &observed, &memory, 5);
        assert_eq!(plan.steps, expected, "{:?}", observed.containers);
        assert_eq!(plan.stage, Stage::Running);
    }
}

#[test]
fn a_sidecar_does_not_keep_its_pod_alive() {
    for policy in ["OnFailure", "Never"] {
        let pod = with_sidecar(policy);
        let observed = up(vec![
            instance(&pod, "a", 0, exited(0, 4)),
            instance(&pod, "s", 0, running()),
        ]);
        let plan = decide(&pod, &observed, &ready(), 5);
        assert_eq!(plan.stage, Stage::Stopping);
        assert_eq!(stopped(&plan.steps)[0].0, "s");
    }
}

#[test]
fn a_new_sandbox_runs_init_containers_again() {
    let pod = with_sidecar("Always");
    let mut observed = up(vec![
        instance(&pod, "a", 0, exited(137, 4)),
        instance(&pod, "j", 0, exited(0, 1)),
        instance(&pod, "s", 0, exited(137, 4)),
        instance(&pod, "i", 2, exited(0, 1)),
    ]);
    observed.sandboxes = vec![
        sandbox(1, SandboxState::Ready),
        sandbox(0, SandboxState::NotReady),
    ];
    let plan = decide(&pod, &observed, &ready(), 5);
    assert_eq!(plan.steps, [start("i", NextAttempt::Number(3), None)]);
}

#[test]
fn a_changed_image_restarts_a_running_sidecar_and_no_running_init_step() {
    let pod = with_sidecar("Always");
    let old = |mut instance: ObservedContainer| {
        instance.stamp.hash = "old".into();
        instance
    };
    let observed = up(vec![old(instance(&pod, "i", 0, running()))]);
    assert_eq!(decide(&pod, &observed, &ready(), 5).steps, []);
    let observed = up(vec![old(instance(&pod, "s", 0, running()))]);
    let plan = decide(&pod, &observed, &ready(), 5);
    assert_eq!(stopped(&plan.steps)[0].1, StopReason::DefinitionChanged);
}

#[test]
fn a_failed_probe_stops_its_container_whatever_the_policy() {
    for policy in ["Always", "OnFailure", "Never"] {
        let mut pod = pod(policy, &[], &["a"]);
        let mut object = Pod::clone(&pod.pod);
        for container in object.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
            container.liveness_probe = Some(Default::default());
        }
        pod.pod = Arc::new(object);
        let memory = passed(ready(), ProbeKind::Liveness, "a0", false);
        let observed = up(vec![instance(&pod, "a", 0, running())]);
        let plan = decide(&pod, &observed, &memory, 5);
        let why = StopReason::ProbeFailed(ProbeKind::Liveness);
        assert_eq!(stopped(&plan.steps), [("a", why, 7)]);

        // It may exit well; that is not what it was stopped for.
        let observed = up(vec![instance(&pod, "a", 0, exited(0, 5))]);
        let plan = decide(&pod, &observed, &memory, 6);
        if policy == "Never" {
            assert_eq!(plan.stage, Stage::Stopping);
        } else {
            assert_eq!(plan.steps, [again("a", 1)], "{policy}");
        }
    }
}

#[test]
fn a_sidecars_probes_are_heeded_too() {
    let pod = with_sidecar("Never");
    let observed = up(vec![
        instance(&pod, "a", 0, running()),
        instance(&pod, "s", 0, running()),
    ]);
    let memory = passed(ready(), ProbeKind::Liveness, "s0", false);
    let plan = decide(&pod, &observed, &memory, 5);
    let why = StopReason::ProbeFailed(ProbeKind::Liveness);
    assert_eq!(stopped(&plan.steps), [("s", why, 2)]);
}

fn rule(action: &str, operator: &str, codes: &[i32]) -> serde_json::Value {
    json!({"action": action, "exitCodes": {"operator": operator, "values": codes}})
}

#[test]
fn rules_come_before_the_containers_policy_and_that_before_the_pods() {
    use AfterExit::{AllRunAgain, RunsAgain, Stays};
    let restart_on_7 = json!([rule("Restart", "In", &[7])]);
    let all_but_0 = json!([rule("RestartAllContainers", "NotIn", &[0])]);
    let both = json!([
        rule("Restart", "In", &[7]),
        rule("RestartAllContainers", "NotIn", &[0])
    ]);
    let table = [
        ("Always", None, json!([]), [RunsAgain, RunsAgain, RunsAgain]),
        ("OnFailure", None, json!([]), [Stays, RunsAgain, RunsAgain]),
        ("Never", None, json!([]), [Stays, Stays, Stays]),
        (
            "Never",
            Some("Always"),
            json!([]),
            [RunsAgain, RunsAgain, RunsAgain],
        ),
        (
            "Always",
            Some("OnFailure"),
            json!([]),
            [Stays, RunsAgain, RunsAgain],
        ),
        ("Always", Some("Never"), json!([]), [Stays, Stays, Stays]),
        (
            "Always",
            Some("Never"),
            restart_on_7.clone(),
            [Stays, Stays, RunsAgain],
        ),
        // Rules need a policy beside them.
        ("Never", None, restart_on_7, [Stays, Stays, Stays]),
        (
            "Never",
            Some("Never"),
            all_but_0,
            [Stays, AllRunAgain, AllRunAgain],
        ),
        (
            "Never",
            Some("OnFailure"),
            both,
            [Stays, AllRunAgain, RunsAgain],
        ),
    ];
    for (policy, own, rules, expected) in table {
        let pod = with_spec(json!({
            "restartPolicy": policy,
            "containers": [{"name": "a", "restartPolicy": own, "restartPolicyRules": rules}],
        }));
        let a = find(&pod.pod, "a").expect("a");
        let got = [0, 1, 7].map(|code| after_exit(&pod.pod, &a, code));
        assert_eq!(got, expected, "{policy} {own:?} {rules}");
    }
}

/// `a`'s exit with 42 restarts all.
fn restarting() -> DesiredPod {
    with_spec(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "img"}],
        "containers": [
            {"name": "a", "image": "img", "restartPolicy": "Never",
             "restartPolicyRules": [rule("RestartAllContainers", "In", &[42])]},
            {"name": "b", "image": "img"},
        ],
    }))
}

#[test]
fn a_restart_of_all_can_be_taken_up_at_any_step() {
    let pod = restarting();
    let i = instance(&pod, "i", 0, exited(0, 1));
    let a = instance(&pod, "a", 0, exited(42, 4));
    let b = |state| instance(&pod, "b", 0, state);
    let steps = |containers| decide(&pod, &up(containers), &ready(), 5).steps;
    let remove = |id: &str| Step::RemoveContainer(ContainerId(id.into()));

    let first_of_all = steps(vec![a.clone(), b(running()), i.clone()]);
    assert_eq!(stopped(&first_of_all), [("b", StopReason::RestartOfAll, 0)]);
    assert_eq!(
        steps(vec![a.clone(), b(exited(137, 5)), i.clone()]),
        [remove("b0"), remove("i0"), remove("a0")],
        "the exit that asked for it is forgotten last"
    );
    assert_eq!(steps(vec![a]), [remove("a0")]);
    assert_eq!(steps(vec![]), [first("i")]);
}

#[test]
fn an_exit_in_an_older_sandbox_restarts_only_its_container() {
    let pod = restarting();
    let mut observed = up(vec![
        instance(&pod, "a", 0, exited(42, 4)),
        instance(&pod, "b", 0, exited(137, 4)),
    ]);
    observed.sandboxes = vec![
        sandbox(1, SandboxState::Ready),
        sandbox(0, SandboxState::NotReady),
    ];
    let plan = decide(&pod, &observed, &ready(), 5);
    assert_eq!(plan.steps, [first("i")]);
}

fn with_ephemeral() -> DesiredPod {
    with_spec(json!({
        "restartPolicy": "Never",
        "containers": [{"name": "a", "image": "img"}],
        "ephemeralContainers": [{"name": "e", "image": "img"}],
    }))
}

#[test]
fn an_ephemeral_container_runs_once_and_counts_for_nothing() {
    let pod = with_ephemeral();
    let a = |state| instance(&pod, "a", 0, state);
    let e = |state| instance(&pod, "e", 0, state);
    let steps = |containers| decide(&pod, &up(containers), &ready(), 5).steps;

    assert_eq!(steps(vec![]), [first("e"), first("a")]);
    assert_eq!(steps(vec![a(running())]), [first("e")]);
    for state in [running(), exited(0, 4), exited(1, 4)] {
        assert_eq!(steps(vec![a(running()), e(state)]), []);
    }
    let plan = decide(&pod, &up(vec![a(exited(0, 4)), e(running())]), &ready(), 5);
    assert_eq!(plan.stage, Stage::Stopping);
    assert_eq!(stopped(&plan.steps)[0].0, "e");
}

#[test]
fn an_ephemeral_container_that_is_told_to_have_run_does_not_run_again() {
    let mut pod = with_ephemeral();
    let mut object = Pod::clone(&pod.pod);
    object.status = serde_json::from_value(json!({"ephemeralContainerStatuses": [{
        "name": "e", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0}},
    }]}))
    .expect("a status");
    pod.pod = Arc::new(object);
    let observed = up(vec![instance(&pod, "a", 0, running())]);
    assert_eq!(decide(&pod, &observed, &ready(), 5).steps, []);
}
