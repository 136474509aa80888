//! What becomes of the bytes, and of sessions whose sides misbehave.

use std::convert::Infallible;

use futures::future::join_all;
use tower::ServiceExt;

use super::stub::{LAST_WORDS, Manner, Stub, TAIL_BYTES, Told};
use super::*;

/// One session at a time: the next is let in when the one before is over.
const ONE: StreamLimits = StreamLimits {
    sessions: 1,
    linger: Duration::from_millis(300),
    ..LIMITS
};

/// The same, with a deadline for upgrades that tests wait for.
const HASTY: StreamLimits = StreamLimits {
    upgrade: Duration::from_secs(1),
    ..ONE
};

async fn next_is_let_in(world: &World) -> Caller {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let caller = world.exec().await;
        if caller.status() != "429" {
            return caller;
        }
        assert!(tokio::time::Instant::now() < deadline, "{}", caller.head);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn both_sides_speak_with_each_other_alone() {
    let mut stub = Stub::new(Manner::Echo).await;
    let world = World::streaming_at(LIMITS, stub.address).await;
    let mut caller = world.exec().await;
    assert_eq!(caller.status(), "101", "{}", caller.head);
    assert!(caller.has_header("upgrade: SPDY/3.1"), "{}", caller.head);
    assert!(
        caller.has_header("x-stream-protocol-version: v4.channel.k8s.io"),
        "{}",
        caller.head
    );
    let Told::Head(asked) = stub.told().await else {
        panic!("no request");
    };
    assert!(
        asked.starts_with("POST /exec/token HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(!asked.contains("secret"), "{asked}");
    for version in ["v5", "v4"] {
        let line = format!("x-stream-protocol-version: {version}.channel.k8s.io");
        assert!(asked.contains(&line), "{asked}");
    }
    caller.stream.write_all(b"hello").await.expect("write");
    let mut answer = [0; 5];
    within(caller.stream.read_exact(&mut answer))
        .await
        .expect("read");
    assert_eq!(&answer, b"hello");
    assert_eq!(world.metrics.websockets("exec"), 0);
}

#[tokio::test]
async fn a_caller_that_has_said_all_still_hears_all() {
    const SENT: usize = 3 << 20;
    let stub = Stub::new(Manner::Echo).await;
    let world = World::streaming_at(LIMITS, stub.address).await;
    let caller = world.exec().await;
    let (mut reader, mut writer) = caller.stream.into_split();
    let send = async {
        writer.write_all(&vec![b's'; SENT]).await.expect("write");
        writer.shutdown().await.expect("close one way");
    };
    let mut heard = Vec::new();
    let (_, heard_all) = tokio::join!(within(send), within(reader.read_to_end(&mut heard)));
    heard_all.expect("read");
    assert_eq!(heard.len(), SENT + TAIL_BYTES);
    assert!(heard[SENT..].iter().all(|byte| *byte == b't'));
}

#[tokio::test]
async fn a_runtime_that_has_said_all_still_hears_all() {
    const SENT: usize = 3 << 20;
    let mut stub = Stub::new(Manner::SpeakAndListen).await;
    let world = World::streaming_at(LIMITS, stub.address).await;
    let mut caller = world.exec().await;
    let mut words = String::new();
    within(caller.stream.read_to_string(&mut words))
        .await
        .expect("read");
    assert_eq!(words, LAST_WORDS);
    let send = caller.stream.write_all(&[b's'; SENT]);
    within(send).await.expect("write");
    drop(caller);
    let received = stub.until(|told| matches!(told, Told::Received(_))).await;
    assert_eq!(received, Told::Received(SENT));
}

#[tokio::test]
async fn last_words_are_heard_by_a_caller_that_is_still_talking() {
    let stub = Stub::new(Manner::HangUp).await;
    let world = World::streaming_at(LIMITS, stub.address).await;
    for _ in 0..20 {
        let caller = world.exec().await;
        let (mut reader, mut writer) = caller.stream.into_split();
        let talk = async {
            // Until nobody listens any more.
            while writer.write_all(&[b's'; 4096]).await.is_ok() {}
        };
        let listen = async {
            let mut words = vec![0; LAST_WORDS.len()];
            reader.read_exact(&mut words).await.map(|_| words)
        };
        let heard = within(async {
            tokio::select! {
                biased;
                heard = listen => heard,
                () = talk => panic!("cut before the last words"),
            }
        });
        assert_eq!(heard.await.expect("heard"), LAST_WORDS.as_bytes());
    }
}

#[tokio::test]
async fn a_websocket_is_relayed_and_counted() {
    let stub = Stub::new(Manner::Echo).await;
    let world = World::streaming_at(LIMITS, stub.address).await;
    let headers = "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: a2V5\r\n";
    let lines = [
        "GET /exec/ns/p/web?command=cat&output=1",
        "GET /attach/ns/p/u/web?output=1",
        "GET /portForward/ns/p?port=80",
    ];
    for line in lines {
        let caller = world.ask(line, headers).await;
        assert_eq!(caller.status(), "101", "{line}: {}", caller.head);
    }
    for subresource in ["exec", "attach", "portforward"] {
        assert_eq!(world.metrics.websockets(subresource), 1, "{subresource}");
    }
}

#[tokio::test]
async fn a_caller_that_vanishes_takes_its_session_along() {
    // Also if the runtime does not mind.
    for manner in [Manner::Echo, Manner::Freeze] {
        let stub = Stub::new(manner).await;
        let world = World::streaming_at(ONE, stub.address).await;
        for _ in 0..3 {
            let caller = next_is_let_in(&world).await;
            assert_eq!(caller.status(), "101", "{manner:?}: {}", caller.head);
        }
    }
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_the_runtime_back() {
    let mut stub = Stub::new(Manner::Flood).await;
    let world = World::streaming_at(ONE, stub.address).await;
    let caller = world.exec().await;
    let stuck = stub.until(|told| !matches!(told, Told::Head(_))).await;
    let Told::Stuck(written) = stuck else {
        panic!("{stuck:?}");
    };
    // What the kernel holds in four socket buffers, and our own few KiB.
    assert!(written < 32 << 20, "{written} bytes in flight");
    drop(caller);
    assert_eq!(stub.until(|told| *told == Told::Closed).await, Told::Closed);
    assert_eq!(next_is_let_in(&world).await.status(), "101");
}

#[tokio::test]
async fn a_runtime_that_does_not_answer_is_given_up() {
    let mut stub = Stub::new(Manner::Silent).await;
    let world = World::streaming_at(HASTY, stub.address).await;
    let mut caller = world.exec().await;
    assert_eq!(caller.status(), "500", "{}", caller.head);
    assert_eq!(
        caller.body().await,
        "the runtime's streaming server did not answer within 1s"
    );
    assert_eq!(stub.until(|told| *told == Told::Closed).await, Told::Closed);
    assert_eq!(world.exec().await.status(), "500", "the session was freed");
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_frees_its_session() {
    let mut stub = Stub::new(Manner::Silent).await;
    let world = World::streaming_at(ONE, stub.address).await;
    let mut hasty = TcpStream::connect(world.address).await.expect("connect");
    let request = format!("{EXEC} HTTP/1.1\r\nhost: node\r\n{SPDY}\r\n");
    hasty.write_all(request.as_bytes()).await.expect("write");
    assert!(matches!(stub.told().await, Told::Head(_)));
    drop(hasty);
    assert_eq!(stub.told().await, Told::Closed);
}

#[tokio::test]
async fn a_caller_that_never_switches_is_given_up() {
    let mut stub = Stub::new(Manner::Echo).await;
    let world = World::streaming_at(HASTY, stub.address).await;
    // A caller's connection whose response never gets out.
    let router = world.router.clone();
    let stuck = tower::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = router.clone().oneshot(request.map(axum::body::Body::new));
        async move {
            let _answer = answer.await;
            std::future::pending::<Result<axum::response::Response, Infallible>>().await
        }
    });
    let (caller, server) = tokio::io::duplex(4096);
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(stuck))
        .with_upgrades();
    let (mut caller, request) = (caller, format!("{EXEC} HTTP/1.1\r\nhost: n\r\n{SPDY}\r\n"));
    caller.write_all(request.as_bytes()).await.expect("write");
    tokio::select! {
        _ = connection => panic!("the connection ended"),
        told = stub.until(|told| *told == Told::Received(0)) => drop(told),
    }
    assert_eq!(next_is_let_in(&world).await.status(), "101");
}

#[tokio::test]
async fn sessions_are_limited_in_number() {
    let stub = Stub::new(Manner::Echo).await;
    let world = World::streaming_at(ONE, stub.address).await;
    let first = world.exec().await;
    assert_eq!(first.status(), "101");
    let mut second = world.exec().await;
    assert_eq!(second.status(), "429");
    assert!(second.has_header("retry-after: 1"), "{}", second.head);
    assert_eq!(
        second.body().await,
        "1 sessions are open on this node, which is the limit"
    );
    drop(first);
    assert_eq!(next_is_let_in(&world).await.status(), "101");
}

#[tokio::test]
async fn many_sessions_go_on_side_by_side() {
    const MANY: usize = 300;
    let stub = Stub::new(Manner::Echo).await;
    let world = World::streaming_at(LIMITS, stub.address).await;
    let mut callers = join_all((0..MANY).map(|_| world.exec())).await;
    let talks = callers
        .iter_mut()
        .enumerate()
        .map(|(number, caller)| async move {
            let said = format!("{number:5}");
            let stream = &mut caller.stream;
            stream.write_all(said.as_bytes()).await.expect("write");
            let mut heard = [0; 5];
            within(stream.read_exact(&mut heard)).await.expect("read");
            assert_eq!(heard, said.as_bytes());
        });
    join_all(talks).await;
}

#[tokio::test]
async fn shutdown_ends_sessions() {
    let stub = Stub::new(Manner::Freeze).await;
    let world = World::streaming_at(LIMITS, stub.address).await;
    let mut caller = world.exec().await;
    assert_eq!(caller.status(), "101");
    world.shutdown.cancel();
    let mut rest = Vec::new();
    within(caller.stream.read_to_end(&mut rest))
        .await
        .expect("read");
    assert!(rest.is_empty());
}
