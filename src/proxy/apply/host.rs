//! The machine's iptables programs.
//!
//! In: which programs, scripts. Out: what they can do, what they did. A family has one
//! process at a time; what a process may take grows with what it is given.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::command::Invocation;
use super::save::{SaveFault, SaveParser};
use super::watch::{self, Disturbances, LegacyCounts, OwnRuns, Source, Watch, WatchError};
use super::{Iptables, IptablesError, NftablesError, Removal, nftables};
use crate::proxy::model::{Family, Found, RestoreScript};

/// How long a question about one chain or the version may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);
/// How long a restore may take, whatever its size, and a save.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// What a restore takes at the very least in a second, in bytes: about a thousand rules.
/// Legacy iptables on a slow machine is not much faster with hundreds of thousands.
const SLOWEST_RESTORE: usize = 128 << 10;
/// Seconds that legacy iptables waits for its lock, as upstream has it.
const LOCK_WAIT: &str = "5";
const RESTORE_ARGS: &[&str] = &["-w", LOCK_WAIT, "--noflush", "--counters"];
/// A question that works where there is a nat table, and only there.
const NAT_QUESTION: &[&str] = &["-w", LOCK_WAIT, "-S", "POSTROUTING", "-t", "nat"];

/// Where the programs of both families are: `iptables` stands for that program, for
/// `iptables-restore` and for `iptables-save`. Without a directory they are looked for
/// in `PATH`. They may be scripts that end in `exec` of the real ones; if they start
/// those as further processes, our own changes look like somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    pub v4: PathBuf,
    pub v6: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            v4: "iptables".into(),
            v6: "ip6tables".into(),
        }
    }
}

/// A version of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Which part of the kernel the programs talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// nf_tables.
    Nft,
    /// ip_tables.
    Legacy,
}

/// What is known of a family's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub version: Version,
    pub mode: Mode,
}

impl Facts {
    /// Whether `MASQUERADE --random-fully` is known.
    #[must_use]
    pub fn random_fully(&self) -> bool {
        self.version >= Version(1, 6, 2)
    }
}

impl FromStr for Facts {
    type Err = ();

    /// Reads `iptables v1.8.9 (nf_tables)`; before 1.8 there was only the legacy kind.
    fn from_str(printed: &str) -> Result<Self, ()> {
        let mut words = printed.split_whitespace();
        let version = words
            .nth(1)
            .and_then(|word| word.strip_prefix('v'))
            .ok_or(())?;
        let mut numbers = version
            .split('.')
            .map(|number| number.parse().map_err(|_| ()));
        let mut next = || numbers.next().unwrap_or(Ok(0));
        let version = Version(next()?, next()?, next()?);
        let mode = match words.next() {
            Some("(nf_tables)") => Mode::Nft,
            _ => Mode::Legacy,
        };
        Ok(Self { version, mode })
    }
}

/// iptables as the machine has it.
#[derive(Debug)]
pub struct HostIptables {
    v4: Tools,
    v6: Tools,
    own: Arc<OwnRuns>,
}

/// The programs of one family.
#[derive(Debug)]
struct Tools {
    family: Family,
    restore: PathBuf,
    save: PathBuf,
    facts: Result<Facts, IptablesError>,
    /// Held by the process that runs. Legacy tables' counts belong to it, since they
    /// say something only while no process of ours is at work.
    turn: Arc<Mutex<LegacyCounts>>,
}

impl HostIptables {
    /// Finds out which families can be used, and how.
    pub async fn detect(programs: &Programs) -> Self {
        let own = Arc::new(OwnRuns::default());
        let (v4, v6) = tokio::join!(
            Tools::detect(Family::V4, &programs.v4, &own),
            Tools::detect(Family::V6, &programs.v6, &own),
        );
        Self { v4, v6, own }
    }

    /// What a family's programs are, if they work.
    ///
    /// # Errors
    ///
    /// If the family cannot be used: why.
    pub fn usable(&self, family: Family) -> Result<Facts, &IptablesError> {
        self.tools(family).facts.as_ref().copied()
    }

    /// Begins to look for changes that others make to our chains, in all families that
    /// can be used. What happens from now on is told once [`Watch::run`] runs. A later
    /// watch takes the place of an earlier one.
    ///
    /// # Errors
    ///
    /// If the kernel does not let us look.
    pub fn watch(&self) -> Result<(Watch, Disturbances), WatchError> {
        let with_mode = |wanted| {
            [&self.v4, &self.v6]
                .into_iter()
                .filter(move |tools| tools.facts.as_ref().is_ok_and(|facts| facts.mode == wanted))
        };
        let sources = Source {
            nft: with_mode(Mode::Nft).map(|tools| tools.family).collect(),
            legacy: with_mode(Mode::Legacy)
                .map(|tools| (tools.family, Arc::clone(&tools.turn)))
                .collect(),
        };
        watch::open(sources, &self.own)
    }

