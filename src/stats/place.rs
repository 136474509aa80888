//! Where the cgroups of pods and containers are. Pure.

use crate::cgroup::{CgroupError, CgroupPath};
use crate::pod::PodUid;
use crate::pod::qos::QosClass;
use crate::runtime::CgroupDriver;

/// How the cgroups are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupNames {
    pub driver: CgroupDriver,
    /// `cgroupRoot`: where `kubepods` stands; `/` for the hierarchy's root.
    pub root: String,
}

impl CgroupNames {
    /// All pods of a class; Guaranteed pods stand in the cgroup of all pods.
    ///
    /// # Errors
    /// When the root is not a cgroup path.
    pub(super) fn class(&self, class: QosClass) -> Result<CgroupPath, CgroupError> {
        match self.driver {
            CgroupDriver::Cgroupfs => CgroupPath::parse(&class.cgroup(&self.root)),
            CgroupDriver::Systemd => {
                let root = self.root.trim_end_matches('/');
                let slice = slice_of(class);
                CgroupPath::parse(&match class {
                    QosClass::Guaranteed => format!("{root}/{slice}.slice"),
                    QosClass::Burstable | QosClass::BestEffort => {
                        format!("{root}/kubepods.slice/{slice}.slice")
                    }
                })
            }
        }
    }

    /// # Errors
    /// When the UID cannot be part of a path.
    pub(super) fn pod(&self, class: QosClass, uid: &PodUid) -> Result<CgroupPath, CgroupError> {
        let parent = self.class(class)?;
        let directory = match self.driver {
            CgroupDriver::Cgroupfs => format!("pod{uid}"),
            // systemd reads a dash as the way to a slice below.
            CgroupDriver::Systemd => {
                let uid = uid.as_str().replace('-', "_");
                format!("{}-pod{uid}.slice", slice_of(class))
            }
        };
        below(&parent, &directory)
    }

    /// A container or sandbox of the pod, by the runtime's ID.
    ///
    /// # Errors
    /// When the ID cannot be part of a path.
    pub(super) fn container(&self, pod: &CgroupPath, id: &str) -> Result<CgroupPath, CgroupError> {
        match self.driver {
            CgroupDriver::Cgroupfs => below(pod, id),
            CgroupDriver::Systemd => below(pod, &format!("cri-containerd-{id}.scope")),
        }
    }
}

fn slice_of(class: QosClass) -> &'static str {
    match class {
        QosClass::Guaranteed => "kubepods",
        QosClass::Burstable => "kubepods-burstable",
        QosClass::BestEffort => "kubepods-besteffort",
    }
}

fn below(parent: &CgroupPath, name: &str) -> Result<CgroupPath, CgroupError> {
    CgroupPath::parse(&format!("{}/{name}", parent.as_str().trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_drivers_spell_pods_and_containers() {
        use CgroupDriver::{Cgroupfs, Systemd};
        use QosClass::{BestEffort, Burstable, Guaranteed};
        for (driver, root, class, expected) in [
            (Cgroupfs, "/", Guaranteed, "/kubepods/pod8d-f7/c1"),
            (Cgroupfs, "/", Burstable, "/kubepods/burstable/pod8d-f7/c1"),
            (
                Cgroupfs,
                "/x",
                BestEffort,
                "/x/kubepods/besteffort/pod8d-f7/c1",
            ),
            (
                Systemd,
                "/",
                Guaranteed,
                "/kubepods.slice/kubepods-pod8d_f7.slice/cri-containerd-c1.scope",
            ),
            (
                Systemd,
                "",
                Burstable,
                "/kubepods.slice/kubepods-burstable.slice/\
                 kubepods-burstable-pod8d_f7.slice/cri-containerd-c1.scope",
            ),
        ] {
            let names = CgroupNames {
                driver,
                root: root.to_owned(),
            };
            let pod = names.pod(class, &PodUid::from("8d-f7")).unwrap();
            let container = names.container(&pod, "c1").unwrap();
            assert_eq!(container.as_str(), expected);
        }
    }

    #[test]
    fn nothing_leads_out_of_the_pods_cgroup() {
        let names = CgroupNames {
            driver: CgroupDriver::Cgroupfs,
            root: "/".to_owned(),
        };
        let pod = names.pod(QosClass::Burstable, &PodUid::from("1")).unwrap();
        for id in ["", "..", "../x", "/x"] {
            assert!(names.container(&pod, id).is_err(), "{id}");
        }
        assert!(
            names
                .pod(QosClass::Burstable, &PodUid::from("/../x"))
                .is_err()
        );
    }
}
