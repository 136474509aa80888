//! The gate with reviews from memory, and certificates made here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Method;
use axum::middleware;
use axum::routing::any;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::CertificateDer;
use tower::ServiceExt;

use super::*;
use crate::apiserver::{ApiError, Reviews};
use crate::server::tls::ClientCa;

/// An API server that knows one token and grants some subresources.
#[derive(Default)]
struct Cluster {
    granted: &'static [&'static str],
    is_away: bool,
    token_reviews: AtomicUsize,
    access_reviews: Mutex<Vec<SubjectAccessReviewSpec>>,
}

#[async_trait]
impl Reviews for Cluster {
    async fn review_token(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        self.token_reviews.fetch_add(1, Ordering::SeqCst);
        self.reach()?;
        Ok((token == "good").then(|| UserInfo {
            username: Some("jane".to_owned()),
            groups: Some(vec!["devs".to_owned()]),
            ..UserInfo::default()
        }))
    }

    async fn review_access(&self, spec: SubjectAccessReviewSpec) -> Result<bool, ApiError> {
        self.reach()?;
        let asked = spec.resource_attributes.clone().unwrap_or_default();
        self.access_reviews.lock().unwrap().push(spec);
        let subresource = asked.subresource.unwrap_or_default();
        Ok(self.granted.contains(&subresource.as_str()))
    }
}

impl Cluster {
    fn reach(&self) -> Result<(), ApiError> {
        if self.is_away {
            return Err(ApiError::Unreachable {
                call: "review",
                source: "connection refused".into(),
            });
        }
        Ok(())
    }

    fn asked(&self) -> Vec<String> {
        let reviews = self.access_reviews.lock().unwrap();
        let subresource =
            |spec: &SubjectAccessReviewSpec| spec.resource_attributes.clone()?.subresource;
        reviews.iter().filter_map(subresource).collect()
    }
}

fn router(cluster: &Arc<Cluster>, anonymous: Anonymous, client_ca: Option<ClientCa>) -> Router {
    let reviews: Arc<dyn Reviews> = Arc::clone(cluster) as _;
    let minute = Duration::from_secs(60);
    let gate = Gate {
        authenticator: Authenticator {
            client_ca,
            tokens: Some(TokenReviews::new(Arc::clone(&reviews), minute)),
            anonymous,
        },
        authorizer: Authorizer::Webhook(AccessReviews::new(
            reviews,
            "n1".to_owned(),
            minute,
            Duration::ZERO,
        )),
    };
    Router::new()
        .fallback(any(|| async { "secret" }))
        .layer(middleware::from_fn_with_state(Arc::new(gate), admit))
}

async fn call(router: &Router, request: Request) -> (u16, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 4096).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn get(path: &str) -> Request {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}

