//! When a certificate is asked for and as whom, and what is written when.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::apiserver::{ApiError, SigningOutcome};
use crate::certificate::SigningRequest;

// === the plan ===

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Valid from 0 to 100, to be renewed at 80.
fn held(place: Place) -> Held {
    Held {
        from: at(0),
        expires_at: at(100),
        renew_at: at(80),
        place,
        is_ours: true,
    }
}

#[test]
fn what_is_done_follows_from_what_is_held() {
    use Renewal::{InTime, Never};
    let rest = |seconds| Next::Rest(Some(Duration::from_secs(seconds)));
    let (own, bootstrap) = (Next::Request(Via::Own), Next::Request(Via::Bootstrap));
    let stored = held(Place::Store);
    let strange = Held {
        is_ours: false,
        ..stored
    };
    let (named, unnamed) = (held(Place::Kubeconfig), held(Place::Unnamed));
    let table = [
        ("nothing yet", None, InTime, true, 0, bootstrap),
        ("nothing, no bootstrap", None, InTime, false, 0, own),
        ("nothing wanted", None, Never, false, 0, Next::Rest(None)),
        ("got once", None, Never, true, 0, bootstrap),
        ("good", Some(stored), InTime, true, 10, rest(70)),
        ("due", Some(stored), InTime, true, 80, own),
        ("never renewed", Some(stored), Never, true, 80, rest(20)),
        ("expired", Some(stored), InTime, true, 100, bootstrap),
        ("expired for good", Some(stored), InTime, false, 100, own),
        ("expired, once", Some(stored), Never, true, 100, bootstrap),
        ("another's", Some(strange), InTime, false, 10, own),
        ("not stored", Some(named), InTime, false, 10, own),
        ("never stored", Some(named), Never, false, 10, rest(90)),
        ("not named", Some(unnamed), InTime, true, 10, Next::Adopt),
        ("never named", Some(unnamed), Never, true, 10, Next::Adopt),
    ];
    for (case, held, renewal, has_bootstrap, now, wanted) in table {
        let next = plan::next(held.as_ref(), renewal, has_bootstrap, at(now));
        assert_eq!(next, wanted, "{case}");
    }
}

#[test]
fn time_to_live_is_negative_after_the_end_and_infinite_without() {
    let left = |expires| metrics::seconds_left(expires, at(100));
    assert!((left(Some(at(160))) - 60.0).abs() < f64::EPSILON);
    assert!((left(Some(at(40))) + 60.0).abs() < f64::EPSILON);
    assert!(left(None).is_infinite());
}

// === the task ===

/// A node's files, and what happens to its requests.
struct Setting {
    directory: tempfile::TempDir,
    /// As whom each request was filed, and its name.
    asked: Mutex<Vec<(Via, String)>>,
    /// Answers to come; afterwards everything is signed.
    script: Mutex<VecDeque<Answer>>,
    reconnected: AtomicUsize,
}

enum Answer {
    Away,
    Refused,
    Undecided,
    Old,
}

struct Signer {
    setting: Arc<Setting>,
    via: Via,
}

#[async_trait]
impl Signing for Signer {
    async fn sign(&self, request: &SigningRequest) -> Result<SigningOutcome, ApiError> {
        let setting = &self.setting;
        setting
            .asked
            .lock()
            .unwrap()
            .push((self.via, request.name.clone()));
        assert_eq!(request.signer, SIGNER);
        let answer = setting.script.lock().unwrap().pop_front();
        match answer {
            Some(Answer::Away) => Err(ApiError::Unreachable {
                call: "request certificate",
                source: "connection refused".into(),
            }),
            Some(Answer::Refused) => Ok(SigningOutcome::Refused("Denied".to_owned())),
            Some(Answer::Undecided) => Ok(SigningOutcome::Undecided),
            Some(Answer::Old) => Ok(SigningOutcome::Issued(setting.signed(-60).into_bytes())),
            None => Ok(SigningOutcome::Issued(setting.signed(3600).into_bytes())),
        }
    }
}

#[async_trait]
impl Bootstrap for Signer {
    async fn signing(&self) -> Result<Arc<dyn Signing>, KubeconfigError> {
        kubeconfig::read(&self.setting.path("bootstrap"))?;
        Ok(Arc::new(Signer {
            setting: Arc::clone(&self.setting),
            via: self.via,
        }))
    }
}

