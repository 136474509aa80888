//! Names and paths that come from API objects and become names on this disk.
//!
//! In: text of a pod. Out: a path that stays below the directory it is joined
//! to, or the reason why it would not.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Longest path inside a volume, in bytes.
const MAX_PATH: usize = 4096;
/// Longest component, in bytes; also the limit of common file systems.
const MAX_COMPONENT: usize = 255;

/// Why a text cannot be a path inside a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    #[error("invalid path: must not be empty string")]
    Empty,
    #[error("invalid path: must be relative path: {0}")]
    Absolute(String),
    #[error("invalid path: must not contain '..': {0}")]
    ParentComponent(String),
    #[error("invalid path: must not start with '..': {0}")]
    ReservedPrefix(String),
    #[error("invalid path: must not contain a null character")]
    Nul,
    #[error("invalid path: must be less than or equal to {MAX_PATH} characters")]
    TooLong,
    #[error("invalid path: filenames must be less than or equal to {MAX_COMPONENT} characters")]
    ComponentTooLong,
    #[error("not usable as a file name: {0:?}")]
    NotAComponent(String),
}

/// A path inside a volume: relative, normalised, never leaving the volume and
/// never meeting the atomic writer's own names (`..data` and its like).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RelativePath(PathBuf);

impl RelativePath {
    /// Checks and normalises (`a//b/./c` → `a/b/c`).
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute(text.to_owned()));
        }
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        if text.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if parts.contains(&"..") {
            return Err(PathError::ParentComponent(text.to_owned()));
        }
        if parts.iter().any(|part| part.len() > MAX_COMPONENT) {
            return Err(PathError::ComponentTooLong);
        }
        match parts.first() {
            None => Err(PathError::Empty),
            Some(first) if first.starts_with("..") => {
                Err(PathError::ReservedPrefix(text.to_owned()))
            }
            Some(_) => Ok(Self(parts.iter().collect())),
        }
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.0
    }

    /// The first component: what is visible at the volume's top.
    pub(super) fn top(&self) -> &OsStr {
        self.0.iter().next().unwrap_or_default()
    }
}

/// Checks that a text can be one component of a path: a pod's UID, a volume's
/// or a container's name.
pub(super) fn component(text: &str) -> Result<&str, PathError> {
    let usable = !text.is_empty()
        && text.len() <= MAX_COMPONENT
        && text != "."
        && text != ".."
        && !text.contains(['/', '\0']);
    if usable {
        Ok(text)
    } else {
        Err(PathError::NotAComponent(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_checked_and_normalised() {
        let long = "x".repeat(256);
        let deep = "x/".repeat(3000);
        let cases: [(&str, Result<&str, PathError>); 16] = [
            ("token", Ok("token")),
            ("a/b/c", Ok("a/b/c")),
            ("a//b/./c/", Ok("a/b/c")),
            ("./a", Ok("a")),
            ("a..b/..c", Ok("a..b/..c")),
            ("...", Err(PathError::ReservedPrefix("...".into()))),
            ("", Err(PathError::Empty)),
            (".", Err(PathError::Empty)),
            (
                "/etc/passwd",
                Err(PathError::Absolute("/etc/passwd".into())),
            ),
            ("..", Err(PathError::ParentComponent("..".into()))),
            ("a/../b", Err(PathError::ParentComponent("a/../b".into()))),
            ("..data", Err(PathError::ReservedPrefix("..data".into()))),
            (
                "./..data",
                Err(PathError::ReservedPrefix("./..data".into())),
            ),
            ("a\0b", Err(PathError::Nul)),
            (&long, Err(PathError::ComponentTooLong)),
            (&deep, Err(PathError::TooLong)),
        ];
        for (text, expected) in cases {
            let got = RelativePath::parse(text);
            let got = got.as_ref().map(|path| path.as_path().to_str().unwrap());
            assert_eq!(got, expected.as_ref().map(|text| *text), "{text:?}");
        }
    }

    #[test]
    fn components_are_single_names() {
        for good in ["web", "0b7c-11", "a.b", "..."] {
            assert_eq!(component(good), Ok(good));
        }
        for bad in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(component(bad).is_err(), "{bad:?}");
        }
        assert!(component(&"x".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn an_accepted_path_stays_inside(text in r"[a-c./\x00]{0,24}") {
            if let Ok(path) = RelativePath::parse(&text) {
                prop_assert!(path.as_path().is_relative());
                for part in path.as_path().components() {
                    prop_assert!(matches!(part, std::path::Component::Normal(_)));
                }
                prop_assert!(!path.top().to_str().unwrap().starts_with(".."));
                let again = RelativePath::parse(path.as_path().to_str().unwrap());
                prop_assert_eq!(again, Ok(path));
            }
        }
    }
}
