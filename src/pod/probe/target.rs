//! Where a probe or a hook goes: ports by number or name, hosts as addresses.

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Why a port of a handler is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    #[error("couldn't find port: \"{name}\" in container \"{container}\"")]
    Unknown { name: String, container: String },
    #[error("invalid port number: {number}")]
    OutOfRange { number: i64 },
}

/// The port that a handler means: a number, the name of one of the container's
/// own ports, or a number written as text, in this order.
///
/// # Errors
/// A name that the container does not have, or a number outside 1 to 65535.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, PortError> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => named(name, container)
            .map(i64::from)
            .or_else(|| name.parse().ok())
            .ok_or_else(|| PortError::Unknown {
                name: name.clone(),
                container: container.name.clone(),
            })?,
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or(PortError::OutOfRange { number })
}

/// `host:port` as it stands in addresses: IPv6 in brackets.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn named(name: &str, container: &Container) -> Option<i32> {
    container
        .ports
        .iter()
        .flatten()
        .find(|port| port.name.as_deref() == Some(name))
        .map(|port| port.container_port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_numbers_names_or_numbers_as_text() {
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "ports": [{"name": "web", "containerPort": 8080}, {"name": "80", "containerPort": 81}],
        }))
        .unwrap();
        let text = |text: &str| IntOrString::String(text.to_owned());
        let unknown = |name: &str| {
            Err(PortError::Unknown {
                name: name.to_owned(),
                container: "c".to_owned(),
            })
        };
        for (port, wanted) in [
            (IntOrString::Int(80), Ok(80)),
            (text("web"), Ok(8080)),
            (text("80"), Ok(81)),
            (text("9090"), Ok(9090)),
            (text("admin"), unknown("admin")),
            (text(""), unknown("")),
            (
                IntOrString::Int(0),
                Err(PortError::OutOfRange { number: 0 }),
            ),
            (text("65536"), Err(PortError::OutOfRange { number: 65536 })),
            (text("-1"), Err(PortError::OutOfRange { number: -1 })),
        ] {
            assert_eq!(resolve_port(&port, &container), wanted, "{port:?}");
        }
    }

    #[test]
    fn ipv6_goes_into_brackets() {
        assert_eq!(authority("10.0.0.1", 80), "10.0.0.1:80");
        assert_eq!(authority("fd00::1", 80), "[fd00::1]:80");
        assert_eq!(authority("example.com", 443), "example.com:443");
    }
}
