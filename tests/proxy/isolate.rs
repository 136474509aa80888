//! Running a test in namespaces of its own.

use std::env;
use std::future::Future;
use std::process::Command;

use nix::mount::{MsFlags, mount};

/// Set in the process that runs the test's body.
const INSIDE: &str = "KUBELET_PROXY_TEST_INSIDE";

/// Runs `body` in a new process that has its own tables and interfaces, and its own
/// `/run`, where iptables' lock is, and `/tmp`. `test` is the full name of the calling
/// test. The runtime has one thread, so that a test can stop its clock.
pub fn isolated(test: &str, body: impl Future<Output = ()>) {
    if env::var_os(INSIDE).is_some() {
        let kind = Some("tmpfs");
        for place in ["/run", "/tmp"] {
            mount(kind, place, kind, MsFlags::empty(), Some("mode=755")).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(body);
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
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
        "{test} failed (needs root and iptables):\n{stdout}\n{stderr}"
    );
}
