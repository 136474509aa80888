//! A CRI server of the tests', on a socket of its own, for what a real runtime
//! does not do on demand.

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::cri::image_service_server::{ImageService, ImageServiceServer};
use super::cri::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use super::{Metrics, client};

/// Serves until dropped.
pub(super) struct Stub {
    dir: TempDir,
    server: JoinHandle<()>,
}

impl Stub {
    pub(super) fn serve(runtime: impl RuntimeService, images: impl ImageService) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(dir.path().join("cri.sock")).expect("socket");
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(runtime))
            .add_service(ImageServiceServer::new(images))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.expect("server") });
        Self { dir, server }
    }

    pub(super) fn client(&self, request_timeout: std::time::Duration) -> client::CriClient {
        let channel = client::channel(&self.dir.path().join("cri.sock"));
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        client::CriClient::new(channel.clone(), channel, request_timeout, metrics)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A service that knows no call.
#[derive(Default)]
pub(super) struct Nothing;

#[tonic::async_trait]
impl RuntimeService for Nothing {}

#[tonic::async_trait]
impl ImageService for Nothing {}
