//! Letting a pod's `fsGroup` into a volume.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::Path;

use walkdir::WalkDir;

/// What the group may do with a volume's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupAccess {
    ReadWrite,
    ReadOnly,
}

/// Gives everything in a volume to the group and adds the group's permission
/// bits. Directories also get the setgid bit, so that new files belong to the
/// group. Links are given away but not followed; other file systems are left
/// alone.
///
/// Only for volumes that no container runs on yet, or none can write to: the
/// walk goes by path.
pub(super) fn give_to_group(volume: &Path, group: u32, access: GroupAccess) -> io::Result<()> {
    for entry in WalkDir::new(volume).same_file_system(true) {
        let entry = entry?;
        lchown(entry.path(), None, Some(group))?;
        if entry.file_type().is_symlink() {
            continue;
        }
        let mode = entry.metadata()?.permissions().mode() & 0o7777;
        let wanted = mode | group_bits(access, entry.file_type().is_dir());
        if wanted != mode {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(wanted))?;
        }
    }
    Ok(())
}

/// Bits to add, for owner and group alike.
fn group_bits(access: GroupAccess, is_directory: bool) -> u32 {
    let files = match access {
        GroupAccess::ReadWrite => 0o660,
        GroupAccess::ReadOnly => 0o440,
    };
    if is_directory { files | 0o2110 } else { files }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_upstreams() {
        assert_eq!(group_bits(GroupAccess::ReadWrite, false), 0o660);
        assert_eq!(group_bits(GroupAccess::ReadWrite, true), 0o2770);
        assert_eq!(group_bits(GroupAccess::ReadOnly, false), 0o440);
        assert_eq!(group_bits(GroupAccess::ReadOnly, true), 0o2550);
    }
}
