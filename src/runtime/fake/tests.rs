use std::collections::BTreeMap;

use super::*;
use crate::pod::spec::{
    DnsSpec, LinuxResources, NamespaceMode, Namespaces, SandboxSpec, SeccompProfile,
};
use crate::runtime::{Observer, Sandboxes};

fn sandbox(name: &str) -> SandboxSpec {
    SandboxSpec {
        uid: PodUid::from(name),
        name: PodName::new("default", name),
        attempt: 0,
        hostname: name.to_owned(),
        log_directory: "/nowhere".into(),
        dns: DnsSpec::default(),
        port_mappings: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        cgroup_parent: String::new(),
        sysctls: BTreeMap::new(),
        namespaces: Namespaces {
            network: NamespaceMode::Pod,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
            users: None,
        },
        privileged: false,
        run_as_user: None,
        run_as_group: None,
        supplemental_groups: Vec::new(),
        groups_policy: crate::pod::spec::GroupsPolicy::Merge,
        selinux: None,
        seccomp: SeccompProfile::RuntimeDefault,
        resources: LinuxResources::default(),
        overhead: None,
        runtime_handler: String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_a_sandbox_come_and_die() {
    let fake = FakeRuntime::new();
    let spec = sandbox("web");
    let mut watch = fake.watch(&spec.uid, &spec.name);
    assert!(watch.borrow_and_update().is_absent());
    fake.run_sandbox(&spec).await.expect("sandbox");
    let seen = watch.wait_for(|pod| pod.ready_sandbox().is_some()).await;
    assert_eq!(seen.expect("watch").sandboxes[0].ips.len(), 1);
    assert_eq!(
        fake.pods().borrow().as_ref().map(|pods| pods.len()),
        Some(1)
    );
    fake.kill_sandbox(&spec.uid);
    let seen = watch.wait_for(|pod| pod.ready_sandbox().is_none()).await;
    assert_eq!(seen.expect("watch").sandboxes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn faults_come_in_their_order_and_then_end() {
    let fake = FakeRuntime::new();
    let spec = sandbox("web");
    fake.fail_next(Call::RunSandbox, Fault::Refused("first".into()));
    fake.fail_next(Call::RunSandbox, Fault::TimeoutAfterEffect);
    let first = fake.run_sandbox(&spec).await;
    assert!(
        matches!(first, Err(RuntimeError::Refused { .. })),
        "{first:?}"
    );
    assert_eq!(fake.ready_sandboxes(), 0);
    let second = fake.run_sandbox(&spec).await;
    assert!(
        matches!(second, Err(RuntimeError::Timeout { .. })),
        "{second:?}"
    );
    assert_eq!(fake.ready_sandboxes(), 1);
    fake.run_sandbox(&spec).await.expect("no fault is left");
    assert_eq!(fake.count(Call::RunSandbox), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_ends_when_healed() {
    let fake = FakeRuntime::new();
    let spec = sandbox("web");
    fake.fail_always(Call::RunSandbox, Fault::Hang);
    let run = fake.run_sandbox(&spec);
    tokio::pin!(run);
    let early = tokio::time::timeout(Duration::from_secs(600), &mut run).await;
    assert!(early.is_err());
    fake.heal(Call::RunSandbox);
    run.await.expect("healed");
}

#[tokio::test(start_paused = true)]
async fn muted_changes_are_seen_by_refresh_only() {
    let fake = FakeRuntime::new();
    let spec = sandbox("web");
    let watch = fake.watch(&spec.uid, &spec.name);
    fake.mute();
    fake.run_sandbox(&spec).await.expect("sandbox");
    assert!(watch.borrow().is_absent());
    let seen = fake.refresh(&spec.uid, &spec.name).await.expect("refresh");
    assert!(!seen.is_absent());
    assert!(!watch.borrow().is_absent());
}
