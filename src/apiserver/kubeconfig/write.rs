//! The kubeconfig of a node that has got its certificate, in upstream's form, which
//! kubeadm and others look for.

use std::path::Path;

use kube::config::Cluster;
use serde_json::{Value, json};

use super::{Checked, KubeconfigError};
use crate::certificate::{PemError, make_directory, write_private};

/// Writes `file`: the cluster of `bootstrap`, and `certificate`, a path that has both
/// certificate and key, whenever it is read.
///
/// # Errors
/// If it cannot be written; what was there before still is then.
pub(in crate::apiserver) fn write(
    file: &Path,
    bootstrap: &Checked,
    certificate: &Path,
) -> Result<(), KubeconfigError> {
    let failed = |source: PemError| KubeconfigError::Write {
        file: file.into(),
        source,
    };
    let unshown = |reason: String| PemError::Unusable {
        path: file.into(),
        reason,
    };
    // Certificates on one line, as everybody else writes them.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let content = content(bootstrap.cluster(), certificate);
    let text = serde_saphyr::to_string_with_options(&content, options)
        .map_err(|error| failed(unshown(error.to_string())))?;
    if let Some(directory) = file.parent() {
        make_directory(directory).map_err(failed)?;
    }
    write_private(file, text.as_bytes()).map_err(failed)
}

fn content(cluster: Option<&Cluster>, certificate: &Path) -> Value {
    let fields = cluster.map(|cluster| {
        json!({
            "certificate-authority-data": cluster.certificate_authority_data,
            "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
            "server": cluster.server,
            "tls-server-name": cluster.tls_server_name,
        })
    });
    let mut fields = fields.unwrap_or_default();
    if let Value::Object(fields) = &mut fields {
        fields.retain(|_, value| !value.is_null());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "default-cluster", "cluster": fields }],
        "contexts": [{ "name": "default-context", "context": {
            "cluster": "default-cluster", "namespace": "default", "user": "default-auth",
        }}],
        "current-context": "default-context",
        "users": [{ "name": "default-auth", "user": {
            "client-certificate": certificate, "client-key": certificate,
        }}],
    })
}
