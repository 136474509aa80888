//! The one place where small files of the kernel are read: one buffer and one
//! path for all of them, three system calls a file.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// More than any file that the kernel writes in one piece.
const PIECE: usize = 16 << 10;
/// Lists (processes, devices) are cut here.
const LIST_LIMIT: usize = 1 << 20;

/// Reads files of the kernel. What cannot be read is `None`: a container may
/// end while it is being looked at.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            path: PathBuf::new(),
            buffer: vec![0; PIECE],
        }
    }

    /// A file that the kernel writes in one piece, whatever its length.
    pub(super) fn value(&mut self, directory: &Path, name: &str) -> Option<&str> {
        let mut file = self.open(directory, name)?;
        let length = loop {
            match file.read(&mut self.buffer) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        };
        std::str::from_utf8(&self.buffer[..length]).ok()
    }

    /// A file that may come in several pieces.
    pub(super) fn list(&mut self, directory: &Path, name: &str) -> Option<&str> {
        let mut file = self.open(directory, name)?;
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                if length >= LIST_LIMIT {
                    break;
                }
                self.buffer.resize(length * 2, 0);
            }
            match file.read(&mut self.buffer[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        std::str::from_utf8(&self.buffer[..length]).ok()
    }

    fn open(&mut self, directory: &Path, name: &str) -> Option<File> {
        self.path.clear();
        self.path.push(directory);
        self.path.push(name);
        File::open(&self.path).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_whole_and_absent_ones_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let long = "12345\n".repeat(PIECE);
        std::fs::write(dir.path().join("short"), "7\n").unwrap();
        std::fs::write(dir.path().join("long"), &long).unwrap();
        std::fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
        let mut files = Files::new();
        assert_eq!(files.value(dir.path(), "short"), Some("7\n"));
        assert_eq!(files.list(dir.path(), "long"), Some(long.as_str()));
        assert_eq!(files.list(dir.path(), "short"), Some("7\n"));
        assert_eq!(files.value(dir.path(), "binary"), None);
        assert_eq!(files.value(dir.path(), "absent"), None);
        assert_eq!(files.list(&dir.path().join("absent"), "short"), None);
    }

    #[test]
    fn an_endless_list_is_cut() {
        let read = Files::new().list(Path::new("/dev"), "zero").map(str::len);
        assert_eq!(read, Some(LIST_LIMIT));
    }
}
