//! ConfigMaps and Secrets in manifests: what static pods of a node without an
//! API server may show and take their variables from. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::apiserver::{ObjectKind, ObjectName};
use crate::pod::validate::FieldError;

/// Where an object is that names no namespace.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// One object of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    ConfigMap(ObjectName, Arc<ConfigMap>),
    Secret(ObjectName, Arc<Secret>),
}

impl Data {
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::ConfigMap(name, _) | Self::Secret(name, _) => name,
        }
    }
}

/// The objects of all files.
pub type DataByName = BTreeMap<ObjectName, Data>;

pub(super) fn config_map(object: ConfigMap) -> Result<Data, Vec<FieldError>> {
    let name = name(&object.metadata, ObjectKind::ConfigMap)?;
    let binary = object.binary_data.iter().flatten().map(|(key, _)| key);
    let text = object.data.iter().flatten().map(|(key, _)| key);
    check_keys(&[("data", text.collect()), ("binaryData", binary.collect())])?;
    Ok(Data::ConfigMap(name, Arc::new(object)))
}

/// `stringData` becomes data, as the API server has it.
pub(super) fn secret(mut object: Secret) -> Result<Data, Vec<FieldError>> {
    let name = name(&object.metadata, ObjectKind::Secret)?;
    if let Some(text) = object.string_data.take() {
        let bytes = text
            .into_iter()
            .map(|(key, value)| (key, ByteString(value.into_bytes())));
        object.data.get_or_insert_default().extend(bytes);
    }
    let keys = object.data.iter().flatten().map(|(key, _)| key);
    check_keys(&[("data", keys.collect())])?;
    Ok(Data::Secret(name, Arc::new(object)))
}

fn name(metadata: &ObjectMeta, kind: ObjectKind) -> Result<ObjectName, Vec<FieldError>> {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let name = set(&metadata.name).ok_or_else(|| {
        vec![FieldError::required(
            "metadata.name",
            "it is how pods refer to it",
        )]
    })?;
    Ok(ObjectName {
        kind,
        namespace: set(&metadata.namespace).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        name,
    })
}

/// Keys become file names; the rule is the API's.
fn check_keys(fields: &[(&str, Vec<&String>)]) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    for (field, keys) in fields {
        for key in keys {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let usable = !key.is_empty()
                && key.len() <= 253
                && key.chars().all(is_plain)
                && *key != "."
                && !key.starts_with("..");
            if !usable {
                let rule =
                    "a key is of letters, digits, '-', '_' and '.', and does not begin with '..'";
                errors.push(FieldError::invalid(format!("{field}[{key}]"), key, rule));
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_of_secrets_becomes_data() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "data": {"a": "b25l", "b": "b25l"},
            "stringData": {"b": "two"},
        }));
        let Ok(Data::Secret(name, secret)) = secret(object.unwrap()) else {
            panic!("not a secret");
        };
        assert_eq!(
            (name.namespace.as_str(), name.name.as_str()),
            ("default", "s")
        );
        let data = secret.data.as_ref().unwrap();
        assert_eq!(
            (data["a"].0.as_slice(), data["b"].0.as_slice()),
            (&b"one"[..], &b"two"[..])
        );
        assert_eq!(secret.string_data, None);
    }

    #[test]
    fn names_and_keys_are_checked() {
        for (object, path) in [
            (json!({"metadata": {}}), "metadata.name"),
            (
                json!({"metadata": {"name": "m"}, "data": {"../x": ""}}),
                "data[../x]",
            ),
            (
                json!({"metadata": {"name": "m"}, "data": {"..data": ""}}),
                "data[..data]",
            ),
            (
                json!({"metadata": {"name": "m"}, "binaryData": {"a/b": ""}}),
                "binaryData[a/b]",
            ),
        ] {
            let errors = config_map(serde_json::from_value(object).unwrap()).unwrap_err();
            assert_eq!(errors[0].path, path);
        }
    }
}
