//! Reading files of volumes that variables come from. Blocking.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::VolumeError;
use super::port::EnvFileRequest;
use super::sub_path;
use crate::pod::env::file::MAX_FILE;

/// Reads a file without leaving its volume; `None` if there is none.
pub(super) fn read(request: &EnvFileRequest) -> Result<Option<Vec<u8>>, VolumeError> {
    read_inside(request).map_err(|source| VolumeError::EnvFile {
        volume: request.file.volume.clone(),
        path: request.file.path.clone(),
        source,
    })
}

fn read_inside(request: &EnvFileRequest) -> io::Result<Option<Vec<u8>>> {
    let Some(found) = sub_path::find(&request.volume_path, &request.file.path)? else {
        return Ok(None);
    };
    // What was found is opened, whatever its name means by now. Non-blocking,
    // because it may be a FIFO.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::pod::inputs::EnvFile;

    fn read_at(volume: &Path, path: &str) -> Result<Option<Vec<u8>>, VolumeError> {
        read(&EnvFileRequest {
            uid: "u1".into(),
            file: EnvFile {
                volume: "v".into(),
                path: path.into(),
            },
            volume_path: volume.to_owned(),
        })
    }

    #[test]
    fn only_plain_files_of_the_volume_are_read() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir_all(volume.join("dir")).unwrap();
        fs::write(root.path().join("secret"), "x").unwrap();
        fs::write(volume.join("dir/env"), "A='1'").unwrap();
        fs::write(volume.join("large"), vec![b'#'; 64 * 1024 + 1]).unwrap();
        symlink("dir/env", volume.join("link")).unwrap();
        symlink("../secret", volume.join("escape")).unwrap();
        mkfifo(&volume.join("fifo"), Mode::S_IRWXU).unwrap();
        for good in ["dir/env", "link"] {
            assert_eq!(read_at(&volume, good).unwrap().unwrap(), b"A='1'");
        }
        assert_eq!(read_at(&volume, "absent").unwrap(), None);
        for bad in ["escape", "../secret", "dir", "fifo", "large"] {
            assert!(read_at(&volume, bad).is_err(), "{bad}");
        }
    }
}
