//! A containerd of the test's own: private directories, private mount and
//! process namespaces. When the namespaces' first process is killed, so is
//! everything in them, and nothing stays behind, however the test ended.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::image;

const START_LIMIT: Duration = Duration::from_secs(20);

pub struct Containerd {
    dir: TempDir,
    /// `unshare`, whose only child is the first process of the namespaces and
    /// dies with it.
    holder: Child,
    binaries: Option<PathBuf>,
    /// `nsenter`, whose only child is containerd.
    daemon: Option<Child>,
    cgroup: String,
}

impl Containerd {
    /// Starts containerd with the test's images in it. The version is the one
    /// on the `PATH`, or the one in `KUBELET_RS_CONTAINERD2`.
    pub fn start() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests start a containerd and need root"
        );
        let dir = tempfile::Builder::new()
            .prefix("kubelet-rs-runtime-")
            .tempdir()
            .expect("temporary directory");
        let cgroup = format!(
            "/{}",
            dir.path().file_name().expect("name").to_string_lossy()
        );
        let mut containerd = Self {
            holder: hold_namespaces(dir.path()),
            dir,
            binaries: std::env::var_os("KUBELET_RS_CONTAINERD2").map(PathBuf::from),
            daemon: None,
            cgroup,
        };
        fs::write(containerd.path("config.toml"), containerd.config()).expect("config");
        containerd.spawn();
        image::import(&containerd);
        containerd
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    /// Parent of all of the test's cgroups.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Starts containerd and waits until it answers.
    pub fn spawn(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("containerd.log"))
            .expect("log file");
        let mut command = self.inside();
        command
            .arg("containerd")
            .arg("--config")
            .arg(self.path("config.toml"))
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        self.daemon = Some(command.spawn().expect("nsenter"));
        self.wait_until("containerd answers", || {
            self.ctr(&["version"])
                .is_ok_and(|output| output.status.success())
        });
    }

    /// SIGKILL to containerd; its containers go on.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut daemon) = self.daemon.take() {
            daemon.wait().expect("nsenter ends with containerd");
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("containerd is there");
    }

    /// Runs `ctr` against this containerd.
    pub fn ctr(&self, arguments: &[&str]) -> std::io::Result<std::process::Output> {
        Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .output()
    }

    /// # Panics
    /// With the end of containerd's log, if it does not come true in time.
    pub fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + START_LIMIT;
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "not in time: {what}\n{}",
                self.log_end()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn pid(&self) -> Pid {
        only_child(self.daemon.as_ref().expect("containerd was started"))
    }

    /// A command that runs in the namespaces.
    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--pid", "--target"])
            .arg(only_child(&self.holder).to_string())
            .arg("--")
            .env("PATH", self.search_path());
        command
    }

    fn search_path(&self) -> OsString {
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let own = self.binaries.iter().cloned();
        std::env::join_paths(own.chain(std::env::split_paths(&usual))).expect("PATH")
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        let common = format!(
            "root = \"{dir}/root\"\nstate = \"{dir}/state\"\n\
             [grpc]\naddress = \"{dir}/containerd.sock\"\n"
        );
        let pause = image::PAUSE;
        if self.binaries.is_some() {
            format!(
                "version = 3\n{common}\
                 [plugins.\"io.containerd.cri.v1.runtime\"]\n\
                 restrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n\
                 sandbox = \"{pause}\"\n"
            )
        } else {
            format!(
                "version = 2\n{common}\
                 [plugins.\"io.containerd.grpc.v1.cri\"]\n\
                 restrict_oom_score_adj = true\n\
                 sandbox_image = \"{pause}\"\n"
            )
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Its death takes all processes of the namespace along, and with the
        // last of them go the mounts.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if let Some(mut daemon) = self.daemon.take() {
            // It stops itself when its child is stopped, and stays so.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        remove_cgroups(&self.cgroup);
    }
}

/// Starts a process that does nothing in namespaces of its own, with a
/// directory of its own where containerd puts its shims' sockets.
fn hold_namespaces(dir: &Path) -> Child {
    let ready = dir.join("ready");
    let script = "mount -t tmpfs tmpfs /run && : > \"$0\" && exec sleep infinity";
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", script])
        .arg(&ready)
        .stdin(Stdio::null())
        .process_group(0);
    let unshare = command.spawn().expect("unshare");
    let deadline = Instant::now() + START_LIMIT;
    while !ready.exists() {
        assert!(Instant::now() < deadline, "the namespaces are not there");
        std::thread::sleep(Duration::from_millis(5));
    }
    unshare
}

/// The process that a wrapper (`unshare`, `nsenter`) runs.
fn only_child(wrapper: &Child) -> Pid {
    let pid = wrapper.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let child = children.expect("children of the wrapper");
    Pid::from_raw(child.trim().parse().expect("one child"))
}

/// Removes a cgroup from every hierarchy. Killed processes take a moment to
/// leave it.
fn remove_cgroups(cgroup: &str) {
    let deadline = Instant::now() + START_LIMIT;
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let roots = hierarchies.map(|entry| entry.path());
    for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let top = root.join(cgroup.trim_start_matches('/'));
        while top.exists() && Instant::now() < deadline {
            remove_empty_cgroups(&top);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Removes what can be removed, deepest first.
fn remove_empty_cgroups(top: &Path) {
    for entry in walkdir::WalkDir::new(top)
        .contents_first(true)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_dir())
    {
        let _ = fs::remove_dir(entry.path());
    }
}
