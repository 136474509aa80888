//! Whether a port accepts connections.

use std::io;

use tokio::net::TcpStream;

/// Opens a connection and closes it. The caller limits the time.
///
/// # Errors
/// If it cannot be opened.
pub(in crate::worker) async fn connect(host: &str, port: u16) -> io::Result<()> {
    TcpStream::connect((host, port)).await.map(drop)
}
