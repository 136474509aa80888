//! One run of a credential provider plugin: a program of the node's owner that
//! is asked for an image's registry credentials.
//!
//! In: the program, and the image. Out: what it answered, or why that is no
//! answer. The protocol is upstream's: a `CredentialProviderRequest` on standard
//! input, a `CredentialProviderResponse` on standard output, as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::pod::spec::RegistryAuth;

/// How long a plugin may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Credentials are small; whoever writes more has lost the thread.
const MOST_OUTPUT: u64 = 1 << 20;
/// How much of a plugin's complaints is repeated.
const MOST_COMPLAINT: usize = 512;

/// A plugin as the node's owner configured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialPlugin {
    /// Its file in the directory of plugins.
    pub name: String,
    pub directory: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// The images it is asked about, as `matchImages` has them.
    pub match_images: Vec<String>,
    /// How long an answer is good that does not say so itself.
    pub default_cache: Duration,
    /// `credentialprovider.kubelet.k8s.io/…`, of requests and responses.
    pub api_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'a str,
    image: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    cache_key_type: CacheKeyType,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// For what an answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

/// What a plugin answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) scope: CacheKeyType,
    pub(super) good_for: Duration,
    /// By the place they are for, which may be a pattern.
    pub(super) auths: Vec<(String, RegistryAuth)>,
}

/// Why there is no answer. Output of the plugin is never repeated: it may hold
/// passwords. What it wrote to standard error is.
#[derive(Debug, thiserror::Error)]
pub(super) enum PluginError {
    #[error("cannot start {path:?}")]
    Start {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot talk to it")]
    Talk(#[source] std::io::Error),
    #[error("no answer within {} s", LIMIT.as_secs())]
    Timeout,
    #[error("it failed ({status}): {complaint}")]
    Failed { status: String, complaint: String },
    #[error("more than {MOST_OUTPUT} bytes of output")]
    TooLong,
    #[error("its output is no CredentialProviderResponse")]
    Garbage(#[source] serde_json::Error),
    #[error("it answered with {kind} of {api_version}, not with what was asked for")]
    WrongKind { kind: String, api_version: String },
    #[error("{0:?} is no duration")]
    Duration(String),
}

impl CredentialPlugin {
    /// Asks. `image`: its name without tag and digest. Dropping the future kills
    /// the plugin and what it started.
    pub(super) async fn ask(&self, image: &str) -> Result<Answer, PluginError> {
        let output = tokio::time::timeout(LIMIT, self.run(image))
            .await
            .map_err(|_| PluginError::Timeout)??;
        self.decode(&output)
    }

    async fn run(&self, image: &str) -> Result<Vec<u8>, PluginError> {
        let request = serde_json::to_vec(&Request {
            kind: "CredentialProviderRequest",
            api_version: &self.api_version,
            image,
        })
        .map_err(PluginError::Garbage)?;
        let path = self.directory.join(&self.name);
        let child = Command::new(&path)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| PluginError::Start { path, source })?;
        let mut group = Group(child);
        let child = &mut group.0;
        let (mut stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(stdin) = &mut stdin {
                // One that answers without reading its request is fine.
                let _ = stdin.write_all(&request).await;
            }
            drop(stdin);
        };
        let ((), output, complaint) = tokio::join!(feed, read(stdout), read(stderr));
        let (output, complaint) = (output?, complaint?);
        let status = group.0.wait().await.map_err(PluginError::Talk)?;
        if !status.success() {
            let text = String::from_utf8_lossy(&complaint);
            return Err(PluginError::Failed {
                status: status.to_string(),
                complaint: text.trim().chars().take(MOST_COMPLAINT).collect(),
            });
        }
        Ok(output)
    }

    fn decode(&self, output: &[u8]) -> Result<Answer, PluginError> {
        let response: Response = serde_json::from_slice(output).map_err(PluginError::Garbage)?;
        if response.kind != "CredentialProviderResponse" || response.api_version != self.api_version
        {
            return Err(PluginError::WrongKind {
                kind: response.kind,
                api_version: response.api_version,
            });
        }
        let good_for = match response.cache_duration {
            None => self.default_cache,
            Some(text) => duration(&text).ok_or(PluginError::Duration(text))?,
        };
        let auths = response.auth.unwrap_or_default().into_iter();
        Ok(Answer {
            scope: response.cache_key_type,
            good_for,
            auths: auths
                .map(|(place, auth)| {
                    let auth = RegistryAuth {
                        username: auth.username,
                        password: auth.password,
                        ..RegistryAuth::default()
                    };
                    (place, auth)
                })
                .collect(),
        })
    }
}

/// As Go writes durations; not below zero.
fn duration(text: &str) -> Option<Duration> {
    let duration: crate::config::GoDuration = text.parse().ok()?;
    (!duration.is_negative()).then(|| duration.to_std())
}

/// All of a stream, if that is not too much.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, PluginError> {
    let mut content = Vec::new();
    if let Some(stream) = stream {
        let mut bounded = stream.take(MOST_OUTPUT + 1);
        let read = bounded.read_to_end(&mut content).await;
        read.map_err(PluginError::Talk)?;
    }
    if content.len() as u64 > MOST_OUTPUT {
        return Err(PluginError::TooLong);
    }
    Ok(content)
}

/// A process with all that it started: they end together.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // An ID is there until the process was waited for, so it cannot be
        // anybody else's. What has ended already needs no signal.
        let leader = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader {
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}
