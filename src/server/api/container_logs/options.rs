//! What a caller wants of a log: the query, read and checked. Pure.

use jiff::{SignedDuration, Timestamp};

#[cfg(test)]
mod tests;

/// Which of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    Only(Stream),
}

/// A standard stream of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Whether callers may ask for one stream only (gate `PodLogsQuerySplitStreams`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamChoice {
    Allowed,
    Refused,
}

/// Which life of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instance {
    /// The one that runs, or the last that ran.
    Latest,
    /// The one before (`previous`).
    Previous,
}

/// Where the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// At what is written now.
    Now,
    /// When the container no longer runs (`follow`).
    Exit,
}

/// Whether lines begin with their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamps {
    Shown,
    Hidden,
}

/// The options of a request for a log (the API's `PodLogOptions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) instance: Instance,
    pub(super) until: Until,
    pub(super) stamps: Stamps,
    /// Entries before this are left out.
    pub(super) since: Option<Timestamp>,
    /// So many entries from the end, as the runtime wrote them.
    pub(super) tail: Option<u64>,
    /// So many bytes of output.
    pub(super) limit: Option<u64>,
    pub(super) selection: Selection,
}

/// A query that is not answered; the texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadOptions {
    /// A value is not of its type.
    #[error(r#"{{"message": "Unable to decode query."}}"#)]
    Undecodable,
    /// A value is out of range, or contradicts another.
    #[error(r#"{{"message": "Invalid request."}}"#)]
    Invalid,
    /// One stream only, and the gate is off.
    #[error(
        "unable to return the given log stream: \"{0}\". Please enable PodLogsQuerySplitStreams \
         feature gate in kubelet"
    )]
    StreamRefused(&'static str),
}

/// Reads the pairs of a query. Of a name that is given twice the first counts;
/// names that are not known are passed over.
pub(super) fn parse(
    pairs: &[(String, String)],
    streams: StreamChoice,
    now: Timestamp,
) -> Result<LogOptions, BadOptions> {
    let query = Query(pairs);
    let tail = query.tail()?;
    let limit = query.number("limitBytes")?;
    let since_seconds = query.number("sinceSeconds")?;
    let since_time = query.time("sinceTime")?;
    let selection = query.selection()?;

    let tail = tail
        .map(|lines| u64::try_from(lines).map_err(|_| BadOptions::Invalid))
        .transpose()?;
    let limit = limit.map(positive).transpose()?;
    let since = match (since_seconds, since_time) {
        (Some(_), Some(_)) => return Err(BadOptions::Invalid),
        (Some(seconds), None) => Some(before(now, positive(seconds)?)),
        (None, time) => time,
    };
    if let Selection::Only(stream) = selection {
        if tail.is_some() {
            return Err(BadOptions::Invalid);
        }
        if streams == StreamChoice::Refused {
            return Err(BadOptions::StreamRefused(stream.api_name()));
        }
    }
    Ok(LogOptions {
        instance: if query.flag("previous") {
            Instance::Previous
        } else {
            Instance::Latest
        },
        until: if query.flag("follow") {
            Until::Exit
        } else {
            Until::Now
        },
        stamps: if query.flag("timestamps") {
            Stamps::Shown
        } else {
            Stamps::Hidden
        },
        since,
        tail,
        limit,
        selection,
    })
}

impl Stream {
    fn api_name(self) -> &'static str {
        match self {
            Self::Stdout => "Stdout",
            Self::Stderr => "Stderr",
        }
    }
}

/// The pairs of a query, by name.
struct Query<'a>(&'a [(String, String)]);

impl Query<'_> {
    fn first(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name)?;
        Some(&pair.1)
    }

    /// Upstream's reading: everything but `false` and `0` is true.
    fn flag(&self, name: &str) -> bool {
        self.first(name)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, BadOptions> {
        self.first(name).map(number).transpose()
    }

    /// RFC 3339; nothing and `null` are no time.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, BadOptions> {
        match self.first(name) {
            None | Some("" | "null") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| BadOptions::Undecodable),
        }
    }

    /// `tailLines`, or its older name `tail`, which knows `all` as well.
    fn tail(&self) -> Result<Option<i64>, BadOptions> {
        match self.first("tail") {
            None | Some("") => self.number("tailLines"),
            Some("all") => Ok(None),
            Some(lines) => number(lines).map(Some),
        }
    }

    fn selection(&self) -> Result<Selection, BadOptions> {
        match self.first("stream") {
            None | Some("All") => Ok(Selection::All),
            Some("Stdout") => Ok(Selection::Only(Stream::Stdout)),
            Some("Stderr") => Ok(Selection::Only(Stream::Stderr)),
            Some(_) => Err(BadOptions::Invalid),
        }
    }
}

fn number(text: &str) -> Result<i64, BadOptions> {
    text.parse().map_err(|_| BadOptions::Undecodable)
}

fn positive(number: i64) -> Result<u64, BadOptions> {
    match u64::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(BadOptions::Invalid),
    }
}

fn before(now: Timestamp, seconds: u64) -> Timestamp {
    let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    now.checked_sub(span).unwrap_or(Timestamp::MIN)
}
