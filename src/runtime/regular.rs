//! Opening files that containers have a hand in. Blocking, as the disk does.
//!
//! In: a path whose last part may be anything by now. Out: a regular file open
//! for reading; links are not followed, and nothing else is even opened.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// # Errors
/// `InvalidInput` for a link, a device, a FIFO or a directory.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    // To open a device is to use it, and a FIFO waits for a writer. A handle
    // without access does neither, and holds on to what it was looked at.
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    if !handle.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    File::open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn only_a_regular_file_is_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "content").expect("a file");
        symlink(path("file"), path("link")).expect("a link");
        symlink(path("nothing"), path("dangling")).expect("a link");
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).expect("a FIFO");
        let _socket = UnixListener::bind(path("socket")).expect("a socket");

        let file = open_regular(&path("file")).expect("a regular file opens");
        assert_eq!(io::read_to_string(file).expect("text"), "content");

        let others = ["link", "dangling", "fifo", "socket", ""].map(path);
        for other in others.into_iter().chain(["/dev/zero".into()]) {
            let error = open_regular(&other).expect_err("not a regular file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{other:?}");
        }
        let error = open_regular(&path("nothing")).expect_err("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
