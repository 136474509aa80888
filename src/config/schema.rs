//! How typed fields are read out of a [`Node`] tree, reporting every problem on the way.
//!
//! A derived `Deserialize` stops at the first error; the [`object!`] macro makes structs
//! that read all their fields, whatever happens to some of them, and that keep for each
//! value its field path and origin ([`Setting`]).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::document::{Node, Value, join};
use super::duration::GoDuration;
use super::error::{ConfigError, Origin, Problem};
use super::suggest;

/// The value of one field, or that it has none, and what is needed to talk about it.
#[derive(Clone, PartialEq)]
pub(super) struct Setting<T> {
    pub(super) path: String,
    pub(super) origin: Origin,
    pub(super) value: Option<T>,
}

impl<T: Clone + Default + PartialEq> Setting<T> {
    /// The value, or the type's zero, which is what "unset" means in Go.
    pub(super) fn get(&self) -> T {
        self.value.clone().unwrap_or_default()
    }

    /// Fills in the default of a field in which an explicit zero is meant.
    pub(super) fn default_to(&mut self, default: T) {
        if self.value.is_none() {
            self.value = Some(default);
            self.origin = Origin::Default;
        }
    }

    /// Fills in the default of a field in which zero means "unset", as files written by
    /// other programs are full of zeros. A zero on the command line is meant.
    pub(super) fn default_zero_to(&mut self, default: T) {
        if self.value.as_ref() == Some(&T::default()) && !self.origin.is_flag() {
            self.value = None;
        }
        self.default_to(default);
    }
}

impl<T> Setting<T> {
    /// An error about this value.
    pub(super) fn invalid(&self, why: impl Into<String>) -> ConfigError {
        self.error(Problem::Invalid(why.into()))
    }

    /// An error about this value.
    pub(super) fn error(&self, problem: Problem) -> ConfigError {
        ConfigError {
            origin: self.origin.clone(),
            field: self.path.clone(),
            problem,
        }
    }
}

/// Shows the value alone, so that what is shown is equal exactly when the values are.
impl<T: fmt::Debug> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// One field of a read configuration, in a form that can be listed and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) path: String,
    pub(super) origin: Origin,
    /// The value as text, equal exactly when the values are; `None` for unset and zero.
    pub(super) shown: Option<String>,
}

/// A field, or an object of fields.
pub(super) trait Read: Sized {
    /// Reads from `node`, which is `None` when the field is absent.
    fn read(node: Option<&Node>, path: &str, errors: &mut Vec<ConfigError>) -> Self;

    /// Lists every field below this one.
    fn leaves(&self, out: &mut Vec<Leaf>);

    /// Whether there is anything to show.
    fn is_set(&self) -> bool;
}

/// The value of a field.
pub(super) trait FromNode: Sized {
    /// Reads a value that is there and not null; `None` after reporting why it cannot be.
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self>;
}

impl<T: FromNode + fmt::Debug + Default + PartialEq> Read for Setting<T> {
    fn read(node: Option<&Node>, path: &str, errors: &mut Vec<ConfigError>) -> Self {
        let node = node.filter(|node| node.value != Value::Null);
        Self {
            path: path.to_owned(),
            origin: node.map_or(Origin::Default, |node| node.origin.clone()),
            value: node.and_then(|node| T::from_node(node, path, errors)),
        }
    }

    fn leaves(&self, out: &mut Vec<Leaf>) {
        out.push(Leaf {
            path: self.path.clone(),
            origin: self.origin.clone(),
            shown: self
                .value
                .as_ref()
                .filter(|value| **value != T::default())
                .map(|value| format!("{value:?}")),
        });
    }

    fn is_set(&self) -> bool {
        self.value.is_some()
    }
}

/// Written as the value alone, as in a file.
impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// Declares structs of settings, with the name each field has in the file.
macro_rules! object {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty = $key:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub(in crate::config) struct $name {
            $(pub(in crate::config) $field: $ty,)*
        }

        impl $crate::config::schema::Read for $name {
            fn read(
                node: Option<&$crate::config::document::Node>,
                path: &str,
                errors: &mut Vec<$crate::config::error::ConfigError>,
            ) -> Self {
                let node = $crate::config::schema::open(node, path, &[$($key),*], errors);
                Self {$(
                    $field: $crate::config::schema::Read::read(
                        node.and_then(|node| node.get($key)),
                        &$crate::config::document::join(path, $key),
                        errors,
                    ),
                )*}
            }

            fn leaves(&self, out: &mut Vec<$crate::config::schema::Leaf>) {
                $($crate::config::schema::Read::leaves(&self.$field, out);)*
            }

            fn is_set(&self) -> bool {
                true
            }
        }

        /// In the form of a file, without what is not set.
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(if $crate::config::schema::Read::is_set(&self.$field) {
                    serde::ser::SerializeMap::serialize_entry(&mut map, $key, &self.$field)?;
                })*
                serde::ser::SerializeMap::end(map)
            }
        }

        /// Objects in lists are values too.
        impl $crate::config::schema::FromNode for $name {
            fn from_node(
                node: &$crate::config::document::Node,
                path: &str,
                errors: &mut Vec<$crate::config::error::ConfigError>,
            ) -> Option<Self> {
                let before = errors.len();
                let object = $crate::config::schema::Read::read(Some(node), path, errors);
                (errors.len() == before).then_some(object)
            }
        }
    )*};
}
pub(super) use object;

