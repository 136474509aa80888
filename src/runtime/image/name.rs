//! Names of images. Pure.

use super::super::ImageError;
use crate::pod::WaitingReason;
use crate::pod::reference::ImageReference;

const DEFAULT_TAG: &str = ":latest";

/// The name's parts.
pub(super) fn parse(image: &str) -> Result<ImageReference, ImageError> {
    image.parse().map_err(|error| ImageError {
        reason: WaitingReason::InvalidImageName,
        message: format!(
            "Failed to apply default image tag \"{image}\": \
             couldn't parse image name \"{image}\": {error}"
        ),
    })
}

/// The name as given, with the default tag if it has neither tag nor digest.
/// The registry is not filled in: that is for the runtime to decide.
pub(super) fn with_default_tag(image: &str, reference: &ImageReference) -> String {
    if reference.is_unversioned() {
        format!("{image}{DEFAULT_TAG}")
    } else {
        image.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tag_is_added_where_nothing_is_said() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("busybox", "busybox:latest".to_owned()),
            ("busybox:latest", "busybox:latest".to_owned()),
            ("busybox:1.36", "busybox:1.36".to_owned()),
            (
                "localhost:5000/busybox",
                "localhost:5000/busybox:latest".to_owned(),
            ),
            ("r.example/a/b:v1", "r.example/a/b:v1".to_owned()),
            (&format!("busybox@{digest}"), format!("busybox@{digest}")),
            (
                &format!("busybox:1@{digest}"),
                format!("busybox:1@{digest}"),
            ),
        ];
        for (given, expected) in cases {
            let reference = parse(given).expect(given);
            assert_eq!(with_default_tag(given, &reference), expected);
        }
    }

    #[test]
    fn a_bad_name_is_an_error_of_its_own_kind() {
        for given in ["", "UPPER", "a b", "busybox:", "busybox@sha256:12", "-x"] {
            let error = parse(given).expect_err(given);
            assert_eq!(error.reason, WaitingReason::InvalidImageName, "{given}");
            assert!(error.message.contains(given), "{}", error.message);
        }
    }
}
