//! Whether a pod may use an image that is here already. Pure.
//!
//! In: the policy, what is on record about the image, and the pull secrets
//! that the pod shows. Out: free to use, or to be pulled as the pod. Without
//! such a check a private image is open to every pod of the node once one pod
//! has pulled it.

use super::records::{Credentials, PulledRecord, SecretRecord};
use crate::config::ImageVerification;
use crate::pod::reference::ImageReference;

/// What is on record about an image.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trace {
    /// Nothing: it was not this agent that pulled it.
    None,
    /// A pull was begun, and nothing says how it ended.
    Begun,
    Pulled(PulledRecord),
    /// The record cannot be read: who may use the image is not known.
    Unreadable,
}

/// Whether the pod may use the image as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// `learnt`: to be added to the record, because this secret proved to be
    /// good under a name or with a content that the record does not have.
    Granted { learnt: Option<SecretRecord> },
    /// Only a pull with the pod's own credentials tells.
    Unproven,
}

const GRANTED: Access = Access::Granted { learnt: None };

/// Decides. `shown`: the pull secrets that apply to the image.
pub(super) fn decide(
    policy: &ImageVerification,
    image: &ImageReference,
    trace: &Trace,
    shown: &[SecretRecord],
) -> Access {
    let verify = match policy {
        ImageVerification::Never => false,
        ImageVerification::NeverForPreloaded => *trace != Trace::None,
        ImageVerification::NeverForAllowlisted(patterns) => !is_listed(patterns, image),
        ImageVerification::Always => true,
    };
    if !verify {
        return GRANTED;
    }
    let Trace::Pulled(record) = trace else {
        return Access::Unproven;
    };
    match record.credential_mapping.get(&image.name()) {
        Some(known) => proven(known, shown),
        None => Access::Unproven,
    }
}

fn is_listed(patterns: &[String], image: &ImageReference) -> bool {
    let name = image.name();
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        })
}

/// A secret is good if it holds what once worked, or is the very one that did:
/// its content may have been rotated since.
fn proven(known: &Credentials, shown: &[SecretRecord]) -> Access {
    if known.node_pods_accessible {
        return GRANTED;
    }
    for secret in shown {
        for good in &known.kubernetes_secrets {
            let same_content =
                !good.credential_hash.is_empty() && good.credential_hash == secret.credential_hash;
            let same_object = good.is_same_object(secret);
            if same_content || same_object {
                let news = !(same_content && same_object);
                return Access::Granted {
                    learnt: news.then(|| secret.clone()),
                };
            }
        }
    }
    Access::Unproven
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "registry.example/team/app:v1";

    fn secret(uid: &str, hash: &str) -> SecretRecord {
        SecretRecord {
            uid: uid.into(),
            namespace: "ns".into(),
            name: "pull".into(),
            credential_hash: hash.into(),
        }
    }

    /// A record of a pull under the name above, or under another one.
    fn pulled(name: &str, credentials: serde_json::Value) -> Trace {
        let record = serde_json::json!({
            "kind": "ImagePulledRecord",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "imageRef": "sha256:1",
            "credentialMapping": { name: credentials },
        });
        Trace::Pulled(serde_json::from_value(record).unwrap())
    }

    fn by_secret() -> Trace {
        let known = serde_json::to_value(secret("u1", "h1")).unwrap();
        pulled(
            "registry.example/team/app",
            serde_json::json!({ "kubernetesSecrets": [known] }),
        )
    }

    fn decided(policy: &ImageVerification, trace: &Trace, shown: &[SecretRecord]) -> Access {
        decide(policy, &IMAGE.parse().unwrap(), trace, shown)
    }

    #[test]
    fn policies_say_which_images_are_looked_at() {
        let listed = |pattern: &str| ImageVerification::NeverForAllowlisted(vec![pattern.into()]);
        let preloaded = ImageVerification::NeverForPreloaded;
        for (policy, trace, free) in [
            (ImageVerification::Never, by_secret(), true),
            (preloaded.clone(), Trace::None, true),
            (preloaded.clone(), Trace::Begun, false),
            (preloaded.clone(), Trace::Unreadable, false),
            (preloaded, by_secret(), false),
            (listed("registry.example/team/app"), by_secret(), true),
            (listed("registry.example/team/*"), by_secret(), true),
            (listed("registry.example/other/*"), Trace::None, false),
            (listed("registry.example/team"), Trace::None, false),
            (ImageVerification::Always, Trace::None, false),
        ] {
            let access = decided(&policy, &trace, &[]);
            assert_eq!(access == GRANTED, free, "{policy:?} {trace:?}");
        }
    }

    #[test]
    fn a_secret_is_good_by_content_or_by_being_the_same() {
        let granted = |learnt: Option<SecretRecord>| Access::Granted { learnt };
        for (shown, expected) in [
            (vec![], Access::Unproven),
            (vec![secret("u1", "h1")], granted(None)),
            // Rotated: the new content is good from now on.
            (vec![secret("u1", "h2")], granted(Some(secret("u1", "h2")))),
            // Another namespace's copy of the same password.
            (vec![secret("u2", "h1")], granted(Some(secret("u2", "h1")))),
            (vec![secret("u2", "h2")], Access::Unproven),
            (vec![secret("u2", "h2"), secret("u1", "h1")], granted(None)),
        ] {
            let access = decided(&ImageVerification::Always, &by_secret(), &shown);
            assert_eq!(access, expected, "{shown:?}");
        }
    }

    #[test]
    fn what_the_node_may_pull_everyone_may_use() {
        let open = serde_json::json!({ "nodePodsAccessible": true });
        let trace = pulled("registry.example/team/app", open.clone());
        assert_eq!(decided(&ImageVerification::Always, &trace, &[]), GRANTED);
        // The same image under another name says nothing about this one.
        let trace = pulled("mirror.example/app", open);
        let access = decided(&ImageVerification::Always, &trace, &[]);
        assert_eq!(access, Access::Unproven);
    }
}
