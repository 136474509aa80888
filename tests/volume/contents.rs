//! Volumes of files: tokens, objects, ownership, and an API server or a disk
//! that lets us down.

use std::fs;
use std::path::PathBuf;

use jiff::SignedDuration;
use kubelet::pod::DesiredPod;
use kubelet::volume::Volumes as _;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::fakes::{Host, Mood, access, chain, pod, service_account_volume};
use crate::isolate::isolated;

/// A host whose API server has the CA's ConfigMap, and a pod that wants it.
fn host_and_pod(spec: Value) -> (Host, DesiredPod) {
    let host = Host::new();
    host.api
        .put_config_map("kube-root-ca.crt", &[("ca.crt", "CA")]);
    (host, pod(json!([service_account_volume()]), spec))
}

fn volume(host: &Host) -> PathBuf {
    host.pod_dir().join("volumes/kubernetes.io~projected/api")
}

fn token(host: &Host) -> String {
    fs::read_to_string(volume(host).join("token")).unwrap()
}

#[test]
fn the_service_account_volume_is_whole() {
    isolated("contents::the_service_account_volume_is_whole", async {
        let (host, pod) = host_and_pod(json!({}));
        let mounted = host.volumes.ensure(&pod).await.unwrap();
        let volume = volume(&host);
        assert!(mounted.volumes["api"].read_only);
        assert_eq!(
            mounted.volumes["api"].host_path.canonicalize().unwrap(),
            volume
        );
        for (name, text) in [
            ("token", "token-1"),
            ("ca.crt", "CA"),
            ("namespace", "shop"),
        ] {
            assert_eq!(fs::read_to_string(volume.join(name)).unwrap(), text);
            assert_eq!(
                access(&volume.join(name).canonicalize().unwrap()),
                (0o644, 0, 0)
            );
        }
        assert_eq!(host.mounts_with("kubernetes.io~projected").len(), 1);
        let requests = host.api.requests.lock().unwrap().clone();
        let bound = &requests[0].bound_to;
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].service_account, "default");
        assert_eq!(
            (bound.name.as_deref(), bound.uid.as_deref()),
            (Some("web"), Some("u1"))
        );
    });
}

#[test]
fn a_group_may_read_and_nobody_else_the_token() {
    isolated(
        "contents::a_group_may_read_and_nobody_else_the_token",
        async {
            let security = json!({"securityContext": {"fsGroup": 4321, "runAsUser": 1000}});
            let (host, pod) = host_and_pod(security);
            host.volumes.ensure(&pod).await.unwrap();
            let volume = volume(&host);
            let real = |name: &str| volume.join(name).canonicalize().unwrap();
            assert_eq!(access(&real("token")), (0o640, 1000, 4321));
            assert_eq!(access(&real("ca.crt")), (0o644, 0, 4321));
            assert_eq!(access(&real("..data")), (0o2755, 0, 4321));
            assert_eq!(access(&volume), (0o3777, 0, 4321));
            assert_eq!(access(&volume.join("token")).2, 4321, "the link itself");
        },
    );
}

#[test]
fn a_token_is_renewed_when_it_is_due_and_not_before() {
    isolated(
        "contents::a_token_is_renewed_when_it_is_due_and_not_before",
        async {
            let (host, pod) = host_and_pod(json!({}));
            let start = host.api.clock.now();
            let due = host.volumes.ensure(&pod).await.unwrap().refresh_at.unwrap();
            let age = due.duration_since(start);
            assert!(age > SignedDuration::from_secs(789) && age <= SignedDuration::from_secs(800));
            host.api.clock.advance(700);
            assert_eq!(
                host.volumes.ensure(&pod).await.unwrap().refresh_at,
                Some(due)
            );
            assert_eq!(
                (host.api.token_requests(), token(&host)),
                (1, "token-1".into())
            );
            host.api.clock.advance(100);
            let next = host.volumes.ensure(&pod).await.unwrap().refresh_at.unwrap();
            assert_eq!(
                (host.api.token_requests(), token(&host)),
                (2, "token-2".into())
            );
            assert_eq!(next, due + SignedDuration::from_secs(800));
        },
    );
}

#[test]
fn a_token_that_cannot_be_renewed_is_kept_and_tried_again_soon() {
    isolated(
        "contents::a_token_that_cannot_be_renewed_is_kept_and_tried_again_soon",
        async {
            let (host, pod) = host_and_pod(json!({}));
            host.volumes.ensure(&pod).await.unwrap();
            host.api.clock.advance(900);
            for mood in [Mood::Away, Mood::Refusing(503)] {
                host.api.set(mood);
                let soon = host.volumes.ensure(&pod).await.unwrap().refresh_at.unwrap();
                assert_eq!(soon.duration_since(host.api.clock.now()).as_secs(), 30);
                assert_eq!(token(&host), "token-1");
            }
            // Expired, and still nothing better to show.
            host.api.clock.advance(200);
            host.volumes.ensure(&pod).await.unwrap();
            assert_eq!(token(&host), "token-1");
            host.api.set(Mood::Working);
            host.volumes.ensure(&pod).await.unwrap();
            assert_eq!(token(&host), "token-5");
        },
    );
}

