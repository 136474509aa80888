//! What files of a pod may say about it, over what environment variables may:
//! all its labels and annotations. Pure; the rest is `pod::downward`'s.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::downward;

/// Why a downward API item has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DownwardError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error(transparent)]
    Resource(#[from] downward::DownwardError),
    #[error("the item for {0} has neither fieldRef nor resourceFieldRef")]
    NoSource(String),
}

/// The value of a `fieldRef` in a volume: one of `metadata.name`, `.namespace`,
/// `.uid`, `.labels`, `.annotations`, or one label or annotation by subscript.
pub(super) fn field(pod: &Pod, path: &str) -> Result<String, DownwardError> {
    let metadata = &pod.metadata;
    match path {
        "metadata.labels" => Ok(map_text(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(map_text(metadata.annotations.as_ref())),
        _ => downward::metadata_field(metadata, path)
            .ok_or_else(|| DownwardError::Field(path.to_owned())),
    }
}

/// One `key="value"` line per entry, in order of keys, quoted as Go's `%q`.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    lines
        .map(|(key, value)| format!("{key}={}", go_quoted(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A string as a Go string literal: readers of these files unquote it so.
fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if is_printable(c) => quoted.push(c),
            c => push_escaped(&mut quoted, u32::from(c)),
        }
    }
    quoted.push('"');
    quoted
}

fn push_escaped(quoted: &mut String, code: u32) {
    let written = match code {
        0..0x80 => write!(quoted, "\\x{code:02x}"),
        0x80..0x1_0000 => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// The standard library's own tables, asked through `escape_debug`. A leading
/// letter keeps combining marks, which are printable, from being escaped.
fn is_printable(c: char) -> bool {
    let mut with_base = String::from("a");
    with_base.push(c);
    with_base.escape_debug().count() == 2 || c == '\''
}

#[cfg(test)]
mod tests;
