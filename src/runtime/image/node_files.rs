//! Registry credentials in files of the node, as container tools leave them.
//!
//! Read for every pull, so that a change needs no restart.

use std::path::{Path, PathBuf};

use crate::pod::credentials::{CredentialFile, Keyring};

const CONFIG_JSON: &str = "config.json";
const DOCKER_CFG: &str = ".dockercfg";

/// The directories that are looked through, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CredentialDirs {
    /// For `config.json`.
    pub config_json: Vec<PathBuf>,
    /// For `.dockercfg`, if there is no `config.json`.
    pub docker_cfg: Vec<PathBuf>,
}

impl CredentialDirs {
    /// The first file that there is and that can be read; nothing if there is
    /// none.
    pub(super) fn read(&self) -> Keyring {
        let json = self.config_json.iter().map(|dir| dir.join(CONFIG_JSON));
        let cfg = self.docker_cfg.iter().map(|dir| dir.join(DOCKER_CFG));
        json.filter_map(|path| read(&path, CredentialFile::ConfigJson))
            .next()
            .or_else(|| {
                cfg.filter_map(|path| read(&path, CredentialFile::DockerCfg))
                    .next()
            })
            .unwrap_or_default()
    }
}

fn read(path: &Path, form: CredentialFile) -> Option<Keyring> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read registry credentials");
            }
            return None;
        }
    };
    Keyring::of_file(form, &content)
        .inspect_err(|error| {
            let error = crate::error::chain(error);
            tracing::warn!(path = %path.display(), %error, "unusable registry credentials");
        })
        .ok()
}
