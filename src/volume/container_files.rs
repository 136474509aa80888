//! The files of one container instance: `/etc/hosts`, the termination log, and
//! the parts of volumes that it mounts. Blocking.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::VolumeError;
use super::layout::{PodLayout, make_directory};
use super::path::component;
use super::port::{ContainerFilesRequest, TerminationLog};
use super::sub_path;
use crate::pod::inputs::ContainerFiles;

/// Termination logs kept per container besides the new one: those of the
/// instance that runs, of the dead ones that the runtime keeps, and some to
/// spare. A container that crashes for a year would leave 100 000.
const KEPT_LOGS: usize = 4;

pub(super) fn write(
    layout: &PodLayout,
    request: &ContainerFilesRequest,
) -> Result<ContainerFiles, VolumeError> {
    make_directory(&layout.pod()).map_err(VolumeError::PodDirectories)?;
    let etc_hosts = match &request.etc_hosts {
        Some(text) => {
            let path = layout.etc_hosts();
            write_in_place(&path, text.as_bytes()).map_err(|error| failed(&path, error))?;
            Some(path)
        }
        None => None,
    };
    let termination_log = match request.termination_log {
        TerminationLog::Wanted => Some(make_termination_log(layout, &request.container)?),
        TerminationLog::NotWanted => None,
    };
    let sub_paths = request.sub_paths.iter().map(|wanted| {
        let place = sub_path::prepare(layout, &request.container, wanted)?;
        Ok((wanted.index, place))
    });
    Ok(ContainerFiles {
        etc_hosts,
        termination_log,
        sub_paths: sub_paths.collect::<Result<_, VolumeError>>()?,
    })
}

/// Writes a file that containers may have mounted: the inode stays, and is at
/// no time empty. Containers can write to it too, so its size means nothing.
fn write_in_place(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NOFOLLOW)
        .mode(0o644)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    let wanted = text.len() as u64;
    if file.metadata()?.len() == wanted {
        let mut present = Vec::with_capacity(text.len());
        (&file).take(wanted).read_to_end(&mut present)?;
        if present == text {
            return Ok(());
        }
        file.rewind()?;
    }
    file.write_all(text)?;
    file.set_len(wanted)
}

/// Makes an empty log that any user of the container may write to.
fn make_termination_log(layout: &PodLayout, container: &str) -> Result<PathBuf, VolumeError> {
    component(container).map_err(|error| VolumeError::Name(error.into()))?;
    let directory = layout.container(container);
    make_directory(&directory).map_err(VolumeError::PodDirectories)?;
    remove_old_logs(&directory).map_err(|error| failed(&directory, error))?;
    let path = directory.join(format!("{:08x}", rand::random::<u32>()));
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&path)
        // Explicitly, so that the umask has no say.
        .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o666)));
    made.map_err(|error| failed(&path, error))?;
    Ok(path)
}

/// Removes all but the newest logs.
fn remove_old_logs(directory: &Path) -> io::Result<()> {
    let mut logs: Vec<(SystemTime, PathBuf)> = fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.metadata()?.modified()?, entry.path()))
        })
        .collect::<io::Result<_>>()?;
    logs.sort();
    let old = logs.len().saturating_sub(KEPT_LOGS);
    logs.iter()
        .take(old)
        .try_for_each(|(_, path)| fs::remove_file(path))
}

fn failed(path: &Path, source: io::Error) -> VolumeError {
    VolumeError::ContainerFile {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn request(etc_hosts: Option<&str>, termination_log: TerminationLog) -> ContainerFilesRequest {
        ContainerFilesRequest {
            uid: "u1".into(),
            container: "web".into(),
            sub_paths: Vec::new(),
            etc_hosts: etc_hosts.map(str::to_owned),
            termination_log,
        }
    }

    fn layout(root: &Path) -> PodLayout {
        PodLayout::new(root, &"u1".into()).unwrap()
    }

    #[test]
    fn etc_hosts_keeps_its_inode_and_takes_any_text() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        let mut inode = None;
        for text in [
            "127.0.0.1 a\n",
            "127.0.0.1 abc\n",
            "127.0.0.1 xyz\n",
            "",
            "long\nlong\n",
        ] {
            let files = write(&layout, &request(Some(text), TerminationLog::NotWanted)).unwrap();
            let path = files.etc_hosts.unwrap();
            assert_eq!(files.termination_log, None);
            assert_eq!(path, root.path().join("pods/u1/etc-hosts"));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o644);
            assert_eq!(*inode.get_or_insert(metadata.ino()), metadata.ino());
        }
    }

    #[test]
    fn each_instance_has_its_own_log_and_old_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        let mut newest = PathBuf::new();
        for _ in 0..20 {
            let files = write(&layout, &request(None, TerminationLog::Wanted)).unwrap();
            let path = files.termination_log.unwrap();
            assert_ne!(path, newest);
            assert_eq!(path.file_name().unwrap().len(), 8);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o666);
            newest = path;
        }
        let left = fs::read_dir(layout.container("web")).unwrap().count();
        assert_eq!(left, KEPT_LOGS + 1);
        assert!(newest.exists());
    }

    #[test]
    fn a_container_name_cannot_leave_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let mut request = request(None, TerminationLog::Wanted);
        request.container = "../../x".into();
        let error = write(&layout(root.path()), &request).unwrap_err();
        assert!(matches!(error, VolumeError::Name(_)));
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        let outside = root.path().join("outside");
        fs::write(&outside, "untouched").unwrap();
        make_directory(&layout.pod()).unwrap();
        std::os::unix::fs::symlink(&outside, layout.etc_hosts()).unwrap();
        let request = request(Some("new"), TerminationLog::NotWanted);
        assert!(write(&layout, &request).is_err());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    }
}
