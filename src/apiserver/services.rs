//! Services with a cluster IP, for the environment of containers.
//!
//! In: a watch of all namespaces. Out: a snapshot that keeps of each Service
//! only what an environment tells: name, addresses, ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::ApiServer;
use super::feed::{Topic, follow};
use crate::pod::PodName;

/// All Services with a cluster IP; `None` until they were listed once.
pub type ServiceFeed = watch::Receiver<Option<Arc<Vec<Service>>>>;

/// Keeps a [`ServiceFeed`] up to date.
#[derive(Debug)]
pub struct ServiceReflector {
    api: Api<Service>,
    out: watch::Sender<Option<Arc<Vec<Service>>>>,
}

impl ApiServer {
    /// Services of all namespaces. Nothing happens until the reflector runs.
    #[must_use]
    pub fn reflect_services(&self) -> (ServiceReflector, ServiceFeed) {
        let (out, feed) = watch::channel(None);
        let reflector = ServiceReflector {
            api: Api::all(self.client.clone()),
            out,
        };
        (reflector, feed)
    }
}

impl ServiceReflector {
    /// Follows Services until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut index = Index::default();
        let out = self.out;
        let fold = |event| {
            if index.fold(event) {
                out.send_replace(Some(Arc::new(index.services.values().cloned().collect())));
            }
        };
        follow(
            Topic::loud("services"),
            self.api,
            "spec.clusterIP!=None",
            &shutdown,
            fold,
        )
        .await;
    }
}

/// Services by name, so that their order never changes by itself.
#[derive(Debug, Default)]
struct Index {
    services: BTreeMap<PodName, Service>,
    listed: BTreeMap<PodName, Service>,
}

impl Index {
    /// Takes one event in. True if the snapshot is different now.
    fn fold(&mut self, event: Event<Service>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(service) => {
                self.listed.insert(name(&service), essence(service));
                false
            }
            Event::InitDone => {
                self.services = std::mem::take(&mut self.listed);
                true
            }
            Event::Apply(service) => {
                let name = name(&service);
                let service = essence(service);
                let old = self.services.insert(name, service.clone());
                old.as_ref() != Some(&service)
            }
            Event::Delete(service) => self.services.remove(&name(&service)).is_some(),
        }
    }
}

fn name(service: &Service) -> PodName {
    let part = |value: &Option<String>| value.clone().unwrap_or_default();
    PodName::new(
        part(&service.metadata.namespace),
        part(&service.metadata.name),
    )
}

fn essence(service: Service) -> Service {
    let spec = service.spec.unwrap_or_default();
    Service {
        metadata: ObjectMeta {
            name: service.metadata.name,
            namespace: service.metadata.namespace,
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: spec.cluster_ip,
            ports: spec.ports,
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"a": "b"}},
            "spec": {"clusterIP": ip, "selector": {"a": "b"}, "ports": [{"port": 80}]},
        }))
        .expect("a service")
    }

    #[test]
    fn only_changes_of_what_is_kept_are_changes() {
        let mut index = Index::default();
        assert!(!index.fold(Event::Init));
        assert!(!index.fold(Event::InitApply(service("a", "10.0.0.1"))));
        assert!(index.fold(Event::InitDone));
        let mut relabelled = service("a", "10.0.0.1");
        relabelled.metadata.labels = None;
        assert!(!index.fold(Event::Apply(relabelled)));
        assert!(index.fold(Event::Apply(service("a", "10.0.0.2"))));
        assert!(index.fold(Event::Delete(service("a", "10.0.0.2"))));
        assert!(!index.fold(Event::Delete(service("a", "10.0.0.2"))));
    }

    #[test]
    fn a_relist_replaces_everything_at_once() {
        let mut index = Index::default();
        index.fold(Event::Apply(service("old", "10.0.0.1")));
        index.fold(Event::Init);
        index.fold(Event::InitApply(service("new", "10.0.0.2")));
        assert_eq!(
            index.services.len(),
            1,
            "the old snapshot stays until the new one is whole"
        );
        index.fold(Event::InitDone);
        let names: Vec<_> = index.services.keys().map(|n| n.name.to_string()).collect();
        assert_eq!(names, ["new"]);
    }
}
