//! The hash of a container's spec, written on every container: if it differs
//! from what is desired, the container is replaced.
//!
//! It is computed as upstream computes it, so that a node can change from
//! upstream's agent to this one, and back, without restarting anything.

use k8s_openapi::api::core::v1::Container;

/// The hash in lower-case hexadecimal, without leading zeros. Only name and
/// image count: nothing else of a running container may change.
#[must_use]
pub fn container(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let json = format!(
        r#"{{"image":{},"name":{}}}"#,
        go_json_string(image),
        go_json_string(&container.name)
    );
    format!("{:x}", fnv1a_32(go_dump(json.as_bytes()).as_bytes()))
}

/// A JSON string as Go's encoder writes it: fit to stand in HTML.
fn go_json_string(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .chars()
        .fold(String::new(), |mut out, c| {
            match c {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    out.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                _ => out.push(c),
            }
            out
        })
}

/// A byte slice as Go's spew library prints it.
fn go_dump(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("([]uint8)[{}]", numbers.join(" "))
}

/// FNV-1a of 32 bits; the `fnv` crate has the one of 64 bits only.
fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with upstream's own code (v1.36.3).
    #[test]
    fn agrees_with_upstream() {
        for (name, image, hash) in [
            ("test_container", "test_image", "9ef49c0b"),
            ("web", "registry.k8s.io/pause:3.10", "4f3b3ba7"),
            (
                "kube-apiserver",
                "registry.k8s.io/kube-apiserver:v1.36.2",
                "fcc274bb",
            ),
            ("", "", "edd67cc4"),
            ("a", "nginx", "9a9f78b"),
            ("n7816", "x", "d8eb4"),
            ("x", "a<b>&c", "8d3d6ea6"),
            ("\t\u{8}\u{c}", "\u{2029}", "25b777cd"),
            ("é\u{2028}\"\\\n\u{1}\u{7f}", "ü", "9e8fec14"),
        ] {
            let spec = Container {
                name: name.into(),
                image: Some(image.into()),
                ..Container::default()
            };
            assert_eq!(container(&spec), hash, "{name:?} {image:?}");
        }
    }

    #[test]
    fn only_name_and_image_count() {
        let plain = Container {
            name: "web".into(),
            image: Some("nginx".into()),
            ..Container::default()
        };
        let other = Container {
            args: Some(vec!["x".into()]),
            ..plain.clone()
        };
        assert_eq!(container(&plain), container(&other));
    }
}
