//! Requests that are not relayed: what they hear, and commands run to their end.

use super::stub::{Manner, Stub};
use super::*;
use crate::runtime::ExecOutput;
use crate::runtime::fake::{Call, Fault};

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_why() {
    let world = World::new(LIMITS).await;
    let no_streams = "you must specify at least 1 of stdin, stdout, stderr";
    let cases = [
        ("POST /exec/ns/p/web?command=ls", SPDY, "400", no_streams),
        (
            "POST /attach/ns/p/web?tty=1&error=1",
            SPDY,
            "400",
            no_streams,
        ),
        (
            "GET /exec/ns/p/web?output=1",
            "",
            "400",
            "Upgrade request required",
        ),
        (
            "GET /attach/ns/p/web?output=1",
            "",
            "400",
            "Upgrade request required",
        ),
        (
            "GET /portForward/ns/p",
            "",
            "400",
            "Upgrade request required",
        ),
        (
            "POST /exec/ns/q/web?output=1",
            SPDY,
            "404",
            "pod does not exist",
        ),
        (
            "POST /exec/other/p/web?output=1",
            SPDY,
            "404",
            "pod does not exist",
        ),
        (
            "POST /exec/ns/p/v/web?output=1",
            SPDY,
            "404",
            "pod not found",
        ),
        ("POST /portForward/ns/p/v", SPDY, "404", "pod not found"),
        ("POST /portForward/ns/q", SPDY, "404", "pod does not exist"),
        (
            "POST /exec/ns/p/db?output=1",
            SPDY,
            "404",
            "container not found (\"db\")",
        ),
        (
            "POST /exec/ns/p/u/db?output=1",
            SPDY,
            "404",
            "container not found (\"db\")",
        ),
        (
            "POST /run/ns/p/db?cmd=ls",
            "",
            "404",
            "container not found (\"db\")",
        ),
        (
            "POST /attach/ns/p/db?output=1",
            SPDY,
            "404",
            "container db not found in pod p_ns",
        ),
        ("POST /checkpoint/ns/q/web", "", "404", "pod does not exist"),
        (
            "POST /checkpoint/ns/p/db",
            "",
            "404",
            "container db does not exist",
        ),
        (
            "POST /checkpoint/ns/p/web?timeout=soon",
            "",
            "404",
            "cannot parse value of timeout parameter",
        ),
        (
            "GET /portForward/ns/p",
            "connection: Upgrade\r\nupgrade: websocket\r\n",
            "400",
            "query parameter \"port\" is required",
        ),
        // The fake has no streaming server yet.
        (
            "POST /exec/ns/p/web?output=1",
            SPDY,
            "500",
            "Exec: no streaming server",
        ),
        ("GET /run/ns/p/web?cmd=ls", "", "405", ""),
        ("PUT /exec/ns/p/web?output=1", SPDY, "405", ""),
        ("GET /checkpoint/ns/p/web", "", "405", ""),
        ("POST /exec/ns/p", SPDY, "404", ""),
    ];
    for (line, headers, status, body) in cases {
        let mut caller = world.ask(line, headers).await;
        let heard = (caller.status().to_owned(), caller.body().await);
        assert_eq!(heard, (status.to_owned(), body.to_owned()), "{line}");
    }
}

#[tokio::test]
async fn what_the_runtime_says_is_passed_on() {
    let world = World::new(LIMITS).await;
    let cases = [
        (Fault::NotFound, "404", "Exec: not found: scripted"),
        (
            Fault::Refused("container is paused".into()),
            "500",
            "Exec: container is paused",
        ),
    ];
    for (fault, status, body) in cases {
        world.runtime.fail_next(Call::Exec, fault);
        let mut caller = world.exec().await;
        assert_eq!(caller.status(), status);
        assert_eq!(caller.body().await, body);
    }
}

