//! One manifest file's bytes in, one desired pod, its data or a Service out: decoding,
//! identity, defaults, validation. Pure.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};

use super::data::Data;
use super::decode::{self, Decoded, Finding, Manifest, Places};
use super::identity;
use super::problem::Reason;
use super::{Kinds, data};
use crate::pod::validate::{self, FieldError, References};
use crate::pod::{DesiredPod, Intent, Origin, defaults};
use crate::proxy::model::ServiceName;

/// A manifest that can be used.
#[derive(Debug)]
pub(super) struct Compiled {
    pub what: What,
    /// What in the file has no effect.
    pub warnings: Vec<Finding>,
}

/// What a file says is to be there.
#[derive(Debug, Clone)]
pub(super) enum What {
    Pod(Arc<DesiredPod>),
    Data(Data),
    Service(ServiceName, Arc<Service>),
}

/// Makes what a file describes: a static pod, data for static pods, or a
/// Service in front of them.
///
/// # Errors
/// Everything that keeps the file from being one.
pub(super) fn compile(
    bytes: &[u8],
    kinds: Kinds,
    node_name: &str,
    path: &Path,
    seen: Timestamp,
) -> Result<Compiled, Vec<Finding>> {
    let data = |data: Result<Data, Vec<FieldError>>, warnings| match data {
        Ok(data) => Ok(Compiled {
            what: What::Data(data),
            warnings,
        }),
        Err(errors) => Err(locate(bytes, errors)),
    };
    match decode::decode(bytes, kinds).map_err(|finding| vec![finding])? {
        Manifest::Pod(decoded) => {
            let Decoded { object, unknown } = *decoded;
            let pod = static_pod(object, kinds, node_name, path, seen);
            Ok(Compiled {
                what: What::Pod(Arc::new(pod.map_err(|errors| locate(bytes, errors))?)),
                warnings: unknown,
            })
        }
        Manifest::ConfigMap(Decoded { object, unknown }) => data(data::config_map(object), unknown),
        Manifest::Secret(Decoded { object, unknown }) => data(data::secret(object), unknown),
        Manifest::Service(decoded) => {
            let Decoded { object, unknown } = *decoded;
            let what = service(object).map_err(|errors| locate(bytes, errors))?;
            Ok(Compiled {
                what,
                warnings: unknown,
            })
        }
    }
}

fn service(mut service: Service) -> Result<What, Vec<FieldError>> {
    let errors = validate::service(&service);
    if !errors.is_empty() {
        return Err(errors);
    }
    let metadata = &mut service.metadata;
    let namespace = metadata.namespace.take().filter(|name| !name.is_empty());
    let namespace = namespace.unwrap_or_else(|| data::DEFAULT_NAMESPACE.to_owned());
    let name = ServiceName::new(&*namespace, metadata.name.clone().unwrap_or_default());
    metadata.namespace = Some(namespace);
    Ok(What::Service(name, Arc::new(service)))
}

fn static_pod(
    pod: Pod,
    kinds: Kinds,
    node_name: &str,
    path: &Path,
    seen: Timestamp,
) -> Result<DesiredPod, Vec<FieldError>> {
    // Once the node's name is appended, a missing name would no longer show.
    let nameless = pod.metadata.name.as_deref().unwrap_or_default().is_empty();
    let (uid, name, mut pod) = identity::adopt(pod, node_name, path, seen);
    defaults::apply(&mut pod);

    let errors = if nameless {
        vec![FieldError::required("metadata.name", "a pod needs a name")]
    } else {
        let references = match kinds {
            Kinds::Pods => References::Forbidden,
            Kinds::PodsAndData => References::Files,
        };
        validate::static_pod(&pod, references)
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(DesiredPod {
        uid,
        name,
        pod: Arc::new(pod),
        origin: Origin::Static {
            path: path.to_owned(),
        },
        intent: Intent::Run,
    })
}

fn locate(bytes: &[u8], errors: Vec<FieldError>) -> Vec<Finding> {
    let places = Places::of(&String::from_utf8_lossy(bytes));
    errors
        .into_iter()
        .map(|error| Finding {
            position: places.nearest(&error.path),
            reason: Reason::Invalid(error),
        })
        .collect()
}
