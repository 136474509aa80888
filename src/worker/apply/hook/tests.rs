//! Requests of hooks to a server that speaks no TLS.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// A server that answers everything with 500 in plain HTTP, and gives the last
/// request in the end.
async fn server() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let served = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && !request.starts_with(&[0x16]) {
                let mut some = [0; 4096];
                let count = stream.read(&mut some).await.expect("a request");
                request.extend_from_slice(&some[..count]);
            }
            let answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.expect("an answer");
            if request.starts_with(b"GET ") {
                return String::from_utf8_lossy(&request).into_owned();
            }
        }
    });
    (port, served)
}

fn request(scheme: Scheme, port: u16) -> HttpGet {
    HttpGet {
        scheme,
        host: "127.0.0.1".to_owned(),
        port,
        path_and_query: "/bye".to_owned(),
        headers: vec![
            ("Host".to_owned(), "me".to_owned()),
            ("authorization".to_owned(), "secret".to_owned()),
        ],
    }
}

#[tokio::test]
async fn any_answer_is_a_success() {
    let (port, served) = server().await;
    let sent = send(request(Scheme::Http, port)).await;
    assert_eq!(sent.ok(), Some(Sent::AsAsked));
    let heard = served.await.expect("a request");
    assert!(
        heard.to_lowercase().contains("authorization: secret"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_asked_again_without_credentials() {
    let (port, served) = server().await;
    let sent = send(request(Scheme::Https, port)).await;
    assert_eq!(sent.ok(), Some(Sent::WithoutTls));
    let heard = served.await.expect("a request");
    assert!(heard.starts_with("GET /bye HTTP/1.1"), "{heard}");
    assert!(!heard.contains("secret"), "{heard}");
}

#[tokio::test]
async fn nobody_there_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its number").port();
    drop(listener);
    let error = send(request(Scheme::Http, port)).await;
    assert!(matches!(error, Err(HttpError::Connect { .. })));
}
