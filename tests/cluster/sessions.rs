//! kubectl exec, attach, cp and port-forward, and `/run` through the API server's proxy:
//! bytes, exit codes, terminals, and what happens when one side goes away.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use rand::Rng;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::harness::{
    AGNHOST, FOREVER, PATIENCE, Scene, Test, container, has_ended, number, poll_until, shell,
    tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_command_answers_on_its_own_streams_with_its_exit_code,
    a_terminal_is_a_terminal,
    much_data_arrives_whole_both_ways,
    what_cannot_be_run_is_named,
    files_are_copied_both_ways,
    attaching_speaks_with_the_containers_own_process,
    a_containers_terminal_can_be_attached_to,
    many_commands_run_side_by_side,
    callers_that_speak_spdy_are_heard,
    ports_are_forwarded,
    a_closed_port_says_so,
    a_command_hears_that_its_caller_is_gone,
    deletion_ends_sessions,
    commands_run_through_the_nodes_proxy,
);

/// On a cluster of its own.
pub const RESTARTS: &[Test] = tests!(Own: sessions_work_after_a_restart_of_the_agent);

const BULK: usize = 10 << 20;

async fn pod(t: &Scene) -> anyhow::Result<()> {
    let containers = json!([shell("main", FOREVER)]);
    t.ready_pod("p", containers).await.map(drop)
}

