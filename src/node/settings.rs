//! What the configuration says about the node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

/// Everything the node module wants to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// `metadata.name`; also the hostname label and address.
    pub name: String,
    /// `--node-ip`.
    pub ips: NodeIps,
    /// `--node-labels`, checked.
    pub labels: BTreeMap<String, String>,
    /// `registerWithTaints`.
    pub taints: Vec<Taint>,
    /// `providerID`.
    pub provider_id: Option<String>,
    /// `registerNode`.
    pub register: bool,
    /// `--cloud-provider=external`.
    pub external_cloud_provider: bool,
    /// `maxPods`.
    pub max_pods: u32,
    /// `podsPerCore`; `None`: only `max_pods` counts.
    pub pods_per_core: Option<u32>,
    /// `nodeStatusUpdateFrequency`: how often a status is computed.
    pub status_update_frequency: Duration,
    /// `nodeStatusReportFrequency`: how often an unchanged one is sent.
    pub status_report_frequency: Duration,
    /// `nodeLeaseDurationSeconds`.
    pub lease_duration: Duration,
    /// `nodeStatusMaxImages`; `None`: all.
    pub max_images: Option<usize>,
    /// `enableControllerAttachDetach`.
    pub controller_attach_detach: bool,
    /// `localStorageCapacityIsolation`: whether `ephemeral-storage` is told.
    pub local_storage_isolation: bool,
    /// `port`.
    pub port: u16,
    /// The Kubernetes version that we stand in for, e.g. `v1.36.3`.
    pub kubelet_version: String,
    /// `systemReserved` + `kubeReserved`.
    pub reserved: Reserved,
    /// `evictionHard`.
    pub eviction: HardEviction,
    /// `evictionPressureTransitionPeriod`: how long a pressure condition stays
    /// after it was last seen.
    pub pressure_transition_period: Duration,
}

/// What `--node-ip` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeIps {
    /// Not given.
    Auto,
    /// `0.0.0.0` or `::`: an address of this family, if there is one.
    PreferV4,
    PreferV6,
    One(IpAddr),
    /// The first decides the primary family.
    Pair(IpAddr, IpAddr),
}

/// Resources that pods do not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved {
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    pub pids: i64,
}

/// Hard eviction thresholds that concern the node's status. `None`: not set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HardEviction {
    pub memory_available: Option<Threshold>,
    pub nodefs_available: Option<Threshold>,
    pub nodefs_inodes_free: Option<Threshold>,
    pub pid_available: Option<Threshold>,
    /// Whether memory and disk thresholds lower allocatable.
    pub in_allocatable: bool,
}

impl Default for HardEviction {
    /// Upstream's defaults.
    fn default() -> Self {
        Self {
            memory_available: Some(Threshold::Amount(100 << 20)),
            nodefs_available: Some(Threshold::Percent(10.0)),
            nodefs_inodes_free: Some(Threshold::Percent(5.0)),
            pid_available: None,
            in_allocatable: true,
        }
    }
}

/// A threshold, absolute or as a share of the capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Bytes, inodes or processes.
    Amount(i64),
    /// 0 to 100.
    Percent(f32),
}

impl Threshold {
    /// The threshold in units of the capacity. Percentages are taken in single
    /// precision, because upstream does and allocatable shows every byte.
    #[must_use]
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => (capacity as f64 * f64::from(percent / 100.0)) as i64,
        }
    }
}

#[cfg(test)]
impl NodeSettings {
    /// Upstream's defaults, for a node called `node-1`.
    pub(super) fn for_test() -> Self {
        Self {
            name: "node-1".to_owned(),
            ips: NodeIps::Auto,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: None,
            register: true,
            external_cloud_provider: false,
            max_pods: 110,
            pods_per_core: None,
            status_update_frequency: Duration::from_secs(10),
            status_report_frequency: Duration::from_secs(300),
            lease_duration: Duration::from_secs(40),
            max_images: Some(50),
            controller_attach_detach: true,
            local_storage_isolation: true,
            port: 10250,
            kubelet_version: "v1.36.3".to_owned(),
            reserved: Reserved::default(),
            eviction: HardEviction::default(),
            pressure_transition_period: Duration::from_secs(300),
        }
    }
}
