//! Tests of [`super`]: which set-ups a pod needs.

use serde_json::{Value, json};

use super::*;

const GIB: i64 = 1 << 30;

fn node() -> ComputeResources {
    ComputeResources {
        milli_cpu: 4000,
        memory: 8 * GIB,
        ephemeral_storage: 0,
    }
}

/// A pod whose only container mounts every one of the volumes.
fn pod_with(volumes: &Value) -> Pod {
    let mounts: Vec<Value> = volumes
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| json!({"name": volume["name"], "mountPath": "/x"}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "serviceAccountName": "builder",
            "containers": [{"name": "c", "volumeMounts": mounts}],
            "volumes": volumes,
        },
    }))
    .unwrap()
}

fn plan_one(volume: Value) -> Result<VolumeKind, String> {
    match plan(&pod_with(&json!([volume])), &node()) {
        Ok(setups) => Ok(setups.into_iter().next().unwrap().kind),
        Err(error) => Err(crate::error::chain(&error).to_string()),
    }
}

#[test]
fn only_mounted_volumes_are_set_up_whoever_mounts_them() {
    let pod: Pod = serde_json::from_value(json!({
        "spec": {
            "initContainers": [
                {"name": "i", "volumeMounts": [{"name": "by-init", "mountPath": "/x"}]},
            ],
            "containers": [
                {"name": "a", "volumeMounts": [{"name": "by-app", "mountPath": "/x"}]},
                {"name": "b", "volumeMounts": [{"name": "by-app", "mountPath": "/y"}]},
            ],
            "ephemeralContainers": [
                {"name": "e", "volumeMounts": [{"name": "by-debugger", "mountPath": "/x"}]},
            ],
            "volumes": [
                {"name": "by-debugger", "emptyDir": {}},
                {"name": "by-nobody", "nfs": {"server": "s", "path": "/"}},
                {"name": "by-app", "emptyDir": {}},
                {"name": "by-init"},
            ],
        },
    }))
    .unwrap();
    let names: Vec<_> = plan(&pod, &node())
        .unwrap()
        .into_iter()
        .map(|setup| setup.name)
        .collect();
    assert_eq!(names, ["by-debugger", "by-app", "by-init"]);
    assert_eq!(plan(&Pod::default(), &node()).unwrap(), []);
}

#[test]
fn what_cannot_be_set_up_is_named() {
    let failed = |cause: &str| format!("MountVolume.SetUp failed for volume \"v\": {cause}");
    let cases = [
        (
            json!({"persistentVolumeClaim": {"claimName": "c"}}),
            "volume type persistentVolumeClaim is not supported yet",
        ),
        (
            json!({"csi": {"driver": "d"}}),
            "volume type csi is not supported yet",
        ),
        (
            json!({"image": {"reference": "r"}}),
            "volume type image is not supported yet",
        ),
        (
            json!({"emptyDir": {"medium": "HugePages"}}),
            "volume type emptyDir with medium HugePages is not supported yet",
        ),
        (
            json!({"emptyDir": {"medium": "HugePages-2Mi"}}),
            "volume type emptyDir with medium HugePages-2Mi is not supported yet",
        ),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "lots"}}),
            "cannot size the tmpfs: quantity \"lots\" is not a number with an optional suffix \
             (n u m k M G T P E, Ki Mi Gi Ti Pi Ei) or exponent",
        ),
        (
            json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}}),
            "projected source clusterTrustBundle is not supported yet",
        ),
        (
            json!({"projected": {"sources": [{"podCertificate": {"signerName": "s", "keyType": "k"}}]}}),
            "projected source podCertificate is not supported yet",
        ),
        (
            json!({"hostPath": {"path": "/a/../b"}}),
            "invalid HostPath `/a/../b`: must not contain '..'",
        ),
        (
            json!({"hostPath": {"path": "/a", "type": "Pipe"}}),
            "Pipe is an invalid volume type",
        ),
    ];
    for (mut volume, cause) in cases {
        volume["name"] = json!("v");
        assert_eq!(plan_one(volume.clone()), Err(failed(cause)), "{volume}");
    }
    let error = plan_one(json!({"name": "../up", "emptyDir": {}})).unwrap_err();
    assert!(error.ends_with("unusable volume name: not usable as a file name: \"../up\""));
}

#[test]
fn host_paths_keep_path_and_type() {
    for (name, check) in [
        ("", HostPathCheck::Anything),
        ("DirectoryOrCreate", HostPathCheck::DirectoryOrCreate),
        ("Directory", HostPathCheck::Directory),
        ("FileOrCreate", HostPathCheck::FileOrCreate),
        ("File", HostPathCheck::File),
        ("Socket", HostPathCheck::Socket),
        ("CharDevice", HostPathCheck::CharDevice),
        ("BlockDevice", HostPathCheck::BlockDevice),
    ] {
        let got = plan_one(json!({"name": "v", "hostPath": {"path": "/dev/x", "type": name}}));
        let path = "/dev/x".into();
        assert_eq!(got, Ok(VolumeKind::HostPath { path, check }));
    }
}

