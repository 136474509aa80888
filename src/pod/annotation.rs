//! Annotations by which static pods and their mirrors are known, here and to
//! others.

/// On a static pod: the hash of its manifest, which is its UID as well.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Which source a pod came from: `file` for static pods.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// When the agent's process first saw a static pod, RFC 3339 with nanoseconds.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// Marks a pod object as the API server's image of a static pod; its value is
/// the static pod's [`CONFIG_HASH`].
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
