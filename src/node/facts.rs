//! Reads the machine: once what stays ([`MachineFacts`]), again and again what
//! does not ([`Readings`]).

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;
use nix::unistd::{SysconfVar, sysconf};
use procfs::{Current, Meminfo};

use crate::pod::quantity::Quantity;

const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
/// What the kernel tells of each CPU.
const CPU_DIRECTORY: &str = "/sys/devices/system/cpu";

const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";
/// Where firmware or a virtual machine monitor tells the machine's UUID;
/// machines without either are known by the installation's ID.
const SYSTEM_UUIDS: [&str; 5] = [
    "/sys/class/dmi/id/product_uuid",
    "/proc/device-tree/system-id",
    "/proc/device-tree/vm,uuid",
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
];
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
const OS_RELEASES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// What this machine is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    pub cpus: u32,
    /// MemTotal, in bytes.
    pub memory: u64,
    /// Bytes; 0 without swap.
    pub swap: u64,
    /// The filesystem of the root directory.
    pub filesystem: Filesystem,
    /// By size, smallest first.
    pub hugepages: Vec<HugePages>,
    /// How many processes the kernel can have at a time.
    pub max_pids: u64,
    /// These three are empty where the machine does not tell.
    pub machine_id: String,
    pub system_uuid: String,
    pub os_image: String,
    pub boot_id: String,
    pub kernel_version: String,
    /// In Go's words, as the API uses them: `amd64`, `arm64`.
    pub architecture: &'static str,
}

/// Sizes of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filesystem {
    pub bytes: u64,
    pub inodes: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HugePages {
    /// Bytes of one page.
    pub size: u64,
    pub count: u64,
}

impl HugePages {
    /// `hugepages-2Mi`, the resource's name.
    #[must_use]
    pub fn resource(&self) -> String {
        let size = i64::try_from(self.size).unwrap_or(i64::MAX);
        format!("hugepages-{}", Quantity::from_value(size).to_binary().0)
    }

    /// `2MB`, as CRI and the cgroup files spell the size.
    #[must_use]
    pub fn cri_size(&self) -> String {
        const UNITS: [(u32, &str); 3] = [(30, "GB"), (20, "MB"), (10, "KB")];
        UNITS
            .iter()
            .find(|(shift, _)| self.size >> shift > 0)
            .map(|(shift, unit)| format!("{}{unit}", self.size >> shift))
            .unwrap_or_else(|| format!("{}B", self.size))
    }
}

/// What is left of things that pods use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readings {
    /// Bytes that can be had without swapping.
    pub memory_available: u64,
    /// Bytes free on the root directory's filesystem.
    pub nodefs_available: u64,
    pub nodefs_inodes_free: u64,
    pub pids_available: u64,
}

/// The machine cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("cannot read {what} from the kernel")]
    Kernel {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot read the filesystem of {path}")]
    Filesystem {
        path: PathBuf,
        #[source]
        source: nix::Error,
    },
}

/// Collects the facts. `root_dir` must exist.
///
/// # Errors
/// When the kernel does not tell what a node cannot be described without.
pub fn collect(root_dir: &Path) -> Result<MachineFacts, FactsError> {
    let memory = Meminfo::current().map_err(kernel("memory sizes"))?;
    let names = uname().map_err(kernel("its version"))?;
    let boot_id = procfs::sys::kernel::random::boot_id().map_err(kernel("the boot ID"))?;
    let disk = filesystem(root_dir)?;
    Ok(MachineFacts {
        cpus: cpus()?,
        memory: memory.mem_total,
        swap: memory.swap_total,
        filesystem: Filesystem {
            bytes: disk.blocks() * disk.fragment_size(),
            inodes: disk.files(),
        },
        hugepages: hugepages(Path::new(HUGEPAGES)),
        max_pids: max_pids()?,
        machine_id: first_readable(&MACHINE_IDS),
        system_uuid: first_readable(&SYSTEM_UUIDS),
        os_image: pretty_name(&first_readable(&OS_RELEASES)),
        boot_id: boot_id.trim().to_owned(),
        kernel_version: names.release().to_string_lossy().into_owned(),
        architecture: go_architecture(std::env::consts::ARCH),
    })
}

/// Whether the kernel confines processes by AppArmor profiles.
#[must_use]
pub fn has_apparmor() -> bool {
    std::fs::read_to_string(APPARMOR).is_ok_and(|enabled| enabled.starts_with('Y'))
}

/// Reads what is left.
///
/// # Errors
/// When the kernel does not tell.
pub fn readings(root_dir: &Path) -> Result<Readings, FactsError> {
    let memory = Meminfo::current().map_err(kernel("memory sizes"))?;
    let load = procfs::LoadAverage::current().map_err(kernel("the number of processes"))?;
    let disk = filesystem(root_dir)?;
    Ok(Readings {
        memory_available: memory.mem_available.unwrap_or(memory.mem_free),
        nodefs_available: disk.blocks_available() * disk.fragment_size(),
        nodefs_inodes_free: disk.files_available(),
        pids_available: max_pids()?.saturating_sub(u64::from(load.max)),
    })
}

