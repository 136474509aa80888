//! A file server over the log directory, in the manner of Go's.
//!
//! In: a path below the directory. Out: a file, a listing of a directory as
//! links, or a redirect between the two spellings of a directory.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{DirEntry, File};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;

use crate::server::api::rooted::{Links, Root};

#[cfg(test)]
mod tests;

/// Bytes sent at a time.
const BLOCK: usize = 64 << 10;
/// Names in a listing; a directory can hold millions.
const MAX_ENTRIES: usize = 20_000;
/// By so much of a file one sees what it is.
const SNIFF: usize = 512;

/// What is at a path. Blocking to make.
pub(super) enum Found {
    File {
        file: File,
        length: u64,
        content_type: &'static str,
    },
    Directory(String),
    /// The same thing is meant to be asked for by this relative reference.
    Elsewhere(String),
}

/// Looks at `path`, which may end with a slash.
///
/// # Errors
/// If there is nothing below the root, or it cannot be read.
pub(super) fn find(root: &Root, path: &str) -> io::Result<Found> {
    let inner = path.trim_matches('/');
    let mut file = root.open(Path::new(inner), Links::Below)?;
    let found = file.metadata()?;
    let last = inner.rsplit('/').next().unwrap_or_default();
    let with_slash = path.is_empty() || path.ends_with('/');
    match (found.is_dir(), with_slash) {
        (true, true) => listing(&root.path().join(inner)).map(Found::Directory),
        (true, false) => Ok(Found::Elsewhere(format!("{}/", escaped_url(last.as_ref())))),
        (false, true) => Ok(Found::Elsewhere(format!(
            "../{}",
            escaped_url(last.as_ref())
        ))),
        (false, false) => Ok(Found::File {
            content_type: content_type(&mut file)?,
            length: found.len(),
            file,
        }),
    }
}

/// The answer to a request for a path.
pub(super) fn answer(found: io::Result<Found>) -> Response {
    match found {
        Ok(Found::File {
            file,
            length,
            content_type,
        }) => {
            let headers = [
                (header::CONTENT_TYPE, content_type.to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            (headers, Body::from_stream(blocks(file, length))).into_response()
        }
        Ok(Found::Directory(html)) => {
            ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
        }
        Ok(Found::Elsewhere(place)) => {
            (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, place)]).into_response()
        }
        Err(error) => {
            let (status, text) = match error.kind() {
                io::ErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "403 Forbidden\n"),
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidFilename => (StatusCode::NOT_FOUND, "404 page not found\n"),
                _ => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "500 Internal Server Error\n",
                ),
            };
            (status, text).into_response()
        }
    }
}

/// The first `length` bytes of a file, as fast as they are taken. An error if
/// the file has become shorter.
pub(super) fn blocks(file: File, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::unfold(Some((file, length)), |rest| async move {
        let (mut file, left) = rest.filter(|(_, left)| *left > 0)?;
        let read = tokio::task::spawn_blocking(move || {
            let wanted = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            let mut block = vec![0; wanted];
            let count = file.read(&mut block)?;
            block.truncate(count);
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok((block, file))
        });
        match read.await.map_err(io::Error::other).flatten() {
            Ok((block, file)) => {
                let left = left - block.len() as u64;
                Some((Ok(block.into()), Some((file, left))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn listing(directory: &Path) -> io::Result<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)?
        .take(MAX_ENTRIES)
        .flatten()
        .map(|entry| shown_name(&entry))
        .collect();
    names.sort();
    let mut html = String::from("<!doctype html>\n<pre>\n");
    for name in names {
        // Writing to a string cannot fail.
        let _ = writeln!(
            html,
            "<a href=\"{}\">{}</a>",
            escaped_url(&name),
            escaped_html(&name.to_string_lossy())
        );
    }
    html.push_str("</pre>\n");
    Ok(html)
}

fn shown_name(entry: &DirEntry) -> OsString {
    let mut name = entry.file_name();
    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        name.push("/");
    }
    name
}

/// Everything but letters, digits and the slash of a directory is encoded, so
/// that no name reads as a scheme, a query or markup.
fn escaped_url(name: &std::ffi::OsStr) -> String {
    let mut url = String::new();
    for byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(byte) {
            url.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn escaped_html(text: &str) -> String {
    let mut html = String::new();
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&#34;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

/// Logs are text whatever they contain; nothing is ever shown as a page.
fn content_type(file: &mut File) -> io::Result<&'static str> {
    let mut start = [0; SNIFF];
    let count = file.read(&mut start)?;
    file.rewind()?;
    let is_binary = start[..count]
        .iter()
        .any(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31));
    Ok(if is_binary {
        "application/octet-stream"
    } else {
        "text/plain; charset=utf-8"
    })
}
