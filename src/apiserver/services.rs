//! Services and EndpointSlices of all namespaces, for whoever needs something
//! of them: one watch of each kind, however many they are.
//!
//! In: the watches. Out: calls of [`ObjectSink`]s, one for each object. One of
//! them is always there and keeps what containers' environments tell; the others
//! are the service proxy's. Nobody else keeps anything.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::ApiServer;
use super::feed::{Topic, follow};
use super::lean::Lean;
use super::sink::{ObjectSink, Sinks, deliver, name_of};
use crate::pod::env::Services;

/// Services that carry it are another proxy's.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// What a headless Service's endpoints are marked with: no proxy needs them.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// What lets a node read EndpointSlices; `system:node` does not.
const SLICE_READER: &str = "list and watch endpointslices in discovery.k8s.io, as the cluster role \
     system:node-proxier has it; bind that role to the group system:nodes";

/// All Services with a cluster IP, as environments tell of them; `None` until
/// they were listed once. The map is changed in place: hold a borrow briefly.
pub type ServiceFeed = watch::Receiver<Option<Services>>;

/// Keeps a [`ServiceFeed`] up to date, and hands Services on to other sinks.
pub struct ServiceReflector {
    api: Api<Lean<Service>>,
    sinks: Sinks<Service>,
}

/// Hands EndpointSlices on.
pub struct SliceReflector {
    api: Api<Lean<EndpointSlice>>,
    sink: Box<dyn ObjectSink<EndpointSlice>>,
}

impl ApiServer {
    /// Services of all namespaces. Nothing happens until the reflector runs.
    #[must_use]
    pub fn reflect_services(&self) -> (ServiceReflector, ServiceFeed) {
        let (sink, feed) = ServiceEnv::new();
        let reflector = ServiceReflector {
            api: Api::all(self.client.clone()),
            sinks: vec![Box::new(sink)],
        };
        (reflector, feed)
    }

    /// EndpointSlices of all namespaces but headless Services', for a service
    /// proxy. Nothing happens until the reflector runs.
    #[must_use]
    pub fn reflect_slices(&self, sink: Box<dyn ObjectSink<EndpointSlice>>) -> SliceReflector {
        SliceReflector {
            api: Api::all(self.client.clone()),
            sink,
        }
    }
}

// === impl ServiceReflector ===

impl ServiceReflector {
    /// Hands the Services that are for this node's proxy on to it, too.
    #[must_use]
    pub fn with_proxy(mut self, sink: Box<dyn ObjectSink<Service>>) -> Self {
        self.sinks.push(Box::new(Proxied::new(sink)));
        self
    }

    /// Follows Services until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut sinks = self.sinks;
        let selection = watcher::Config::default().fields("spec.clusterIP!=None");
        let fold = |event| deliver(whole(event), &mut sinks);
        follow(
            Topic::loud("services"),
            self.api,
            selection,
            &shutdown,
            fold,
        )
        .await;
    }
}

// === impl SliceReflector ===

impl SliceReflector {
    /// Follows EndpointSlices until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut sink = self.sink;
        let selection = watcher::Config::default().labels(&format!("!{HEADLESS}"));
        let topic = Topic::loud("endpointslices").needing(SLICE_READER);
        let fold = |event| deliver(whole(event), &mut sink);
        follow(topic, self.api, selection, &shutdown, fold).await;
    }
}

fn whole<K>(event: Event<Lean<K>>) -> Event<K> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(Lean(object)) => Event::InitApply(object),
        Event::InitDone => Event::InitDone,
        Event::Apply(Lean(object)) => Event::Apply(object),
        Event::Delete(Lean(object)) => Event::Delete(object),
    }
}

// === sinks ===

/// Keeps of Services what containers' environments tell.
pub struct ServiceEnv {
    out: watch::Sender<Option<Services>>,
    /// Gathers a list until it is complete.
    listing: Option<Services>,
}

impl ServiceEnv {
    #[must_use]
    pub fn new() -> (Self, ServiceFeed) {
        let (out, feed) = watch::channel(None);
        let listing = None;
        (Self { out, listing }, feed)
    }

    /// Changes what is being listed, or else what is known.
    fn change(&mut self, change: impl FnOnce(&mut Services) -> bool) {
        match &mut self.listing {
            Some(listed) => {
                change(listed);
            }
            None => {
                self.out
                    .send_if_modified(|known| known.as_mut().is_some_and(change));
            }
        }
    }
}

impl ObjectSink<Service> for ServiceEnv {
    fn apply(&mut self, service: &Service) {
        self.change(|services| services.insert(service));
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        self.change(|services| services.remove(namespace, name));
    }

    fn begin_list(&mut self) {
        self.listing = Some(Services::default());
    }

    fn end_list(&mut self) {
        if let Some(listed) = self.listing.take() {
            self.out.send_replace(Some(listed));
        }
    }
}

/// Leaves Services of other proxies out. The API server could do that, but
/// environments tell of those as well.
pub struct Proxied<S>(S);

impl<S: ObjectSink<Service>> Proxied<S> {
    #[must_use]
    pub fn new(sink: S) -> Self {
        Self(sink)
    }
}

impl<S: ObjectSink<Service>> ObjectSink<Service> for Proxied<S> {
    fn apply(&mut self, service: &Service) {
        let metadata = &service.metadata;
        let labels = metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.contains_key(OTHER_PROXY)) {
            let (namespace, name) = name_of(metadata);
            self.0.delete(namespace, name);
        } else {
            self.0.apply(service);
        }
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        self.0.delete(namespace, name);
    }

    fn begin_list(&mut self) {
        self.0.begin_list();
    }

    fn end_list(&mut self) {
        self.0.end_list();
    }
}
