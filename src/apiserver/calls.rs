//! The write ports over HTTP: each method is one API call.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec as RequestedToken};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};

use super::client::ApiServer;
use super::{
    ApiError, BoundToken, Changes, EventSink, Following, LeasePort, NodePort, ObjectKind,
    ObjectName, ObjectRefs, PodStatusPort, TokenRequestSpec, Tokens,
};
use crate::pod::{PodName, PodUid};

/// Namespace of all node heartbeats.
const LEASE_NAMESPACE: &str = "kube-node-lease";

impl ApiServer {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), LEASE_NAMESPACE)
    }
}

#[async_trait]
impl PodStatusPort for ApiServer {
    async fn get(&self, name: &PodName) -> Result<Pod, ApiError> {
        let pods = self.pods(&name.namespace);
        self.calls.call("get pod", pods.get(&name.name)).await
    }

    async fn patch(&self, name: &PodName, patch: &serde_json::Value) -> Result<Pod, ApiError> {
        let pods = self.pods(&name.namespace);
        let params = PatchParams::default();
        let patch = Patch::Strategic(patch);
        let work = pods.patch_status(&name.name, &params, &patch);
        self.calls.call("patch pod status", work).await
    }

    async fn finalise_delete(&self, name: &PodName, uid: &PodUid) -> Result<(), ApiError> {
        let pods = self.pods(&name.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_string()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let work = pods.delete(&name.name, &params);
        self.calls.call("delete pod", work).await.map(drop)
    }

    async fn create_mirror(&self, pod: &Pod) -> Result<Pod, ApiError> {
        let pods = self.pods(pod.metadata.namespace.as_deref().unwrap_or_default());
        let params = PostParams::default();
        let work = pods.create(&params, pod);
        self.calls.call("create mirror pod", work).await
    }
}

#[async_trait]
impl NodePort for ApiServer {
    async fn create(&self, node: &Node) -> Result<Node, ApiError> {
        let nodes = self.nodes();
        let params = PostParams::default();
        let work = nodes.create(&params, node);
        self.heartbeat.call("create node", work).await
    }

    async fn get(&self) -> Result<Node, ApiError> {
        let nodes = self.nodes();
        let work = nodes.get(&self.node_name);
        self.heartbeat.call("get node", work).await
    }

    async fn patch(&self, patch: &serde_json::Value) -> Result<Node, ApiError> {
        let nodes = self.nodes();
        let params = PatchParams::default();
        let patch = Patch::Strategic(patch);
        let work = nodes.patch(&self.node_name, &params, &patch);
        self.heartbeat.call("patch node", work).await
    }

    async fn patch_status(&self, patch: &serde_json::Value) -> Result<Node, ApiError> {
        let nodes = self.nodes();
        let params = PatchParams::default();
        let patch = Patch::Strategic(patch);
        let work = nodes.patch_status(&self.node_name, &params, &patch);
        self.heartbeat.call("patch node status", work).await
    }
}

#[async_trait]
impl LeasePort for ApiServer {
    async fn get(&self) -> Result<Lease, ApiError> {
        let leases = self.leases();
        let work = leases.get(&self.node_name);
        self.heartbeat.call("get lease", work).await
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, ApiError> {
        let leases = self.leases();
        let params = PostParams::default();
        let work = leases.create(&params, lease);
        self.heartbeat.call("create lease", work).await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, ApiError> {
        let leases = self.leases();
        let params = PostParams::default();
        let work = leases.replace(&self.node_name, &params, lease);
        self.heartbeat.call("replace lease", work).await
    }
}

#[async_trait]
impl EventSink for ApiServer {
    async fn create(&self, event: &Event) -> Result<Event, ApiError> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let work = events.create(&params, event);
        self.events.call("create event", work).await
    }

    async fn patch(
        &self,
        namespace: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<Event, ApiError> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::default();
        let patch = Patch::Strategic(patch);
        let work = events.patch(name, &params, &patch);
        self.events.call("patch event", work).await
    }
}

#[async_trait]
impl ObjectRefs for ApiServer {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ApiError> {
        if let Some(held) = self.followed_config_maps.get(namespace, name).await {
            return Ok(held.map(Arc::unwrap_or_clone));
        }
        let fetch = self.clone().read("get ConfigMap", namespace, name);
        self.config_maps.get(namespace, name, fetch).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ApiError> {
        if let Some(held) = self.followed_secrets.get(namespace, name).await {
            return Ok(held.map(Arc::unwrap_or_clone));
        }
        let fetch = self.clone().read("get Secret", namespace, name);
        self.secrets.get(namespace, name, fetch).await
    }

    async fn runtime_class(&self, name: &str) -> Result<Option<RuntimeClass>, ApiError> {
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        let (calls, wanted) = (self.calls.clone(), name.to_owned());
        let fetch = async move {
            calls
                .call("get RuntimeClass", classes.get_opt(&wanted))
                .await
        };
        self.runtime_classes.get("", name, fetch).await
    }

    fn follow(&self, object: &ObjectName, changes: &Changes) -> Following {
        let ObjectName {
            kind,
            namespace,
            name,
        } = object;
        match kind {
            ObjectKind::ConfigMap => self.followed_config_maps.follow(namespace, name, changes),
            ObjectKind::Secret => self.followed_secrets.follow(namespace, name, changes),
        }
    }
}

impl ApiServer {
    /// Reads one object that a pod refers to.
    fn read<T>(
        self,
        call: &'static str,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<T>, ApiError>> + Send + 'static
    where
        T: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let objects: Api<T> = Api::namespaced(self.client.clone(), namespace);
        let name = name.to_owned();
        async move {
            let read = self.calls.call(call, objects.get_opt(&name)).await;
            read.map_err(explain_forbidden)
        }
    }
}

/// The node authorizer lets us read what pods bound to us refer to, and it may
/// learn of a binding later than we do.
fn explain_forbidden(error: ApiError) -> ApiError {
    match error {
        ApiError::Refused {
            call,
            code: 403,
            reason,
            message,
            retry_after,
        } => ApiError::Refused {
            call,
            code: 403,
            reason,
            message: format!(
                "the API server does not see yet that a pod of this node refers to it: {message}"
            ),
            retry_after,
        },
        other => other,
    }
}

#[async_trait]
impl Tokens for ApiServer {
    async fn request(&self, spec: &TokenRequestSpec) -> Result<BoundToken, ApiError> {
        const CALL: &str = "request token";
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &spec.namespace);
        let body = TokenRequest {
            spec: Some(RequestedToken {
                audiences: Some(spec.audiences.clone()),
                bound_object_ref: Some(spec.bound_to.clone()),
                expiration_seconds: Some(spec.expiration_seconds),
            }),
            ..TokenRequest::default()
        };
        let issued_at = jiff::Timestamp::now();
        let params = PostParams::default();
        let work = accounts.create_subresource::<_, TokenRequest>(
            "token",
            &spec.service_account,
            &params,
            &body,
        );
        let answer = self.calls.call(CALL, work).await?;
        answer
            .status
            .and_then(|status| {
                Some(BoundToken {
                    token: status.token?,
                    issued_at,
                    expires_at: status.expiration_timestamp?.0,
                })
            })
            .ok_or_else(|| ApiError::Invalid {
                call: CALL,
                source: "the answer holds no token or no expiry".into(),
            })
    }
}
