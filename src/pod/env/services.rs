//! Environment variables that tell containers where services are.
//!
//! Of every Service only what such variables say is kept ([`Services`]): a
//! cluster has tens of thousands of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The namespace and name of the one service that every container is told of.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// Services with a cluster IP, as containers are told of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    namespaces: BTreeMap<Box<str>, BTreeMap<Box<str>, Address>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    ip: Box<str>,
    ports: Box<[Port]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    /// Empty if it has none.
    name: Box<str>,
    number: i32,
    protocol: Cow<'static, str>,
}

// === impl Services ===

impl Services {
    /// Takes a Service in, in place of what was known by its name. One without
    /// a cluster IP is not kept. True if this changed anything.
    pub fn insert(&mut self, service: &Service) -> bool {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let Some(address) = Address::of(service) else {
            return self.remove(namespace, name);
        };
        let named = match self.namespaces.get_mut(namespace) {
            Some(named) => named,
            None => self.namespaces.entry(namespace.into()).or_default(),
        };
        match named.get_mut(name) {
            Some(known) if *known == address => false,
            Some(known) => {
                *known = address;
                true
            }
            None => {
                named.insert(name.into(), address);
                true
            }
        }
    }

    /// Forgets a Service. True if it was known.
    pub fn remove(&mut self, namespace: &str, name: &str) -> bool {
        let Some(named) = self.namespaces.get_mut(namespace) else {
            return false;
        };
        let is_change = named.remove(name).is_some();
        if named.is_empty() {
            self.namespaces.remove(namespace);
        }
        is_change
    }

    /// The variables for containers in `namespace`: those of the `kubernetes`
    /// service always, those of the namespace's own services if the pod has
    /// `enableServiceLinks`. Sorted.
    #[must_use]
    pub fn env(&self, namespace: &str, enable_service_links: bool) -> Vec<(String, String)> {
        let own = self
            .namespaces
            .get(namespace)
            .filter(|_| enable_service_links);
        let master = self
            .namespaces
            .get(MASTER.0)
            .and_then(|named| named.get(MASTER.1))
            // The namespace's own one of that name comes first.
            .filter(|_| own.is_none_or(|named| !named.contains_key(MASTER.1)));
        let mut env = BTreeMap::new();
        if let Some(address) = master {
            address.add_to(&mut env, MASTER.1);
        }
        for (name, address) in own.into_iter().flatten() {
            address.add_to(&mut env, name);
        }
        env.into_iter().collect()
    }
}

impl<'a> FromIterator<&'a Service> for Services {
    fn from_iter<I: IntoIterator<Item = &'a Service>>(services: I) -> Self {
        let mut all = Self::default();
        for service in services {
            all.insert(service);
        }
        all
    }
}

// === impl Address ===

impl Address {
    /// `None`: the Service has no cluster IP.
    fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let ip = match spec.cluster_ip.as_deref() {
            None | Some("" | "None") => return None,
            Some(ip) => ip,
        };
        Some(Self {
            ip: ip.into(),
            ports: spec.ports.iter().flatten().map(Port::of).collect(),
        })
    }

    fn add_to(&self, env: &mut BTreeMap<String, String>, service: &str) {
        let ip = &*self.ip;
        let prefix = variable_name(service);
        env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        for (index, port) in self.ports.iter().enumerate() {
            let number = port.number.to_string();
            let url = port.url(ip);
            if index == 0 {
                env.insert(format!("{prefix}_SERVICE_PORT"), number.clone());
                env.insert(format!("{prefix}_PORT"), url.clone());
            }
            if !port.name.is_empty() {
                let variable = format!("{prefix}_SERVICE_PORT_{}", variable_name(&port.name));
                env.insert(variable, number.clone());
            }
            let link = format!("{prefix}_PORT_{number}_{}", port.protocol.to_uppercase());
            env.insert(format!("{link}_PROTO"), port.protocol.to_lowercase());
            env.insert(format!("{link}_PORT"), number);
            env.insert(format!("{link}_ADDR"), ip.to_owned());
            env.insert(link, url);
        }
    }
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

// === impl Port ===

impl Port {
    fn of(port: &ServicePort) -> Self {
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Cow::Borrowed("TCP"),
            Some("UDP") => Cow::Borrowed("UDP"),
            Some(other) => Cow::Owned(other.to_owned()),
        };
        Self {
            name: port.name.as_deref().unwrap_or_default().into(),
            number: port.port,
            protocol,
        }
    }

    fn url(&self, ip: &str) -> String {
        let scheme = self.protocol.to_lowercase();
        if ip.contains(':') {
            format!("{scheme}://[{ip}]:{}", self.number)
        } else {
            format!("{scheme}://{ip}:{}", self.number)
        }
    }
}
