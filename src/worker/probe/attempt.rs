//! One try of a probe: what is asked of the container, and what its answer is
//! worth.
//!
//! In: the handler, the instance, the pod's address. Out: passed, failed, or
//! that it could not be asked, in the words of upstream's events.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe, TCPSocketAction};

use crate::error::chain;
use crate::pod::ContainerId;
use crate::pod::probe::http::HttpGet;
use crate::pod::probe::schedule::Timing;
use crate::pod::probe::{authority, command, resolve_port};
use crate::runtime::{ExecError, ExecOutput};
use crate::worker::WorkerDeps;
use crate::worker::handler::{grpc, http, tcp};

/// What is told of a command's output, in bytes.
const OUTPUT_LIMIT: usize = 10 << 10;

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// `warning`: it passed, but somebody should look.
    Passed {
        warning: Option<String>,
    },
    Failed {
        output: String,
    },
    /// The container was not asked, or did not get to say; says nothing about
    /// it. `state` is what upstream takes it for.
    Errored {
        state: &'static str,
        message: String,
    },
}

impl Attempt {
    fn errored(message: String) -> Self {
        Self::Errored {
            state: "unknown",
            message,
        }
    }
}

/// What a try needs to know.
pub(super) struct Asked<'a> {
    pub(super) deps: &'a WorkerDeps,
    pub(super) probe: &'a Probe,
    pub(super) container: &'a Container,
    pub(super) instance: &'a ContainerId,
    /// Empty if the pod has none.
    pub(super) pod_ip: &'a str,
}

impl Asked<'_> {
    fn timeout(&self) -> Duration {
        Timing::of(self.probe).timeout
    }

    fn user_agent(&self) -> &str {
        &self.deps.probing.user_agent
    }

    /// Asks once; takes no longer than the probe's timeout, or what the runtime
    /// takes on top of it.
    pub(super) async fn attempt(&self) -> Attempt {
        let probe = self.probe;
        if let Some(exec) = &probe.exec {
            self.exec(exec).await
        } else if let Some(get) = &probe.http_get {
            self.http(get).await
        } else if let Some(socket) = &probe.tcp_socket {
            self.tcp(socket).await
        } else if let Some(grpc) = &probe.grpc {
            self.grpc(grpc.port, grpc.service.as_deref().unwrap_or_default())
                .await
        } else {
            Attempt::errored("missing probe handler".to_owned())
        }
    }

    async fn exec(&self, exec: &ExecAction) -> Attempt {
        let command = command(exec.command.as_deref().unwrap_or_default(), self.container);
        let limit = self.timeout();
        let run = self
            .deps
            .streaming
            .exec_sync(self.instance, &command, Some(limit));
        match self.deps.probing.exec_turns.take(run).await {
            Ok(output) => exited(&output),
            Err(ExecError::TimedOut { limit }) => Attempt::Failed {
                output: format!(
                    "command timed out: {:?} timed out after {}s",
                    command.join(" "),
                    limit.as_secs()
                ),
            },
            Err(error @ ExecError::Runtime(_)) => Attempt::errored(chain(&error).to_string()),
        }
    }

    async fn http(&self, action: &HTTPGetAction) -> Attempt {
        let request = match HttpGet::of(action, self.container, self.pod_ip, self.user_agent()) {
            Ok(request) => request,
            Err(error) => return Attempt::errored(error.to_string()),
        };
        match tokio::time::timeout(self.timeout(), http::get(&request)).await {
            Ok(answer) => answered(&request, answer),
            Err(_) => Attempt::Failed {
                output: format!(
                    "Get \"{request}\": context deadline exceeded (Client.Timeout exceeded \
                     while awaiting headers)"
                ),
            },
        }
    }

    async fn tcp(&self, action: &TCPSocketAction) -> Attempt {
        let port = match resolve_port(&action.port, self.container) {
            Ok(port) => port,
            Err(error) => return Attempt::errored(error.to_string()),
        };
        let named = action.host.as_deref().filter(|host| !host.is_empty());
        let host = named.unwrap_or(self.pod_ip);
        let why = match tokio::time::timeout(self.timeout(), tcp::connect(host, port)).await {
            Ok(Ok(())) => return Attempt::Passed { warning: None },
            Ok(Err(error)) => format!("connect: {}", chain(&error)),
            Err(_) => "i/o timeout".to_owned(),
        };
        Attempt::Failed {
            output: format!("dial tcp {}: {why}", authority(host, port)),
        }
    }

    /// Connection and answer share the timeout.
    async fn grpc(&self, port: i32, service: &str) -> Attempt {
        let Ok(port) = u16::try_from(port) else {
            return Attempt::errored(format!("invalid port number: {port}"));
        };
        let authority = authority(self.pod_ip, port);
        let limit = self.timeout().as_secs();
        let deadline = tokio::time::Instant::now() + self.timeout();
        let output =
            match tokio::time::timeout_at(deadline, grpc::connect(&authority, self.user_agent()))
                .await
            {
                Err(_) => {
                    format!("timeout: failed to connect service {authority:?} within {limit}s")
                }
                Ok(Err(error)) => chain(&error).to_string(),
                Ok(Ok(channel)) => {
                    match tokio::time::timeout_at(deadline, grpc::check(channel, service)).await {
                        Err(_) => format!("timeout: health rpc did not complete within {limit}s"),
                        Ok(Err(error)) => chain(&error).to_string(),
                        Ok(Ok(())) => return Attempt::Passed { warning: None },
                    }
                }
            };
        Attempt::Failed { output }
    }
}

