//! Running a test in its own mount namespace.

use std::env;
use std::future::Future;
use std::process::Command;

use nix::mount::{MsFlags, mount};

/// Set in the process that runs the test's body.
const INSIDE: &str = "KUBELET_VOLUME_TEST_INSIDE";

/// Runs `body` in a new process that has a private mount namespace, a `/tmp` of
/// its own that is gone with the process, and a umask that would show in every
/// mode that is not set explicitly. `test` is the full name of the calling test.
pub fn isolated(test: &str, body: impl Future<Output = ()>) {
    if env::var_os(INSIDE).is_some() {
        let kind = Some("tmpfs");
        mount(kind, "/tmp", kind, MsFlags::empty(), Some("mode=1777")).unwrap();
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(body);
    }
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{test} failed (needs root):\n{stdout}\n{stderr}"
    );
}
