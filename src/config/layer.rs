//! One file as a layer of configuration, and the typed fields of all layers together.
//!
//! Input: a path and the [`ObjectKind`] expected there. Output: a [`Node`] tree, every
//! problem of which has been reported; then, of such trees laid over each other, the object.

use std::fs;
use std::path::{self, Path};

use serde::Serialize;

use super::document::{self, Node, Value};
use super::error::{ConfigError, Problem};
use super::schema::Read;

/// What a configuration file says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObjectKind {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
}

impl ObjectKind {
    /// An object of this kind as a whole file would have it.
    pub(super) fn document(self, object: &impl Serialize) -> serde_json::Value {
        let mut document = serde_json::to_value(object).unwrap_or_default();
        document["apiVersion"] = self.api_version.into();
        document["kind"] = self.kind.into();
        document
    }

    /// Complains about a file with another kind of object.
    fn check(self, layer: &Node, file: &Path) -> Option<ConfigError> {
        let text = |key: &str| match layer.get(key).map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version == Some(self.api_version) && kind == Some(self.kind) {
            return None;
        }
        let found = match (api_version, kind) {
            (None, None) => "neither".to_owned(),
            (api_version, kind) => format!(
                "{:?} and {:?}",
                api_version.unwrap_or_default(),
                kind.unwrap_or_default()
            ),
        };
        let problem = Problem::WrongKind {
            api_version: self.api_version,
            kind: self.kind,
            found,
        };
        Some(ConfigError::whole_file(file, problem))
    }
}

/// Reads one file and checks that it holds a `T`; `None` after reporting why nothing can
/// be read from it.
pub(super) fn from_file<T: Read>(
    file: &Path,
    kind: ObjectKind,
    errors: &mut Vec<ConfigError>,
) -> Option<Node> {
    // Paths in the file are relative to it, and have to stay valid wherever they are used.
    let file = &path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let problem = Problem::Unreadable(error.to_string());
            errors.push(ConfigError::whole_file(file, problem));
            return None;
        }
    };
    let layer = match document::parse(&text, file) {
        Ok(layer) => layer,
        Err(found) => {
            errors.extend(found);
            return None;
        }
    };
    if let Some(error) = kind.check(&layer, file) {
        // The fields of another kind of object are not worth listing.
        errors.push(error);
        return None;
    }
    T::read(Some(&layer), "", errors);
    Some(layer)
}

/// The fields of layers laid over each other. Adds what is wrong with them, unless a
/// layer's own check reported it already.
pub(super) fn fields<T: Read>(layers: &Node, errors: &mut Vec<ConfigError>) -> T {
    let mut found = Vec::new();
    let object = T::read(Some(layers), "", &mut found);
    found.retain(|error| !errors.contains(error));
    errors.extend(found);
    object
}
