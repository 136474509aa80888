//! Bytes both ways between two connections, until both ways are done.
//!
//! In: two byte streams. Out: nothing lost on the way, and an end: a side that
//! sends no more may still receive what the other has to say, and a side that is
//! gone does not keep the other for long.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Of each direction. All that is held for a side that does not read.
const BUFFER_BYTES: usize = 8 << 10;

/// Copies both ways. Once one way has ended, the other may be still for `linger`
/// before it is cut.
pub(super) async fn join<A, B>(one: A, other: B, linger: Duration)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (one_reader, one_writer) = tokio::io::split(one);
    let (other_reader, other_writer) = tokio::io::split(other);
    let delivered = AtomicU64::new(0);
    let there = pin!(copy(one_reader, other_writer, &delivered));
    let back = pin!(copy(other_reader, one_writer, &delivered));
    match select(there, back).await {
        Either::Left(((), back)) => finish(back, &delivered, linger).await,
        Either::Right(((), there)) => finish(there, &delivered, linger).await,
    }
}

/// Goes on for as long as something is delivered now and then.
async fn finish(mut rest: impl Future<Output = ()> + Unpin, delivered: &AtomicU64, idle: Duration) {
    loop {
        let before = delivered.load(Ordering::Relaxed);
        let ended = tokio::time::timeout(idle, &mut rest).await.is_ok();
        if ended || delivered.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Copies until the reader's end, which it passes on.
///
/// A writer that breaks does not end this: its side may have closed after its
/// last word. What still comes is read and dropped, because closing a socket
/// with unread bytes would take back what was sent over it the other way.
async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    delivered: &AtomicU64,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut broken = false;
    loop {
        // A connection that was reset has ended, as far as its other side goes.
        let read = reader.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        if broken {
            continue;
        }
        match deliver(&mut writer, &buffer[..read]).await {
            Ok(()) => {
                delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => broken = true,
        }
    }
    if !broken {
        // It may be gone by now, and then knows.
        let _ = writer.shutdown().await;
    }
}

async fn deliver(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}
