//! The agent's program as a service, standalone and with no runtime to ask: what it
//! tells systemd, what it tells the journal, and how it stops. Needs root, as it
//! prepares the machine; everything is below directories and a cgroup of its own.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use kubelet::cgroup::Hierarchy;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How soon everything must have happened that does not wait for anybody.
const SOON: Duration = Duration::from_secs(30);
/// What systemd is made to expect.
const WATCHDOG: Duration = Duration::from_secs(1);

/// systemd's side of an agent's life.
struct Service {
    agent: Child,
    socket: UnixDatagram,
    health: SocketAddr,
    directory: PathBuf,
    cgroup: String,
    _parent: tempfile::TempDir,
}

impl Service {
    fn start() -> Self {
        let parent = tempfile::Builder::new()
            .prefix("kubelet-rs-test-")
            .tempdir()
            .unwrap();
        let directory = parent.path().to_owned();
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        let health = free_port();
        let name = directory.file_name().unwrap().to_string_lossy();
        let cgroup = format!("/{name}");
        let config = write_config(&directory, &cgroup, health);
        let log = File::create(directory.join("log")).unwrap();
        let stream = log.metadata().unwrap();
        let agent = Command::new(env!("CARGO_BIN_EXE_kubelet"))
            .arg(format!("--config={}", config.display()))
            .arg(format!("--root-dir={}", directory.join("root").display()))
            .args(["--hostname-override=systemd-test", "--service-proxy=off"])
            .env("NOTIFY_SOCKET", directory.join("notify"))
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .env(
                "JOURNAL_STREAM",
                format!("{}:{}", stream.dev(), stream.ino()),
            )
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            agent,
            socket,
            health,
            directory,
            cgroup,
            _parent: parent,
        }
    }

    /// The next message; `None`: none within that time.
    fn hear(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(within)).unwrap();
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// All messages up to one with this in it.
    fn hear_until(&self, part: &str) -> Vec<String> {
        let deadline = Instant::now() + SOON;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            heard.extend(self.hear(Duration::from_millis(100)));
            if heard.last().is_some_and(|message| message.contains(part)) {
                return heard;
            }
        }
        panic!("no {part} in {heard:?}\n{}", self.log());
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.agent.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.agent.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still runs\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        // Its root directory may have become a mount.
        let _ = nix::mount::umount(&self.directory.join("root"));
        for mount in Hierarchy::detect().unwrap().mounts() {
            remove_below(&mount.join(self.cgroup.trim_start_matches('/')));
        }
    }
}

fn remove_below(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(directory);
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn write_config(directory: &Path, cgroup: &str, health: SocketAddr) -> PathBuf {
    let file = directory.join("config.yaml");
    let here = directory.display();
    let port = health.port();
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{here}/no-runtime.sock
staticPodPath: {here}/manifests
podLogsDir: {here}/pod-logs
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
failCgroupV1: false
failSwapOn: false
enableServer: false
healthzPort: {port}
authentication: {{ webhook: {{ enabled: false }} }}
authorization: {{ mode: AlwaysAllow }}
"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// The answer of `/healthz`.
fn healthz(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn systemd_hears_of_the_start_of_life_and_of_the_end() {
    let mut service = Service::start();
    let before = service.hear_until("READY=1");
    // The runtime is not there: it was asked, and that is enough.
    assert!(healthz(service.health).contains("200 OK"));
    assert!(before.iter().all(|message| !message.contains("WATCHDOG=1")));
    service.hear_until("STATUS=runtime not ready: ");

    service.hear_until("WATCHDOG=1");
    let last = Instant::now();
    service.hear_until("WATCHDOG=1");
    assert!(last.elapsed() < WATCHDOG, "too late: {:?}", last.elapsed());

    service.signal(Signal::SIGTERM);
    service.hear_until("STOPPING=1");
    assert_eq!(service.exit().code(), Some(0), "{}", service.log());
}

#[test]
fn an_agent_that_hangs_is_not_heard_of_until_it_goes_on() {
    let service = Service::start();
    service.hear_until("READY=1");
    service.hear_until("WATCHDOG=1");
    service.signal(Signal::SIGSTOP);
    // What was on its way when it stopped.
    while service.hear(WATCHDOG / 4).is_some() {}
    assert_eq!(service.hear(WATCHDOG * 2), None);
    service.signal(Signal::SIGCONT);
    service.hear_until("WATCHDOG=1");
}

#[test]
fn the_journal_gets_priorities_and_keeps_the_time_itself() {
    let mut service = Service::start();
    service.hear_until("READY=1");
    service.signal(Signal::SIGTERM);
    service.exit();
    let log = service.log();
    assert!(!log.is_empty());
    for line in log.lines() {
        let level = match line.get(..3) {
            Some("<3>") => "ERROR",
            Some("<4>") => " WARN",
            Some("<6>") => " INFO",
            _ => panic!("no priority: {line}"),
        };
        assert!(line[3..].starts_with(level), "{line}");
    }
}

#[test]
fn what_keeps_the_agent_from_starting_is_an_error_in_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = File::create(&path).unwrap();
    let stream = log.metadata().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_kubelet"))
        .arg("--config=/nonexistent/config.yaml")
        .env(
            "JOURNAL_STREAM",
            format!("{}:{}", stream.dev(), stream.ino()),
        )
        .stderr(log)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("/nonexistent/config.yaml"), "{text}");
    assert!(text.lines().all(|line| line.starts_with("<3>")), "{text}");
}
