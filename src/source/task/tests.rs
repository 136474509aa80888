use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::pod::PodUid;

const DEADLINE: Duration = Duration::from_secs(10);

fn api(names: &[&str]) -> PodSnapshot {
    let pods = names.iter().map(|name| {
        let metadata = ObjectMeta {
            uid: Some((*name).into()),
            name: Some((*name).into()),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        };
        let pod = Pod {
            metadata,
            ..Pod::default()
        };
        (PodUid::from(*name), Arc::new(pod))
    });
    PodSnapshot {
        synced: true,
        pods: Arc::new(pods.collect::<BTreeMap<_, _>>()),
    }
}

async fn wait(desired: &mut watch::Receiver<DesiredPods>, is: impl FnMut(&DesiredPods) -> bool) {
    let waited = tokio::time::timeout(DEADLINE, desired.wait_for(is)).await;
    drop(waited.expect("in time").expect("the task runs"));
}

#[tokio::test(start_paused = true)]
async fn every_source_is_heard_until_it_ends() {
    let (api_out, api_in) = watch::channel(PodSnapshot::default());
    let (manifests_out, manifests_in) = watch::channel(ManifestSnapshot::default());
    let (out, mut desired) = watch::channel(DesiredPods::default());
    let shutdown = CancellationToken::new();
    let sources = Sources {
        api: Some(api_in),
        manifests: manifests_in,
    };
    let task = tokio::spawn(run(sources, out, shutdown.clone()));

    api_out.send_replace(api(&["a"]));
    wait(&mut desired, |desired| {
        desired.pods.len() == 1 && desired.ready.api
    })
    .await;
    assert!(!desired.borrow().ready.manifests);
    manifests_out.send_modify(|snapshot| snapshot.synced = true);
    wait(&mut desired, |desired| desired.ready.all()).await;

    drop(manifests_out);
    api_out.send_replace(api(&["a", "b"]));
    wait(&mut desired, |desired| desired.pods.len() == 2).await;
    assert!(desired.borrow().ready.all(), "what was heard stays heard");

    shutdown.cancel();
    tokio::time::timeout(DEADLINE, task)
        .await
        .expect("in time")
        .expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn an_equal_snapshot_wakes_nobody() {
    let (api_out, api_in) = watch::channel(api(&["a"]));
    let (_manifests_out, manifests_in) = watch::channel(ManifestSnapshot::default());
    let (out, mut desired) = watch::channel(DesiredPods::default());
    let shutdown = CancellationToken::new();
    let sources = Sources {
        api: Some(api_in),
        manifests: manifests_in,
    };
    let task = tokio::spawn(run(sources, out, shutdown.clone()));
    wait(&mut desired, |desired| desired.pods.len() == 1).await;
    desired.mark_unchanged();

    api_out.send_replace(api(&["a"]));
    // Time only moves on once every task is idle.
    let woken = tokio::time::timeout(DEADLINE, desired.changed()).await;
    assert!(woken.is_err());
    shutdown.cancel();
    task.await.expect("no panic");
}
