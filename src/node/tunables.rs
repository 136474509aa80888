//! Kernel settings that a node with many pods counts on: memory may be
//! overcommitted, and a kernel that has gone wrong reboots.

use std::path::{Path, PathBuf};

/// Where the kernel has them.
pub const SYSCTL_ROOT: &str = "/proc/sys";

const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Whose decision the kernel settings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelDefaults {
    /// The agent's: it writes them where it may.
    Write,
    /// The administrator's (`protectKernelDefaults`): the agent refuses to run
    /// on other values.
    Protect,
}

/// Settings that are not as they have to be.
#[derive(Debug, thiserror::Error)]
#[error("kernel settings differ from what this node needs: {}", .0.join(", "))]
pub struct WrongTunables(pub Vec<String>);

/// Brings the settings below `root` ([`SYSCTL_ROOT`]) in order. Where they
/// cannot be written there is one warning for each.
///
/// # Errors
/// Only with [`KernelDefaults::Protect`]: names all settings that differ.
pub fn ensure(root: &Path, defaults: KernelDefaults) -> Result<(), WrongTunables> {
    let differing = TUNABLES.iter().filter_map(|&(name, wanted)| {
        let path = root.join(name);
        let current = std::fs::read_to_string(&path).unwrap_or_default();
        (current.trim() != wanted).then(|| Tunable {
            path,
            name: name.replace('/', "."),
            current: current.trim().to_owned(),
            wanted,
        })
    });
    match defaults {
        KernelDefaults::Write => {
            differing.for_each(|tunable| tunable.write());
            Ok(())
        }
        KernelDefaults::Protect => {
            let wrong: Vec<String> = differing.map(|tunable| tunable.describe()).collect();
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(WrongTunables(wrong))
            }
        }
    }
}

/// A setting with a wrong value.
struct Tunable {
    path: PathBuf,
    name: String,
    current: String,
    wanted: &'static str,
}

impl Tunable {
    fn write(&self) {
        match std::fs::write(&self.path, self.wanted) {
            Ok(()) => tracing::info!(
                setting = self.name,
                from = self.current,
                to = self.wanted,
                "changed a kernel setting"
            ),
            Err(error) => tracing::warn!(
                setting = self.name,
                is = self.current,
                wanted = self.wanted,
                %error,
                "cannot change a kernel setting"
            ),
        }
    }

    fn describe(&self) -> String {
        format!(
            "{} is {:?} and not {}",
            self.name, self.current, self.wanted
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn fake(changed: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        for (name, value) in TUNABLES.iter().chain(changed) {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{value}\n")).unwrap();
        }
        root
    }

    #[test]
    fn values_are_written_where_they_differ() {
        let root = fake(&[("kernel/panic", "0")]);
        ensure(root.path(), KernelDefaults::Write).unwrap();
        let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("kernel/panic"), "10");
        assert_eq!(read("vm/panic_on_oom"), "0\n");
    }

    #[test]
    fn a_refused_write_is_no_error() {
        let root = TempDir::new().unwrap();
        ensure(root.path(), KernelDefaults::Write).unwrap();
    }

    #[test]
    fn protected_values_are_only_compared() {
        let root = fake(&[("kernel/panic", "0"), ("vm/overcommit_memory", "2")]);
        let error = ensure(root.path(), KernelDefaults::Protect).unwrap_err();
        assert_eq!(
            error.to_string(),
            "kernel settings differ from what this node needs: \
             vm.overcommit_memory is \"2\" and not 1, kernel.panic is \"0\" and not 10"
        );
        ensure(fake(&[]).path(), KernelDefaults::Protect).unwrap();
    }
}
