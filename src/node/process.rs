//! Attributes of the agent's own process. Best effort: a container or a small
//! VM may not grant them, and the agent works without.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Sets how likely the kernel's OOM killer takes the agent (`oomScoreAdj`,
/// −1000 to 1000). A refusal is one warning.
pub fn set_oom_score_adj(score: i32) {
    let current = std::fs::read_to_string(OOM_SCORE_ADJ).unwrap_or_default();
    if current.trim() == score.to_string() {
        return;
    }
    if let Err(error) = std::fs::write(OOM_SCORE_ADJ, score.to_string()) {
        tracing::warn!(
            score,
            %error,
            "cannot set the agent's OOM score; it may be killed before the pods"
        );
    }
}

/// Raises the number of files that the agent can have open (`maxOpenFiles`).
/// Where that much is not granted, as much as is; and one warning.
pub fn set_max_open_files(wanted: u64) {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let Ok((soft, hard)) = limits else {
        tracing::warn!("cannot read the limit of open files");
        return;
    };
    if soft == wanted && hard == wanted {
        return;
    }
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return;
    }
    let granted = wanted.min(hard);
    match setrlimit(Resource::RLIMIT_NOFILE, granted, hard) {
        Ok(()) => tracing::warn!(
            wanted,
            granted,
            "cannot have as many open files as configured"
        ),
        Err(error) => tracing::warn!(wanted, soft, %error, "cannot change the limit of open files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_follows_or_stays() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        set_max_open_files(hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
