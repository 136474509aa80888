//! Configuration text as a tree of values that remember where they were written.
//!
//! Input: the text of a YAML or JSON file (JSON is YAML). Output: a [`Node`]. Layers of
//! configuration are laid over each other here, as RFC 7386 merge patches, so that after
//! any number of files and flags every value still knows which of them it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::error::{ConfigError, Origin, Problem};

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What JSON can say, plus the difference between whole and other numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Member>),
}

/// A value in a map, with the place of its key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) key_origin: Origin,
    pub(super) node: Node,
}

impl Node {
    /// A map with nothing in it.
    pub(super) fn empty_map(origin: Origin) -> Self {
        Self {
            origin,
            value: Value::Map(BTreeMap::new()),
        }
    }

    /// The member `key` of a map; `None` for other values and missing members.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(members) => members.get(key).map(|member| &member.node),
            _ => None,
        }
    }

    /// The node at a dotted path of field names.
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }

    /// Replaces what is at a dotted path, making the maps on the way.
    pub(super) fn set(&mut self, path: &str, node: Node) {
        let (key, rest) = path
            .split_once('.')
            .map_or((path, None), |(key, rest)| (key, Some(rest)));
        let Some(rest) = rest else {
            self.insert(key, node);
            return;
        };
        let origin = node.origin.clone();
        self.make_map(&origin)
            .entry(key.to_owned())
            .or_insert_with(|| Member {
                key_origin: origin.clone(),
                node: Self::empty_map(origin),
            })
            .node
            .set(rest, node);
    }

    /// Replaces one member of a map. The key may contain dots.
    pub(super) fn insert(&mut self, key: &str, node: Node) {
        let key_origin = node.origin.clone();
        self.make_map(&key_origin)
            .insert(key.to_owned(), Member { key_origin, node });
    }

    /// Lays `patch` over this tree (RFC 7386): maps merge, null removes, the rest replaces.
    pub(super) fn merge(&mut self, patch: Node) {
        let Value::Map(changes) = patch.value else {
            *self = patch;
            return;
        };
        let members = self.make_map(&patch.origin);
        for (key, change) in changes {
            if change.node.value == Value::Null {
                members.remove(&key);
                continue;
            }
            let Member { key_origin, node } = change;
            members
                .entry(key)
                .or_insert_with(|| Member {
                    node: Self::empty_map(node.origin.clone()),
                    key_origin,
                })
                .node
                .merge(node);
        }
    }

    fn make_map(&mut self, origin: &Origin) -> &mut BTreeMap<String, Member> {
        if !matches!(self.value, Value::Map(_)) {
            *self = Self::empty_map(origin.clone());
        }
        match &mut self.value {
            Value::Map(members) => members,
            _ => unreachable!("made a map above"),
        }
    }
}

/// A value as a person would recognise it in an error message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value}"),
            Self::Text(text) if text.chars().count() > 40 => {
                write!(f, "{:?}…", text.chars().take(40).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

/// Reads one YAML or JSON document. Repeated keys are reported all at once; any other
/// syntax error ends the reading.
pub(super) fn parse(text: &str, file: &Path) -> Result<Node, Vec<ConfigError>> {
    let file: Arc<Path> = file.into();
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    let located =
        serde_saphyr::from_str_with_options::<Located>(text, options).map_err(|error| {
            vec![ConfigError {
                origin: place(&file, error.location()),
                field: String::new(),
                problem: Problem::Syntax(message(&error)),
            }]
        })?;
    let mut errors = Vec::new();
    let node = attach(located, &file, "", &mut errors);
    if errors.is_empty() {
        Ok(node)
    } else {
        Err(errors)
    }
}

/// The parser's message without the position it appends; the position is printed up front.
pub(super) fn message(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::MultipleDocuments { .. } = error.without_snippet() {
        return "there is more than one document".to_owned();
    }
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

fn place(file: &Arc<Path>, location: Option<Location>) -> Origin {
    Origin::File {
        path: file.clone(),
        line: location.map_or(0, |at| at.line()),
        column: location.map_or(0, |at| at.column()),
    }
}

/// A value as the YAML library delivers it.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Located(Spanned<Content>);

#[derive(Debug)]
enum Content {
    Scalar(Value),
    List(Vec<Located>),
    Map(Vec<(Spanned<String>, Located)>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(i64::try_from(value).map_or(
            // No field takes numbers this large; as a float it is out of range of all.
            Value::Float(value as f64),
            Value::Integer,
        )))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Content::Map(entries))
    }
}

/// Gives every value its file and turns entry lists into maps.
fn attach(located: Located, file: &Arc<Path>, path: &str, errors: &mut Vec<ConfigError>) -> Node {
    let Located(Spanned {
        value, referenced, ..
    }) = located;
    let value = match value {
        Content::Scalar(value) => value,
        Content::List(items) => Value::List(
            items
                .into_iter()
                .map(|item| attach(item, file, path, errors))
                .collect(),
        ),
        Content::Map(entries) => Value::Map(attach_members(entries, file, path, errors)),
    };
    Node {
        origin: place(file, Some(referenced)),
        value,
    }
}

fn attach_members(
    entries: Vec<(Spanned<String>, Located)>,
    file: &Arc<Path>,
    path: &str,
    errors: &mut Vec<ConfigError>,
) -> BTreeMap<String, Member> {
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    for (key, located) in entries {
        let key_origin = place(file, Some(key.referenced));
        let key = key.value;
        let node = attach(located, file, &join(path, &key), errors);
        if let Some(Member {
            key_origin: Origin::File { line, .. },
            ..
        }) = members.get(&key)
        {
            errors.push(ConfigError {
                origin: key_origin,
                field: path.to_owned(),
                problem: Problem::Repeated(key, *line),
            });
            continue;
        }
        members.insert(key, Member { key_origin, node });
    }
    members
}

/// `parent.key`, or `key` at the top.
pub(super) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}