#[test]
fn the_service_account_volume_is_planned_source_by_source() {
    let kind = plan_one(json!({"name": "kube-api-access", "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"serviceAccountToken": {"audience": "vault", "path": "vault"}},
            {"configMap": {"name": "kube-root-ca.crt",
                           "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"secret": {"name": "extra", "optional": true}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            {},
        ],
    }}));
    let VolumeKind::Files(files) = kind.unwrap() else {
        panic!("not a volume of files");
    };
    assert_eq!(files.kind, FilesKind::Projected);
    assert_eq!(files.default_mode, 0o644);
    let [first, second, config_map, secret, downward] = files.sources.as_slice() else {
        panic!("{} sources", files.sources.len());
    };
    let token =
        |audience: Option<&str>, expiration_seconds, path: &str| FileSource::ServiceAccountToken {
            key: TokenKey {
                service_account: "builder".into(),
                audience: audience.map(str::to_owned),
                expiration_seconds,
            },
            path: path.into(),
        };
    assert_eq!(*first, token(None, 3607, "token"));
    assert_eq!(*second, token(Some("vault"), 3600, "vault"));
    assert!(matches!(config_map, FileSource::ConfigMap(object)
        if object.presence == Presence::Required && object.items.len() == 1));
    assert!(matches!(secret, FileSource::Secret(object)
        if object.presence == Presence::Optional && object.items.is_empty()));
    assert!(matches!(downward, FileSource::DownwardApi(items) if items.len() == 1));
}

#[test]
fn only_config_maps_are_kept_on_disk() {
    let medium = |volume| match plan_one(volume) {
        Ok(VolumeKind::Files(files)) => files.medium,
        other => panic!("{other:?}"),
    };
    let tmpfs = Medium::Memory { size: 8 << 30 };
    assert_eq!(
        medium(json!({"name": "v", "configMap": {"name": "m"}})),
        Medium::Disk
    );
    assert_eq!(
        medium(json!({"name": "v", "secret": {"secretName": "s"}})),
        tmpfs
    );
    assert_eq!(medium(json!({"name": "v", "downwardAPI": {}})), tmpfs);
    assert_eq!(medium(json!({"name": "v", "projected": {}})), tmpfs);
}

/// Size in MiB of a pod's tmpfs.
fn tmpfs_mib(spec: Value, size_limit: Option<&str>) -> u64 {
    let mut spec = spec;
    spec["volumes"] = json!([
        {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": size_limit}},
    ]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/x"}]);
    let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
    match plan(&pod, &node()).unwrap().remove(0).kind {
        VolumeKind::EmptyDir {
            medium: Medium::Memory { size },
        } => size >> 20,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tmpfs_is_bounded_by_node_pod_and_volume() {
    let with = |limit: &str| json!({"name": "c", "resources": {"limits": {"memory": limit}}});
    let without = || json!({"name": "c"});
    let sidecar = |limit: &str| {
        let mut container = with(limit);
        container["restartPolicy"] = json!("Always");
        container
    };
    let cases = [
        (json!({"containers": [without()]}), None, 8192),
        (json!({"containers": [without()]}), Some("64Mi"), 64),
        (json!({"containers": [without()]}), Some("0"), 8192),
        (
            json!({"containers": [with("100Mi"), with("28Mi")]}),
            None,
            128,
        ),
        (
            json!({"containers": [with("100Mi"), with("28Mi")]}),
            Some("127Mi"),
            127,
        ),
        (
            json!({"containers": [with("100Mi"), with("28Mi")]}),
            Some("1Gi"),
            128,
        ),
        (
            json!({"containers": [with("100Mi"), without()]}),
            None,
            8192,
        ),
        (
            json!({"containers": [with("100Mi")], "initContainers": [without()]}),
            None,
            8192,
        ),
        (
            json!({"containers": [with("100Mi")], "initContainers": [with("300Mi")]}),
            None,
            300,
        ),
        (
            json!({"containers": [with("100Mi")],
                "initContainers": [sidecar("10Mi"), with("50Mi")]}),
            None,
            110,
        ),
        (
            json!({"containers": [with("100Mi")],
                "initContainers": [sidecar("10Mi"), with("200Mi")]}),
            None,
            210,
        ),
        (
            json!({"containers": [with("100Mi")], "overhead": {"memory": "5Mi"}}),
            None,
            105,
        ),
        (
            json!({"containers": [without()],
                "resources": {"limits": {"memory": "77Mi"}}}),
            None,
            77,
        ),
        (json!({"containers": [with("100Gi")]}), None, 8192),
    ];
    for (spec, size_limit, expected) in cases {
        assert_eq!(
            tmpfs_mib(spec.clone(), size_limit),
            expected,
            "{spec} {size_limit:?}"
        );
    }
}