#[test]
fn a_restart_without_an_api_server_does_not_hurt_a_running_pod() {
    isolated(
        "contents::a_restart_without_an_api_server_does_not_hurt_a_running_pod",
        async {
            let (host, pod) = host_and_pod(json!({}));
            let first = host.volumes.ensure(&pod).await.unwrap();
            host.api.set(Mood::Away);
            let host = host.restarted();
            let kept = host.volumes.ensure(&pod).await.unwrap();
            assert_eq!(kept.volumes, first.volumes);
            assert_eq!(token(&host), "token-1");
            assert!(kept.refresh_at.unwrap() < first.refresh_at.unwrap());
            host.api.set(Mood::Working);
            host.volumes.ensure(&pod).await.unwrap();
            assert_eq!(token(&host), "token-3");
            // What waiting does not mend is said, and still shows what it showed.
            host.api.config_maps.lock().unwrap().clear();
            let error = host.volumes.ensure(&pod).await.unwrap_err();
            assert!(chain(&error).ends_with("configmap \"kube-root-ca.crt\" not found"));
            assert_eq!(token(&host), "token-3");
            // After a reboot there is nothing to keep.
            nix::mount::umount(&volume(&host)).unwrap();
            host.api.set(Mood::Away);
            let host = host.restarted();
            assert!(host.volumes.ensure(&pod).await.is_err());
        },
    );
}

#[test]
fn a_failed_first_set_up_leaves_no_mount() {
    isolated("contents::a_failed_first_set_up_leaves_no_mount", async {
        let (host, pod) = host_and_pod(json!({}));
        for (mood, cause) in [
            (
                Mood::Away,
                "failed to fetch token: request token: the API server cannot be reached",
            ),
            (
                Mood::Refusing(404),
                "failed to fetch token: request token: no (HTTP 404, Refused)",
            ),
            (
                Mood::Standalone,
                "cannot set up projected volume because no API server is configured",
            ),
        ] {
            host.api.set(mood);
            let error = chain(&host.volumes.ensure(&pod).await.unwrap_err());
            assert!(
                error.starts_with("MountVolume.SetUp failed for volume \"api\": ["),
                "{error}"
            );
            assert!(error.contains(cause), "{error}");
            assert!(host.mounts_with("kubernetes.io~projected").is_empty());
        }
    });
}

#[test]
fn objects_are_shown_as_they_are_now() {
    isolated("contents::objects_are_shown_as_they_are_now", async {
        let host = Host::new();
        host.api
            .put_config_map("settings", &[("a", "1"), ("b", "1")]);
        let pod = pod(
            json!([{"name": "v", "configMap": {"name": "settings"}}]),
            json!({}),
        );
        let mounted = host.volumes.ensure(&pod).await.unwrap();
        let volume = &mounted.volumes["v"].host_path;
        assert!(volume.ends_with("volumes/kubernetes.io~configmap/v"));
        assert!(host.mounts_with("kubernetes.io~configmap").is_empty());
        let before = fs::read_link(volume.join("..data")).unwrap();
        host.volumes.ensure(&pod).await.unwrap();
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), before);
        host.api.put_config_map("settings", &[("a", "2")]);
        host.volumes.ensure(&pod).await.unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "2");
        assert!(fs::symlink_metadata(volume.join("b")).is_err());
    });
}

#[test]
fn a_full_disk_is_an_error_and_shows_nothing_half_written() {
    isolated(
        "contents::a_full_disk_is_an_error_and_shows_nothing_half_written",
        async {
            let host = Host::new();
            let kind = Some("tmpfs");
            mount(
                kind,
                host.root.path(),
                kind,
                MsFlags::empty(),
                Some("size=256k"),
            )
            .unwrap();
            let big = "x".repeat(512 << 10);
            let pod = pod(
                json!([{"name": "v", "configMap": {"name": "m"}}]),
                json!({}),
            );
            let volume = host.pod_dir().join("volumes/kubernetes.io~configmap/v");

            host.api.put_config_map("m", &[("a", "new"), ("big", &big)]);
            let error = host.volumes.ensure(&pod).await.unwrap_err();
            assert!(
                chain(&error).contains("No space left on device"),
                "{}",
                chain(&error)
            );
            assert!(!volume.exists(), "a first set-up is taken back");

            host.api.put_config_map("m", &[("a", "old")]);
            host.volumes.ensure(&pod).await.unwrap();
            host.api.put_config_map("m", &[("a", "new"), ("big", &big)]);
            host.volumes.ensure(&pod).await.unwrap_err();
            assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "old");
            let names = fs::read_dir(&volume).unwrap().count();
            assert_eq!(names, 3, "a, ..data and what it points to");
        },
    );
}
