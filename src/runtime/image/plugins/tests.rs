//! Plugins as shell scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A directory of plugins, each of which notes how often it ran.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A plugin for every image of `registry.example`.
    fn with(&self, name: &str, script: &str) -> CredentialPlugin {
        let path = self.path().join(name);
        let runs = self.path().join(format!("{name}.runs"));
        let script = format!("#!/bin/sh\necho run >> {}\n{script}\n", runs.display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.plugin(name)
    }

    fn plugin(&self, name: &str) -> CredentialPlugin {
        CredentialPlugin {
            name: name.into(),
            directory: self.path().into(),
            args: vec!["give".into()],
            env: vec![("WHO".into(), "env-user".into())],
            match_images: vec!["registry.example".into()],
            default_cache: Duration::from_secs(60),
            api_version: "credentialprovider.kubelet.k8s.io/v1".into(),
        }
    }

    fn runs(&self, name: &str) -> usize {
        let runs = fs::read_to_string(self.path().join(format!("{name}.runs")));
        runs.unwrap_or_default().lines().count()
    }
}

/// A script that answers for `registry.example`.
fn answer(scope: &str, more: &str) -> String {
    format!(
        r#"cat > /dev/null
cat <<END
{{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
  "cacheKeyType": "{scope}", {more}
  "auth": {{"registry.example": {{"username": "$WHO", "password": "$1"}}}}}}
END"#
    )
}

async fn users(plugins: &Plugins, image: &str) -> Vec<String> {
    let found = plugins.lookup(&image.parse().unwrap()).await;
    assert!(found.iter().all(|found| found.secret.is_none()));
    found.into_iter().map(|found| found.auth.username).collect()
}

#[tokio::test]
async fn a_plugin_is_asked_about_the_images_it_matches() {
    let dir = Directory::new();
    let plugins = Plugins::new(vec![dir.with("a", &answer("Image", ""))]);
    let found = plugins
        .lookup(&"registry.example/app:v1".parse().unwrap())
        .await;
    let auth = &found[0].auth;
    assert_eq!(
        (auth.username.as_str(), auth.password.as_str()),
        ("env-user", "give")
    );
    assert!(users(&plugins, "other.example/app").await.is_empty());
    assert_eq!(dir.runs("a"), 1);
}

#[tokio::test]
async fn a_plugin_is_told_the_image_without_its_version() {
    let dir = Directory::new();
    let request = dir.path().join("request");
    let script = format!("cat > {}\n{}", request.display(), answer("Image", ""));
    // The second `cat` of the script finds nothing more to read.
    let plugins = Plugins::new(vec![dir.with("a", &script)]);
    assert_eq!(
        users(&plugins, "registry.example/app:v1").await,
        ["env-user"]
    );
    let request: serde_json::Value = serde_json::from_slice(&fs::read(request).unwrap()).unwrap();
    assert_eq!(
        request,
        serde_json::json!({
            "kind": "CredentialProviderRequest",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "image": "registry.example/app",
        })
    );
}

#[tokio::test]
async fn answers_are_kept_for_what_they_are_good_for() {
    for (scope, more, runs) in [
        ("Image", "", 2),
        ("Registry", "", 1),
        ("Global", "", 1),
        ("Global", r#""cacheDuration": "0s","#, 4),
        ("Global", r#""cacheDuration": "1h","#, 1),
    ] {
        let dir = Directory::new();
        let plugins = Plugins::new(vec![dir.with("a", &answer(scope, more))]);
        for image in ["a", "a", "b", "b"] {
            let image = format!("registry.example/{image}");
            assert_eq!(users(&plugins, &image).await, ["env-user"]);
        }
        assert_eq!(dir.runs("a"), runs, "{scope} {more}");
    }
}

#[tokio::test]
async fn one_run_serves_all_who_ask_at_the_same_time() {
    let dir = Directory::new();
    let plugins = Plugins::new(vec![dir.with("a", &answer("Image", ""))]);
    let asked = (0..8).map(|_| users(&plugins, "registry.example/app"));
    let answers = join_all(asked).await;
    assert!(answers.iter().all(|users| *users == ["env-user"]));
    assert_eq!(dir.runs("a"), 1);
}

#[tokio::test]
async fn bad_plugins_give_nothing_and_spoil_nothing() {
    let dir = Directory::new();
    let wrong_version = answer("Image", "").replace("k8s.io/v1\"", "k8s.io/v9\"");
    let plugins = Plugins::new(vec![
        dir.plugin("missing"),
        dir.with("fails", "echo no luck >&2; exit 3"),
        dir.with("garbage", "echo password=123"),
        dir.with("silent", "exit 0"),
        dir.with("flood", "cat /dev/zero"),
        dir.with("other", &wrong_version),
        dir.with("duration", &answer("Image", r#""cacheDuration": "-1s","#)),
        dir.with("good", &answer("Image", "")),
    ]);
    assert_eq!(users(&plugins, "registry.example/app").await, ["env-user"]);
    // Failures are not kept.
    assert_eq!(users(&plugins, "registry.example/app").await, ["env-user"]);
    assert_eq!((dir.runs("fails"), dir.runs("good")), (2, 1));
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_all_that_it_started() {
    let dir = Directory::new();
    let pids = dir.path().join("pids");
    let script = format!(
        "sleep 1000 & echo $! >> {pids}; echo $$ >> {pids}; wait",
        pids = pids.display()
    );
    let plugin = dir.with("hangs", &script);
    let mut asked = std::pin::pin!(plugin.ask("registry.example/app"));
    let started = async {
        loop {
            let text = fs::read_to_string(&pids).unwrap_or_default();
            let pids: Vec<i32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
            if pids.len() == 2 {
                return pids;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let pids = tokio::select! {
        answer = &mut asked => panic!("{answer:?}"),
        pids = tokio::time::timeout(Duration::from_secs(10), started) => pids.unwrap(),
    };
    tokio::time::pause();
    let error = asked.await.unwrap_err();
    assert!(
        matches!(error, super::super::plugin::PluginError::Timeout),
        "{error}"
    );
    tokio::time::resume();
    let gone = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let all_gone = async {
        while !pids.iter().all(gone) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_gone)
        .await
        .expect("killed");
}
