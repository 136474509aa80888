//! Pieces of manifests that many tests use.

use serde_json::{Value, json};

/// A shell and the usual small programs.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";
/// Kubernetes' test server; a second image, for rollouts.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// A script that runs until it is told to end, and then ends at once.
pub const FOREVER: &str = "trap exit TERM; sleep 1000000 & wait";

/// A container that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({
        "name": name,
        "image": BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
    })
}
