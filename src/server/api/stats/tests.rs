use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::stats::world::World;

/// Status, content type and body.
async fn ask(world: &World, method: Method, path: &str) -> (StatusCode, String, String) {
    let router = routes(StatsDeps {
        collector: world.collector(),
    });
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty())
        .unwrap();
    let answer = router.oneshot(request).await.unwrap();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.map_or("", |kind| kind.to_str().unwrap()).to_owned();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, kind, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_summary_is_json_by_get_and_by_post() {
    let world = World::new();
    for method in [Method::GET, Method::POST] {
        let (status, kind, body) = ask(&world, method, "/stats/summary").await;
        assert_eq!(
            (status, kind.as_str()),
            (StatusCode::OK, "application/json")
        );
        let summary: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(summary["node"]["nodeName"], "n");
        assert_eq!(summary["pods"][0]["containers"][0]["name"], "main");
        assert!(summary["node"]["fs"].is_object());
    }
}

#[tokio::test]
async fn only_cpu_and_memory_leaves_the_rest_out() {
    let world = World::new();
    let path = "/stats/summary?only_cpu_and_memory=true";
    let (_, _, body) = ask(&world, Method::GET, path).await;
    let summary: Value = serde_json::from_str(&body).unwrap();
    assert!(summary["node"]["cpu"].is_object());
    assert!(summary["node"].get("fs").is_none());
    assert!(summary["pods"][0].get("ephemeral-storage").is_none());
}

#[tokio::test]
async fn metrics_are_text_for_prometheus() {
    let world = World::new();
    for (path, sample) in [
        ("/metrics/resource", "\npod_cpu_usage_seconds_total{"),
        (
            "/metrics/cadvisor",
            "\ncontainer_memory_rss{container=\"main\",",
        ),
    ] {
        let (status, kind, body) = ask(&world, Method::GET, path).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        assert!(body.contains(sample), "{body}");
    }
    let (status, _, _) = ask(&world, Method::POST, "/metrics/resource").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_machine_that_cannot_be_read_is_an_internal_error() {
    let world = World::new();
    std::fs::remove_dir_all(world.directory("")).unwrap();
    let (status, _, body) = ask(&world, Method::GET, "/stats/summary").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body, "Internal Error: cannot read the root cgroup");
    let (status, _, body) = ask(&world, Method::GET, "/metrics/resource").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\nresource_scrape_error 1\n"), "{body}");
}