#[tokio::test]
async fn a_streaming_server_may_refuse() {
    let answers = [
        (
            "HTTP/1.1 403 Forbidden\r\nX-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io\r\n\
             Content-Type: text/plain\r\nContent-Length: 15\r\n\r\nunable to agree",
            "403",
            "unable to agree",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngone\r\n0\r\n\r\n",
            "404",
            "gone",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
            "500",
            "invalid upgrade response: status code 302",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "500",
            "invalid upgrade response: status code 200",
        ),
    ];
    for (answer, status, body) in answers {
        let stub = Stub::new(Manner::Say(answer)).await;
        let world = World::streaming_at(LIMITS, stub.address).await;
        let mut caller = world.exec().await;
        assert_eq!(caller.status(), status, "{answer}");
        assert!(!caller.head.contains("192.0.2.1"), "{}", caller.head);
        let accepted = "x-accepted-stream-protocol-versions: v4.channel.k8s.io";
        assert_eq!(caller.has_header(accepted), status == "403");
        assert_eq!(caller.body().await, body);
    }
}

#[tokio::test]
async fn a_streaming_server_that_is_not_there_is_named() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        listener.local_addr().expect("address")
    };
    let world = World::streaming_at(LIMITS, address).await;
    let mut caller = world.exec().await;
    assert_eq!(caller.status(), "500");
    let body = caller.body().await;
    let wanted = format!("cannot reach the runtime's streaming server at {address}: ");
    assert!(body.starts_with(&wanted), "{body}");
    assert!(!body.contains("token"), "{body}");
}

#[tokio::test]
async fn a_command_run_to_its_end_answers_with_what_it_printed() {
    let world = World::new(LIMITS).await;
    let output = |exit_code| ExecOutput {
        exit_code,
        stdout: b"out\n".to_vec(),
        stderr: b"err\n".to_vec(),
    };
    world.runtime.commands_end("web", output(0));
    let mut caller = world.ask("POST /run/ns/p/u/web?cmd=ls+-l", "").await;
    assert_eq!(caller.status(), "200");
    assert_eq!(caller.body().await, "out\nerr\n");
    let ran = world.runtime.calls().pop().expect("a call");
    assert_eq!(
        (ran.call, ran.subject.as_str()),
        (Call::ExecSync, "ns/p/web: ls -l")
    );
    world.runtime.commands_end("web", output(2));
    let mut caller = world.ask("POST /run/ns/p/web?cmd=ls+-l", "").await;
    assert_eq!(caller.status(), "500");
    assert_eq!(caller.body().await, "command 'ls -l' exited with 2: err\n");
}

#[tokio::test]
async fn commands_are_limited_in_number_and_end_with_their_caller() {
    let world = World::new(LIMITS).await;
    world.runtime.fail_next(Call::ExecSync, Fault::Hang);
    let mut first = TcpStream::connect(world.address).await.expect("connect");
    let request = b"POST /run/ns/p/web?cmd=hang HTTP/1.1\r\nhost: node\r\n\r\n";
    first.write_all(request).await.expect("write");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while world.runtime.count(Call::ExecSync) == 0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let mut second = world.ask("POST /run/ns/p/web?cmd=ls", "").await;
    assert_eq!(second.status(), "429");
    assert_eq!(
        second.body().await,
        "1 commands are open on this node, which is the limit"
    );
    drop(first);
    loop {
        let third = world.ask("POST /run/ns/p/db?cmd=ls", "").await;
        assert_eq!(third.status(), "404");
        let fourth = world.ask("POST /checkpoint/ns/p/web", "").await;
        if fourth.status() == "200" {
            break;
        }
        assert_eq!(fourth.status(), "429");
        assert!(tokio::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_checkpoint_is_written_where_only_root_looks() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new(LIMITS).await;
    let mut caller = world.ask("POST /checkpoint/ns/p/web?timeout=5", "").await;
    assert_eq!(caller.status(), "200");
    let body: serde_json::Value = serde_json::from_str(&caller.body().await).expect("JSON");
    let archive = body["items"][0].as_str().expect("a path");
    let directory = world.checkpoints.path().join("checkpoints");
    let prefix = format!("{}/checkpoint-p_ns-web-", directory.display());
    assert!(
        archive.starts_with(&prefix) && archive.ends_with("Z.tar"),
        "{archive}"
    );
    let mode = std::fs::metadata(&directory)
        .expect("directory")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);

    let cannot = Fault::Refused("unknown method CheckpointContainer".to_owned());
    world.runtime.fail_next(Call::Checkpoint, cannot);
    let mut caller = world.ask("POST /checkpoint/ns/p/web", "").await;
    assert_eq!(caller.status(), "500");
    assert_eq!(
        caller.body().await,
        "checkpointing of ns/p/web failed \
         (CheckpointContainer: unknown method CheckpointContainer)"
    );
}
