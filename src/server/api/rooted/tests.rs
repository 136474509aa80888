use std::os::unix::fs::symlink;

use super::*;

struct Tree {
    dir: tempfile::TempDir,
    root: Root,
}

fn tree() -> Tree {
    let dir = tempfile::tempdir().expect("directory");
    let top = dir.path().join("log");
    std::fs::create_dir_all(top.join("sub")).expect("directory");
    std::fs::write(dir.path().join("secret"), "secret").expect("file");
    std::fs::write(top.join("sub/file"), "text").expect("file");
    symlink("sub/file", top.join("relative")).expect("link");
    symlink(top.join("sub/file"), top.join("absolute")).expect("link");
    symlink("../secret", top.join("leaves")).expect("link");
    symlink(dir.path().join("secret"), top.join("leaves-absolutely")).expect("link");
    symlink("..", top.join("up")).expect("link");
    symlink("loop", top.join("loop")).expect("link");
    nix::unistd::mkfifo(&top.join("fifo"), Mode::S_IRWXU).expect("fifo");
    Tree {
        root: Root::new(top),
        dir,
    }
}

impl Tree {
    fn read(&self, path: &str, links: Links) -> Result<String, io::ErrorKind> {
        let file = self.root.open(Path::new(path), links);
        file.and_then(io::read_to_string)
            .map_err(|error| error.kind())
    }
}

#[test]
fn what_lies_below_is_opened() {
    let tree = tree();
    for path in ["sub/file", "./sub/file", "relative", "absolute"] {
        assert_eq!(tree.read(path, Links::Below), Ok("text".into()), "{path}");
    }
    assert_eq!(tree.read("sub/file", Links::Refused), Ok("text".into()));
    let top = tree
        .root
        .open(Path::new(""), Links::Below)
        .expect("the root");
    assert!(top.metadata().expect("metadata").is_dir());
}

#[test]
fn nothing_else_is() {
    use io::ErrorKind::{InvalidInput, NotFound};
    let tree = tree();
    for (path, kind) in [
        ("missing", NotFound),
        ("../secret", NotFound),
        ("sub/../../secret", NotFound),
        ("leaves", NotFound),
        ("leaves-absolutely", NotFound),
        ("up/secret", NotFound),
        ("fifo", InvalidInput),
        ("/etc/passwd", NotFound),
    ] {
        assert_eq!(tree.read(path, Links::Below), Err(kind), "{path}");
    }
    assert!(tree.read("loop", Links::Below).is_err());
    for path in ["relative", "absolute", "up/log/sub/file"] {
        assert_eq!(tree.read(path, Links::Refused), Err(NotFound), "{path}");
    }
    let secret = std::fs::read_to_string(tree.dir.path().join("secret"));
    assert_eq!(secret.expect("unchanged"), "secret");
}
