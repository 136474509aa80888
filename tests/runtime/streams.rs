//! Commands in containers, and their streams, as a real containerd serves them.

use std::time::{Duration, Instant};

use kubelet::pod::ContainerId;
use kubelet::runtime::{ExecError, RuntimeError, StdStreams, StreamUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{LIMIT, Node};

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|&word| word.to_owned()).collect()
}

fn script(script: &str) -> Vec<String> {
    words(&["/bin/sh", "-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_run_to_its_end() {
    let node = Node::start().await;
    let pod = node.sandbox("web").await;
    let id = node.run(&pod, "main", "sleep 3600").await;
    let streaming = &node.handles.streaming;

    let command = script("echo $GREETING; echo err >&2; exit 3");
    let ended = streaming.exec_sync(&id, &command, Some(LIMIT)).await;
    let ended = ended.expect("it ran");
    assert_eq!(
        (
            ended.exit_code,
            ended.stdout.as_slice(),
            ended.stderr.as_slice()
        ),
        (3, b"hello\n".as_slice(), b"err\n".as_slice())
    );

    let second = Duration::from_secs(1);
    let begun = Instant::now();
    let command = words(&["/bin/sleep", "3600"]);
    let late = streaming.exec_sync(&id, &command, Some(second)).await;
    assert!(
        matches!(late, Err(ExecError::TimedOut { limit }) if limit == second),
        "{late:?}"
    );
    assert!(begun.elapsed() >= second && begun.elapsed() < LIMIT);

    let command = words(&["/bin/nonsense"]);
    let missing = streaming.exec_sync(&id, &command, Some(LIMIT)).await;
    assert!(
        matches!(
            missing,
            Err(ExecError::Runtime(RuntimeError::Refused { .. }))
        ),
        "{missing:?}"
    );

    // Near the 16 MiB that an answer can carry.
    let command = script("busybox yes | busybox head -c 16000000; echo end >&2");
    let much = streaming.exec_sync(&id, &command, None).await;
    let much = much.expect("it ran");
    assert_eq!(much.exit_code, 0);
    assert_eq!(much.stdout.len(), 16_000_000);
    assert_eq!(much.stderr, b"end\n");

    let stranger = ContainerId("no-such-container".to_owned());
    let gone = streaming.exec_sync(&stranger, &script("true"), None).await;
    assert!(
        matches!(gone, Err(ExecError::Runtime(RuntimeError::NotFound { .. }))),
        "{gone:?}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_of_a_command_are_where_the_runtime_says() {
    let node = Node::start().await;
    let pod = node.sandbox("web").await;
    let id = node.run(&pod, "main", "sleep 3600").await;
    let streams = StdStreams {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let command = script("read line; echo heard $line; echo err >&2; exit 3");
    let url = node.handles.streaming.exec(&id, &command, streams).await;
    let mut session = WebSocket::open(&url.expect("an address")).await;
    session.send(0, b"words\n").await;
    let mut said = [const { Vec::new() }; 4];
    while let Some((channel, bytes)) = session.receive().await {
        said[usize::from(channel)].extend(bytes);
    }
    let [_, out, err, status] = said;
    assert_eq!(String::from_utf8_lossy(&out), "heard words\n");
    assert_eq!(String::from_utf8_lossy(&err), "err\n");
    let status: serde_json::Value = serde_json::from_slice(&status).expect("a status");
    assert_eq!(status["details"]["causes"][0]["message"], "3", "{status}");

    // The address is good for one use.
    let url = node.handles.streaming.attach(&id, streams).await;
    let url = url.expect("an address");
    WebSocket::open(&url).await;
    let (_, head) = WebSocket::ask(&url).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");

    let url = node.handles.streaming.port_forward(&pod.1, &[80]).await;
    WebSocket::open(&url.expect("an address")).await;
    node.stop().await;
}

/// The least of a WebSocket that Kubernetes' channels need: short messages, each in
/// one frame, the first byte of which is the channel.
struct WebSocket(TcpStream);

impl WebSocket {
    async fn open(url: &StreamUrl) -> Self {
        let (stream, head) = Self::ask(url).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self(stream)
    }

    /// The connection, and the head of the answer.
    async fn ask(url: &StreamUrl) -> (TcpStream, String) {
        let uri = url.uri();
        let authority = uri.authority().expect("host and port").as_str();
        let mut stream = TcpStream::connect(authority).await.expect("connect");
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: a2V5IG9mIDE2IGJ5dGVzIQ==\r\nOrigin: http://localhost\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n",
            uri.path()
        );
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the answer's head"));
        }
        (stream, String::from_utf8(head).expect("text"))
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let length = u8::try_from(bytes.len() + 1).expect("a short message");
        assert!(length < 126, "a short message");
        // Final binary frame, masked with zeros.
        let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0, channel];
        frame.extend(bytes);
        self.0.write_all(&frame).await.expect("write");
    }

    /// The next message; `None` at the end.
    async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let receive = async {
            let head = self.0.read_u16().await.ok()?;
            let length = match head & 0x7f {
                126 => usize::from(self.0.read_u16().await.ok()?),
                length => usize::from(length),
            };
            let mut message = vec![0; length];
            self.0.read_exact(&mut message).await.ok()?;
            // Anything but binary is the closing.
            (head >> 8 == 0x82 && length > 0).then(|| (message[0], message.split_off(1)))
        };
        tokio::time::timeout(LIMIT, receive).await.expect("in time")
    }
}
