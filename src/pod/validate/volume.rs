//! Volumes of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use super::name::Format;
use super::{FieldError, Seen, required_name};
use crate::pod::quantity::Quantity;

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
];

/// Checks all volumes and answers the names that mounts may use.
pub(super) fn check<'a>(spec: &'a PodSpec, errors: &mut Vec<FieldError>) -> BTreeSet<&'a str> {
    let mut seen = Seen::default();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("spec.volumes[{index}]");
        let name_path = format!("{path}.name");
        required_name(&name_path, Some(&volume.name), Format::Label, errors);
        seen.check(&name_path, &volume.name, errors);
        check_source(&path, volume, errors);
    }
    seen.0
}

fn check_source(path: &str, volume: &Volume, errors: &mut Vec<FieldError>) {
    let types = source_types(volume);
    if let [_, second, ..] = types.as_slice() {
        errors.push(FieldError::forbidden(
            format!("{path}.{second}"),
            "may not specify more than 1 volume type",
        ));
    }
    if let Some(host_path) = &volume.host_path {
        let path = format!("{path}.hostPath");
        let field = format!("{path}.path");
        if host_path.path.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if host_path.path.split('/').any(|part| part == "..") {
            let value = &host_path.path;
            errors.push(FieldError::invalid(field, value, "must not contain '..'"));
        }
        let kind = host_path.type_.as_deref().unwrap_or_default();
        if !HOST_PATH_TYPES.contains(&kind) {
            let field = format!("{path}.type");
            errors.push(FieldError::not_supported(field, kind, &HOST_PATH_TYPES));
        }
    }
    if let Some(limit) = volume
        .empty_dir
        .as_ref()
        .and_then(|empty_dir| empty_dir.size_limit.as_ref())
        && Quantity::try_from(limit).map_or(true, Quantity::is_negative)
    {
        errors.push(FieldError::forbidden(
            format!("{path}.emptyDir.sizeLimit"),
            "must be a valid resource quantity",
        ));
    }
}

/// The API names of the sources that are set; rightly exactly one.
fn source_types(volume: &Volume) -> Vec<String> {
    // The serialised form is the list of all sources; writing them out a second
    // time would miss the next one that the API gains.
    match serde_json::to_value(volume) {
        Ok(serde_json::Value::Object(fields)) => fields
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| key != "name")
            .collect(),
        _ => Vec::new(),
    }
}
