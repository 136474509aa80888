//! Text of a manifest in, object out: YAML or JSON of exactly one v1 Pod, or of
//! one ConfigMap, Secret or Service where these are taken, with the place of everything
//! that is wrong. Pure.
//!
//! As upstream does, fields that the API does not know are accepted; unlike
//! upstream they are reported. A second document and a key given twice are
//! errors, where upstream silently takes one of the two. Where the API wants a
//! string, an unquoted scalar is taken as it is written, and where it wants a
//! number or a boolean, a quoted one will do; upstream refuses both.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_saphyr::granit_parser::{Event, Parser, Span};
use serde_saphyr::{Options, Spanned};

use super::Kinds;
use super::problem::{Position, Reason};

#[cfg(test)]
mod tests;

/// A reason with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub position: Option<Position>,
    pub reason: Reason,
}

/// A manifest that could be read.
#[derive(Debug)]
pub(super) struct Decoded<T> {
    /// As written: no defaults, no identity.
    pub object: T,
    /// Fields without meaning, in the order of the text.
    pub unknown: Vec<Finding>,
}

/// What a manifest holds.
#[derive(Debug)]
pub(super) enum Manifest {
    Pod(Box<Decoded<Pod>>),
    ConfigMap(Decoded<ConfigMap>),
    Secret(Decoded<Secret>),
    Service(Box<Decoded<Service>>),
}

/// Reads one object.
///
/// # Errors
/// The first thing that makes the text something other than one v1 object of
/// `kinds`.
pub(super) fn decode(bytes: &[u8], kinds: Kinds) -> Result<Manifest, Finding> {
    let text = std::str::from_utf8(bytes).map_err(|error| Finding {
        position: Some(position_after(&bytes[..error.valid_up_to()])),
        reason: Reason::NotUtf8,
    })?;
    Ok(match check_kind(text, kinds)? {
        Kind::Pod => Manifest::Pod(Box::new(object(text)?)),
        Kind::ConfigMap => Manifest::ConfigMap(object(text)?),
        Kind::Secret => Manifest::Secret(object(text)?),
        Kind::Service => Manifest::Service(Box::new(object(text)?)),
    })
}

fn object<T: DeserializeOwned>(text: &str) -> Result<Decoded<T>, Finding> {
    let documents: Vec<Lenient<T>> = parse(text)?;
    let Some(Lenient { value, unknown }) = documents.into_iter().next() else {
        return Err(whole_file(Reason::Empty));
    };
    let unknown = if unknown.is_empty() {
        Vec::new()
    } else {
        let places = Places::of(text);
        unknown
            .into_iter()
            .map(|path| Finding {
                position: places.nearest(&path),
                reason: Reason::UnknownField(path),
            })
            .collect()
    };
    Ok(Decoded {
        object: value,
        unknown,
    })
}

/// What every object says about itself; read first, because "a Job is not
/// a Pod" helps more than the first field in which the two differ.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion")]
    api_version: Option<Spanned<String>>,
    kind: Option<Spanned<String>>,
}

fn check_kind(text: &str, kinds: Kinds) -> Result<Kind, Finding> {
    let documents: Vec<Spanned<Header>> = parse(text)?;
    let mut documents = documents.into_iter();
    let Some(header) = documents.next() else {
        return Err(whole_file(Reason::Empty));
    };
    if let Some(second) = documents.next() {
        return Err(Finding {
            position: position_of(second.referenced),
            reason: Reason::SecondDocument,
        });
    }
    let root = header.referenced;
    let Header { api_version, kind } = header.value;
    let not_a_pod = |place, what| Finding {
        position: position_of(place),
        reason: Reason::NotAPod { what },
    };
    match (&api_version, &kind) {
        (_, None) => Err(not_a_pod(root, "an object without a kind".into())),
        (version, Some(kind)) => {
            let Some(taken) = Kind::of(&kind.value, kinds) else {
                return Err(not_a_pod(kind.referenced, format!("kind {}", kind.value)));
            };
            match version {
                None => Err(not_a_pod(root, "an object without an apiVersion".into())),
                Some(version) if version.value != "v1" => Err(not_a_pod(
                    version.referenced,
                    format!("a {} of apiVersion {}", kind.value, version.value),
                )),
                Some(_) => Ok(taken),
            }
        }
    }
}

enum Kind {
    Pod,
    ConfigMap,
    Secret,
    Service,
}

impl Kind {
    fn of(name: &str, kinds: Kinds) -> Option<Self> {
        match (name, kinds) {
            ("Pod", _) => Some(Self::Pod),
            ("ConfigMap", Kinds::PodsAndData) => Some(Self::ConfigMap),
            ("Secret", Kinds::PodsAndData) => Some(Self::Secret),
            ("Service", Kinds::PodsAndData) => Some(Self::Service),
            _ => None,
        }
    }
}

