//! What journalctl and log files have of services.
//!
//! In: names of services. Out: one stream of text, made while it is taken: the
//! journal of the services that are in it, the log files of the others. It ends
//! after [`LIMIT`] and after [`MAX_BYTES`], and journalctl with it, also when
//! the stream is dropped.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use futures::stream::{BoxStream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::files::blocks;
use super::query::JournalOptions;
use crate::server::api::rooted::{Links, Root};

/// For the whole of a query.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MAX_BYTES: usize = 256 << 20;
/// Bytes of the list of units.
const MAX_UNIT_BYTES: u64 = 8 << 20;
const BLOCK: usize = 64 << 10;

/// What a query needs of the machine.
pub(super) struct Journal {
    /// The program.
    pub(super) journalctl: PathBuf,
    /// The log directory.
    pub(super) root: Root,
    /// Queries under way at once.
    pub(super) turns: Arc<Semaphore>,
}

impl Journal {
    /// The text of the services' logs.
    pub(super) async fn query(
        &self,
        services: Vec<String>,
        options: JournalOptions,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let deadline = Instant::now() + LIMIT;
        let turn = tokio::time::timeout_at(deadline, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return text("\ntoo many queries at once\n").left_stream();
        };
        let units = tokio::time::timeout_at(deadline, self.units()).await;
        let units = units.ok().and_then(Result::ok).unwrap_or_default();
        let (native, others): (Vec<_>, Vec<_>) = services
            .into_iter()
            .partition(|service| units.contains(&format!("{service}.service")));
        let mut parts = VecDeque::new();
        if !native.is_empty() {
            parts.push_back(self.journal(&options.arguments(&native)));
        }
        if !others.is_empty() && options.are_given() {
            parts.push_back(text(&format!(
                "\noptions present and query resolved to log files for [{}]\ntry without \
                 specifying options\n",
                others.join(" ")
            )));
        } else {
            parts.extend(others.into_iter().map(|service| self.log_file(service)));
        }
        Answer {
            parts,
            deadline,
            left: MAX_BYTES,
            _turn: turn,
        }
        .pieces()
        .right_stream()
    }

    /// The units that the journal knows.
    async fn units(&self) -> io::Result<String> {
        let arguments = ["--field".to_owned(), "_SYSTEMD_UNIT".to_owned()];
        let (_child, output) = start(&self.journalctl, &arguments)?;
        let mut names = Vec::new();
        output.take(MAX_UNIT_BYTES).read_to_end(&mut names).await?;
        Ok(String::from_utf8_lossy(&names).into_owned())
    }

    fn journal(&self, arguments: &[String]) -> BoxStream<'static, io::Result<Bytes>> {
        match start(&self.journalctl, arguments) {
            Ok((child, output)) => read(child, output).boxed(),
            Err(_) => text("\nerror: journal output not available\n"),
        }
    }

    /// The first of the files in which the service may write.
    fn log_file(&self, service: String) -> BoxStream<'static, io::Result<Bytes>> {
        let root = self.root.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let found = open_log(&root, &service);
            (service, found)
        });
        futures::stream::once(async move {
            match opened.await {
                Ok((_, Ok(Some((file, length))))) => blocks(file, length).boxed(),
                Ok((service, Ok(None))) => text(&format!("\nlog not found for {service}\n")),
                Ok((service, Err(error))) => {
                    text(&format!("\nerror getting log for {service}: {error}\n"))
                }
                Err(error) => futures::stream::iter([Err(io::Error::other(error))]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }
}

fn open_log(root: &Root, service: &str) -> io::Result<Option<(std::fs::File, u64)>> {
    let names = [
        service.to_owned(),
        format!("{service}.log"),
        format!("{service}/{service}.log"),
    ];
    for name in names {
        match root.open(Path::new(&name), Links::Below) {
            Ok(file) => {
                let found = file.metadata()?;
                if found.is_file() {
                    return Ok(Some((file, found.len())));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Starts the program with both of its outputs in one pipe. It is killed when
/// the child is dropped.
fn start(program: &Path, arguments: &[String]) -> io::Result<(Child, pipe::Receiver)> {
    let (reader, writer) = std::io::pipe()?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(writer.try_clone()?))
        .stderr(OwnedFd::from(writer))
        .kill_on_drop(true)
        .spawn()?;
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    Ok((child, reader))
}

fn read(
    child: Child,
    output: impl AsyncRead + Unpin + Send,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::unfold(Some((child, output)), |rest| async move {
        let (mut child, mut output) = rest?;
        let mut block = vec![0; BLOCK];
        match output.read(&mut block).await {
            Ok(0) => {
                // How it ended is in what it wrote.
                let _ = child.wait().await;
                None
            }
            Ok(count) => {
                block.truncate(count);
                Some((Ok(block.into()), Some((child, output))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn text(text: &str) -> BoxStream<'static, io::Result<Bytes>> {
    futures::stream::iter([Ok(Bytes::from(text.to_owned()))]).boxed()
}

/// An answer on its way.
struct Answer {
    parts: VecDeque<BoxStream<'static, io::Result<Bytes>>>,
    deadline: Instant,
    left: usize,
    _turn: OwnedSemaphorePermit,
}

impl Answer {
    fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(self, |mut answer| async move {
            let piece = tokio::time::timeout_at(answer.deadline, answer.piece()).await;
            let mut piece = piece.ok().flatten()?;
            if let Ok(bytes) = &mut piece {
                bytes.truncate(answer.left);
                answer.left -= bytes.len();
            }
            Some((piece, answer))
        })
    }

    async fn piece(&mut self) -> Option<io::Result<Bytes>> {
        if self.left == 0 {
            return None;
        }
        while let Some(part) = self.parts.front_mut() {
            if let Some(piece) = part.next().await {
                return Some(piece);
            }
            self.parts.pop_front();
        }
        None
    }
}
