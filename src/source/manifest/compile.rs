//! One manifest file's bytes in, one desired pod out: decoding, identity,
//! defaults, validation. Pure.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::decode::{self, Decoded, Finding, Places};
use super::identity;
use super::problem::Reason;
use crate::pod::validate::{self, FieldError};
use crate::pod::{DesiredPod, Intent, Origin, defaults};

/// A manifest that can be run.
#[derive(Debug)]
pub(super) struct Compiled {
    pub pod: DesiredPod,
    /// What in the file has no effect.
    pub warnings: Vec<Finding>,
}

/// Makes the static pod that a file describes.
///
/// # Errors
/// Everything that keeps the file from being one.
pub(super) fn compile(
    bytes: &[u8],
    node_name: &str,
    path: &Path,
    seen: Timestamp,
) -> Result<Compiled, Vec<Finding>> {
    let Decoded { pod, unknown } = decode::decode(bytes).map_err(|finding| vec![finding])?;
    // Once the node's name is appended, a missing name would no longer show.
    let nameless = pod.metadata.name.as_deref().unwrap_or_default().is_empty();
    let (uid, name, mut pod) = identity::adopt(pod, node_name, path, seen);
    defaults::apply(&mut pod);

    let errors = if nameless {
        vec![FieldError::required("metadata.name", "a pod needs a name")]
    } else {
        validate::static_pod(&pod)
    };
    if !errors.is_empty() {
        return Err(locate(bytes, errors));
    }
    Ok(Compiled {
        pod: DesiredPod {
            uid,
            name,
            pod: Arc::new(pod),
            origin: Origin::Static {
                path: path.to_owned(),
            },
            intent: Intent::Run,
        },
        warnings: unknown,
    })
}

fn locate(bytes: &[u8], errors: Vec<FieldError>) -> Vec<Finding> {
    let places = Places::of(&String::from_utf8_lossy(bytes));
    errors
        .into_iter()
        .map(|error| Finding {
            position: places.nearest(&error.path),
            reason: Reason::Invalid(error),
        })
        .collect()
}
