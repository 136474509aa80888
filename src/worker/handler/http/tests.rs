//! Against real sockets on the loopback: what is sent, what is followed, and
//! what is made of bad answers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Far beyond what the loopback takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a port of its own, which ends with the test.
struct Server {
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers every request, one a connection, with what `answer` makes of its head.
async fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            talk(stream, &answer).await;
        }
    });
    Server { port, task }
}

async fn talk<S>(mut stream: S, answer: &(impl Fn(&str) -> String + Send + Sync))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let reply = answer(&String::from_utf8_lossy(&head));
    // Who asked may have heard enough already.
    drop(stream.write_all(reply.as_bytes()).await);
    drop(stream.shutdown().await);
}

fn to(server: &Server, path: &str) -> HttpGet {
    HttpGet {
        scheme: Scheme::Http,
        host: "127.0.0.1".to_owned(),
        port: server.port,
        path_and_query: path.to_owned(),
        headers: vec![
            ("Host".to_owned(), "pod".to_owned()),
            ("User-Agent".to_owned(), "kube-probe/1.36".to_owned()),
        ],
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\ngone")
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

#[tokio::test]
async fn what_is_sent_is_what_was_asked_for_and_nothing_else() {
    let server = serve(ok).await;
    let answer = within(get(&to(&server, "/a?b"))).await.unwrap();
    assert!(answer.is_success() && !answer.is_redirect());
    insta::assert_snapshot!(answer.body.replace('\r', ""), @r"
    GET /a?b HTTP/1.1
    Connection: close
    Host: pod
    User-Agent: kube-probe/1.36
    ");
}

#[tokio::test]
async fn bodies_are_cut() {
    for (length, wanted) in [(3, 3), (BODY_LIMIT, BODY_LIMIT), (1 << 20, BODY_LIMIT)] {
        let server = serve(move |_| ok(&"x".repeat(length))).await;
        let answer = within(get(&to(&server, "/"))).await.unwrap();
        assert_eq!(answer.body.len(), wanted);
    }
}

#[tokio::test]
async fn a_bad_status_is_an_answer() {
    for (status, success) in [
        (199, false),
        (204, true),
        (304, true),
        (400, false),
        (503, false),
    ] {
        let server = serve(move |_| format!("HTTP/1.1 {status} X\r\n\r\n")).await;
        match within(get(&to(&server, "/"))).await {
            Ok(answer) => assert_eq!((answer.status, answer.is_success()), (status, success)),
            // Interim answers are not the last word.
            Err(error) => assert!(status < 200, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed() {
    let target = serve(|_| ok("there")).await;
    let there = format!("http://127.0.0.1:{}/x", target.port);
    let server = serve(move |head| match head.split(' ').nth(1) {
        Some("/local") => redirect("/elsewhere"),
        Some("/elsewhere") => ok("elsewhere"),
        Some("/port") => redirect(&there),
        Some("/host") => redirect("http://example.invalid/"),
        Some("/nowhere") => "HTTP/1.1 302 Found\r\n\r\nnowhere".to_owned(),
        Some("/bad") => redirect("http://:bad:/"),
        _ => redirect("/loop"),
    })
    .await;
    for (path, wanted) in [
        ("/local", (200, "elsewhere")),
        ("/port", (200, "there")),
        ("/host", (302, "gone")),
        ("/nowhere", (302, "nowhere")),
    ] {
        let answer = within(get(&to(&server, path))).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), wanted, "{path}");
        assert_eq!(answer.is_redirect(), wanted.0 == 302);
    }
    let error = within(get(&to(&server, "/bad"))).await.unwrap_err();
    assert!(matches!(error, HttpError::Location { .. }), "{error:?}");
    let error = within(get(&to(&server, "/loop"))).await.unwrap_err();
    assert_eq!(error.to_string(), "stopped after 10 redirects");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = serve(|_| "not HTTP at all\r\n\r\n".to_owned()).await;
    let error = within(get(&to(&server, "/"))).await.unwrap_err();
    assert!(matches!(error, HttpError::Exchange(_)), "{error:?}");

    let https = HttpGet {
        scheme: Scheme::Https,
        ..to(&server, "/")
    };
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let answers = async {
        let (mut stream, _) = plain.accept().await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        stream
    };
    let request = HttpGet { port, ..https };
    let (error, _stream) = within(async { tokio::join!(get(&request), answers) }).await;
    assert!(matches!(error, Err(HttpError::PlainAnswer)), "{error:?}");

    drop(plain);
    let request = HttpGet {
        scheme: Scheme::Http,
        ..request
    };
    let error = within(get(&request)).await.unwrap_err();
    let HttpError::Connect { authority, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*authority, format!("127.0.0.1:{port}"));

    let mut request = to(&server, "/");
    request.headers.push(("X".to_owned(), "a\nb".to_owned()));
    let error = within(get(&request)).await.unwrap_err();
    assert!(matches!(error, HttpError::Request(_)), "{error:?}");
}

#[tokio::test]
async fn any_certificate_will_do() {
    let certified = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        talk(stream, &|_: &str| ok("secret")).await;
    };
    let request = HttpGet {
        scheme: Scheme::Https,
        host: "127.0.0.1".to_owned(),
        port,
        path_and_query: "/".to_owned(),
        headers: vec![("Host".to_owned(), "pod".to_owned())],
    };
    let (answer, ()) = within(async { tokio::join!(get(&request), answers) }).await;
    assert_eq!(answer.unwrap().body, "secret");
}
