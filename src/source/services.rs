//! Services of a node without an API server: those of the manifest folder, and
//! the folder's pods behind them.
//!
//! In: what the manifests say, the pods that are wanted, their statuses. Out: the
//! same calls as a watch of the API server makes, for the environments of
//! containers and for a service proxy. What Services and their endpoints look
//! like is decided by [`proxy::standalone`](crate::proxy::standalone).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodStatus, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::manifest::ManifestSnapshot;
use super::task::changed;
use crate::apiserver::{ObjectSink, Proxied, ServiceEnv, ServiceFeed, Sinks};
use crate::pod::{DesiredPod, DesiredPods, Intent, PodUid};
use crate::proxy::model::ServiceName;
use crate::proxy::standalone::{Addresses, Backend, Granted, Ranges, slices};

#[cfg(test)]
mod tests;

/// The newest status of each pod.
type Statuses = Arc<BTreeMap<PodUid, Arc<PodStatus>>>;

/// What [`ManifestServices`] listens to.
#[derive(Debug)]
pub struct ServiceInputs {
    pub manifests: watch::Receiver<ManifestSnapshot>,
    pub desired: watch::Receiver<DesiredPods>,
    pub statuses: watch::Receiver<Statuses>,
    pub node_name: String,
}

/// Tells sinks of the manifests' Services and of their endpoints.
pub struct ManifestServices {
    inputs: ServiceInputs,
    addresses: Addresses,
    /// What `granted` was made of.
    written: Arc<BTreeMap<ServiceName, Arc<Service>>>,
    granted: Option<Granted>,
    services: Teller<Service, Sinks<Service>>,
    slices: Option<Teller<EndpointSlice, Box<dyn ObjectSink<EndpointSlice>>>>,
}

impl ManifestServices {
    /// Services of these manifests. Nothing is told before [`run`](Self::run).
    #[must_use]
    pub fn new(inputs: ServiceInputs, ranges: Ranges) -> (Self, ServiceFeed) {
        let (environments, feed) = ServiceEnv::new();
        let task = Self {
            inputs,
            addresses: Addresses::new(ranges),
            written: Arc::default(),
            granted: None,
            services: Teller::new(vec![Box::new(environments)]),
            slices: None,
        };
        (task, feed)
    }

    /// Tells a service proxy, too.
    #[must_use]
    pub fn with_proxy(
        mut self,
        services: Box<dyn ObjectSink<Service>>,
        slices: Box<dyn ObjectSink<EndpointSlice>>,
    ) -> Self {
        self.services.sink.push(Box::new(Proxied::new(services)));
        self.slices = Some(Teller::new(slices));
        self
    }

    /// Tells of changes until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.tell();
            let ServiceInputs {
                manifests,
                desired,
                statuses,
                ..
            } = &mut self.inputs;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed(Some(manifests)) => {}
                () = changed(Some(desired)) => {}
                () = changed(Some(statuses)) => {}
            }
        }
    }

    fn tell(&mut self) {
        let manifests = self.inputs.manifests.borrow_and_update().clone();
        let desired = self.inputs.desired.borrow_and_update().clone();
        let statuses = self.inputs.statuses.borrow_and_update().clone();
        if !manifests.synced {
            return;
        }
        let granted = match self.granted.take() {
            Some(granted) if Arc::ptr_eq(&self.written, &manifests.services) => granted,
            before => {
                let granted = self.addresses.grant(&manifests.services);
                report(before.as_ref(), &granted);
                let services = granted.services.iter();
                self.services.tell(services.map(keyed).collect());
                self.written = manifests.services;
                granted
            }
        };
        if let Some(teller) = &mut self.slices {
            teller.tell(all_slices(
                &granted,
                &desired,
                &statuses,
                &self.inputs.node_name,
            ));
        }
        self.granted = Some(granted);
    }
}

fn keyed((name, service): (&ServiceName, &Service)) -> (Key, Service) {
    let key = (name.namespace.to_string(), name.name.to_string());
    (key, service.clone())
}

fn all_slices(
    granted: &Granted,
    desired: &DesiredPods,
    statuses: &Statuses,
    node_name: &str,
) -> BTreeMap<Key, EndpointSlice> {
    let backends: Vec<Backend<'_>> = desired
        .pods
        .iter()
        .filter_map(|(uid, pod)| backend(pod, statuses.get(uid)?, node_name))
        .collect();
    let services = granted.services.iter();
    let slices = services.flat_map(|(service, object)| {
        let namespace = service.namespace.to_string();
        slices(service, object, &backends)
            .into_iter()
            .map(move |(name, slice)| ((namespace.clone(), name), slice))
    });
    slices.collect()
}

/// What Services need to know of a pod. `None` if none can select it.
fn backend<'a>(pod: &'a DesiredPod, status: &PodStatus, node_name: &'a str) -> Option<Backend<'a>> {
    let addresses = status.pod_ips.iter().flatten();
    let addresses: Vec<IpAddr> = addresses.filter_map(|ip| ip.ip.parse().ok()).collect();
    let mut conditions = status.conditions.iter().flatten();
    Some(Backend {
        namespace: &pod.name.namespace,
        name: &pod.name.name,
        uid: pod.uid.as_str(),
        node_name,
        labels: pod.pod.metadata.labels.as_ref()?,
        spec: pod.pod.spec.as_ref()?,
        addresses,
        ready: conditions.any(|one| one.type_ == "Ready" && one.status == "True"),
        terminating: matches!(pod.intent, Intent::Terminate(_)),
        ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
    })
}

/// Logs what is new.
fn report(before: Option<&Granted>, now: &Granted) {
    for conflict in &now.conflicts {
        if before.is_none_or(|before| !before.conflicts.contains(conflict)) {
            tracing::warn!(service = %conflict.service, reason = conflict.reason,
                "a service of the manifests is not served");
        }
    }
    for (name, service) in &now.services {
        if before.is_none_or(|before| before.services.get(name) != Some(service)) {
            let spec = service.spec.as_ref();
            let cluster_ip = spec.and_then(|spec| spec.cluster_ip.as_deref());
            let ports = spec.and_then(|spec| spec.ports.as_deref());
            let node_ports: Vec<i32> = ports
                .unwrap_or_default()
                .iter()
                .filter_map(|port| port.node_port)
                .collect();
            tracing::info!(service = %name, cluster_ip, ?node_ports, "service of the manifests");
        }
    }
}

/// Namespace and name.
type Key = (String, String);

/// Turns whole states into the calls that lead from one to the next.
struct Teller<K, S> {
    sink: S,
    /// `None` before the first list.
    told: Option<BTreeMap<Key, K>>,
}

impl<K: PartialEq, S: ObjectSink<K>> Teller<K, S> {
    fn new(sink: S) -> Self {
        Self { sink, told: None }
    }

    fn tell(&mut self, now: BTreeMap<Key, K>) {
        match &self.told {
            None => {
                self.sink.begin_list();
                now.values().for_each(|object| self.sink.apply(object));
                self.sink.end_list();
            }
            Some(told) => {
                for (key, object) in &now {
                    if told.get(key) != Some(object) {
                        self.sink.apply(object);
                    }
                }
                for (namespace, name) in told.keys().filter(|key| !now.contains_key(key)) {
                    self.sink.delete(namespace, name);
                }
            }
        }
        self.told = Some(now);
    }
}
