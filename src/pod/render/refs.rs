//! The objects that a pod's containers refer to.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod};

use crate::pod::inputs::PodRefs;

/// Names of all ConfigMaps and Secrets that environments refer to, and of the
/// pull secrets. Volumes are not looked at: they are fetched when mounted.
#[must_use]
pub fn refs(pod: &Pod) -> PodRefs {
    let mut refs = PodRefs::default();
    let Some(spec) = &pod.spec else {
        return refs;
    };
    let init = spec.init_containers.iter().flatten();
    for container in spec.containers.iter().chain(init) {
        refs.collect(container.env.as_deref(), container.env_from.as_deref());
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        refs.collect(container.env.as_deref(), container.env_from.as_deref());
    }
    let pull_secrets = spec.image_pull_secrets.iter().flatten();
    insert_all(&mut refs.pull_secrets, pull_secrets.map(|s| &s.name));
    refs
}

impl PodRefs {
    fn collect(&mut self, env: Option<&[EnvVar]>, env_from: Option<&[EnvFromSource]>) {
        let sources = env.unwrap_or_default().iter();
        for source in sources.filter_map(|variable| variable.value_from.as_ref()) {
            let config_map = source.config_map_key_ref.iter();
            insert_all(&mut self.config_maps, config_map.map(|r| &r.name));
            let secret = source.secret_key_ref.iter();
            insert_all(&mut self.secrets, secret.map(|r| &r.name));
        }
        for source in env_from.unwrap_or_default() {
            let config_map = source.config_map_ref.iter();
            insert_all(&mut self.config_maps, config_map.map(|r| &r.name));
            let secret = source.secret_ref.iter();
            insert_all(&mut self.secrets, secret.map(|r| &r.name));
        }
    }
}

fn insert_all<'a>(set: &mut BTreeSet<String>, names: impl Iterator<Item = &'a String>) {
    set.extend(names.filter(|name| !name.is_empty()).cloned());
}