fn with_token(path: &str, token: &str) -> Request {
    let mut request = get(path);
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

#[test]
fn requests_are_named_in_the_words_of_rbac() {
    let cases: &[(&str, &[&str])] = &[
        ("/pods", &["pods", "proxy"]),
        ("/pods/", &["pods", "proxy"]),
        ("/podsy", &["proxy"]),
        ("/runningpods/", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/healthz/syncloop", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
        ("/metrics", &["metrics"]),
        ("/metrics/cadvisor", &["metrics"]),
        ("/stats/summary", &["stats"]),
        ("/logs/", &["log"]),
        ("/checkpoint/a/b/c", &["checkpoint"]),
        ("/exec/a/b/c", &["proxy"]),
        ("/containerLogs/a/b/c", &["proxy"]),
        ("/debug/pprof/", &["proxy"]),
        ("//metrics", &["proxy"]),
        ("/%6detrics", &["proxy"]),
        ("/", &["proxy"]),
    ];
    for (path, subresources) in cases {
        let attributes = Attributes::of(&Method::GET, path);
        assert_eq!(attributes.subresources, *subresources, "{path}");
    }
    for (method, verb) in [
        (Method::POST, "create"),
        (Method::GET, "get"),
        (Method::PUT, "update"),
        (Method::PATCH, "patch"),
        (Method::DELETE, "delete"),
        (Method::HEAD, ""),
    ] {
        assert_eq!(Attributes::of(&method, "/").verb, verb);
    }
}

#[tokio::test]
async fn nobody_gets_a_byte_without_credentials() {
    let cluster = Arc::new(Cluster::default());
    let router = router(&cluster, Anonymous::Refused, None);
    let answer = call(&router, get("/pods")).await;
    assert_eq!(answer, (401, "Unauthorized".to_owned()));
    assert!(cluster.asked().is_empty());
}

#[tokio::test]
async fn a_bad_token_is_refused_even_where_anonymous_callers_are_welcome() {
    let cluster = Arc::new(Cluster {
        granted: &["metrics"],
        ..Cluster::default()
    });
    let router = router(&cluster, Anonymous::Allowed, None);
    let (status, _) = call(&router, with_token("/metrics", "bad")).await;
    assert_eq!(status, 401);
    let (status, _) = call(&router, get("/metrics")).await;
    assert_eq!(status, 200);
    let spec = cluster.access_reviews.lock().unwrap()[0].clone();
    assert_eq!(spec.user.as_deref(), Some("system:anonymous"));
    assert_eq!(
        spec.groups.as_deref(),
        Some(["system:unauthenticated".to_owned()].as_slice())
    );
}

#[tokio::test]
async fn every_subresource_that_would_do_is_asked_about() {
    let cluster = Arc::new(Cluster {
        granted: &["proxy"],
        ..Cluster::default()
    });
    let router = router(&cluster, Anonymous::Refused, None);
    let answer = call(&router, with_token("/pods", "good")).await;
    assert_eq!(answer, (200, "secret".to_owned()));
    assert_eq!(cluster.asked(), ["pods", "proxy"]);
    let answer = call(&router, with_token("/metrics", "good")).await;
    assert_eq!(
        answer,
        (
            403,
            "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[metrics])".to_owned()
        )
    );
}

#[tokio::test]
async fn answers_are_remembered_as_long_as_configured() {
    let cluster = Arc::new(Cluster {
        granted: &["stats"],
        ..Cluster::default()
    });
    let router = router(&cluster, Anonymous::Refused, None);
    for _ in 0..3 {
        call(&router, with_token("/stats/summary", "good")).await;
        // "No" is remembered for no time at all here.
        call(&router, with_token("/metrics", "good")).await;
    }
    assert_eq!(cluster.token_reviews.load(Ordering::SeqCst), 1);
    assert_eq!(cluster.asked(), ["stats", "metrics", "metrics", "metrics"]);
}

#[tokio::test]
async fn without_the_api_server_nobody_is_let_in_and_nothing_is_remembered() {
    let cluster = Arc::new(Cluster {
        is_away: true,
        ..Cluster::default()
    });
    let away = router(&cluster, Anonymous::Refused, None);
    for _ in 0..2 {
        let (status, _) = call(&away, with_token("/pods", "good")).await;
        assert_eq!(status, 401);
    }
    assert_eq!(cluster.token_reviews.load(Ordering::SeqCst), 2);
    let away = router(&cluster, Anonymous::Allowed, None);
    let (status, body) = call(&away, get("/metrics")).await;
    assert_eq!(status, 500);
    assert!(body.starts_with("Authorization error (user=system:anonymous"));
}

// === certificates ===

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca(name: &str) -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    Ca {
        issuer: Issuer::new(params, key),
        pem,
    }
}

fn client(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> PeerCertificates {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let signed = params.signed_by(&key, &ca.issuer).unwrap();
    let der: CertificateDer<'static> = signed.der().clone();
    PeerCertificates(Arc::from([der]))
}

fn shown(path: &str, certificates: PeerCertificates) -> Request {
    let mut request = get(path);
    request.extensions_mut().insert(certificates);
    request
}

#[tokio::test]
async fn a_certificate_names_user_and_groups() {
    let cluster = Arc::new(Cluster {
        granted: &["metrics"],
        ..Cluster::default()
    });
    let ours = ca("ours");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.crt");
    std::fs::write(&file, &ours.pem).unwrap();
    let ca_file = ClientCa::from_file(file).unwrap();
    let router = router(&cluster, Anonymous::Refused, Some(ca_file));
    let (status, _) = call(&router, shown("/metrics", client(&ours, |_| {}))).await;
    assert_eq!(status, 200);
    let spec = cluster.access_reviews.lock().unwrap()[0].clone();
    assert_eq!(spec.user.as_deref(), Some("admin"));
    let groups = ["system:masters", "system:authenticated"].map(str::to_owned);
    assert_eq!(spec.groups.as_deref(), Some(groups.as_slice()));
    let extra = spec.extra.unwrap();
    assert!(extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
}

#[tokio::test]
async fn certificates_of_others_expired_or_not_for_clients_are_refused() {
    let cluster = Arc::new(Cluster {
        granted: &["metrics"],
        ..Cluster::default()
    });
    let (ours, theirs) = (ca("ours"), ca("theirs"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.crt");
    std::fs::write(&file, &ours.pem).unwrap();
    let ca_file = ClientCa::from_file(file).unwrap();
    let router = router(&cluster, Anonymous::Allowed, Some(ca_file));
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let for_servers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let nameless = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    };
    for (what, certificates) in [
        ("of others", client(&theirs, |_| {})),
        ("expired", client(&ours, expired)),
        ("for servers", client(&ours, for_servers)),
        ("without a name", client(&ours, nameless)),
        (
            "no certificate",
            PeerCertificates(Arc::from([CertificateDer::from(vec![0_u8; 64])])),
        ),
    ] {
        let answer = call(&router, shown("/metrics", certificates)).await;
        assert_eq!(answer, (401, "Unauthorized".to_owned()), "{what}");
    }
    // A good token makes up for a bad certificate.
    let mut request = with_token("/metrics", "good");
    request.extensions_mut().insert(client(&theirs, |_| {}));
    assert_eq!(call(&router, request).await.0, 200);
}