    fn tools(&self, family: Family) -> &Tools {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

#[async_trait]
impl Iptables for HostIptables {
    async fn restore(&self, family: Family, script: &RestoreScript) -> Result<(), IptablesError> {
        let tools = self.tools(family);
        let mut counts = tools.turn.lock().await;
        counts.before_own(family);
        let grace = Duration::from_secs((script.text.len() / SLOWEST_RESTORE) as u64);
        let invocation = Invocation {
            program: &tools.restore,
            args: RESTORE_ARGS,
            input: &script.text,
            limit: RUN_LIMIT + grace,
        };
        let ended = invocation.run(&self.own, |_| ()).await;
        counts.after_own(family);
        ended
    }

    async fn found(&self, family: Family) -> Result<Found, IptablesError> {
        let tools = self.tools(family);
        let _turn = tools.turn.lock().await;
        let invocation = Invocation {
            program: &tools.save,
            args: &[],
            input: "",
            limit: RUN_LIMIT,
        };
        let mut parser = SaveParser::new(family);
        invocation.run(&self.own, |line| parser.line(line)).await?;
        parser.finish().map_err(|fault| match fault {
            SaveFault::Incomplete => IptablesError::Incomplete {
                program: tools.save.clone(),
            },
            SaveFault::Incompatible(table) => IptablesError::Incompatible { table },
        })
    }

    async fn remove_nftables_mode(&self, family: Family) -> Result<Removal, NftablesError> {
        nftables::remove(family).await
    }
}

impl Tools {
    async fn detect(family: Family, program: &Path, own: &OwnRuns) -> Self {
        let named = |ending: &str| {
            let mut name = program.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self {
            family,
            restore: named("-restore"),
            save: named("-save"),
            facts: facts(family, program, own).await,
            turn: Arc::default(),
        }
    }
}

async fn facts(family: Family, program: &Path, own: &OwnRuns) -> Result<Facts, IptablesError> {
    if family == Family::V6 && !ipv6_is_on(Path::new("/proc")) {
        return Err(IptablesError::NoIpv6);
    }
    let question = |args| Invocation {
        program,
        args,
        input: "",
        limit: QUESTION_LIMIT,
    };
    let mut printed = String::new();
    let first_line = |line: &[u8]| {
        if printed.is_empty() {
            printed = String::from_utf8_lossy(line).into_owned();
        }
    };
    question(&["--version"]).run(own, first_line).await?;
    let facts = printed.parse().map_err(|()| IptablesError::Version {
        program: program.to_owned(),
        printed,
    })?;
    question(NAT_QUESTION).run(own, |_| ()).await?;
    Ok(facts)
}

/// Whether the kernel has IPv6, and not switched off. `proc`: where procfs is mounted.
fn ipv6_is_on(proc: &Path) -> bool {
    let disabled = std::fs::read_to_string(proc.join("sys/net/ipv6/conf/all/disable_ipv6"));
    proc.join("net/if_inet6").exists() && disabled.is_ok_and(|value| value.trim() != "1")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn versions_are_read_as_iptables_prints_them() {
        let facts = |major, minor, patch, mode| {
            Ok(Facts {
                version: Version(major, minor, patch),
                mode,
            })
        };
        for (printed, read) in [
            ("iptables v1.8.9 (nf_tables)", facts(1, 8, 9, Mode::Nft)),
            ("ip6tables v1.8.9 (legacy)", facts(1, 8, 9, Mode::Legacy)),
            ("iptables v1.6.2", facts(1, 6, 2, Mode::Legacy)),
            ("iptables v1.4", facts(1, 4, 0, Mode::Legacy)),
            ("iptables 1.8.9", Err(())),
            ("iptables vx", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(printed.parse(), read, "{printed}");
        }
    }

    #[test]
    fn random_ports_came_with_1_6_2() {
        for (version, knows) in [
            (Version(1, 6, 1), false),
            (Version(1, 6, 2), true),
            (Version(1, 10, 0), true),
        ] {
            let mode = Mode::Legacy;
            assert_eq!(Facts { version, mode }.random_fully(), knows, "{version}");
        }
    }

    #[test]
    fn ipv6_is_on_unless_absent_or_disabled() {
        let proc = tempfile::tempdir().unwrap();
        let conf = proc.path().join("sys/net/ipv6/conf/all");
        fs::create_dir_all(&conf).unwrap();
        fs::create_dir_all(proc.path().join("net")).unwrap();
        assert!(!ipv6_is_on(proc.path()));
        fs::write(proc.path().join("net/if_inet6"), "").unwrap();
        assert!(!ipv6_is_on(proc.path()));
        fs::write(conf.join("disable_ipv6"), "0\n").unwrap();
        assert!(ipv6_is_on(proc.path()));
        fs::write(conf.join("disable_ipv6"), "1\n").unwrap();
        assert!(!ipv6_is_on(proc.path()));
    }

    #[tokio::test]
    async fn programs_that_are_not_there_are_told() {
        let programs = Programs {
            v4: "/nonexistent/iptables".into(),
            v6: "/nonexistent/ip6tables".into(),
        };
        let host = HostIptables::detect(&programs).await;
        assert!(matches!(
            host.usable(Family::V4),
            Err(IptablesError::Missing { .. })
        ));
    }
}
