//! Tests of [`super`]: everything goes, and nothing else does. What needs
//! mounts is in `tests/volume.rs`.

use std::fs;
use std::os::unix::fs::symlink;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::mkdirat;
use tempfile::TempDir;

use super::*;

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn remove(root: &TempDir, name: &str) -> io::Result<()> {
    remove_tree(root.path(), OsStr::new(name))
}

#[test]
fn absent_names_and_parents_are_fine() {
    let root = root();
    remove(&root, "absent").unwrap();
    remove_tree(&root.path().join("absent"), OsStr::new("x")).unwrap();
}

#[test]
fn files_links_and_trees_go() {
    let root = root();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("tree/a/b/c")).unwrap();
    fs::write(at("tree/a/file"), "x").unwrap();
    fs::write(at("file"), "x").unwrap();
    symlink("nowhere", at("link")).unwrap();
    nix::unistd::mkfifo(&at("tree/fifo"), Mode::S_IRWXU).unwrap();
    for name in ["tree", "file", "link"] {
        remove(&root, name).unwrap();
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn links_are_not_followed() {
    let (root, outside) = (root(), root());
    fs::write(outside.path().join("precious"), "x").unwrap();
    let tree = root.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink(outside.path(), tree.join("absolute")).unwrap();
    symlink("..", tree.join("up")).unwrap();
    fs::write(root.path().join("sibling"), "x").unwrap();
    remove(&root, "tree").unwrap();
    // The name itself as a link.
    symlink(outside.path(), root.path().join("tree")).unwrap();
    remove(&root, "tree").unwrap();
    assert!(outside.path().join("precious").exists());
    assert!(root.path().join("sibling").exists());
    assert!(!tree.exists());
}

#[test]
fn a_wide_directory_goes() {
    let root = root();
    let tree = root.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for index in 0..BATCH * 2 + 1 {
        fs::write(tree.join(index.to_string()), "").unwrap();
    }
    remove(&root, "tree").unwrap();
    assert!(!tree.exists());
}

/// Deeper than any path, and with the names that hoisting would use.
#[test]
fn a_tree_too_deep_for_a_path_goes() {
    let root = root();
    let tree = root.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("..hoisted-1"), "x").unwrap();
    fs::create_dir(tree.join("..hoisted-2")).unwrap();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut directory = nix::fcntl::openat(AT_FDCWD, &tree, flags, Mode::empty()).unwrap();
    for _ in 0..3000 {
        mkdirat(&directory, "deep", Mode::S_IRWXU).unwrap();
        directory = nix::fcntl::openat(&directory, "deep", flags, Mode::empty()).unwrap();
    }
    drop(directory);
    remove(&root, "tree").unwrap();
    assert!(!tree.exists());
}

/// With a mount namespace of its own, so that nothing of this is seen outside.
#[cfg(feature = "node-tests")]
#[test]
fn mounts_are_not_entered() {
    use nix::mount::{MsFlags, mount};

    let in_namespace = || {
        // SAFETY: takes no pointers, and concerns this thread only.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "needs root");
        let none: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).unwrap();

        let (root, outside) = (root(), root());
        let precious = outside.path().join("precious");
        fs::write(&precious, "x").unwrap();
        let directory = root.path().join("tree/a/mounted");
        fs::create_dir_all(&directory).unwrap();
        // On the same file system, where a device number tells nothing.
        mount(
            Some(outside.path()),
            &directory,
            none,
            MsFlags::MS_BIND,
            none,
        )
        .unwrap();
        let error = remove(&root, "tree").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        mount(Some(&precious), &file, none, MsFlags::MS_BIND, none).unwrap();
        let error = remove(&root, "file").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "x");

        for mounted in [&directory, &file] {
            nix::mount::umount(mounted).unwrap();
            remove(&root, "tree").unwrap();
        }
        remove(&root, "file").unwrap();
        assert!(precious.exists());
    };
    std::thread::spawn(in_namespace).join().unwrap();
}
