//! Over real connections.

use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::NodePart;
use super::*;
use crate::listen::{HttpServer, Limits};
use crate::proxy::model::Family;

/// Status code and body of one answer.
async fn get_once(router: Router, path: &str) -> (u16, String) {
    let address = "127.0.0.1:0".parse().unwrap();
    let server = HttpServer::bind(address, router, Limits::CHECKS).unwrap();
    let address = server.address().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(shutdown.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: n\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    shutdown.cancel();
    task.await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, body.to_owned())
}

#[tokio::test]
async fn the_node_counts_for_healthz_alone() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let health = ProxyHealth::new(Duration::from_secs(60));
    let router = health_routes(health.clone(), metrics);
    health.updated(Family::V4, Instant::now());
    for (node, codes) in [
        (NodePart::Unknown, [200, 200]),
        (NodePart::Leaving, [503, 200]),
        (NodePart::Eligible, [200, 200]),
    ] {
        health.set_node(node);
        for (path, code) in ["/healthz", "/livez"].into_iter().zip(codes) {
            let (answered, body) = get_once(router.clone(), path).await;
            assert_eq!(answered, code, "{path} {node:?}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["healthy"], true);
            assert_eq!(body["status"]["IPv4"]["healthy"], true);
            let eligible = (path == "/healthz").then_some(node != NodePart::Leaving);
            assert_eq!(body["nodeEligible"].as_bool(), eligible);
            if code == 200 {
                assert_eq!(body["lastUpdated"], body["currentTime"]);
            }
        }
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"kubeproxy_proxy_healthz_total{code="503"} 1"#,
        r#"kubeproxy_proxy_healthz_total{code="200"} 2"#,
        r#"kubeproxy_proxy_livez_total{code="200"} 3"#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_stuck_is_neither_healthy_nor_alive() {
    let metrics = Metrics::new(&mut Registry::default());
    let health = ProxyHealth::new(Duration::ZERO);
    health.queued(Family::V6, Instant::now());
    let router = health_routes(health.clone(), metrics);
    for path in ["/healthz", "/livez"] {
        assert_eq!(get_once(router.clone(), path).await.0, 503, "{path}");
    }
    health.updated(Family::V6, Instant::now() + Duration::from_secs(1));
    assert!(health.is_healthy());
}

#[tokio::test]
async fn mode_and_configuration_are_told() {
    let router = about_routes(json!({"mode": ""}));
    let (code, mode) = get_once(router.clone(), "/proxyMode").await;
    assert_eq!((code, mode.as_str()), (200, "iptables"));
    let (code, body) = get_once(router.clone(), "/configz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 200);
    assert_eq!(body, json!({"kubeproxy.config.k8s.io": {"mode": ""}}));
    assert_eq!(get_once(router, "/made-up").await.0, 404);
}
