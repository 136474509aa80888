//! One run of one program: bounded in time and in output, and ended whole.
//!
//! In: the program, its arguments and its input. Out: its output line by line, and how
//! it ended. Before the program is given anything to read, its process is made known
//! to [`OwnRuns`], so that the changes it makes are never taken for somebody else's.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::IptablesError;
use super::watch::OwnRuns;

/// How much is read from a program at once.
const BLOCK: usize = 64 << 10;
/// A line longer than this, in bytes, is none of ours.
const MOST_LINE: usize = 64 << 10;
/// How much of what a program writes to standard error is kept, in bytes.
const MOST_COMPLAINT: usize = 16 << 10;
/// How long a killed process may take to go. One that hangs in the kernel is left to
/// tokio, which collects it when it has ended.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Invocation<'a> {
    pub(super) program: &'a Path,
    pub(super) args: &'a [&'a str],
    pub(super) input: &'a str,
    /// It is killed after this time, with all that it has started.
    pub(super) limit: Duration,
}

impl Invocation<'_> {
    /// Runs the program to its end. Dropping the future kills it.
    pub(super) async fn run(
        &self,
        own: &OwnRuns,
        on_line: impl FnMut(&[u8]) + Send,
    ) -> Result<(), IptablesError> {
        let mut group = Group(self.start()?);
        let _run = group.0.id().map(|id| own.begin(id));
        let ended = tokio::time::timeout(self.limit, self.talk(&mut group.0, on_line)).await;
        let Ok(ended) = ended else {
            group.kill();
            let _ = tokio::time::timeout(LAST_WAIT, group.0.wait()).await;
            return Err(IptablesError::TimedOut {
                program: self.program.to_owned(),
                limit: self.limit,
            });
        };
        let (status, complaint) = ended.map_err(|source| self.broken(source))?;
        if status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&complaint);
        Err(IptablesError::failed(
            self.program,
            status,
            &complaint,
            self.input,
        ))
    }

    fn start(&self) -> Result<Child, IptablesError> {
        let started = Command::new(self.program)
            .args(self.args)
            // Messages are compared with what they are in English.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        started.map_err(|source| {
            let program = self.program.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => IptablesError::Missing { program },
                _ => IptablesError::Start { program, source },
            }
        })
    }

    async fn talk(
        &self,
        child: &mut Child,
        on_line: impl FnMut(&[u8]) + Send,
    ) -> io::Result<(ExitStatus, Vec<u8>)> {
        let (mut stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async move {
            match &mut stdin {
                Some(stdin) => stdin.write_all(self.input.as_bytes()).await,
                None => Ok(()),
            }
        };
        let (fed, read, complaint) = tokio::join!(feed, lines(stdout, on_line), beginning(stderr));
        read?;
        let complaint = complaint?;
        let status = child.wait().await?;
        // One that gave up early has said why; one that claims success has not read
        // what it was to do.
        if status.success() {
            fed?;
        }
        Ok((status, complaint))
    }

    fn broken(&self, source: io::Error) -> IptablesError {
        IptablesError::Talk {
            program: self.program.to_owned(),
            source,
        }
    }
}

/// Gives every line of a stream to `on_line`, but for those that are too long.
async fn lines(
    stream: Option<impl AsyncRead + Unpin>,
    mut on_line: impl FnMut(&[u8]),
) -> io::Result<()> {
    let Some(mut stream) = stream else {
        return Ok(());
    };
    let mut held = Vec::with_capacity(BLOCK);
    let mut skipping = false;
    loop {
        if stream.read_buf(&mut held).await? == 0 {
            break;
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &held) {
            if !skipping {
                on_line(&held[start..end]);
            }
            skipping = false;
            start = end + 1;
        }
        held.drain(..start);
        if held.len() > MOST_LINE {
            skipping = true;
            held.clear();
        }
    }
    if !held.is_empty() && !skipping {
        on_line(&held);
    }
    Ok(())
}

/// The beginning of a stream, which is read to its end.
async fn beginning(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let mut block = [0; 4096];
        loop {
            let count = stream.read(&mut block).await?;
            if count == 0 {
                break;
            }
            let room = MOST_COMPLAINT.saturating_sub(kept.len());
            kept.extend_from_slice(&block[..count.min(room)]);
        }
    }
    Ok(kept)
}

/// A process with all that it started: they end together.
struct Group(Child);

impl Group {
    fn kill(&self) {
        // An ID is there until the process was waited for, so it cannot be anybody
        // else's. What has ended already needs no signal.
        let leader = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader {
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(text: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        lines(Some(text), |line| {
            seen.push(String::from_utf8_lossy(line).into_owned());
        })
        .await
        .unwrap();
        seen
    }

    #[tokio::test]
    async fn lines_come_whole_and_endless_ones_not_at_all() {
        assert_eq!(lines_of(b"a\n\nb").await, ["a", "", "b"]);
        let long = "x".repeat(3 * MOST_LINE);
        let text = format!("first\n{long}\nlast\n");
        assert_eq!(lines_of(text.as_bytes()).await, ["first", "last"]);
        assert!(lines_of(long.as_bytes()).await.is_empty());
    }

    #[tokio::test]
    async fn complaints_are_kept_up_to_a_limit() {
        let text = vec![b'x'; 3 * MOST_COMPLAINT];
        let kept = beginning(Some(text.as_slice())).await.unwrap();
        assert_eq!(kept.len(), MOST_COMPLAINT);
    }
}
