//! Each port's calls as they go over the wire, and the errors that come back.

use std::time::Duration;

use http::Method;
use k8s_openapi::api::authentication::v1::BoundObjectReference;
use serde_json::json;

use super::server::{Answer, Asked, Log, failure, server};
use crate::apiserver::{
    ApiError, Disposition, NodePort, ObjectRefs, PodStatusPort, TokenRequestSpec, Tokens,
};
use crate::pod::{PodName, PodUid};

fn only(log: &Log) -> Asked {
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 1, "{log:?}");
    log[0].clone()
}

fn name() -> PodName {
    PodName::new("default", "a")
}

#[tokio::test]
async fn a_status_patch_is_strategic_and_goes_to_the_subresource() {
    let (api, log) =
        server(|_| Answer::Json(200, json!({ "metadata": { "resourceVersion": "2" } })));
    let body = json!({ "metadata": { "uid": "u" }, "status": { "phase": "Running" } });
    let pod = PodStatusPort::patch(&api, &name(), &body).await.unwrap();
    assert_eq!(pod.metadata.resource_version.as_deref(), Some("2"));
    let asked = only(&log);
    assert_eq!(asked.method, Method::PATCH);
    assert!(
        asked
            .path
            .starts_with("/api/v1/namespaces/default/pods/a/status"),
        "{}",
        asked.path
    );
    assert_eq!(asked.content_type, "application/strategic-merge-patch+json");
    assert_eq!(asked.body, body);
}

#[tokio::test]
async fn a_final_deletion_names_the_uid() {
    let (api, log) = server(|_| {
        Answer::Json(
            200,
            json!({ "metadata": {} , "kind": "Pod", "apiVersion": "v1"}),
        )
    });
    api.finalise_delete(&name(), &PodUid::from("u"))
        .await
        .unwrap();
    let asked = only(&log);
    assert_eq!(asked.method, Method::DELETE);
    assert_eq!(asked.body["gracePeriodSeconds"], 0);
    assert_eq!(asked.body["preconditions"], json!({ "uid": "u" }));
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let busy = || {
        let body = json!({
            "kind": "Status", "status": "Failure", "code": 429, "reason": "TooManyRequests",
            "message": "slow down", "details": { "retryAfterSeconds": 7 },
        });
        Answer::Json(429, body)
    };
    let table: [(fn() -> Answer, Disposition); 7] = [
        (|| Answer::Broken, Disposition::Retry(None)),
        (busy, Disposition::Retry(Some(Duration::from_secs(7)))),
        (
            || failure(503, "ServiceUnavailable", "etcd"),
            Disposition::Retry(None),
        ),
        (
            || failure(403, "Forbidden", "not yet"),
            Disposition::Retry(None),
        ),
        (|| failure(404, "NotFound", "no"), Disposition::NotFound),
        (|| failure(409, "Conflict", "uid"), Disposition::Conflict),
        (|| failure(422, "Invalid", "bad"), Disposition::Permanent),
    ];
    for (answer, expected) in table {
        let (api, log) = server(move |_| answer());
        let error = PodStatusPort::get(&api, &name()).await.unwrap_err();
        assert_eq!(error.disposition(), expected, "{error}");
        only(&log);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_answer_ends() {
    let (api, _) = server(|_| Answer::Events(vec![]));
    let error = NodePort::get(&api).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
}

#[tokio::test]
async fn an_absent_object_is_none_and_a_forbidden_one_says_why() {
    let (api, log) = server(|_| failure(404, "NotFound", "no"));
    assert_eq!(api.config_map("default", "c").await.unwrap(), None);
    assert_eq!(api.config_map("default", "c").await.unwrap(), None);
    assert_eq!(log.lock().unwrap().len(), 2, "absence is not remembered");

    let (api, _) = server(|_| failure(403, "Forbidden", "no relationship found"));
    let error = api.secret("default", "s").await.unwrap_err();
    assert!(error.to_string().contains("does not see yet"), "{error}");
    assert_eq!(error.disposition(), Disposition::Retry(None));
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_together_share_one_read() {
    let (api, log) = server(|_| {
        Answer::Json(
            200,
            json!({ "metadata": { "name": "c" }, "data": { "k": "v" } }),
        )
    });
    let reads = (0..10).map(|_| api.config_map("default", "c"));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap().unwrap().data.unwrap()["k"], "v");
    }
    assert_eq!(log.lock().unwrap().len(), 1);
    api.config_map("other", "c").await.unwrap();
    assert_eq!(
        log.lock().unwrap().len(),
        2,
        "another namespace is another object"
    );
    tokio::time::advance(Duration::from_secs(2)).await;
    api.config_map("default", "c").await.unwrap();
    assert_eq!(
        log.lock().unwrap().len(),
        3,
        "an answer serves for a moment only"
    );
}

#[tokio::test]
async fn those_who_ask_together_share_one_failure() {
    let (api, log) = server(|_| failure(503, "ServiceUnavailable", "etcd"));
    let reads = (0..5).map(|_| api.secret("default", "s"));
    for read in futures::future::join_all(reads).await {
        assert!(matches!(read, Err(ApiError::Refused { code: 503, .. })));
    }
    only(&log);
}

#[tokio::test]
async fn a_token_is_bound_to_its_pod() {
    let (api, log) = server(|_| {
        Answer::Json(
            201,
            json!({
                "metadata": {}, "spec": { "audiences": [] },
                "status": { "token": "t", "expirationTimestamp": "2030-01-01T00:00:00Z" },
            }),
        )
    });
    let spec = TokenRequestSpec {
        namespace: "default".into(),
        service_account: "sa".into(),
        audiences: vec!["vault".into()],
        expiration_seconds: 3607,
        bound_to: BoundObjectReference {
            kind: Some("Pod".into()),
            uid: Some("u".into()),
            ..BoundObjectReference::default()
        },
    };
    let token = api.request(&spec).await.unwrap();
    assert_eq!(token.token, "t");
    assert_eq!(token.expires_at, "2030-01-01T00:00:00Z".parse().unwrap());
    let asked = only(&log);
    assert!(
        asked
            .path
            .starts_with("/api/v1/namespaces/default/serviceaccounts/sa/token"),
        "{}",
        asked.path
    );
    assert_eq!(
        asked.body["spec"],
        json!({
            "audiences": ["vault"], "expirationSeconds": 3607,
            "boundObjectRef": { "kind": "Pod", "uid": "u" },
        })
    );
}
