//! What a request's query and headers ask for.
//!
//! In: decoded pairs of the query, and headers. Out: our types, or a
//! [`Refusal`] with upstream's words.

use std::time::Duration;

use axum::http::{HeaderMap, header};

use super::refusal::Refusal;
use crate::runtime::StdStreams;

/// The pairs of a query, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl Pairs {
    /// All values of a name.
    fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Whether the first value of a name is `1`, the only spelling of "yes".
    fn is_set(&self, name: &str) -> bool {
        self.all(name).next() == Some("1")
    }
}

/// The streams that exec and attach ask for. A terminal's caller gets no stderr,
/// even if asked for.
pub(super) fn streams(query: &Pairs) -> Result<StdStreams, Refusal> {
    let tty = query.is_set("tty");
    let streams = StdStreams {
        stdin: query.is_set("input"),
        stdout: query.is_set("output"),
        stderr: query.is_set("error") && !tty,
        tty,
    };
    if streams.stdin || streams.stdout || streams.stderr {
        Ok(streams)
    } else {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        Err(Refusal::bad_request(message))
    }
}

/// The command of exec, one pair for each word.
pub(super) fn exec_command(query: &Pairs) -> Vec<String> {
    query.all("command").map(str::to_owned).collect()
}

/// The command of `/run`: a single value, cut at every single space.
pub(super) fn run_command(query: &Pairs) -> Vec<String> {
    let command = query.all("cmd").next().unwrap_or_default();
    command.split(' ').map(str::to_owned).collect()
}

/// The ports of a port-forward. Only a WebSocket names them here; on SPDY each
/// stream names its own.
pub(super) fn ports(query: &Pairs, upgrade: Option<Upgrade>) -> Result<Vec<u16>, Refusal> {
    if upgrade != Some(Upgrade::WebSocket) {
        return Ok(Vec::new());
    }
    let mut ports = Vec::new();
    for value in query.all("port") {
        if value.is_empty() {
            let message = "query parameter \"port\" cannot be empty";
            return Err(Refusal::bad_request(message));
        }
        for port in value.split(',') {
            match port.parse::<u16>() {
                Ok(0) => {
                    let message = format!("port {value:?} must be > 0");
                    return Err(Refusal::bad_request(message));
                }
                Ok(port) => ports.push(port),
                Err(error) => {
                    let message = format!("unable to parse {value:?} as a port: {error}");
                    return Err(Refusal::bad_request(message));
                }
            }
        }
    }
    if ports.is_empty() {
        let message = "query parameter \"port\" is required";
        return Err(Refusal::bad_request(message));
    }
    Ok(ports)
}

/// For how long a checkpoint may take: the last `timeout`, in seconds. `None`
/// or 0: the runtime's own limit. Upstream answers a bad one with 404.
pub(super) fn checkpoint_limit(query: &Pairs) -> Result<Option<Duration>, Refusal> {
    let Some(value) = query.all("timeout").next_back() else {
        return Ok(None);
    };
    let seconds: u64 = value
        .parse()
        .map_err(|_| Refusal::not_found("cannot parse value of timeout parameter"))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// The kind of protocol that a caller wants to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    WebSocket,
    /// `SPDY/3.1`, as far as one knows.
    Other,
}

/// Which upgrade the headers ask for; `None`: none.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<Upgrade> {
    let mut connection = headers.get_all(header::CONNECTION).iter();
    let wanted = connection.any(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value.contains("upgrade")
    });
    let protocol = headers.get(header::UPGRADE).filter(|_| wanted)?;
    Some(if protocol.as_bytes().eq_ignore_ascii_case(b"websocket") {
        Upgrade::WebSocket
    } else {
        Upgrade::Other
    })
}

#[cfg(test)]
mod tests;
