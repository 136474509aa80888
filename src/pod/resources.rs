//! What containers and pods ask for and may use, and what the kernel is told.
//!
//! In: the `resources` of a pod. Out: sums by the rules of the scheduler (init
//! containers count by their peak, sidecars add up, overhead on top, pod-level
//! values win), and the arithmetic from milli-CPUs to kernel units.
//!
//! Quantities that cannot be read count as absent here. The API server admits
//! none, and rendering refuses them by name ([`check`]).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::Serialize;

use super::quantity::{ParseQuantityError, Quantity};

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
const HUGEPAGES_PREFIX: &str = "hugepages-";

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
/// Microseconds; the kernel takes no smaller quota.
const MIN_QUOTA: i64 = 1000;
const MILLI: i64 = 1000;

type ApiList = BTreeMap<String, ApiQuantity>;

/// Amounts by resource name. A name that is absent was not mentioned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct ResourceList(BTreeMap<String, Quantity>);

/// Requests and limits of one container or one pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Resources {
    pub requests: ResourceList,
    pub limits: ResourceList,
}

/// Requests and limits of a whole pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PodResources {
    pub requests: ResourceList,
    pub limits: ResourceList,
    /// Whether the CPU limits bound the pod: the pod has one, or all its
    /// containers do.
    pub cpu_limited: bool,
    /// The same for memory.
    pub memory_limited: bool,
}

/// Whether `spec.overhead` is part of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overhead {
    Included,
    Excluded,
}

/// A quantity of a pod that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid quantity of {resource:?} in {place}")]
pub struct InvalidQuantity {
    /// Where it stands, e.g. `container "web"`.
    pub place: String,
    pub resource: String,
    pub source: ParseQuantityError,
}

impl ResourceList {
    /// Reads an API list, leaving out what cannot be read.
    #[must_use]
    pub fn read(list: Option<&ApiList>) -> Self {
        let readable = |(name, text): (&String, &ApiQuantity)| {
            Some((name.clone(), Quantity::try_from(text).ok()?))
        };
        Self(list.into_iter().flatten().filter_map(readable).collect())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    /// Cores; zero if absent.
    #[must_use]
    pub fn cpu(&self) -> Quantity {
        self.get(CPU).unwrap_or_default()
    }

    /// Bytes; zero if absent.
    #[must_use]
    pub fn memory(&self) -> Quantity {
        self.get(MEMORY).unwrap_or_default()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Limits of huge pages in bytes, by page size as CRI spells it (`2MB`).
    #[must_use]
    pub fn hugepages(&self) -> BTreeMap<String, u64> {
        self.iter()
            .filter_map(|(name, amount)| {
                let size = page_size_label(name.strip_prefix(HUGEPAGES_PREFIX)?)?;
                Some((size, u64::try_from(amount.value()).unwrap_or(0)))
            })
            .collect()
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.raise_by(name, amount);
        }
    }

    fn raise_by(&mut self, name: &str, amount: Quantity) {
        let sum = self.0.entry(name.to_owned()).or_default();
        *sum = *sum + amount;
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let most = self.0.entry(name.to_owned()).or_insert(amount);
            *most = (*most).max(amount);
        }
    }
}

impl Resources {
    /// Reads the `resources` of a container or pod.
    #[must_use]
    pub fn read(resources: Option<&ResourceRequirements>) -> Self {
        Self {
            requests: ResourceList::read(resources.and_then(|r| r.requests.as_ref())),
            limits: ResourceList::read(resources.and_then(|r| r.limits.as_ref())),
        }
    }

    /// The resources of one container.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        Self::read(container.resources.as_ref())
    }

    /// The pod-level resources, as far as pods may have them.
    #[must_use]
    pub fn at_pod_level(spec: &PodSpec) -> Self {
        let mut resources = Self::read(spec.resources.as_ref());
        for list in [&mut resources.requests, &mut resources.limits] {
            list.0.retain(|name, _| Self::may_be_pods(name));
        }
        resources
    }

    /// Whether a pod as a whole may have a resource of this name.
    #[must_use]
    pub fn may_be_pods(name: &str) -> bool {
        name == CPU || name == MEMORY || name.starts_with(HUGEPAGES_PREFIX)
    }

    /// Whether nothing is mentioned at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

