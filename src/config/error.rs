//! What can be wrong with a configuration, worded for the person who wrote it.
//!
//! Problems are collected, not returned at the first: an edit-restart loop per typo is a
//! poor way to learn a file format. Every problem knows where the offending value was
//! written, whichever layer that was.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nowhere: the built-in default applies.
    #[default]
    Default,
    /// Nowhere: the built-in default for running without `--config` applies.
    LegacyDefault,
    /// In a file; lines and columns count from 1.
    File {
        /// The file as it was named.
        path: Arc<Path>,
        /// Line of the value, or of the key for unknown and repeated keys.
        line: u64,
        /// Column likewise, in characters.
        column: u64,
    },
    /// On the command line, by the flag's name with its dashes.
    Flag(Arc<str>),
}

impl Origin {
    /// True when a person wrote the value.
    pub fn is_given(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Flag(_))
    }

    /// True when the value comes from the command line.
    pub fn is_flag(&self) -> bool {
        matches!(self, Self::Flag(_))
    }
}

/// One thing that makes the configuration unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", Prefix { origin, field })]
pub struct ConfigError {
    /// Where the offending value was written.
    pub origin: Origin,
    /// Path of the field, like `authentication.webhook.cacheTTL`; empty for whole files.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is neither YAML nor JSON.
    #[error("{0}")]
    Syntax(String),
    /// The file holds another kind of object.
    #[error("expected apiVersion {api_version:?} and kind {kind:?}, found {found}")]
    WrongKind {
        /// What the file should say.
        api_version: &'static str,
        /// What the file should say.
        kind: &'static str,
        /// What it says, for a person.
        found: String,
    },
    /// No such field.
    #[error("unknown field {name:?}{}", Hint(.suggestion))]
    UnknownField {
        /// The field's own name.
        name: String,
        /// A field of the same object whose name is nearly the same.
        suggestion: Option<&'static str>,
    },
    /// The field is there twice.
    #[error("field {0:?} is repeated; it was first set in line {1}")]
    Repeated(String, u64),
    /// The value has another type than the field.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// The field's type, for a person.
        expected: &'static str,
        /// The value as written, shortened.
        found: String,
    },
    /// The value has the right type and is not acceptable.
    #[error("{0}")]
    Invalid(String),
    /// The value is valid, this agent cannot do it, and ignoring it would be wrong.
    #[error("{0} is not supported by this agent")]
    Unsupported(String),
}

/// Everything that makes the configuration unusable: file by file, from top to bottom, then
/// flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        let mut files: Vec<Arc<Path>> = Vec::new();
        for error in &errors {
            if let Origin::File { path, .. } = &error.origin
                && !files.contains(path)
            {
                files.push(path.clone());
            }
        }
        errors.sort_by_key(|error| match &error.origin {
            Origin::File { path, line, column } => {
                let file = files.iter().position(|known| known == path);
                (file.unwrap_or(files.len()), *line, *column)
            }
            _ => (files.len(), 0, 0),
        });
        Self(errors)
    }

    /// The errors one by one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => only.fmt(f),
            many => {
                write!(f, "{} errors in the configuration", many.len())?;
                many.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

/// Something a person should know about a configuration that is usable nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Where the value in question was written.
    pub origin: Origin,
    /// Path of the field; empty for flags without one.
    pub field: String,
    /// What to know about it.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            field,
            message,
        } = self;
        write!(f, "{}{message}", Prefix { origin, field })
    }
}

/// `config.yaml:12:3: maxPods: ` — as much of it as is known.
struct Prefix<'a> {
    origin: &'a Origin,
    field: &'a str,
}

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default | Origin::LegacyDefault => {}
            // A flag's name says what its field's name would.
            Origin::Flag(name) => return write!(f, "{name}: "),
            Origin::File { path, line: 0, .. } => write!(f, "{}: ", path.display())?,
            Origin::File { path, line, column } => {
                write!(f, "{}:{line}:{column}: ", path.display())?;
            }
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        Ok(())
    }
}

struct Hint<'a>(&'a Option<&'static str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, " (did you mean {name:?}?)"),
            None => Ok(()),
        }
    }
}

impl ConfigError {
    pub(super) fn whole_file(path: &Path, problem: Problem) -> Self {
        Self {
            origin: Origin::File {
                path: PathBuf::from(path).into(),
                line: 0,
                column: 0,
            },
            field: String::new(),
            problem,
        }
    }
}
