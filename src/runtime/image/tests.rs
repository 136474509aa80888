use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status};

use super::super::cri::image_service_server::ImageService;
use super::super::settings::PullRate;
use super::super::stub::{Nothing, Stub};
use super::*;
use crate::pod::PodName;
use crate::pod::spec::{PullCredential, RegistryAuth};

const LIMIT: Duration = Duration::from_secs(10);

/// A registry whose pulls end when the test lets them.
#[derive(Clone)]
struct Registry {
    begun: watch::Sender<usize>,
    /// Pulls that are no longer served, done or given up.
    over: watch::Sender<usize>,
    most_at_once: Arc<AtomicUsize>,
    let_go: Arc<Semaphore>,
}

impl Registry {
    fn new() -> Self {
        Self {
            begun: watch::Sender::new(0),
            over: watch::Sender::new(0),
            most_at_once: Arc::default(),
            let_go: Arc::new(Semaphore::new(0)),
        }
    }

    async fn wait(counter: &watch::Sender<usize>, count: usize) {
        let mut counter = counter.subscribe();
        tokio::time::timeout(LIMIT, counter.wait_for(|seen| *seen >= count))
            .await
            .expect("in time")
            .expect("the registry lives");
    }
}

/// Counts a pull as over, however it ends.
struct Over(watch::Sender<usize>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.send_modify(|over| *over += 1);
    }
}

#[tonic::async_trait]
impl ImageService for Registry {
    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        let image = request.into_inner().image.unwrap_or_default().image;
        let image = image.starts_with("sha256:").then(|| cri::Image {
            id: image,
            size: 7,
            ..Default::default()
        });
        Ok(Response::new(cri::ImageStatusResponse { image }))
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        let _over = Over(self.over.clone());
        self.begun.send_modify(|begun| *begun += 1);
        let at_once = *self.begun.borrow() - *self.over.borrow();
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let request = request.into_inner();
        if request.auth.is_some_and(|auth| auth.username == "wrong") {
            return Err(Status::unknown("denied"));
        }
        self.let_go.acquire().await.expect("open").forget();
        let image = request.image.unwrap_or_default().image;
        Ok(Response::new(cri::PullImageResponse {
            image_ref: format!("sha256:{image}"),
        }))
    }
}

fn puller(stub: &Stub, max: Option<usize>, rate: Option<PullRate>) -> Arc<Puller> {
    let client = stub.client(LIMIT);
    Arc::new(Puller::new(client, max.and_then(NonZeroUsize::new), rate))
}

fn pod() -> PodName {
    PodName {
        namespace: "ns".into(),
        name: "pod".into(),
    }
}

fn order(image: &str, users: &[&str]) -> Order {
    Order {
        spec: cri::ImageSpec {
            image: image.to_owned(),
            ..Default::default()
        },
        credentials: users
            .iter()
            .map(|user| PullCredential {
                auth: RegistryAuth {
                    username: (*user).to_owned(),
                    ..Default::default()
                },
                secret: None,
            })
            .collect(),
    }
}

fn spawn(
    puller: &Arc<Puller>,
    order: Order,
) -> tokio::task::JoinHandle<Result<pull::Pulled, ImageError>> {
    let puller = Arc::clone(puller);
    tokio::spawn(async move { puller.pull(&pod(), order).await })
}

#[tokio::test]
async fn equal_pulls_are_one_and_outlive_a_waiter_that_leaves() {
    let registry = Registry::new();
    let stub = Stub::serve(Nothing, registry.clone());
    let puller = puller(&stub, None, None);
    let leaver = spawn(&puller, order("a:1", &[]));
    Registry::wait(&registry.begun, 1).await;
    let stayer = spawn(&puller, order("a:1", &[]));
    tokio::task::yield_now().await;
    leaver.abort();
    assert!(leaver.await.expect_err("aborted").is_cancelled());
    registry.let_go.add_permits(1);
    let pulled = stayer.await.expect("waits").expect("pulled");
    assert_eq!((pulled.image.id.0.as_str(), pulled.size), ("sha256:a:1", 7));
    assert_eq!(*registry.begun.borrow(), 1);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_is_given_up() {
    let registry = Registry::new();
    let stub = Stub::serve(Nothing, registry.clone());
    let puller = puller(&stub, None, None);
    let leaver = spawn(&puller, order("a:1", &[]));
    Registry::wait(&registry.begun, 1).await;
    leaver.abort();
    Registry::wait(&registry.over, 1).await;
    // The next one begins anew.
    let next = spawn(&puller, order("a:1", &[]));
    Registry::wait(&registry.begun, 2).await;
    registry.let_go.add_permits(1);
    next.await.expect("waits").expect("pulled");
}

#[tokio::test]
async fn pulls_wait_for_their_turn() {
    let registry = Registry::new();
    let stub = Stub::serve(Nothing, registry.clone());
    let puller = puller(&stub, Some(2), None);
    let pulls: Vec<_> = ["a:1", "b:1", "c:1", "d:1"]
        .map(|image| spawn(&puller, order(image, &[])))
        .into();
    Registry::wait(&registry.begun, 2).await;
    registry.let_go.add_permits(pulls.len());
    for pull in pulls {
        pull.await.expect("waits").expect("pulled");
    }
    assert_eq!(registry.most_at_once.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn credentials_are_tried_until_one_works() {
    let registry = Registry::new();
    let stub = Stub::serve(Nothing, registry.clone());
    let puller = puller(&stub, None, None);
    registry.let_go.add_permits(1);
    let pulled = puller.pull(&pod(), order("a:1", &["wrong", "right"])).await;
    assert!(pulled.is_ok(), "{pulled:?}");
    let refused = puller
        .pull(&pod(), order("a:1", &["wrong"]))
        .await
        .expect_err("refused");
    assert_eq!(refused.reason, WaitingReason::ErrImagePull);
    assert_eq!(refused.message, "denied");
}

#[tokio::test]
async fn too_many_pulls_a_second_are_refused() {
    let registry = Registry::new();
    let stub = Stub::serve(Nothing, registry.clone());
    let rate = PullRate {
        per_second: NonZeroU32::MIN,
        burst: NonZeroU32::MIN,
    };
    let puller = puller(&stub, None, Some(rate));
    registry.let_go.add_permits(2);
    puller
        .pull(&pod(), order("a:1", &[]))
        .await
        .expect("the first");
    let refused = puller
        .pull(&pod(), order("b:1", &[]))
        .await
        .expect_err("the second");
    assert_eq!(refused.message, "pull QPS exceeded");
}