fn exited(output: &ExecOutput) -> Attempt {
    if output.exit_code == 0 {
        return Attempt::Passed { warning: None };
    }
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let kept = &said[..said.len().min(OUTPUT_LIMIT)];
    Attempt::Failed {
        output: String::from_utf8_lossy(kept).into_owned(),
    }
}

fn answered(request: &HttpGet, answer: Result<http::Answer, http::HttpError>) -> Attempt {
    match answer {
        Ok(answer) if answer.is_redirect() => Attempt::Passed {
            warning: Some(format!(
                "Probe terminated redirects, Response body: {}",
                answer.body
            )),
        },
        Ok(answer) if answer.is_success() => Attempt::Passed { warning: None },
        Ok(answer) => Attempt::Failed {
            output: format!("HTTP probe failed with statuscode: {}", answer.status),
        },
        Err(error @ http::HttpError::Request(_)) => Attempt::errored(chain(&error).to_string()),
        Err(error @ http::HttpError::Body(_)) => Attempt::Errored {
            state: "failure",
            message: chain(&error).to_string(),
        },
        Err(error) => Attempt::Failed {
            output: format!("Get \"{request}\": {}", chain(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::probe::http::Scheme;

    #[test]
    fn commands_pass_by_their_exit_code() {
        let output = |exit_code, stdout: &str| ExecOutput {
            exit_code,
            stdout: stdout.into(),
            stderr: b"err".to_vec(),
        };
        let passed = Attempt::Passed { warning: None };
        assert_eq!(exited(&output(0, "out")), passed);
        let failed = |output: &str| Attempt::Failed {
            output: output.to_owned(),
        };
        assert_eq!(exited(&output(1, "out")), failed("outerr"));
        let long = "x".repeat(OUTPUT_LIMIT);
        assert_eq!(exited(&output(255, &long)), failed(&long));
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        let request = HttpGet {
            scheme: Scheme::Http,
            host: "10.0.0.7".to_owned(),
            port: 80,
            path_and_query: "/".to_owned(),
            headers: Vec::new(),
        };
        let judged = |status| {
            let body = "b".to_owned();
            answered(&request, Ok(http::Answer { status, body }))
        };
        for status in [200, 299] {
            assert_eq!(judged(status), Attempt::Passed { warning: None });
        }
        let warning = "Probe terminated redirects, Response body: b".to_owned();
        assert_eq!(
            judged(302),
            Attempt::Passed {
                warning: Some(warning)
            }
        );
        for status in [400, 503, 101] {
            let output = format!("HTTP probe failed with statuscode: {status}");
            assert_eq!(judged(status), Attempt::Failed { output });
        }
        let error = http::HttpError::TooManyRedirects;
        let output = "Get \"http://10.0.0.7:80/\": stopped after 10 redirects".to_owned();
        assert_eq!(answered(&request, Err(error)), Attempt::Failed { output });
    }
}