fn bulk() -> Vec<u8> {
    let mut bytes = vec![0; BULK];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

async fn a_command_answers_on_its_own_streams_with_its_exit_code(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let script = "echo out; echo err >&2; exit 42";
    let ran = t.kubectl(&["exec", "p", "--", "sh", "-c", script]).await?;
    let wanted = "err\ncommand terminated with exit code 42\n";
    ensure!(
        ran.parts() == (Some(42), "out\n".to_owned(), wanted),
        "{ran:?}"
    );
    let ran = t.kubectl(&["exec", "p", "--", "true"]).await?;
    ensure!(ran.parts() == (Some(0), String::new(), ""), "{ran:?}");
    // Without -i there is no input, and words stay as they are.
    let script = r#"cat; printf '%s|' "$0" "$@""#;
    let ran = t
        .kubectl_with(
            &["exec", "p", "--", "sh", "-c", script, "a b", "", "*&+%"],
            b"unheard".to_vec(),
        )
        .await?;
    ensure!(ran.text()? == "a b||*&+%|", "words");
    Ok(())
}

async fn a_terminal_is_a_terminal(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    // The size is told a moment after the start.
    let script = "until [ \"$(stty size)\" = '33 99' ]; do usleep 50000; done; \
        tty; echo complaint >&2; read line; echo \"heard $line\"; exit 7";
    let arguments = ["exec", "-it", "p", "--", "sh", "-c", script];
    let ran = t.kubectl_on_terminal(&arguments, "words\n").await?;
    ensure!(ran.status.code() == Some(7), "{ran:?}");
    let screen = String::from_utf8_lossy(&ran.stdout);
    for wanted in ["/dev/pts/", "complaint\r\n", "heard words\r\n"] {
        ensure!(screen.contains(wanted), "no {wanted:?} in {screen:?}");
    }
    Ok(())
}

async fn much_data_arrives_whole_both_ways(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let data = bulk();
    let digest = hex::encode(Sha256::digest(&data));
    let store = [
        "exec",
        "-i",
        "p",
        "--",
        "sh",
        "-c",
        "tee /tmp/f | sha256sum",
    ];
    let stored = t.kubectl_with(&store, data.clone()).await?.text()?;
    ensure!(stored == format!("{digest}  -\n"), "{stored}");
    let fetched = t.kubectl(&["exec", "p", "--", "cat", "/tmp/f"]).await?;
    ensure!(fetched.stdout == data, "{} bytes", fetched.stdout.len());
    let echoed = t
        .kubectl_with(&["exec", "-i", "p", "--", "cat"], data.clone())
        .await?;
    ensure!(echoed.stdout == data, "{} bytes", echoed.stdout.len());
    Ok(())
}

async fn what_cannot_be_run_is_named(t: Scene) -> anyhow::Result<()> {
    let containers = json!([shell("main", FOREVER), shell("brief", "exit 0")]);
    t.pod(
        "p",
        json!({ "containers": containers, "restartPolicy": "Never" }),
    )
    .await?;
    let brief_has_ended =
        |pod: &serde_json::Value| container(pod, "brief")["state"]["terminated"].is_object();
    t.pod_until("p", "has one container ended", brief_has_ended)
        .await?;
    let cases: [(&[&str], &str); 6] = [
        (
            &["p", "-c", "main", "--", "nonsense"],
            "executable file not found in $PATH",
        ),
        (&["p", "-c", "main", "--", "/etc"], "permission denied"),
        (
            &["p", "-c", "main", "--", "/bin/nonsense"],
            "no such file or directory",
        ),
        (
            &["p", "-c", "brief", "--", "true"],
            "container not found (\"brief\")",
        ),
        (
            &["p", "-c", "stranger", "--", "true"],
            "container stranger is not valid for pod p",
        ),
        (&["q", "--", "true"], "pods \"q\" not found"),
    ];
    for (arguments, wanted) in cases {
        let arguments = [&["exec"], arguments].concat();
        let ran = t.kubectl(&arguments).await?;
        ensure!(!ran.status.success(), "{arguments:?}: {ran:?}");
        ensure!(ran.stderr.contains(wanted), "{arguments:?}: {ran:?}");
    }
    Ok(())
}

async fn files_are_copied_both_ways(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let data = bulk();
    let local = tempfile::tempdir()?;
    let path = |name: &str| local.path().join(name).display().to_string();
    tokio::fs::write(path("sent"), &data).await?;
    t.kubectl(&["cp", &path("sent"), "p:/tmp/kept"])
        .await?
        .text()?;
    t.kubectl(&["cp", "p:/tmp/kept", &path("back")])
        .await?
        .text()?;
    let back = tokio::fs::read(path("back")).await?;
    ensure!(back == data, "{} bytes came back", back.len());
    // kubectl calls this a success, and may end before it has shown tar's complaint.
    t.kubectl(&["cp", "p:/tmp/nothing", &path("none")]).await?;
    ensure!(!local.path().join("none").exists(), "a file out of nothing");
    Ok(())
}

async fn attaching_speaks_with_the_containers_own_process(t: Scene) -> anyhow::Result<()> {
    let mut main = shell(
        "main",
        "while read line; do echo \"heard $line\"; done; exit 5",
    );
    main["stdin"] = true.into();
    main["stdinOnce"] = true.into();
    let spec = json!({ "containers": [main], "restartPolicy": "Never" });
    t.pod("p", spec).await?;
    t.pod_until("p", "is ready", crate::harness::is_ready)
        .await?;
    let ran = t
        .kubectl_with(&["attach", "-i", "p"], b"one\ntwo\n".to_vec())
        .await?;
    ensure!(
        String::from_utf8_lossy(&ran.stdout) == "heard one\nheard two\n",
        "{ran:?}"
    );
    // Its input ends with the one caller that it is for.
    let ended = t.pod_until("p", "has ended", has_ended).await?;
    let code = number(container(&ended, "main"), "/state/terminated/exitCode");
    ensure!(code == 5, "{}", ended["status"]);
    Ok(())
}

async fn a_containers_terminal_can_be_attached_to(t: Scene) -> anyhow::Result<()> {
    let script = "while read line; do echo \"heard $line\"; [ $line != bye ] || exit; done";
    let mut main = shell("main", script);
    main["stdin"] = true.into();
    main["tty"] = true.into();
    t.ready_pod("p", json!([main])).await?;
    let ran = t
        .kubectl_on_terminal(&["attach", "-it", "p"], "words\nbye\n")
        .await?;
    let screen = String::from_utf8_lossy(&ran.stdout);
    ensure!(screen.contains("heard words\r\n"), "{screen:?}");
    Ok(())
}

async fn many_commands_run_side_by_side(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let commands = (0..20).map(|number| {
        let t = &t;
        async move {
            let script = format!("cat; echo {number}; exit {number}");
            let arguments = ["exec", "-i", "p", "--", "sh", "-c", &script];
            let ran = t.kubectl_with(&arguments, b"in ".to_vec()).await?;
            let (code, stdout, _) = ran.parts();
            ensure!(
                (code, stdout) == (Some(number), format!("in {number}\n")),
                "{ran:?}"
            );
            Ok(())
        }
    });
    try_join_all(commands).await.map(drop)
}

/// As kubectl of before 1.30 does, and as the API server always does toward this node.
const SPDY: [(&str, &str); 2] = [
    ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"),
    ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false"),
];

async fn callers_that_speak_spdy_are_heard(t: Scene) -> anyhow::Result<()> {
    t.ready_pod("p", json!([shell("main", "exec nc -ll -p 9090 -e cat")]))
        .await?;
    let script = "tee /tmp/f; echo err >&2; exit 3";
    let mut exec = t
        .kubectl_command(&["exec", "-i", "p", "--", "sh", "-c", script])
        .envs(SPDY)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = exec.stdin.take().context("piped")?;
    let data = bulk();
    let feed = async {
        stdin.write_all(&data).await?;
        drop(stdin);
        Ok(())
    };
    let both = async { tokio::try_join!(feed, exec.wait_with_output()) };
    let ((), ended) = tokio::time::timeout(PATIENCE, both).await??;
    let complaints = String::from_utf8_lossy(&ended.stderr);
    let wanted = "err\ncommand terminated with exit code 3\n";
    ensure!(complaints == wanted, "{complaints}");
    ensure!(ended.status.code() == Some(3), "{}", ended.status);
    ensure!(ended.stdout == data, "{} bytes", ended.stdout.len());

    let mut command = t.kubectl_command(&["port-forward", "p", ":9090"]);
    let forward = Forward::begin(command.envs(SPDY)).await?;
    let mut stream = forward.connect().await?;
    stream.write_all(b"hello").await?;
    let mut heard = [0; 5];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await??;
    ensure!(heard == *b"hello", "{heard:?}");
    forward.stop().await.map(drop)
}

/// A `kubectl port-forward` that runs.
struct Forward {
    child: Child,
    /// On the loopback.
    port: u16,
}

impl Forward {
    async fn start(t: &Scene, pod: &str, port: u16) -> anyhow::Result<Self> {
        let arguments = ["port-forward", pod, &format!(":{port}")];
        Self::begin(&mut t.kubectl_command(&arguments)).await
    }

    async fn begin(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
        let line = line.context("port-forward ended at once")?;
        let local = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.split(' ').next());
        let port = local.context(line.clone())?.parse()?;
        // Nobody reads on, and a line is printed for every connection.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, port })
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(("127.0.0.1", self.port)).await?)
    }

    async fn stop(mut self) -> anyhow::Result<String> {
        self.child.start_kill()?;
        let output = self.child.wait_with_output().await?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn ports_are_forwarded(t: Scene) -> anyhow::Result<()> {
    let agnhost = json!({
        "name": "web",
        "image": AGNHOST,
        "imagePullPolicy": "IfNotPresent",
        "args": ["netexec", "--http-port=8080"],
    });
    t.ready_pod(
        "p",
        json!([agnhost, shell("echo", "exec nc -ll -p 9090 -e cat")]),
    )
    .await?;
    // kubectl gives a forwarding up at the first connection that is refused.
    let listening = "until netstat -ltn | grep -q :8080 && netstat -ltn | grep -q :9090; \
        do usleep 50000; done";
    let wait = ["exec", "p", "-c", "echo", "--", "sh", "-c", listening];
    tokio::time::timeout(PATIENCE, t.kubectl(&wait))
        .await??
        .text()?;
    let web = Forward::start(&t, "p", 8080).await?;
    let requests = (0..20).map(|number| {
        let web = &web;
        async move {
            let said = format!("number-{number}");
            let answer = get(web, &said).await?;
            ensure!(answer.ends_with(&said), "{answer}");
            Ok(())
        }
    });
    try_join_all(requests).await?;
    web.stop().await?;

    let echo = Forward::start(&t, "p", 9090).await?;
    let data = bulk();
    let (mut reader, mut writer) = echo.connect().await?.into_split();
    let mut back = vec![0; data.len()];
    let both = async { tokio::try_join!(writer.write_all(&data), reader.read_exact(&mut back)) };
    tokio::time::timeout(PATIENCE, both).await??;
    ensure!(back == data, "the echo differs");
    echo.stop().await.map(drop)
}

async fn get(web: &Forward, said: &str) -> anyhow::Result<String> {
    let mut stream = web.connect().await?;
    let request = format!("GET /echo?msg={said} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    ensure!(answer.starts_with("HTTP/1.0 200"), "{answer:?}");
    Ok(answer)
}

async fn a_closed_port_says_so(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let forward = Forward::start(&t, "p", 81).await?;
    let mut stream = forward.connect().await?;
    let mut nothing = Vec::new();
    // Closed in order or reset: there is nobody.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut nothing)).await?;
    ensure!(nothing.is_empty(), "{nothing:?}");
    let mut child = forward.child;
    let mut stderr = BufReader::new(child.stderr.take().context("piped")?).lines();
    let said = async {
        while let Some(line) = stderr.next_line().await? {
            if line.to_lowercase().contains("connection refused") {
                return Ok(());
            }
        }
        anyhow::bail!("kubectl ended without a word on it")
    };
    tokio::time::timeout(PATIENCE, said).await?
}

async fn a_command_hears_that_its_caller_is_gone(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let script = "touch /tmp/begun; cat > /dev/null; touch /tmp/ended";
    let mut caller = t
        .kubectl_command(&["exec", "-i", "p", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .spawn()?;
    exists(&t, "/tmp/begun").await?;
    caller.kill().await?;
    exists(&t, "/tmp/ended").await
}

async fn exists(t: &Scene, path: &str) -> anyhow::Result<()> {
    poll_until(&format!("{path} exists"), PATIENCE, || async {
        let ran = t.kubectl(&["exec", "p", "--", "test", "-e", path]).await?;
        Ok(if ran.status.success() {
            Ok(())
        } else {
            Err(ran.stderr)
        })
    })
    .await
}

async fn deletion_ends_sessions(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let script = "touch /tmp/begun; sleep 1000000";
    let caller = t
        .kubectl_command(&["exec", "p", "--", "sh", "-c", script])
        .spawn()?;
    let forward = Forward::start(&t, "p", 81).await?;
    exists(&t, "/tmp/begun").await?;
    t.delete::<Pod>("p").await?;
    let ended = tokio::time::timeout(PATIENCE, caller.wait_with_output()).await??;
    ensure!(!ended.status.success(), "{ended:?}");
    t.gone::<Pod>("p").await?;
    // Nobody answers; that it is over may show only when somebody connects.
    if let Ok(mut stream) = forward.connect().await {
        let mut nothing = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut nothing)).await?;
        ensure!(nothing.is_empty(), "{nothing:?}");
    }
    forward.stop().await.map(drop)
}

async fn commands_run_through_the_nodes_proxy(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let node = t.cluster.node_name();
    let namespace = &t.namespace;
    let run = |target: &str, command: &str| {
        let path = format!("/api/v1/nodes/{node}/proxy/run/{target}?cmd={command}");
        let t = &t;
        async move {
            t.kubectl(&["create", "--raw", &path, "-f", "/dev/null"])
                .await
        }
    };
    let here = format!("{namespace}/p/main");
    let ran = run(&here, "echo%20several%20words").await?;
    ensure!(ran.text()? == "several words\n", "output");
    let uid = text(&t.get::<Pod>("p").await?, "/metadata/uid").to_owned();
    let ran = run(&format!("{namespace}/p/{uid}/main"), "hostname").await?;
    ensure!(ran.text()? == "p\n", "output");
    let ran = run(&here, "cat%20/nothing").await?;
    ensure!(!ran.status.success(), "{ran:?}");
    let wanted = "command 'cat /nothing' exited with 1: cat: can't open '/nothing'";
    ensure!(ran.stderr.contains(wanted), "{ran:?}");
    let ran = run(&format!("{namespace}/q/main"), "true").await?;
    ensure!(
        ran.stderr.contains("pod does not exist") || ran.stderr.contains("NotFound"),
        "{ran:?}"
    );
    Ok(())
}

async fn sessions_work_after_a_restart_of_the_agent(t: Scene) -> anyhow::Result<()> {
    pod(&t).await?;
    let open = t
        .kubectl_command(&["exec", "p", "--", "sleep", "1000000"])
        .spawn()?;
    for action in ["stop", "kill"] {
        let ran = t.kubectl(&["exec", "p", "--", "echo", "before"]).await?;
        ensure!(ran.text()? == "before\n", "before {action}");
        t.cluster.ctl(action, "kubelet").await?;
        t.cluster.ctl("start", "kubelet").await?;
        poll_until("exec works again", PATIENCE, || async {
            let ran = t.kubectl(&["exec", "p", "--", "echo", "again"]).await?;
            Ok(ran.text().map_err(|error| format!("{error:#}")))
        })
        .await?;
        let ran = t
            .kubectl_with(&["exec", "-i", "p", "--", "cat"], b"data".to_vec())
            .await?;
        ensure!(ran.text()? == "data", "after {action}");
    }
    // A session does not outlive the agent, and its caller hears of that. Whether kubectl
    // calls it a failure depends on who translates: the API server does not.
    tokio::time::timeout(Duration::from_secs(60), open.wait_with_output()).await??;
    Ok(())
}
