//! Which images are on this node, for its status.
//!
//! Listed at the start, after each pull of ours, and now and then, because
//! others pull and remove images too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::client::CriClient;
use super::{LocalImage, cri};
use crate::error::chain;

/// How long somebody else's change may go unseen.
const PERIOD: Duration = Duration::from_secs(60);
/// Pause after a listing that failed.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct InventoryTask {
    pub(super) client: CriClient,
    /// Told after each pull.
    pub(super) pulled: Arc<Notify>,
    pub(super) out: watch::Sender<Arc<Vec<LocalImage>>>,
}

impl InventoryTask {
    /// Keeps the inventory until shutdown.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep()).await;
    }

    async fn keep(self) {
        loop {
            let pause = match self.client.list_images().await {
                Ok(images) => {
                    self.publish(images);
                    PERIOD
                }
                Err(error) => {
                    debug!(error = %chain(&error), "cannot list images");
                    RETRY
                }
            };
            // Either ends the wait; a timeout is the usual case.
            let _ = tokio::time::timeout(pause, self.pulled.notified()).await;
        }
    }

    fn publish(&self, images: Vec<cri::Image>) {
        let mut images: Vec<LocalImage> = images.into_iter().map(local).collect();
        images
            .sort_by(|a, b| (&a.repo_digests, &a.repo_tags).cmp(&(&b.repo_digests, &b.repo_tags)));
        self.out.send_if_modified(|current| {
            let changed = **current != images;
            if changed {
                *current = Arc::new(images);
            }
            changed
        });
    }
}

fn local(image: cri::Image) -> LocalImage {
    LocalImage {
        repo_digests: image.repo_digests,
        repo_tags: image.repo_tags,
        size_bytes: i64::try_from(image.size).unwrap_or(i64::MAX),
    }
}
