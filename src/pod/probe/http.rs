//! The GET request of an `httpGet` probe or hook.
//!
//! In: the handler, its container, the pod's address. Out: the request, every
//! header spelled out. Sending it is `worker::handler::http`'s work.

use std::fmt;

use iri_string::format::ToDedicatedString;
use iri_string::types::{UriAbsoluteString, UriReferenceStr};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::target::{PortError, authority, resolve_port};

/// What must not stand in a path or query as it is.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'\\')
    .add(b'^');

/// Besides, what would begin something else in a path that is meant literally.
const LITERAL: &AsciiSet = &UNSAFE.add(b'%').add(b'?').add(b'#');

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As addresses have it: `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// One GET request. Shown as its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGet {
    pub scheme: Scheme,
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Begins with `/`, percent-encoded.
    pub path_and_query: String,
    /// In the order in which they are sent, `Host`, `User-Agent` and `Accept`
    /// among them. Names may repeat.
    pub headers: Vec<(String, String)>,
}

impl HttpGet {
    /// The request that `action` of `container` stands for, with
    /// `pod_ip` as host unless the action names one, and `user_agent` unless it
    /// brings a header of its own.
    ///
    /// # Errors
    /// If the port is none.
    pub fn of(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        user_agent: &str,
    ) -> Result<Self, PortError> {
        let https = action
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let named = action.host.as_deref().filter(|host| !host.is_empty());
        let host = named.unwrap_or(pod_ip);
        let port = resolve_port(&action.port, container)?;
        Ok(Self {
            scheme: if https { Scheme::Https } else { Scheme::Http },
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path_and_query: path_and_query(action.path.as_deref().unwrap_or_default()),
            headers: headers(
                action.http_headers.as_deref().unwrap_or_default(),
                &authority(host, port),
                user_agent,
            ),
        })
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// The request that follows an answer's `Location`; `None` if that is no
    /// address of HTTP. A `Host` header stays as long as the location names no
    /// host of its own.
    #[must_use]
    pub fn redirected(&self, location: &str) -> Option<Self> {
        let (path, _) = self
            .path_and_query
            .split_once('?')
            .unwrap_or((&self.path_and_query, ""));
        let base = format!("{}://{}{path}", self.scheme.as_str(), self.authority());
        let base = UriAbsoluteString::try_from(base).ok()?;
        let location = escape(location);
        let reference = UriReferenceStr::new(&location).ok()?;
        let target = reference.resolve_against(&base).to_dedicated_string();
        let scheme = match target.scheme_str().to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let place = target
            .authority_components()
            .filter(|place| !place.host().is_empty())?;
        let port = match place.port().filter(|port| !port.is_empty()) {
            Some(port) => port.parse().ok()?,
            None => scheme.default_port(),
        };
        let query = target.query_str().map(|query| format!("?{query}"));
        let mut headers = self.headers.clone();
        if let Some(named) = reference.authority_str() {
            for (name, value) in &mut headers {
                if name.eq_ignore_ascii_case("Host") {
                    *value = named.to_owned();
                }
            }
        }
        Some(Self {
            scheme,
            host: place.host().trim_matches(['[', ']']).to_owned(),
            port,
            path_and_query: rooted(format!(
                "{}{}",
                target.path_str(),
                query.unwrap_or_default()
            )),
            headers,
        })
    }
}

impl fmt::Display for HttpGet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path) = (self.scheme.as_str(), &self.path_and_query);
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

/// Makes `text` fit for an address; escapes in it stay what they are.
fn escape(text: &str) -> String {
    utf8_percent_encode(text, UNSAFE).to_string()
}

/// The action's path may have a query, and a fragment that is not sent. One
/// that is no valid path (a broken escape) is taken literally as a whole.
fn path_and_query(path: &str) -> String {
    let sent = path.split_once('#').map_or(path, |(sent, _)| sent);
    let (only_path, _) = sent.split_once('?').unwrap_or((sent, ""));
    let encoded = if escapes_are_whole(only_path) && !path.contains(char::is_control) {
        escape(sent)
    } else {
        utf8_percent_encode(path, LITERAL).to_string()
    };
    rooted(encoded)
}

fn rooted(path: String) -> String {
    if path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    }
}

fn escapes_are_whole(path: &str) -> bool {
    path.split('%').skip(1).all(|after| {
        let digits = after.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.count() == 2
    })
}

/// An `Accept` or `User-Agent` that is given as empty is not sent at all.
fn headers(given: &[HTTPHeader], authority: &str, user_agent: &str) -> Vec<(String, String)> {
    let find = |name: &str| given.iter().find(|h| h.name.eq_ignore_ascii_case(name));
    let host = find("Host").map_or(authority, |header| header.value.as_str());
    let mut all = vec![("Host".to_owned(), host.to_owned())];
    for (name, default) in [("User-Agent", user_agent), ("Accept", "*/*")] {
        if find(name).is_none() {
            all.push((name.to_owned(), default.to_owned()));
        }
    }
    let own = given.iter().filter(|header| {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let default_is_unwanted = is("Accept") || is("User-Agent");
        let is_removal = default_is_unwanted && header.value.is_empty();
        !is("Host") && !is_removal
    });
    all.extend(own.map(|header| (header.name.clone(), header.value.clone())));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn get(action: serde_json::Value, pod_ip: &str) -> HttpGet {
        let action: HTTPGetAction = serde_json::from_value(action).unwrap();
        let container: Container = serde_json::from_value(json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 8080}],
        }))
        .unwrap();
        HttpGet::of(&action, &container, pod_ip, "kube-probe/1.36").unwrap()
    }

    #[test]
    fn addresses_are_built_from_the_action() {
        for (action, pod_ip, wanted) in [
            (
                json!({"path": "/healthz", "port": 80}),
                "10.0.0.7",
                "http://10.0.0.7:80/healthz",
            ),
            (
                json!({"port": "web", "scheme": "HTTPS"}),
                "fd00::7",
                "https://[fd00::7]:8080/",
            ),
            (
                json!({"port": 80, "host": "example.com", "path": "x"}),
                "10.0.0.7",
                "http://example.com:80/x",
            ),
            (
                json!({"port": 80, "host": "", "path": "/?a=b c"}),
                "1.1.1.1",
                "http://1.1.1.1:80/?a=b%20c",
            ),
        ] {
            assert_eq!(get(action, pod_ip).to_string(), wanted);
        }
    }

    #[test]
    fn paths_are_made_fit_for_the_wire() {
        for (path, wanted) in [
            ("", "/"),
            ("/a/b", "/a/b"),
            ("a", "/a"),
            ("/a b", "/a%20b"),
            ("/a%20b", "/a%20b"),
            ("/a?q=1&r=%zz", "/a?q=1&r=%zz"),
            ("/a#fragment", "/a"),
            ("/100%?x#y", "/100%25%3Fx%23y"),
            ("/%4", "/%254"),
            ("/é", "/%C3%A9"),
        ] {
            assert_eq!(path_and_query(path), wanted, "{path}");
        }
    }

    #[test]
    fn headers_have_defaults_that_can_be_replaced_or_removed() {
        let all = |given: serde_json::Value| {
            let headers = get(json!({"port": 80, "httpHeaders": given}), "10.0.0.7").headers;
            let shown: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
            shown.join(", ")
        };
        let header = |name: &str, value: &str| json!({"name": name, "value": value});
        for (given, wanted) in [
            (
                json!([]),
                "Host: 10.0.0.7:80, User-Agent: kube-probe/1.36, Accept: */*",
            ),
            (
                json!([header("accept", ""), header("user-agent", "me")]),
                "Host: 10.0.0.7:80, user-agent: me",
            ),
            (
                json!([header("host", "a.example"), header("Accept", "text/html")]),
                "Host: a.example, User-Agent: kube-probe/1.36, Accept: text/html",
            ),
            (
                json!([header("X", "1"), header("X", "2"), header("User-Agent", "")]),
                "Host: 10.0.0.7:80, Accept: */*, X: 1, X: 2",
            ),
        ] {
            assert_eq!(all(given), wanted);
        }
    }

    #[test]
    fn redirects_lead_where_the_location_says() {
        let from = get(
            json!({"path": "/a/b?q=%zz", "port": 8080, "httpHeaders": [{"name": "Host", "value": "me"}]}),
            "10.0.0.7",
        );
        for (location, wanted) in [
            ("/x", Some(("http://10.0.0.7:8080/x", "me"))),
            ("c?d=e", Some(("http://10.0.0.7:8080/a/c?d=e", "me"))),
            ("../c d", Some(("http://10.0.0.7:8080/c%20d", "me"))),
            ("?z", Some(("http://10.0.0.7:8080/a/b?z", "me"))),
            ("//10.0.0.7/y", Some(("http://10.0.0.7:80/y", "10.0.0.7"))),
            ("https://[::1]:9", Some(("https://[::1]:9/", "[::1]:9"))),
            ("HTTPS://a.b/c#d", Some(("https://a.b:443/c", "a.b"))),
            ("ftp://10.0.0.7/", None),
            ("http:///x", None),
            ("http://a:99999/", None),
        ] {
            let next = from.redirected(location);
            let shown = next
                .as_ref()
                .map(|next| (next.to_string(), next.headers[0].1.as_str()));
            let shown = shown.as_ref().map(|(to, host)| (to.as_str(), *host));
            // `Host` is the first header, wherever the action has it.
            assert_eq!(shown, wanted, "{location}");
        }
    }
}
