//! What goes wrong between this process and iptables, and how to tell it from what
//! iptables says.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Exit status of iptables for lack of a resource: the lock, or the kernel's refusal.
const RESOURCE_PROBLEM: i32 = 4;
/// How much of a complaint or of a refused line is repeated, in characters.
const MOST_TEXT: usize = 400;

/// Why a call of iptables has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// No such program on the machine.
    #[error("{} is not installed", program.display())]
    Missing { program: PathBuf },
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot talk to {}", program.display())]
    Talk { program: PathBuf, source: io::Error },
    /// It hung; it was killed, with all that it had started. What it was given may
    /// have been applied or not.
    #[error("{} took longer than {} s and was killed", program.display(), limit.as_secs())]
    TimedOut { program: PathBuf, limit: Duration },
    /// Somebody else holds iptables' lock, or changed the tables in between. Nothing
    /// was changed, and the same call can be made again.
    #[error("iptables is busy: {complaint}")]
    Busy { complaint: String },
    /// A script was refused. Nothing was changed in the table of the refused line,
    /// nor in those after it; tables before it in the script are as the script says.
    #[error("{} refused line {number} (`{line}`): {complaint}", program.display())]
    Refused {
        program: PathBuf,
        /// Counted from 1, in the script's text. A fault that shows only when the table
        /// is complete may have the line of its `COMMIT`.
        number: usize,
        line: String,
        complaint: String,
    },
    #[error("{} failed ({status}): {complaint}", program.display())]
    Failed {
        program: PathBuf,
        status: String,
        complaint: String,
    },
    /// `iptables-save` ended in the middle of a table.
    #[error("the output of {} is incomplete", program.display())]
    Incomplete { program: PathBuf },
    /// Something other than iptables has put rules into the table that iptables
    /// cannot show.
    #[error("table {table} holds rules that iptables cannot show; only nft can")]
    Incompatible { table: String },
    #[error("what {} prints as its version is none: {printed:?}", program.display())]
    Version { program: PathBuf, printed: String },
    /// The kernel has no IPv6, or it is switched off for all interfaces.
    #[error("the machine has no IPv6")]
    NoIpv6,
}

impl IptablesError {
    /// The error of a program that ended without success. `input`: what it was given
    /// to read, empty if nothing.
    pub(super) fn failed(
        program: &Path,
        status: std::process::ExitStatus,
        complaint: &str,
        input: &str,
    ) -> Self {
        let shown = shorten(&one_line(complaint));
        if status.code() == Some(RESOURCE_PROBLEM) && is_about_lock(complaint) {
            return Self::Busy { complaint: shown };
        }
        let program = program.to_owned();
        match refused_line(complaint, input) {
            Some((index, line)) => Self::Refused {
                program,
                number: index + 1,
                line: shorten(line),
                complaint: shown,
            },
            None => Self::Failed {
                program,
                status: status.to_string(),
                complaint: shown,
            },
        }
    }
}

/// The legacy tools name their lock. Legacy and nft alike say EAGAIN when the tables
/// were changed under their hands, which the next try cures.
fn is_about_lock(complaint: &str) -> bool {
    complaint.contains("xtables lock") || complaint.contains("Resource temporarily unavailable")
}

/// The line at fault and its place, counted from 0.
fn refused_line<'a>(complaint: &str, input: &'a str) -> Option<(usize, &'a str)> {
    let index = line_number(complaint)?.checked_sub(1)?;
    let told = input.lines().nth(index)?;
    // The nft program misses a chain only at the end of the table.
    let jump = missing_chain(complaint).and_then(|chain| {
        let before = input.lines().enumerate().take(index);
        before.filter(|(_, line)| jumps_to(line, chain)).last()
    });
    Some(jump.unwrap_or((index, told)))
}

/// The name in `Chain 'KUBE-SVC-…' does not exist`.
fn missing_chain(complaint: &str) -> Option<&str> {
    let (_, after) = complaint.split_once("Chain '")?;
    let (name, after) = after.split_once('\'')?;
    after.starts_with(" does not exist").then_some(name)
}

fn jumps_to(line: &str, chain: &str) -> bool {
    let mut words = line.split(' ');
    words.any(|word| word == "-j" || word == "-g") && words.next() == Some(chain)
}

/// The number in `line 5 failed`, `line 5: RULE_APPEND failed` or `at line: 5`.
fn line_number(complaint: &str) -> Option<usize> {
    complaint.match_indices("line").find_map(|(at, word)| {
        let rest = complaint[at + word.len()..].trim_start_matches([':', ' ']);
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest[..digits].parse().ok()
    })
}

/// As logs and events want it.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn failed(code: i32, complaint: &str) -> IptablesError {
        let status = ExitStatus::from_raw(code << 8);
        let input = "*nat\n:A - [0:0]\n-A A -j B\nCOMMIT\n";
        IptablesError::failed(Path::new("iptables-restore"), status, complaint, input)
    }

    #[test]
    fn the_refused_line_is_named_however_iptables_says_it() {
        for complaint in [
            "iptables-restore: line 3 failed",
            "iptables-restore v1.8.9 (nf_tables): line 3: RULE_APPEND failed (No such file)",
            "Couldn't load target `B':No such file or directory\n\nError occurred at line: 3\n",
            "v1.8.9 (nf_tables): Chain 'B' does not exist\nError occurred at line: 4\n",
        ] {
            for code in [1, 2, 4] {
                let IptablesError::Refused { number, line, .. } = failed(code, complaint) else {
                    panic!("{complaint} is not seen as a refusal");
                };
                assert_eq!((number, line.as_str()), (3, "-A A -j B"));
            }
        }
    }

    #[test]
    fn a_line_that_the_script_does_not_have_is_not_named() {
        for complaint in ["line 0 failed", "line 5 failed", "line", "line: x", ""] {
            assert!(
                matches!(failed(1, complaint), IptablesError::Failed { .. }),
                "{complaint}"
            );
        }
    }

    #[test]
    fn only_the_lock_is_busy() {
        let lock = "Another app is currently holding the xtables lock; still 4s 0us time ahead";
        assert!(matches!(failed(4, lock), IptablesError::Busy { .. }));
        assert!(matches!(failed(1, lock), IptablesError::Failed { .. }));
        let full = "line 4: RULE_APPEND failed (No space left on device)";
        assert!(matches!(failed(4, full), IptablesError::Refused { .. }));
    }

    #[test]
    fn a_complaint_is_one_line() {
        let lock = "Can't lock x: Resource temporarily unavailable\n\n  Stopped waiting.\n";
        let IptablesError::Busy { complaint } = failed(4, lock) else {
            panic!("not seen as busy");
        };
        let line = "Can't lock x: Resource temporarily unavailable; Stopped waiting.";
        assert_eq!(complaint, line);
    }

    #[test]
    fn long_complaints_are_cut() {
        let IptablesError::Failed { complaint, .. } = failed(1, &"ä".repeat(5000)) else {
            panic!("not a failure");
        };
        assert_eq!(complaint.chars().count(), MOST_TEXT + 1);
    }
}
