//! An API server in memory, a clock that stands still, and a host to test on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kubelet::apiserver::{
    ApiError, BoundToken, Changes, Following, ObjectName, ObjectRefs, TokenRequestSpec, Tokens,
};
use kubelet::pod::facts::ComputeResources;
use kubelet::pod::userns::{self, IdRange};
use kubelet::pod::{DesiredPod, Intent, Origin, PodName, PodUid};
use kubelet::volume::{HostVolumes, VolumeError, VolumeSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How calls are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Working,
    Away,
    Refusing(u16),
    Standalone,
}

#[derive(Default)]
pub struct Api {
    pub mood: Mutex<Mood>,
    pub config_maps: Mutex<BTreeMap<String, ConfigMap>>,
    pub secrets: Mutex<BTreeMap<String, Secret>>,
    /// Every token request that was made, also those that failed.
    pub requests: Mutex<Vec<TokenRequestSpec>>,
    /// What somebody holds a lease of.
    pub followed: Mutex<Vec<(ObjectName, Changes, Weak<()>)>>,
    pub clock: FakeClock,
}

impl Api {
    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn put_config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data = data
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let object = ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        };
        self.config_maps
            .lock()
            .unwrap()
            .insert(name.to_owned(), object);
    }

    pub fn token_requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn answer(&self, call: &'static str) -> Result<(), ApiError> {
        match *self.mood.lock().unwrap() {
            Mood::Working => Ok(()),
            Mood::Away => Err(ApiError::Unreachable {
                call,
                source: "connection refused".into(),
            }),
            Mood::Refusing(code) => Err(ApiError::Refused {
                call,
                code,
                reason: "Refused".into(),
                message: "no".into(),
                retry_after: None,
            }),
            Mood::Standalone => Err(ApiError::Standalone { call }),
        }
    }
}

#[async_trait]
impl ObjectRefs for Api {
    async fn config_map(&self, _: &str, name: &str) -> Result<Option<ConfigMap>, ApiError> {
        self.answer("get configmap")?;
        Ok(self.config_maps.lock().unwrap().get(name).cloned())
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Option<Secret>, ApiError> {
        self.answer("get secret")?;
        Ok(self.secrets.lock().unwrap().get(name).cloned())
    }

    async fn runtime_class(&self, _: &str) -> Result<Option<RuntimeClass>, ApiError> {
        Ok(None)
    }

    fn follow(&self, object: &ObjectName, changes: &Changes) -> Following {
        let mut followed = self.followed.lock().unwrap();
        let lease = Arc::new(());
        followed.retain(|(_, _, held)| held.strong_count() > 0);
        followed.push((object.clone(), changes.clone(), Arc::downgrade(&lease)));
        Following::new(lease)
    }
}

#[async_trait]
impl Tokens for Api {
    async fn request(&self, spec: &TokenRequestSpec) -> Result<BoundToken, ApiError> {
        self.requests.lock().unwrap().push(spec.clone());
        self.answer("request token")?;
        let issued_at = self.clock.now();
        Ok(BoundToken {
            token: format!("token-{}", self.token_requests()),
            issued_at,
            expires_at: issued_at + SignedDuration::from_secs(spec.expiration_seconds),
        })
    }
}

/// A clock that moves when it is told to.
#[derive(Clone)]
pub struct FakeClock(Arc<Mutex<Timestamp>>);

impl Default for FakeClock {
    fn default() -> Self {
        let start = "2026-01-31T08:00:00Z".parse().unwrap();
        Self(Arc::new(Mutex::new(start)))
    }
}

impl FakeClock {
    pub fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    pub fn advance(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        *now += SignedDuration::from_secs(seconds);
    }
}

/// A root directory with an agent's volumes on it.
pub struct Host {
    pub root: TempDir,
    pub api: Arc<Api>,
    pub volumes: HostVolumes,
}

impl Host {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let api = Arc::new(Api::default());
        let volumes = volumes(root.path(), &api);
        Self { root, api, volumes }
    }

    /// The same host with a new process of the agent.
    pub fn restarted(self) -> Self {
        let volumes = volumes(self.root.path(), &self.api);
        Self { volumes, ..self }
    }

    pub fn pod_dir(&self) -> PathBuf {
        self.root.path().join("pods/u1")
    }

    /// Lines of the mount table about mounts below the pod's directory that
    /// have `text` in them.
    pub fn mounts_with(&self, text: &str) -> Vec<String> {
        let pod_dir = self.pod_dir().into_os_string().into_string().unwrap();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table
            .lines()
            .filter(|line| line.contains(&pod_dir) && line.contains(text))
            .map(str::to_owned)
            .collect()
    }
}

fn volumes(root: &Path, api: &Arc<Api>) -> HostVolumes {
    let settings = VolumeSettings {
        root_dir: root.join("."),
        allocatable: ComputeResources {
            milli_cpu: 4000,
            memory: 1 << 30,
            ephemeral_storage: 0,
        },
        id_range: IdRange::of_node("", "", userns::UNIT, 110).unwrap(),
    };
    let clock = api.clock.clone();
    let tokens: Arc<dyn Tokens> = Arc::<Api>::clone(api);
    let objects: Arc<dyn ObjectRefs> = Arc::<Api>::clone(api);
    HostVolumes::with_clock(settings, tokens, objects, Arc::new(move || clock.now()))
}

/// A pod with UID `u1` whose container mounts all the volumes; `spec` has
/// whatever else it needs.
pub fn pod(volumes: Value, mut spec: Value) -> DesiredPod {
    let mounts: Vec<Value> = volumes
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| json!({"name": volume["name"], "mountPath": "/x"}))
        .collect();
    spec["containers"] = json!([{"name": "c", "volumeMounts": mounts}]);
    spec["volumes"] = volumes;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
        "spec": spec,
    }))
    .unwrap();
    DesiredPod {
        uid: PodUid::from("u1"),
        name: PodName::of(&pod),
        pod: Arc::new(pod),
        origin: Origin::Api,
        intent: Intent::Run,
    }
}

/// The volume that every pod of an API server has.
pub fn service_account_volume() -> Value {
    json!({"name": "api", "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}},
        {"configMap": {"name": "kube-root-ca.crt",
                       "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Permission bits, owner and group.
pub fn access(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

pub fn chain(error: &VolumeError) -> String {
    kubelet::error::chain(error).to_string()
}