/// A value plus the paths of the fields that it ignored.
struct Lenient<T> {
    value: T,
    unknown: Vec<String>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut unknown = Vec::new();
        let value = serde_ignored::deserialize(deserializer, |path| {
            unknown.push(render_path(&path));
        })?;
        Ok(Self { value, unknown })
    }
}

/// All documents of `text` that are not empty.
fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Finding> {
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        Finding {
            position: error.location().and_then(position_of),
            reason: Reason::Syntax(plain_message(error)),
        }
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        // `defaultMode: 0644` means octal to every other reader of manifests.
        legacy_octal_numbers: true,
        with_snippet: false,
        emit_comments: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
        budget: serde_saphyr::budget! {
            // Far above any real manifest, far below what an alias bomb needs.
            max_nodes: 250_000,
            max_depth: 64,
            max_documents: 64,
        },
    }
}

/// The error's text without the place, which is shown in front of it.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let end = message.find(" at line ").unwrap_or(message.len());
    message[..end].trim().to_owned()
}

fn whole_file(reason: Reason) -> Finding {
    Finding {
        position: None,
        reason,
    }
}

fn position_of(location: serde_saphyr::Location) -> Option<Position> {
    (location != serde_saphyr::Location::UNKNOWN).then(|| Position {
        line: location.line(),
        column: location.column(),
    })
}

fn position_after(valid: &[u8]) -> Position {
    let text = String::from_utf8_lossy(valid);
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    Position {
        line: text.matches('\n').count() as u64 + 1,
        column: last_line.chars().count() as u64 + 1,
    }
}

// === places ===

/// Where each field of the first document stands. What an alias stands for has
/// no place of its own.
pub(super) struct Places(HashMap<String, Position>);

impl Places {
    pub(super) fn of(text: &str) -> Self {
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            // The text was already parsed once; an error here can only follow
            // the part that matters.
            let Ok((event, span)) = event else { break };
            if walk.step(&event, span).is_break() {
                break;
            }
        }
        Self(walk.places)
    }

    /// The place of the field or, failing that, of the closest thing around
    /// it. Paths are in the notation of API errors:
    /// `spec.containers[0].resources.limits[cpu]`.
    pub(super) fn nearest(&self, path: &str) -> Option<Position> {
        // Keys of maps and indices of lists are both just names to the walk.
        let dotted = path.replace('[', ".").replace(']', "");
        let mut path = dotted.as_str();
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind('.')?];
        }
    }
}

#[derive(Default)]
struct Walk {
    stack: Vec<Frame>,
    places: HashMap<String, Position>,
}

struct Frame {
    path: String,
    kind: FrameKind,
}

enum FrameKind {
    Sequence {
        next: usize,
    },
    Key,
    Value {
        key: String,
    },
    /// A key that is itself a collection: legal YAML, meaningless here.
    Skipped,
}

impl Walk {
    fn step(&mut self, event: &Event<'_>, span: Span) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        match event {
            // Documents without content before the first real one are passed over.
            Event::DocumentEnd if !self.places.is_empty() => return Break(()),
            Event::Scalar(text, ..) => {
                self.node(Some(text), span);
            }
            Event::Alias(..) => {
                self.node(None, span);
            }
            Event::SequenceStart(..) => {
                let frame = self.node(None, span);
                self.push(frame, FrameKind::Sequence { next: 0 });
            }
            Event::MappingStart(..) => {
                let frame = self.node(None, span);
                self.push(frame, FrameKind::Key);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.stack.pop();
            }
            _ => {}
        }
        Continue(())
    }

    fn push(&mut self, path: Option<String>, kind: FrameKind) {
        self.stack.push(match path {
            Some(path) => Frame { path, kind },
            None => Frame {
                path: String::new(),
                kind: FrameKind::Skipped,
            },
        });
    }

    /// Takes one node; answers its path if it is a value.
    fn node(&mut self, scalar: Option<&str>, span: Span) -> Option<String> {
        let place = Position {
            line: span.start.line() as u64,
            column: span.start.col() as u64 + 1,
        };
        let Some(frame) = self.stack.last_mut() else {
            return Some(String::new());
        };
        match &mut frame.kind {
            FrameKind::Skipped => None,
            FrameKind::Sequence { next } => {
                let path = below(&frame.path, &next.to_string());
                *next += 1;
                self.places.insert(path.clone(), place);
                Some(path)
            }
            FrameKind::Key => {
                let path = scalar.map(|key| below(&frame.path, key));
                if let Some(path) = &path {
                    self.places.insert(path.clone(), place);
                }
                frame.kind = FrameKind::Value {
                    key: path.unwrap_or_default(),
                };
                None
            }
            FrameKind::Value { key } => {
                let path = std::mem::take(key);
                frame.kind = FrameKind::Key;
                (!path.is_empty()).then_some(path)
            }
        }
    }
}

fn below(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

fn render_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", render_path(parent)),
        Path::Map { parent, key } => below(&render_path(parent), key),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => render_path(parent),
    }
}