/// The sum over a pod.
#[must_use]
pub fn requests_limits(pod: &Pod, overhead: Overhead) -> PodResources {
    let Some(spec) = &pod.spec else {
        return PodResources::default();
    };
    let requests = aggregate(spec, |resources| resources.requests);
    let limits = aggregate(spec, |resources| resources.limits);
    let at_pod_level = Resources::at_pod_level(spec);
    let bounds = |name: &str| {
        let by_pod = at_pod_level.limits.get(name).unwrap_or_default();
        let set = |list: &ResourceList| !list.get(name).unwrap_or_default().is_zero();
        !by_pod.is_zero() || limits.each.iter().all(set)
    };
    let mut sum = PodResources {
        cpu_limited: bounds(CPU),
        memory_limited: bounds(MEMORY),
        requests: requests.total,
        limits: limits.total,
    };
    sum.requests.0.extend(at_pod_level.requests.0);
    sum.limits.0.extend(at_pod_level.limits.0);
    if overhead == Overhead::Included {
        let overhead = ResourceList::read(spec.overhead.as_ref());
        sum.requests.add(&overhead);
        for (name, amount) in overhead.iter() {
            if sum.limits.get(name).is_some_and(|limit| !limit.is_zero()) {
                sum.limits.raise_by(name, amount);
            }
        }
    }
    sum
}

/// The sum of the containers' requests, without pod-level values and overhead.
#[must_use]
pub fn container_requests(spec: &PodSpec) -> ResourceList {
    aggregate(spec, |resources| resources.requests).total
}

/// A sum over containers, and what each of them needs while it runs.
struct Aggregate {
    total: ResourceList,
    each: Vec<ResourceList>,
}

fn aggregate(spec: &PodSpec, list: impl Fn(Resources) -> ResourceList) -> Aggregate {
    let mut total = ResourceList::default();
    let mut each = Vec::new();
    for container in &spec.containers {
        let own = list(Resources::of(container));
        total.add(&own);
        each.push(own);
    }
    let mut sidecars = ResourceList::default();
    let mut init_peak = ResourceList::default();
    for container in spec.init_containers.iter().flatten() {
        let own = list(Resources::of(container));
        // While an init container runs, so do the sidecars before it.
        let needed = if is_sidecar(container) {
            total.add(&own);
            sidecars.add(&own);
            sidecars.clone()
        } else {
            let mut needed = own;
            needed.add(&sidecars);
            needed
        };
        init_peak.raise_to(&needed);
        each.push(needed);
    }
    total.raise_to(&init_peak);
    Aggregate { total, each }
}

/// Whether an init container keeps running beside the regular ones.
#[must_use]
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// Whether a name is of an extended resource (a device, mostly): one with a
/// domain that is not Kubernetes' own.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Finds the first quantity of a pod that cannot be read.
///
/// # Errors
/// Names it.
pub fn check(pod: &Pod) -> Result<(), InvalidQuantity> {
    let Some(spec) = &pod.spec else {
        return Ok(());
    };
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    for container in containers {
        check_requirements(container.resources.as_ref(), || {
            format!("container {:?}", container.name)
        })?;
    }
    check_requirements(spec.resources.as_ref(), || "the pod's resources".into())?;
    check_list(spec.overhead.as_ref(), || "the pod's overhead".into())
}

fn check_requirements(
    resources: Option<&ResourceRequirements>,
    place: impl Fn() -> String,
) -> Result<(), InvalidQuantity> {
    check_list(resources.and_then(|r| r.requests.as_ref()), &place)?;
    check_list(resources.and_then(|r| r.limits.as_ref()), &place)
}

fn check_list(list: Option<&ApiList>, place: impl Fn() -> String) -> Result<(), InvalidQuantity> {
    for (name, text) in list.into_iter().flatten() {
        Quantity::try_from(text).map_err(|source| InvalidQuantity {
            place: place(),
            resource: name.clone(),
            source,
        })?;
    }
    Ok(())
}

/// CPU shares (cgroup v1 scale) for thousandths of a CPU: 2 to 262144.
#[must_use]
pub fn cpu_shares(milli_cpu: i64) -> i64 {
    milli_cpu
        .saturating_mul(SHARES_PER_CPU)
        .div_euclid(MILLI)
        .clamp(MIN_SHARES, MAX_SHARES)
}

/// The CFS quota in microseconds per `period` (microseconds) for thousandths
/// of a CPU; 0, which is "unlimited", for 0.
#[must_use]
pub fn cpu_quota(milli_cpu: i64, period: i64) -> i64 {
    if milli_cpu == 0 {
        return 0;
    }
    let quota = i128::from(milli_cpu) * i128::from(period) / i128::from(MILLI);
    i64::try_from(quota).unwrap_or(i64::MAX).max(MIN_QUOTA)
}

/// `2MB` for `2Mi`, as the kernel and CRI spell page sizes; `None` if no page
/// has that size.
fn page_size_label(size: &str) -> Option<String> {
    const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    let mut size = Quantity::parse(size)
        .ok()
        .filter(|q| q.is_positive())?
        .value();
    let mut unit = 0;
    while size % 1024 == 0 && unit + 1 < UNITS.len() {
        size /= 1024;
        unit += 1;
    }
    (size <= 1024 || unit + 1 == UNITS.len()).then(|| format!("{size}{}", UNITS[unit]))
}

#[cfg(test)]
mod tests;