/// The text of the `resolv.conf` that pods inherit.
///
/// # Errors
/// The file's own.
pub fn read_resolv_conf(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// The directories that tell how often CPUs were throttled for heat: their
/// timing gives away what others compute.
#[must_use]
pub fn thermal_paths() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(CPU_DIRECTORY) else {
        return Vec::new();
    };
    let is_cpu = |name: &str| {
        let number = name.strip_prefix("cpu").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    };
    let mut paths: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_cpu(name))
        .map(|name| format!("{CPU_DIRECTORY}/{name}/thermal_throttle"))
        .filter(|path| Path::new(path).exists())
        .collect();
    paths.sort();
    paths
}

/// Whether device plugins of an earlier kubelet left a checkpoint: without one
/// the extended resources that a Node object tells of are of no device here.
#[must_use]
pub fn has_device_checkpoint(root_dir: &Path) -> bool {
    root_dir
        .join("device-plugins/kubelet_internal_checkpoint")
        .exists()
}

fn kernel<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
) -> impl FnOnce(E) -> FactsError {
    move |source| FactsError::Kernel {
        what,
        source: source.into(),
    }
}

fn filesystem(path: &Path) -> Result<nix::sys::statvfs::Statvfs, FactsError> {
    statvfs(path).map_err(|source| FactsError::Filesystem {
        path: path.to_owned(),
        source,
    })
}

fn cpus() -> Result<u32, FactsError> {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).map_err(kernel("the number of CPUs"))?;
    // Every machine that runs this has at least one.
    Ok(online
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(1))
}

fn max_pids() -> Result<u64, FactsError> {
    let pid_max = procfs::sys::kernel::pid_max().map_err(kernel("kernel.pid_max"))?;
    let threads = procfs::sys::kernel::threads_max().map_err(kernel("kernel.threads-max"))?;
    Ok(u64::from(threads).min(u64::try_from(pid_max).unwrap_or(0)))
}

/// Kernels without huge pages have no such directory.
fn hugepages(directory: &Path) -> Vec<HugePages> {
    let mut pages: Vec<HugePages> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kibibytes = name
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?;
            let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some(HugePages {
                size: kibibytes.parse::<u64>().ok()? * 1024,
                count: count.trim().parse().ok()?,
            })
        })
        .collect();
    pages.sort();
    pages
}

/// The first of the files that has something in it.
fn first_readable(paths: &[&str]) -> String {
    paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        // Device trees end their strings with a NUL.
        .map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// `PRETTY_NAME` of an os-release file (os-release(5)); `Linux` without one.
fn pretty_name(os_release: &str) -> String {
    let unquoted = |value: &str| {
        ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
            .unwrap_or(value)
            .replace('\\', "")
    };
    os_release
        .lines()
        .find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))
        .map(unquoted)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "Linux".to_owned())
}

/// The API names architectures as Go does.
fn go_architecture(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

#[cfg(test)]
impl MachineFacts {
    pub(super) fn for_test() -> Self {
        Self {
            cpus: 2,
            memory: 8_000_000 * 1024,
            swap: 0,
            filesystem: Filesystem {
                bytes: 100_000_000 * 1024,
                inodes: 1_000_000,
            },
            hugepages: vec![HugePages {
                size: 2 << 20,
                count: 0,
            }],
            max_pids: 32768,
            machine_id: "3d1219c7c4c5404aaa1f6d2a48adfda4".to_owned(),
            system_uuid: "8dd2f73b-561c-4485-9d24-dbde3f56f9df".to_owned(),
            os_image: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            boot_id: "b1".to_owned(),
            kernel_version: "6.18.0".to_owned(),
            architecture: "amd64",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let root = tempfile::TempDir::new().unwrap();
        let facts = collect(root.path()).unwrap();
        assert!(facts.cpus > 0);
        assert!(facts.memory > 1 << 20);
        assert!(facts.filesystem.bytes > 0);
        assert_eq!(facts.boot_id.len(), 36);
        assert!(!facts.kernel_version.is_empty());
        let readings = readings(root.path()).unwrap();
        assert!(readings.memory_available <= facts.memory);
        assert!(readings.nodefs_available <= facts.filesystem.bytes);
        assert!(readings.pids_available < facts.max_pids);
    }

    #[test]
    fn a_missing_root_directory_is_named() {
        let error = collect(Path::new("/nonexistent/root")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the filesystem of /nonexistent/root"
        );
    }

    #[test]
    fn huge_page_sizes() {
        let root = tempfile::TempDir::new().unwrap();
        for (name, count) in [("hugepages-1048576kB", "1\n"), ("hugepages-2048kB", "16\n")] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        let pages = hugepages(root.path());
        let names: Vec<_> = pages.iter().map(|p| (p.resource(), p.cri_size())).collect();
        let expected = [("hugepages-2Mi", "2MB"), ("hugepages-1Gi", "1GB")];
        assert_eq!(names, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(pages[0].count, 16);
        assert!(hugepages(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn pretty_names() {
        for (text, name) in [
            (
                "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n",
                "Debian GNU/Linux 12",
            ),
            ("PRETTY_NAME='Void'\n", "Void"),
            ("PRETTY_NAME=Plain\n", "Plain"),
            ("PRETTY_NAME=\"A \\\"b\\\"\"", "A \"b\""),
            ("NAME=x\n", "Linux"),
            ("", "Linux"),
        ] {
            assert_eq!(pretty_name(text), name, "{text}");
        }
    }
}
