//! What runs a pod: the handler that its RuntimeClass names, what the runtime
//! can do with it, and the IDs of the pod's own users.

use super::Target;
use crate::error::chain;
use crate::pod::inputs::PodRuntime;

impl Target {
    /// For a new sandbox, whose handler is the RuntimeClass' of now.
    pub(super) async fn new_runtime(&self) -> Result<PodRuntime, String> {
        let spec = self.desired.pod.spec.as_ref();
        let class = spec.and_then(|spec| spec.runtime_class_name.as_deref());
        let handler = match class {
            None | Some("") => String::new(),
            Some(class) => self.handler_of(class).await?,
        };
        self.runtime(handler).await
    }

    /// For a sandbox that runs with `handler`: the class may say otherwise by
    /// now, or the API server be away.
    pub(super) async fn runtime(&self, handler: String) -> Result<PodRuntime, String> {
        let mut health = self.deps.observer.health();
        // Just after the start nobody has asked the runtime what it can do. An
        // error means that the agent ends; what is known then will do.
        let features = match health.wait_for(|health| health.checked).await {
            Ok(health) => health.features(&handler),
            Err(_) => self.deps.observer.health().borrow().features(&handler),
        };
        let spec = self.desired.pod.spec.as_ref();
        let wants_users = spec.and_then(|spec| spec.host_users) == Some(false);
        let users = if wants_users && features.user_namespaces {
            let mapping = self.deps.volumes.id_mapping(&self.desired.uid).await;
            Some(mapping.map_err(|error| format!("create user namespace: {}", chain(&error)))?)
        } else {
            None
        };
        Ok(PodRuntime {
            handler,
            features,
            users,
        })
    }

    async fn handler_of(&self, class: &str) -> Result<String, String> {
        match self.deps.objects.runtime_class(class).await {
            Ok(Some(object)) => Ok(object.handler),
            Ok(None) => Err(format!("runtimeclass.node.k8s.io {class:?} not found")),
            Err(error) => Err(format!(
                "failed to lookup RuntimeClass {class}: {}",
                chain(&error)
            )),
        }
    }
}
