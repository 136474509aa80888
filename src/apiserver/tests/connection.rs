//! Credentials that change under way.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Uri, header};
use axum::response::Response;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;

use crate::apiserver::{ApiSettings, Credentials, NodePort, Reconnect, connect_later};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that tells callers with which token they have come: as the name of the
/// node that they get or watch. Watches never end.
async fn server() -> String {
    let answer = async |uri: Uri, headers: HeaderMap| {
        let token = headers[header::AUTHORIZATION].to_str().unwrap();
        let name = token.strip_prefix("Bearer ").unwrap();
        let node = json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": name } });
        if !uri.query().unwrap_or_default().contains("watch=true") {
            return Response::new(Body::from(node.to_string()));
        }
        let event = Bytes::from(json!({ "type": "ADDED", "object": node }).to_string() + "\n");
        let first = futures::stream::once(async { Ok::<_, std::io::Error>(event) });
        Response::new(Body::from_stream(first.chain(futures::stream::pending())))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer);
    tokio::spawn(async { axum::serve(listener, router).await });
    url
}

fn write(path: &std::path::Path, server: &str, token: &str) {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
        "clusters": [{ "name": "k", "cluster": { "server": server } }],
        "users": [{ "name": "u", "user": { "token": token } }],
    });
    std::fs::write(path, config.to_string()).unwrap();
}

async fn watched_name(
    stream: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<Node>>> + Unpin),
) -> Option<String> {
    let event = tokio::time::timeout(PATIENCE, stream.try_next());
    match event.await.unwrap().unwrap()? {
        WatchEvent::Added(node) => node.metadata.name,
        _ => None,
    }
}

#[tokio::test]
async fn calls_wait_for_credentials_and_watches_end_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let server = server().await;
    let (api, connection) = connect_later(&ApiSettings {
        credentials: Credentials::Kubeconfig(kubeconfig.clone()),
        node_name: "n1".into(),
        calls: None,
        events: None,
    });
    connection.reconnect().await.unwrap_err();
    let waiting = tokio::spawn({
        let api = api.clone();
        async move { NodePort::get(&api).await }
    });
    write(&kubeconfig, &server, "first");
    connection.reconnect().await.unwrap();
    let node = waiting.await.unwrap().unwrap();
    assert_eq!(node.metadata.name.as_deref(), Some("first"));

    let nodes: Api<Node> = Api::all(api.client.clone());
    let params = WatchParams::default();
    let mut watch = nodes.watch(&params, "0").await.unwrap().boxed();
    assert_eq!(watched_name(&mut watch).await.as_deref(), Some("first"));
    // The same once more is no change.
    write(&kubeconfig, &server, "first");
    connection.reconnect().await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), watch.try_next());
    assert!(silence.await.is_err(), "the watch has ended");

    std::fs::write(&kubeconfig, "half a kubecon").unwrap();
    connection.reconnect().await.unwrap_err();
    let node = NodePort::get(&api).await.unwrap();
    assert_eq!(node.metadata.name.as_deref(), Some("first"));

    write(&kubeconfig, &server, "second");
    connection.reconnect().await.unwrap();
    assert_eq!(watched_name(&mut watch).await, None);
    let mut watch = nodes.watch(&params, "0").await.unwrap().boxed();
    assert_eq!(watched_name(&mut watch).await.as_deref(), Some("second"));
    let node = NodePort::get(&api).await.unwrap();
    assert_eq!(node.metadata.name.as_deref(), Some("second"));
}
