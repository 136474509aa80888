//! What can be wrong with a manifest, told the way compilers do:
//! `<file>:<line>:<column>: <reason>`.

use std::fmt;
use std::path::PathBuf;

use crate::pod::validate::FieldError;
use crate::pod::{PodName, PodUid};

/// The largest manifest that is read, in bytes; upstream's limit.
pub const MAX_MANIFEST_BYTES: u64 = 10 * 1024 * 1024;

/// One finding about one manifest file, or about the manifest path itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestProblem {
    pub path: PathBuf,
    /// Where in the file, if the reason is about a place.
    pub position: Option<Position>,
    pub reason: Reason,
    pub effect: Effect,
}

/// A place in a text file, both counted from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

/// What a problem means for the pod of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// None: the pod is wanted as the file says.
    Tolerated,
    /// The file is not used; no pod comes from it.
    Skipped,
    /// The file is not used; what it last said while it was good still holds.
    PreviousKept,
}

/// Why a manifest is not used, or what in it has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("is not a regular file")]
    NotRegular,
    #[error("is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    #[error("is not UTF-8 text")]
    NotUtf8,
    #[error("holds no object")]
    Empty,
    #[error("{0}")]
    Syntax(String),
    #[error("a second document: a manifest holds one pod")]
    SecondDocument,
    #[error("{what} is not a v1 Pod")]
    NotAPod { what: String },
    #[error("unknown field {0}")]
    UnknownField(String),
    #[error("{0}")]
    Invalid(FieldError),
    #[error("pod {name} is already defined by {}", winner.display())]
    DuplicateName { name: PodName, winner: PathBuf },
    #[error("object {name} is already defined by {}", winner.display())]
    DuplicateObject { name: String, winner: PathBuf },
    #[error("uid {uid} is already taken by {}", winner.display())]
    DuplicateUid { uid: PodUid, winner: PathBuf },
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.reason)?;
        match self.effect {
            Effect::Tolerated | Effect::Skipped => Ok(()),
            Effect::PreviousKept => f.write_str(" (the last good version stays in force)"),
        }
    }
}