/// Checks that `node` is a map with none but the given keys.
pub(super) fn open<'a>(
    node: Option<&'a Node>,
    path: &str,
    keys: &[&'static str],
    errors: &mut Vec<ConfigError>,
) -> Option<&'a Node> {
    let node = node.filter(|node| node.value != Value::Null)?;
    let Value::Map(members) = &node.value else {
        errors.push(wrong_type(node, path, "a map"));
        return None;
    };
    let mut unknown: Vec<_> = members
        .iter()
        .filter(|(key, _)| !keys.contains(&key.as_str()))
        .collect();
    unknown.sort_by_key(|(_, member)| match member.key_origin {
        Origin::File { line, column, .. } => (line, column),
        _ => (0, 0),
    });
    errors.extend(unknown.into_iter().map(|(key, member)| ConfigError {
        origin: member.key_origin.clone(),
        field: path.to_owned(),
        problem: Problem::UnknownField {
            name: key.clone(),
            suggestion: suggest::closest(key, keys.iter().copied()),
        },
    }));
    Some(node)
}

fn wrong_type(node: &Node, path: &str, expected: &'static str) -> ConfigError {
    ConfigError {
        origin: node.origin.clone(),
        field: path.to_owned(),
        problem: Problem::WrongType {
            expected,
            found: node.value.to_string(),
        },
    }
}

fn invalid(node: &Node, path: &str, why: String) -> ConfigError {
    ConfigError {
        origin: node.origin.clone(),
        field: path.to_owned(),
        problem: Problem::Invalid(why),
    }
}

/// An entry of a map or a list whose own place matters, as layers may have mixed it with
/// entries of other files.
impl<T: FromNode> FromNode for Setting<T> {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        Some(Self {
            path: path.to_owned(),
            origin: node.origin.clone(),
            value: Some(T::from_node(node, path, errors)?),
        })
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                errors.push(wrong_type(node, path, "true or false"));
                None
            }
        }
    }
}

impl FromNode for i64 {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        match node.value {
            Value::Integer(value) => Some(value),
            _ => {
                errors.push(wrong_type(node, path, "a whole number"));
                None
            }
        }
    }
}

impl FromNode for i32 {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        let wide = i64::from_node(node, path, errors)?;
        let narrow = i32::try_from(wide).ok();
        if narrow.is_none() {
            errors.push(invalid(node, path, format!("{wide} is out of range")));
        }
        narrow
    }
}

impl FromNode for f64 {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        match node.value {
            Value::Float(value) => Some(value),
            #[expect(
                clippy::cast_precision_loss,
                reason = "JSON numbers are doubles to begin with"
            )]
            Value::Integer(value) => Some(value as f64),
            _ => {
                errors.push(wrong_type(node, path, "a number"));
                None
            }
        }
    }
}

impl FromNode for String {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                errors.push(wrong_type(node, path, "a string (put it in quotes)"));
                None
            }
            _ => {
                errors.push(wrong_type(node, path, "a string"));
                None
            }
        }
    }
}

impl FromNode for GoDuration {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        let Value::Text(text) = &node.value else {
            errors.push(wrong_type(node, path, "a duration like \"10s\""));
            return None;
        };
        text.parse()
            .map_err(|error: super::duration::ParseDurationError| {
                errors.push(invalid(node, path, error.to_string()));
            })
            .ok()
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            errors.push(wrong_type(node, path, "a list"));
            return None;
        };
        // Every item is read, so that every bad one is reported.
        let read: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| T::from_node(item, &format!("{path}[{index}]"), errors))
            .collect();
        read.into_iter().collect()
    }
}

impl<T: FromNode> FromNode for BTreeMap<String, T> {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        let Value::Map(members) = &node.value else {
            errors.push(wrong_type(node, path, "a map"));
            return None;
        };
        let read: Vec<(String, Option<T>)> = members
            .iter()
            .map(|(key, member)| {
                let value = T::from_node(&member.node, &join(path, key), errors);
                (key.clone(), value)
            })
            .collect();
        read.into_iter()
            .map(|(key, value)| value.map(|value| (key, value)))
            .collect()
    }
}