#[async_trait]
impl Reconnect for Setting {
    async fn reconnect(&self) -> Result<(), KubeconfigError> {
        usable(&self.path("kubeconfig"))?;
        self.reconnected.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A certificate of the node that ends so many seconds from now.
fn certificate(key: &KeyPair, seconds: i64) -> String {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, "system:node:worker");
    let now = std::time::SystemTime::now();
    let end = Duration::from_secs(seconds.unsigned_abs());
    params.not_after = if seconds < 0 { now - end } else { now + end }.into();
    params.not_before = (now - Duration::from_secs(120)).into();
    params.self_signed(key).unwrap().pem()
}

fn kubeconfig_text(user: Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
        "clusters": [{ "name": "k", "cluster": {
            "server": "https://192.0.2.1:6443", "certificate-authority": "ca.crt",
        }}],
        "users": [{ "name": "u", "user": user }],
    })
    .to_string()
}

impl Setting {
    /// With a bootstrap kubeconfig, and nothing else.
    fn new(script: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        let setting = Self {
            directory: tempfile::tempdir().unwrap(),
            asked: Mutex::default(),
            script: Mutex::new(script.into_iter().collect()),
            reconnected: AtomicUsize::default(),
        };
        let authority = certificate(&KeyPair::generate().unwrap(), 3600);
        fs::write(setting.path("ca.crt"), authority).unwrap();
        let text = kubeconfig_text(json!({ "token": "abcdef.0123456789abcdef" }));
        fs::write(setting.path("bootstrap"), text).unwrap();
        Arc::new(setting)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for the request under way.
    fn signed(&self, seconds: i64) -> String {
        let key = fs::read_to_string(self.path("pki/kubelet-client.key.tmp")).unwrap();
        certificate(&KeyPair::from_pem(&key).unwrap(), seconds)
    }

    /// A kubeconfig with a certificate of its own.
    fn give_kubeconfig(&self, seconds: i64) {
        let key = KeyPair::generate().unwrap();
        fs::write(self.path("own.crt"), certificate(&key, seconds)).unwrap();
        fs::write(self.path("own.key"), key.serialize_pem()).unwrap();
        let user = json!({ "client-certificate": "own.crt", "client-key": "own.key" });
        fs::write(self.path("kubeconfig"), kubeconfig_text(user)).unwrap();
    }

    fn settings(&self, renewal: Renewal) -> IdentitySettings {
        IdentitySettings {
            node_name: "worker".to_owned(),
            kubeconfig: self.path("kubeconfig"),
            bootstrap: Some(self.path("bootstrap")),
            store: Store::new(self.path("pki"), "kubelet-client"),
            renewal,
        }
    }

    fn identity(self: &Arc<Self>) -> (Identity, watch::Receiver<Option<Timestamp>>) {
        let signer = |via| Signer {
            setting: Arc::clone(self),
            via,
        };
        let (expires, shown) = watch::channel(None);
        let identity = Identity {
            settings: self.settings(Renewal::InTime),
            own: Arc::new(signer(Via::Own)),
            bootstrap: Some(Arc::new(signer(Via::Bootstrap))),
            connection: Arc::clone(self) as Arc<dyn Reconnect>,
            metrics: IdentityMetrics::default(),
            expires,
        };
        (identity, shown)
    }

    /// Runs the task until there is a good certificate; the number of failures.
    async fn run(self: &Arc<Self>) -> i64 {
        let (identity, mut expires) = self.identity();
        let metrics = identity.metrics.clone();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(identity.run(shutdown.clone()));
        let deadline = Instant::now() + Duration::from_secs(600);
        let good =
            expires.wait_for(|at| at.is_some() && self.reconnected.load(Ordering::SeqCst) > 0);
        tokio::time::timeout_at(deadline, good)
            .await
            .unwrap()
            .unwrap();
        shutdown.cancel();
        task.await.unwrap();
        metrics.errors.get()
    }

    fn asked(&self) -> Vec<(Via, String)> {
        self.asked.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_with_a_token_becomes_itself() {
    let setting = Setting::new([Answer::Away, Answer::Undecided]);
    assert_eq!(
        setting
            .settings(Renewal::InTime)
            .standing(Timestamp::now())
            .unwrap(),
        Standing::New
    );
    assert_eq!(setting.run().await, 2);
    let asked = setting.asked();
    assert_eq!(asked.len(), 3);
    assert!(
        asked
            .iter()
            .all(|request| *request == (Via::Bootstrap, asked[0].1.clone()))
    );
    let text = fs::read_to_string(setting.path("kubeconfig")).unwrap();
    for wanted in [
        "current-context: default-context",
        "name: default-cluster",
        "name: default-auth",
        "server: https://192.0.2.1:6443",
        "/pki/kubelet-client-current.pem",
        "certificate-authority-data: LS0t",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
    assert!(!text.contains("token"), "{text}");
    assert!(!setting.path("pki/kubelet-client.key.tmp").exists());
    // A restart finds it, and asks nobody.
    setting.reconnected.store(1, Ordering::SeqCst);
    setting.run().await;
    assert_eq!(setting.asked().len(), 3);
    let standing = setting.settings(Renewal::InTime).standing(Timestamp::now());
    assert_eq!(standing.unwrap(), Standing::Known);
}

#[tokio::test(start_paused = true)]
async fn a_refused_or_outdated_request_is_made_anew() {
    let setting = Setting::new([Answer::Refused, Answer::Old]);
    assert_eq!(setting.run().await, 2);
    let mut names: Vec<_> = setting.asked().into_iter().map(|(_, name)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3);
}

/// What is good must not be replaced by what is not.
#[tokio::test(start_paused = true)]
async fn an_outdated_answer_replaces_nothing() {
    let setting = Setting::new([]);
    setting.run().await;
    let store = setting.settings(Renewal::InTime).store;
    let before = store.load().unwrap().unwrap();
    setting.script.lock().unwrap().push_back(Answer::Old);
    let (identity, _expires) = setting.identity();
    assert!(!identity.request(Via::Own).await);
    assert_eq!(store.load().unwrap().unwrap().cert, before.cert);
}

#[tokio::test(start_paused = true)]
async fn a_kubeconfigs_own_certificate_is_used_to_get_one_for_the_store() {
    let setting = Setting::new([]);
    setting.give_kubeconfig(600);
    let before = fs::read_to_string(setting.path("kubeconfig")).unwrap();
    setting.run().await;
    let vias: Vec<_> = setting.asked().into_iter().map(|(via, _)| via).collect();
    assert_eq!(vias, [Via::Own]);
    assert_eq!(
        fs::read_to_string(setting.path("kubeconfig")).unwrap(),
        before
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_kubeconfig_is_replaced() {
    let setting = Setting::new([]);
    setting.give_kubeconfig(-60);
    let settings = setting.settings(Renewal::InTime);
    assert_eq!(settings.standing(Timestamp::now()).unwrap(), Standing::New);
    setting.run().await;
    let vias: Vec<_> = setting.asked().into_iter().map(|(via, _)| via).collect();
    assert_eq!(vias, [Via::Bootstrap]);
    let text = fs::read_to_string(setting.path("kubeconfig")).unwrap();
    assert!(text.contains("default-auth"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_whose_kubeconfig_was_not_written_yet_is_adopted() {
    let setting = Setting::new([]);
    setting.run().await;
    fs::remove_file(setting.path("kubeconfig")).unwrap();
    setting.reconnected.store(0, Ordering::SeqCst);
    setting.run().await;
    assert_eq!(setting.asked().len(), 1);
    assert!(setting.path("kubeconfig").exists());
}

#[test]
fn a_start_without_anything_is_told_by_file() {
    let setting = Setting::new([]);
    let settings = setting.settings(Renewal::InTime);
    fs::remove_file(setting.path("bootstrap")).unwrap();
    let error = settings.standing(Timestamp::now()).unwrap_err();
    let shown = chain(&error).to_string();
    for file in ["kubeconfig", "bootstrap"] {
        let path = setting.path(file).display().to_string();
        assert!(shown.contains(&path), "{shown}");
    }
    // Expired, but its pods may run on.
    setting.give_kubeconfig(-60);
    assert_eq!(
        settings.standing(Timestamp::now()).unwrap(),
        Standing::Known
    );
}
