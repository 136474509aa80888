//! Checking that a path of the host is what a hostPath volume says it is.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::plan::HostPathCheck;

/// A host path that is not as its volume says.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostPathError {
    #[error("hostPath type check failed: {path} is not a {kind}")]
    WrongType { path: String, kind: &'static str },
    #[error("cannot create host path {path}")]
    Create {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Checks the path, following symbolic links, and makes it if the type says so.
pub(super) fn check(path: &Path, check: HostPathCheck) -> Result<(), HostPathError> {
    let found = fs::metadata(path).map(|metadata| metadata.file_type());
    let create_error = |source| HostPathError::Create {
        path: path.display().to_string(),
        source,
    };
    // Upstream takes "cannot be looked at" for "not there" as well.
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_ok_and(test);
    let (is_right, kind) = match check {
        HostPathCheck::Anything => return Ok(()),
        HostPathCheck::DirectoryOrCreate if is_absent(path) => {
            return create_directory(path).map_err(create_error);
        }
        HostPathCheck::FileOrCreate if is_absent(path) => {
            return create_file(path).map_err(create_error);
        }
        HostPathCheck::DirectoryOrCreate | HostPathCheck::Directory => {
            (is(fs::FileType::is_dir), "directory")
        }
        HostPathCheck::FileOrCreate | HostPathCheck::File => (is(fs::FileType::is_file), "file"),
        HostPathCheck::Socket => (is(fs::FileType::is_socket), "socket file"),
        HostPathCheck::CharDevice => (is(fs::FileType::is_char_device), "character device"),
        HostPathCheck::BlockDevice => (is(fs::FileType::is_block_device), "block device"),
    };
    if is_right {
        return Ok(());
    }
    Err(HostPathError::WrongType {
        path: path.display().to_string(),
        kind,
    })
}

fn is_absent(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Mode 0755 whatever the umask, and for the last directory only.
fn create_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// An empty file of mode 0644 in a directory that must exist.
fn create_file(path: &Path) -> io::Result<()> {
    let options = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .mode(0o644)
        .to_owned();
    let file = options.open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_told_from_the_others() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("dir"), at("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let cases = [
            ("dir", HostPathCheck::Directory, None),
            ("link", HostPathCheck::Directory, None),
            ("file", HostPathCheck::Directory, Some("directory")),
            ("absent", HostPathCheck::Directory, Some("directory")),
            ("dir", HostPathCheck::DirectoryOrCreate, None),
            ("file", HostPathCheck::DirectoryOrCreate, Some("directory")),
            ("file", HostPathCheck::File, None),
            ("dir", HostPathCheck::File, Some("file")),
            ("socket", HostPathCheck::File, Some("file")),
            ("file", HostPathCheck::FileOrCreate, None),
            ("dir", HostPathCheck::FileOrCreate, Some("file")),
            ("socket", HostPathCheck::Socket, None),
            ("file", HostPathCheck::Socket, Some("socket file")),
            ("file", HostPathCheck::CharDevice, Some("character device")),
            ("file", HostPathCheck::BlockDevice, Some("block device")),
            ("absent", HostPathCheck::Anything, None),
        ];
        for (name, wanted, refused) in cases {
            let path = at(name);
            let got = check(&path, wanted).map_err(|error| error.to_string());
            let expected = refused.map(|kind| {
                format!(
                    "hostPath type check failed: {} is not a {kind}",
                    path.display()
                )
            });
            assert_eq!(got.err(), expected, "{name} {wanted:?}");
        }
        drop(socket);
        assert!(check(Path::new("/dev/null"), HostPathCheck::CharDevice).is_ok());
    }

    #[test]
    fn what_may_be_created_is_created_with_its_mode() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let directory = root.path().join("a/b");
        check(&directory, HostPathCheck::DirectoryOrCreate).unwrap();
        assert_eq!(mode(&directory), 0o755);
        let file = directory.join("file");
        check(&file, HostPathCheck::FileOrCreate).unwrap();
        assert_eq!(mode(&file), 0o644);
        let orphan = root.path().join("absent/file");
        let error = check(&orphan, HostPathCheck::FileOrCreate).unwrap_err();
        assert!(matches!(error, HostPathError::Create { .. }));
        assert!(!orphan.exists());
    }
}
