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
