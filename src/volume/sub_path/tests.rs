use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tempfile::TempDir;

use super::*;

/// A volume, with somebody else's directory beside it.
struct Scene {
    root: TempDir,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["volume", "outside"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("outside/secret"), "x").unwrap();
        Self { root }
    }

    fn volume(&self) -> PathBuf {
        self.root.path().join("volume")
    }

    fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    fn outside_is_untouched(&self) -> bool {
        let names = fs::read_dir(self.outside()).unwrap();
        names.map(|entry| entry.unwrap().file_name()).eq(["secret"])
    }

    /// What a sub-path leads to.
    fn prepared(&self, path: &str) -> io::Result<PathBuf> {
        let found = match find(&self.volume(), path)? {
            Some(found) => found,
            None => make(&self.volume(), path)?,
        };
        Ok(path_of(&found))
    }
}

fn path_of(fd: &OwnedFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

#[test]
fn what_is_there_is_found_through_links_that_stay_inside() {
    let scene = Scene::new();
    let volume = scene.volume();
    fs::create_dir_all(volume.join("..2026/deep")).unwrap();
    fs::write(volume.join("..2026/key"), "x").unwrap();
    symlink("..2026", volume.join("..data")).unwrap();
    symlink("..data/key", volume.join("key")).unwrap();
    symlink("../key", volume.join("..2026/deep/up")).unwrap();
    symlink(volume.join("..2026"), volume.join("absolute")).unwrap();
    for (path, expected) in [
        ("key", "..2026/key"),
        ("..data/key", "..2026/key"),
        ("..data/deep/up", "..2026/key"),
        ("absolute/key", "..2026/key"),
        ("absolute", "..2026"),
        ("./..data//deep/", "..2026/deep"),
        (".", ""),
    ] {
        let found = scene.prepared(path).unwrap();
        assert_eq!(found, volume.join(expected), "{path}");
    }
}

#[test]
fn what_leads_outside_is_refused_and_nothing_is_made_there() {
    let scene = Scene::new();
    let volume = scene.volume();
    symlink("../outside", volume.join("relative")).unwrap();
    symlink(scene.outside(), volume.join("absolute")).unwrap();
    symlink("/proc/self/cwd", volume.join("magic")).unwrap();
    symlink("../outside/new", volume.join("dangling")).unwrap();
    symlink("loop", volume.join("loop")).unwrap();
    fs::write(volume.join("file"), "x").unwrap();
    for path in [
        "relative",
        "relative/secret",
        "relative/new",
        "absolute",
        "absolute/secret",
        "absolute/new/deeper",
        "magic/etc",
        "dangling",
        "dangling/new",
        "loop",
        "file/new",
        "..",
        "a/../../outside",
        "/etc",
        "a\0b",
    ] {
        assert!(scene.prepared(path).is_err(), "{path:?}");
    }
    assert!(scene.outside_is_untouched());
}

#[test]
fn what_is_missing_is_made_as_open_as_the_volume() {
    let scene = Scene::new();
    let volume = scene.volume();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o3777)).unwrap();
    fs::create_dir(volume.join("there")).unwrap();
    fs::set_permissions(volume.join("there"), fs::Permissions::from_mode(0o700)).unwrap();
    let made = scene.prepared("there/a/b").unwrap();
    assert_eq!(made, volume.join("there/a/b"));
    let mode = |path: &str| fs::metadata(volume.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("there"), 0o700);
    assert_eq!(mode("there/a"), 0o3777);
    assert_eq!(mode("there/a/b"), 0o3777);
    // The second time it is found.
    assert_eq!(scene.prepared("there/a/b").unwrap(), made);
}

#[test]
fn a_volume_that_is_a_file_has_no_parts() {
    let scene = Scene::new();
    let file = scene.outside().join("secret");
    assert!(find(&file, "a").is_err());
    assert!(find(&scene.root.path().join("absent"), "a").is_err());
}

/// A container that swaps a directory for a link, over and over.
#[test]
fn a_swap_at_any_moment_leads_nowhere_else() {
    let scene = Scene::new();
    let volume = scene.volume();
    fs::create_dir(volume.join("a")).unwrap();
    symlink("../outside", volume.join("b")).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (volume.join("a"), volume.join("b"));
            while !ended.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        for round in 0..500 {
            for path in ["a/secret".to_owned(), format!("a/{}/x", round % 7)] {
                if let Ok(found) = scene.prepared(&path) {
                    assert!(found.starts_with(&volume), "{}", found.display());
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(scene.outside_is_untouched());
}
