//! containerd's own event stream, as signs.
//!
//! containerd serves it on its CRI socket, in all versions; CRI's equivalent
//! exists from 2.0 on only. A runtime without it is read by relisting alone.

use std::time::Duration;

use containerd_client::events::{ContainerDelete, TaskDelete, TaskExit, TaskStart};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::types::Envelope;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::sign::Sign;

const TASK_START: &str = "/tasks/start";
const TASK_EXIT: &str = "/tasks/exit";
const TASK_DELETE: &str = "/tasks/delete";
const CONTAINER_DELETE: &str = "/containers/delete";

/// Where CRI keeps its containers.
pub(in crate::runtime) const NAMESPACE: &str = "k8s.io";

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// A stream that lived so long had been a good one.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// The stream, reopened whenever it ends.
pub(super) struct Feed {
    channel: Channel,
    state: State,
    pause: Duration,
}

enum State {
    Closed {
        retry_at: Instant,
    },
    Open {
        stream: BoxStream<'static, Result<Envelope, Status>>,
        since: Instant,
    },
}

/// What the feed has to say.
#[derive(Debug)]
pub(super) enum Heard {
    /// A new stream was asked for: changes up to about now may have been
    /// missed. Whether the runtime agreed shows only with the first event.
    Opened,
    Sign(String, Sign),
    Lost(Status),
}

impl Feed {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            state: State::Closed {
                retry_at: Instant::now(),
            },
            pause: FIRST_PAUSE,
        }
    }

    /// Waits for the next thing to tell. Cancel-safe.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            match &mut self.state {
                State::Closed { retry_at } => {
                    tokio::time::sleep_until(*retry_at).await;
                    self.state = State::Open {
                        stream: subscribe(self.channel.clone()),
                        since: Instant::now(),
                    };
                    return Heard::Opened;
                }
                State::Open { stream, since } => match stream.next().await {
                    Some(Ok(envelope)) => {
                        if let Some((id, sign)) = read(&envelope) {
                            return Heard::Sign(id, sign);
                        }
                    }
                    ended => {
                        if since.elapsed() >= GOOD_LIFE {
                            self.pause = FIRST_PAUSE;
                        }
                        let retry_at = Instant::now() + self.pause;
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                        self.state = State::Closed { retry_at };
                        let end = || Status::unavailable("the stream ended");
                        return Heard::Lost(
                            ended.map_or_else(end, |result| result.err().unwrap_or_else(end)),
                        );
                    }
                },
            }
        }
    }
}

/// The call and its stream as one, because the call is answered only with the
/// first event.
fn subscribe(channel: Channel) -> BoxStream<'static, Result<Envelope, Status>> {
    let filters = [TASK_START, TASK_EXIT, TASK_DELETE, CONTAINER_DELETE]
        .map(|topic| format!("namespace==\"{NAMESPACE}\",topic==\"{topic}\""));
    let request = SubscribeRequest {
        filters: filters.into(),
    };
    let call = async move {
        let mut client = EventsClient::new(channel);
        client.subscribe(request).await.map(Response::into_inner)
    };
    stream::once(call).try_flatten().boxed()
}

/// The sign in an event; `None` for processes that are not a container's main
/// one, and for what cannot be read.
fn read(envelope: &Envelope) -> Option<(String, Sign)> {
    let event = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        TASK_START => {
            let event = TaskStart::decode(event).ok()?;
            Some((event.container_id, Sign::Started))
        }
        TASK_EXIT => {
            let event = TaskExit::decode(event).ok()?;
            is_main(&event.id, &event.container_id).then_some((event.container_id, Sign::Ended))
        }
        TASK_DELETE => {
            let event = TaskDelete::decode(event).ok()?;
            is_main(&event.id, &event.container_id).then_some((event.container_id, Sign::Reaped))
        }
        CONTAINER_DELETE => {
            let event = ContainerDelete::decode(event).ok()?;
            Some((event.id, Sign::Removed))
        }
        _ => None,
    }
}

/// A container's own process carries the container's ID or none; those that
/// were executed in it carry one of their own.
fn is_main(process: &str, container: &str) -> bool {
    process.is_empty() || process == container
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str, event: &impl Message) -> Envelope {
        Envelope {
            topic: topic.to_owned(),
            namespace: NAMESPACE.to_owned(),
            event: Some(prost_types::Any {
                type_url: String::new(),
                value: event.encode_to_vec(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn events_of_main_processes_are_signs() {
        let exit = |id: &str| TaskExit {
            container_id: "c1".into(),
            id: id.into(),
            ..Default::default()
        };
        let delete = |id: &str| TaskDelete {
            container_id: "c1".into(),
            id: id.into(),
            ..Default::default()
        };
        let start = TaskStart {
            container_id: "c1".into(),
            pid: 7,
        };
        let removed = ContainerDelete { id: "c1".into() };
        let cases = [
            (envelope(TASK_START, &start), Some(Sign::Started)),
            (envelope(TASK_EXIT, &exit("c1")), Some(Sign::Ended)),
            (envelope(TASK_EXIT, &exit("exec-7")), None),
            (envelope(TASK_DELETE, &delete("")), Some(Sign::Reaped)),
            (envelope(TASK_DELETE, &delete("exec-7")), None),
            (envelope(CONTAINER_DELETE, &removed), Some(Sign::Removed)),
            (envelope("/images/create", &removed), None),
            (Envelope::default(), None),
        ];
        for (envelope, expected) in cases {
            let sign = expected.map(|sign| ("c1".to_owned(), sign));
            assert_eq!(read(&envelope), sign, "{}", envelope.topic);
        }
    }
}
