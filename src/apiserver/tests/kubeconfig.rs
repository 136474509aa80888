//! Kubeconfig files, good and bad.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::apiserver::{ApiSettings, Credentials, KubeconfigError, NodePort, connect};

/// A kubeconfig with one context; `edit` breaks or changes it.
fn written(dir: &Path, edit: impl FnOnce(&mut Value)) -> PathBuf {
    let mut config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "node" } }],
        // A port that nothing listens on.
        "clusters": [{ "name": "k", "cluster": { "server": "https://127.0.0.1:1", "insecure-skip-tls-verify": true } }],
        "users": [{ "name": "node", "user": { "token": "t" } }],
    });
    edit(&mut config);
    let path = dir.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

async fn connected(kubeconfig: PathBuf) -> Result<crate::apiserver::ApiServer, KubeconfigError> {
    connect(&ApiSettings {
        credentials: Credentials::Kubeconfig(kubeconfig),
        node_name: "n1".into(),
        calls: None,
        events: None,
    })
    .await
    .map(|(api, _)| api)
}

#[tokio::test]
async fn a_server_that_is_not_there_does_not_keep_us_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let api = connected(written(dir.path(), |_| {})).await.unwrap();
    let error = NodePort::get(&api).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
}

#[tokio::test]
async fn relative_paths_are_beside_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t").unwrap();
    let path = written(dir.path(), |config| {
        config["users"][0]["user"] = json!({ "tokenFile": "token" });
    });
    connected(path).await.unwrap();
}

#[tokio::test]
async fn a_bad_file_is_told_by_field() {
    type Edit = fn(&mut Value);
    let table: [(Edit, &str, &str); 12] = [
        (
            |c| c["current-context"] = json!(""),
            "current-context",
            "must name",
        ),
        (
            |c| c["current-context"] = json!("x"),
            "current-context",
            "no context \"x\"",
        ),
        (
            |c| c["contexts"][0]["context"]["cluster"] = json!("x"),
            "contexts[c].context.cluster",
            "no cluster",
        ),
        (
            |c| c["contexts"][0]["context"]["user"] = json!("x"),
            "contexts[c].context.user",
            "no user",
        ),
        (
            |c| c["clusters"][0]["cluster"]["server"] = json!("not a url"),
            "clusters[k].cluster.server",
            "not a URL",
        ),
        (
            |c| c["clusters"][0]["cluster"]["server"] = json!("ftp://x"),
            "clusters[k].cluster.server",
            "http",
        ),
        (
            |c| c["clusters"][0]["cluster"]["proxy-url"] = json!("http://p"),
            "clusters[k].cluster.proxy-url",
            "not supported",
        ),
        (
            |c| c["clusters"][0]["cluster"]["certificate-authority-data"] = json!("!"),
            "clusters[k].cluster.certificate-authority-data",
            "base64",
        ),
        (
            |c| c["clusters"][0]["cluster"]["certificate-authority-data"] = json!("aGkK"),
            "clusters[k].cluster.certificate-authority-data",
            "no PEM",
        ),
        (
            |c| c["users"][0]["user"] = json!({ "client-certificate-data": "aGkK" }),
            "users[node].user.client-certificate-data",
            "client-key",
        ),
        (
            |c| c["users"][0]["user"] = json!({ "client-key": "/nonexistent/key" }),
            "users[node].user.client-key",
            "cannot read",
        ),
        (
            |c| c["users"][0]["user"] = json!({ "exec": { "command": "x" } }),
            "users[node].user.exec",
            "not supported",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (edit, field, problem) in table {
        let path = written(dir.path(), edit);
        let error = connected(path.clone()).await.expect_err(field).to_string();
        for part in [&path.display().to_string(), field, problem] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_or_garbled_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert!(matches!(
        connected(missing).await,
        Err(KubeconfigError::Read { .. })
    ));
    let garbled = dir.path().join("garbled");
    std::fs::write(&garbled, "{ clusters: 7").unwrap();
    assert!(matches!(
        connected(garbled).await,
        Err(KubeconfigError::Parse { .. })
    ));
}
