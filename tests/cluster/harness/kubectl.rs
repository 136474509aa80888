//! kubectl, as people use it: from outside of the node, against the API server.

use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{PATIENCE, Scene};

/// How a run of kubectl ended.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// What it printed as text; an error if it failed.
    pub fn text(self) -> anyhow::Result<String> {
        ensure!(self.status.success(), "{}: {}", self.status, self.stderr);
        Ok(String::from_utf8(self.stdout)?)
    }

    /// The exit code and both outputs, to be compared.
    pub fn parts(&self) -> (Option<i32>, String, &str) {
        let stdout = String::from_utf8_lossy(&self.stdout).into_owned();
        (self.status.code(), stdout, &self.stderr)
    }
}

impl Scene {
    /// kubectl in the test's namespace, not started yet. It dies with its handle.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.cluster.path("KUBECTL"));
        command
            .args(self.kubectl_options())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl to its end.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        self.run_kubectl(self.kubectl_command(arguments), Vec::new())
            .await
    }

    /// Runs kubectl to its end, with these bytes on its standard input.
    pub async fn kubectl_with(&self, arguments: &[&str], input: Vec<u8>) -> anyhow::Result<Ran> {
        self.run_kubectl(self.kubectl_command(arguments), input)
            .await
    }

    /// Runs kubectl on a terminal of 33 lines and 99 columns, and types.
    pub async fn kubectl_on_terminal(
        &self,
        arguments: &[&str],
        typed: &str,
    ) -> anyhow::Result<Ran> {
        let kubectl = self.cluster.fact("KUBECTL").to_owned();
        let words = [kubectl]
            .into_iter()
            .chain(self.kubectl_options())
            .chain(arguments.iter().map(|&argument| argument.to_owned()))
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
        let line = words.collect::<Vec<_>>().join(" ");
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--command"])
            .arg(format!("stty rows 33 cols 99; exec {line}"))
            .arg("/dev/null")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        self.run_kubectl(command, typed.into()).await
    }

    fn kubectl_options(&self) -> Vec<String> {
        let cache = self.cluster.path("DIR").join("kubectl-cache");
        vec![
            format!("--kubeconfig={}", self.cluster.fact("KUBECONFIG")),
            format!("--cache-dir={}", cache.display()),
            format!("--namespace={}", self.namespace),
        ]
    }

    async fn run_kubectl(&self, mut command: Command, input: Vec<u8>) -> anyhow::Result<Ran> {
        let shown = format!("{:?}", command.as_std());
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().context("cannot start kubectl")?;
        let mut stdin = child.stdin.take();
        let feed = async {
            if let Some(stdin) = &mut stdin {
                // It may have heard enough before the end.
                let _ = stdin.write_all(&input).await;
            }
            drop(stdin);
        };
        let run = async { tokio::join!(feed, child.wait_with_output()).1 };
        let Ok(output) = tokio::time::timeout(PATIENCE, run).await else {
            bail!("{shown}: not done within {PATIENCE:?}");
        };
        let output = output?;
        Ok(Ran {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
