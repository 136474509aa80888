//! The file in a pod's directory that keeps which IDs of the host the pod has.
//! Blocking.
//!
//! There is no other record: who wants a new block looks at the files of all
//! pods. So a restart of the agent loses nothing, and a block is free again when
//! the file is gone.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::VolumeError;
use super::clean;
use super::layout::{PodLayout, make_directory};
use crate::pod::userns::{self, IdMapping, IdRange};

/// The pod's block, which is a new one if it has none yet. Only one call at a
/// time may run.
pub(super) fn id_mapping(
    root_dir: &Path,
    layout: &PodLayout,
    range: &IdRange,
) -> Result<IdMapping, VolumeError> {
    if let Some(kept) = read(&layout.user_namespace())? {
        return Ok(kept);
    }
    let mut taken = Vec::new();
    for other in clean::pods_on_disk(layout.parent())? {
        let other = PodLayout::new(root_dir, &other)?;
        taken.extend(read(&other.user_namespace())?);
    }
    let mapping = range.allocate(&taken).ok_or(VolumeError::NoIdsLeft)?;
    make_directory(&layout.pod()).map_err(VolumeError::PodDirectories)?;
    let path = layout.user_namespace();
    write(layout, mapping).map_err(|source| VolumeError::ContainerFile { path, source })?;
    Ok(mapping)
}

/// Gives the pod's block back, if it has one. Pods that have ended stay on disk
/// for as long as the API server has them; their IDs must not.
pub(super) fn release(layout: &PodLayout) -> Result<(), VolumeError> {
    let path = layout.user_namespace();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(VolumeError::tear_down(&path, error))
        }
        _ => Ok(()),
    }
}

/// `None`: there is no file, or an empty one, as upstream sees it.
fn read(path: &Path) -> Result<Option<IdMapping>, VolumeError> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| VolumeError::UserNamespace {
        path: path.to_owned(),
        source,
    };
    match fs::read_to_string(path) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => userns::decode(&text)
            .map(Some)
            .map_err(|error| unusable(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(error.into())),
    }
}

/// Whole or not at all, and there after a power failure: the IDs may be on disk
/// by then.
fn write(layout: &PodLayout, mapping: IdMapping) -> io::Result<()> {
    let path = layout.user_namespace();
    let unfinished = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&unfinished)?;
    file.write_all(userns::encode(mapping).as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    fs::File::open(layout.pod())?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &Path, uid: &str) -> PodLayout {
        PodLayout::new(root, &uid.into()).unwrap()
    }

    fn ask(root: &Path, uid: &str) -> Result<IdMapping, VolumeError> {
        let range = IdRange::of_node("", "", userns::UNIT, 2).unwrap();
        id_mapping(root, &layout(root, uid), &range)
    }

    #[test]
    fn a_pod_keeps_its_block_until_it_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let first = ask(root, "a").unwrap();
        let second = ask(root, "b").unwrap();
        assert_ne!(first.host_id, second.host_id);
        assert_eq!(ask(root, "a").unwrap(), first);
        assert_eq!(
            fs::read_to_string(root.join("pods/a/userns")).unwrap(),
            userns::encode(first)
        );
        let error = ask(root, "c").unwrap_err();
        assert!(matches!(error, VolumeError::NoIdsLeft), "{error:?}");
        release(&layout(root, "a")).unwrap();
        release(&layout(root, "a")).unwrap();
        assert_eq!(ask(root, "c").unwrap(), first);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_nothing_is_given_out() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("pods/a")).unwrap();
        fs::write(root.join("pods/a/userns"), "{}").unwrap();
        for uid in ["a", "b"] {
            let error = ask(root, uid).unwrap_err().to_string();
            assert!(error.contains("pods/a/userns"), "{error}");
        }
        fs::write(root.join("pods/a/userns"), "").unwrap();
        assert!(ask(root, "a").is_ok());
    }
}
