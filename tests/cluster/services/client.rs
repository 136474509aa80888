//! Clients of services: who asks, and what they hear.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::{PATIENCE, Scene, number, poll_until, text};

/// After this a connection counts as swallowed, in seconds. Long enough for a lost first
/// packet to be sent again.
const SILENCE: &str = "3";

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// A pod, by a process in its network. Images need no programs of ours.
    Pod { pid: i64 },
    /// The node itself.
    Node,
    /// A machine beside the node.
    Host,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    Body(String),
    /// An HTTP status that says no; only of [`From::get_at`].
    Status(u16),
    /// Somebody said at once that there is nothing.
    Refused,
    /// Nobody said anything.
    Silence,
    /// A connection that did not end well.
    Broken(String),
}

impl Answer {
    /// What was said; an error if nothing was.
    pub fn body(self) -> anyhow::Result<String> {
        match self {
            Self::Body(body) => Ok(body),
            other => bail!("no answer: {other:?}"),
        }
    }
}

impl From {
    /// A pod that runs.
    pub async fn pod(t: &Scene, pod: &Value) -> anyhow::Result<Self> {
        let uid = text(pod, "/metadata/uid");
        let sandboxes = t.cluster.ready_sandboxes(uid).await?;
        let sandbox = sandboxes.first().context("no sandbox")?;
        let inspect = ["crictl", "inspectp", text(sandbox, "/id")];
        let facts: Value = serde_json::from_str(&t.cluster.exec(inspect).await?)?;
        let pid = number(&facts, "/info/pid");
        ensure!(pid > 1, "{facts}");
        Ok(Self::Pod { pid })
    }

    /// One request on a connection of its own.
    pub async fn get(self, t: &Scene, url: &str) -> anyhow::Result<Answer> {
        self.ask(t, &[url]).await
    }

    /// The same, but sent to this address and port, as if the URL's host led there.
    pub async fn get_at(self, t: &Scene, address: &str, url: &str) -> anyhow::Result<Answer> {
        let instead_of_any = format!("::{address}");
        self.ask(t, &["--fail", "--connect-to", &instead_of_any, url])
            .await
    }

    async fn ask(self, t: &Scene, arguments: &[&str]) -> anyhow::Result<Answer> {
        match self {
            Self::Pod { pid } => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--target={pid}"));
                curl(command.args(["--net", "--", "curl"]), arguments).await
            }
            Self::Node => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", t.cluster.fact("NETNS")));
                curl(command.args(["--", "curl"]), arguments).await
            }
            Self::Host => curl(&mut Command::new("curl"), arguments).await,
        }
    }

    /// Asks until this is the answer.
    pub async fn until(self, t: &Scene, url: &str, wanted: Answer) -> anyhow::Result<()> {
        let what = format!("{self:?} asks {url} and hears {wanted:?}");
        poll_until(&what, PATIENCE, || async {
            let answer = self.get(t, url).await?;
            Ok(if answer == wanted {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            })
        })
        .await
    }
}

async fn curl(command: &mut Command, arguments: &[&str]) -> anyhow::Result<Answer> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .args(["--silent", "--show-error", "--max-time", SILENCE])
        .args(["--write-out", "%{onerror}%{http_code}"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start curl")?;
    Ok(match status.code() {
        Some(0) => Answer::Body(String::from_utf8(stdout)?),
        Some(7) => Answer::Refused,
        Some(22) => Answer::Status(String::from_utf8(stdout)?.parse()?),
        Some(28) => Answer::Silence,
        _ => Answer::Broken(String::from_utf8_lossy(&stderr).into_owned()),
    })
}

/// Asks until, of many requests in a row, all are answered by these and each of these
/// answers at least once.
pub async fn until_only(t: &Scene, from: From, url: &str, wanted: &[&str]) -> anyhow::Result<()> {
    // That one of two stays out by chance: one case in 30,000, and then they are asked again.
    const MANY: usize = 16;
    let wanted: BTreeSet<_> = wanted
        .iter()
        .map(|&name| Answer::Body(name.into()))
        .collect();
    let what = format!("{from:?} asks {url} and hears {wanted:?}");
    poll_until(&what, PATIENCE, || async {
        let mut heard = BTreeSet::new();
        for _ in 0..MANY {
            let answer = from.get(t, url).await?;
            let is_wanted = wanted.contains(&answer);
            heard.insert(answer);
            if !is_wanted {
                break;
            }
        }
        Ok(if heard == wanted {
            Ok(())
        } else {
            Err(format!("{heard:?}"))
        })
    })
    .await
}

/// Sends the same words all the time from one port, and notes what it hears last. Ends
/// with its value.
pub struct UdpClient {
    heard: watch::Receiver<String>,
    tasks: [JoinHandle<()>; 2],
}

impl UdpClient {
    pub async fn start(to: &str, words: &'static str) -> anyhow::Result<Self> {
        let socket = Arc::new(UdpSocket::bind("0.0.0.0:0").await?);
        socket.connect(to).await?;
        let (note, heard) = watch::channel(String::new());
        let ears = socket.clone();
        let hear = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                // A refusal is no answer, and not the end either.
                if let Ok(length) = ears.recv(&mut buffer).await {
                    note.send_replace(String::from_utf8_lossy(&buffer[..length]).into_owned());
                }
            }
        });
        let speak = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                let _ = socket.send(words.as_bytes()).await;
            }
        });
        Ok(Self {
            heard,
            tasks: [hear, speak],
        })
    }

    /// Waits until these words come back.
    pub async fn until_hears(&self, wanted: &str, within: Duration) -> anyhow::Result<()> {
        let mut heard = self.heard.clone();
        let wait = heard.wait_for(|words| words == wanted);
        match tokio::time::timeout(within, wait).await {
            Ok(heard) => heard.map(drop).context("the client has ended"),
            Err(_) => bail!(
                "not within {within:?} from {wanted}; last heard: {:?}",
                *self.heard.borrow()
            ),
        }
    }
}

impl Drop for UdpClient {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
