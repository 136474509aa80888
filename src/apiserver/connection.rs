//! The connection to the API server, made anew when the credentials change.
//!
//! In: a kubeconfig and the files that it names, or the service account of a pod.
//! Out: one [`Client`] for all, which sends each request over the newest connection.
//! When there is a newer one, calls under way end on theirs, and watches are ended, so
//! that nobody goes on for hours as whom they were: who watches goes on where it was,
//! over the new one. Before there are credentials, calls wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use http::{Request, Response, Uri};
use http_body_util::{BodyStream, StreamBody};
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::BoxError;
use tracing::{info, warn};

use super::client::Credentials;
use super::kubeconfig::{self, Fingerprint, KubeconfigError};
use crate::error::chain;

/// Time for TCP and TLS to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection silent for this long is dead: watches carry a bookmark about
/// once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// How often the files are looked at. Our own renewals do not wait for that.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Who can be told that credentials have changed.
#[async_trait]
pub trait Reconnect: Send + Sync {
    /// Uses them from now on, if they have changed.
    async fn reconnect(&self) -> Result<(), KubeconfigError>;
}

/// The connections, of which the newest is used.
pub struct Connection {
    credentials: Credentials,
    newest: watch::Sender<Option<Established>>,
    /// Of what the newest was made; held while one is made.
    made_of: Mutex<Option<Fingerprint>>,
}

struct Established {
    client: Client,
    /// Cancelled when there is a newer one.
    replaced: CancellationToken,
    _guard: DropGuard,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Nothing is read yet.
    pub(super) fn new(credentials: Credentials) -> Arc<Self> {
        Arc::new(Self {
            credentials,
            newest: watch::channel(None).0,
            made_of: Mutex::default(),
        })
    }

    /// A client over whatever connection is the newest. To be called inside a tokio
    /// runtime.
    pub(super) fn client(&self) -> Client {
        let newest = self.newest.subscribe();
        let service = tower::service_fn(move |request| send(newest.clone(), request));
        Client::new(service, "default")
    }

    /// Looks at the files until shutdown, and uses what they hold when they change.
    /// Files that became unusable are told of once; the connection stays as it was.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut told = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let problem = match self.reconnect().await {
                Ok(()) => None,
                Err(error) => Some(chain(&error).to_string()),
            };
            // Before the first connection it is for whoever provides for that to tell.
            if problem != told && self.newest.borrow().is_some() {
                if let Some(error) = &problem {
                    warn!(
                        error,
                        "cannot use changed credentials, going on with the old ones"
                    );
                }
                told = problem;
            }
        }
    }

    async fn read(&self) -> Result<(kube::Config, PathBuf, Fingerprint), KubeconfigError> {
        let (file, store) = match &self.credentials {
            Credentials::Kubeconfig(file) => (file, None),
            Credentials::Node {
                kubeconfig,
                certificate,
            } => (kubeconfig, Some(certificate)),
            Credentials::ServiceAccount => {
                let config = kube::Config::incluster().map_err(|source| {
                    KubeconfigError::ServiceAccount {
                        source: Box::new(source),
                    }
                })?;
                // The client reads the token again by itself.
                let file = PathBuf::from("(service account)");
                return Ok((config, file, Fingerprint::default()));
            }
        };
        let mut checked = kubeconfig::read(file)?;
        if let Some(store) = store {
            checked.prefer(store, Timestamp::now());
        }
        let fingerprint = checked.fingerprint();
        Ok((checked.config().await?, file.clone(), fingerprint))
    }
}

#[async_trait]
impl Reconnect for Connection {
    async fn reconnect(&self) -> Result<(), KubeconfigError> {
        let mut made_of = self.made_of.lock().await;
        let (mut config, file, fingerprint) = self.read().await?;
        if *made_of == Some(fingerprint) {
            return Ok(());
        }
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        // Otherwise the time that a pooled connection sat idle counts as silence.
        config.reset_reader_on_write = true;
        // The library would retry inside a call, with a body that is stale by then.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|source| KubeconfigError::Client {
            file,
            source: Box::new(source),
        })?;
        let replaced = CancellationToken::new();
        let established = Established {
            client,
            replaced: replaced.clone(),
            _guard: replaced.drop_guard(),
        };
        // What was there before is dropped here, which ends its watches.
        let before = self.newest.send_replace(Some(established));
        if before.is_some() {
            info!("using changed credentials for the API server");
        }
        *made_of = Some(fingerprint);
        Ok(())
    }
}

type Frames = StreamBody<std::pin::Pin<Box<dyn Stream<Item = Result<Frame, kube::Error>> + Send>>>;
type Frame = hyper::body::Frame<hyper::body::Bytes>;

async fn send(
    mut newest: watch::Receiver<Option<Established>>,
    request: Request<Body>,
) -> Result<Response<Frames>, BoxError> {
    let (client, replaced) = {
        let shown = newest.wait_for(Option::is_some).await?;
        let Some(newest) = &*shown else {
            return Err("no connection".into());
        };
        (newest.client.clone(), newest.replaced.clone())
    };
    let is_watch = is_watch(request.uri());
    let (head, body) = client.send(request).await?.into_parts();
    let frames = BodyStream::new(body);
    let frames = if is_watch {
        frames.take_until(replaced.cancelled_owned()).boxed()
    } else {
        frames.boxed()
    };
    Ok(Response::from_parts(head, StreamBody::new(frames)))
}

fn is_watch(uri: &Uri) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair == "watch=true")
}
