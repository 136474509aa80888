//! The rules as text, and what a kernel does with it.

mod flows;
mod goldens;
mod properties;
mod updates;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::proxy::model::PortName;
use crate::proxy::trace::Kernel;

/// One port of a Service, TCP port 80, as a test describes it.
#[derive(Debug, Clone)]
struct Service {
    port: ServicePort,
    selected: Selected,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn endpoints(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn name(service: &str) -> Arc<ServiceName> {
    Arc::new(ServiceName::new("ns", service))
}

fn service(called: &str, cluster_ip: &str) -> Service {
    let port = ServicePort {
        name: PortName {
            service: name(called),
            port: "p80".into(),
            protocol: Protocol::Tcp,
        },
        cluster_ip: Some(ip(cluster_ip)),
        port: 80,
        node_port: None,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        affinity: None,
        internal_local: false,
        external_local: false,
    };
    Service {
        port,
        selected: Selected::default(),
    }
}

impl Service {
    fn with(mut self, change: impl FnOnce(&mut ServicePort)) -> Self {
        change(&mut self.port);
        self
    }

    fn node_port(self, number: u16) -> Self {
        self.with(|port| port.node_port = NonZeroU16::new(number))
    }

    fn external_ip(self, address: &str) -> Self {
        self.with(|port| port.external_ips.push(ip(address)))
    }

    fn balancer(self, address: &str) -> Self {
        self.with(|port| port.load_balancer_ips.push(ip(address)))
    }

    fn from(self, range: &str) -> Self {
        self.with(|port| port.source_ranges.push(range.parse().unwrap()))
    }

    fn sticky(self) -> Self {
        self.with(|port| port.affinity = Some(Duration::from_hours(3)))
    }

    fn protocol(self, protocol: Protocol) -> Self {
        self.with(|port| port.name.protocol = protocol)
    }

    fn internal_local(self) -> Self {
        self.with(|port| port.internal_local = true)
    }

    fn external_local(self) -> Self {
        self.with(|port| port.external_local = true)
    }

    fn served_by(mut self, list: &[&str]) -> Self {
        self.selected.cluster = endpoints(list);
        self.selected.anywhere = true;
        self
    }

    fn locally_by(mut self, list: &[&str]) -> Self {
        self.selected.local = endpoints(list);
        self
    }

    fn ports(self) -> (Arc<ServiceName>, [(ServicePort, Selected); 1]) {
        let name = Arc::clone(&self.port.name.service);
        (name, [(self.port, self.selected)])
    }
}

fn rule_set(family: Family, settings: RuleSettings, services: Vec<Service>) -> RuleSet {
    let mut rules = RuleSet::new(family, settings);
    for service in services {
        let (name, ports) = service.ports();
        rules.set(&name, &ports);
    }
    rules
}

fn cluster_cidr(cidr: &str) -> RuleSettings {
    RuleSettings {
        local_detector: Some(LocalDetector::Cidr(cidr.parse().unwrap())),
        ..RuleSettings::default()
    }
}

/// A kernel that has all of this.
fn kernel_with(rules: &mut RuleSet) -> Kernel {
    let mut kernel = Kernel::default();
    bring_up_to_date(rules, &mut kernel);
    kernel
}

fn bring_up_to_date(rules: &mut RuleSet, kernel: &mut Kernel) {
    let script = match rules.partial() {
        Some(script) => script,
        None if rules.wants_full() => rules.full(&kernel.found()),
        None => return,
    };
    kernel
        .restore(&script.text)
        .unwrap_or_else(|problem| panic!("{problem}\n{}", script.text));
    rules.sent();
}
