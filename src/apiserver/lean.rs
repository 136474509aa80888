//! Services and EndpointSlices off the wire without what nobody here reads:
//! managed fields, most annotations, what endpoints refer to. That is the
//! greater part of such an object, and it is skipped, not decoded and dropped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// The one annotation that is kept: when what a slice tells of happened.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A `K` of which only the needed parts are filled in.
#[derive(Debug, Clone)]
pub(super) struct Lean<K>(pub(super) K);

impl<K: kube::Resource> kube::Resource for Lean<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

impl<'de> Deserialize<'de> for Lean<Service> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Metadata,
            spec: Option<ServiceSpec>,
            status: Option<ServiceStatus>,
        }
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self(Service {
            metadata: wire.metadata.into(),
            spec: wire.spec,
            status: wire.status,
        }))
    }
}

impl<'de> Deserialize<'de> for Lean<EndpointSlice> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            metadata: Metadata,
            #[serde(default)]
            address_type: String,
            // The API server writes an empty list as null.
            endpoints: Option<Vec<WireEndpoint>>,
            ports: Option<Vec<EndpointPort>>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let endpoints = wire.endpoints.unwrap_or_default();
        Ok(Self(EndpointSlice {
            metadata: wire.metadata.into(),
            address_type: wire.address_type,
            endpoints: Some(endpoints.into_iter().map(Endpoint::from).collect()),
            ports: wire.ports,
        }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    /// Of two Services that claim one address, the older one has it.
    creation_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
}

/// The kept ones among an object's annotations.
#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    trigger_time: Option<String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(wire: Metadata) -> Self {
        let trigger_time = wire.annotations.and_then(|kept| kept.trigger_time);
        Self {
            name: wire.name,
            namespace: wire.namespace,
            uid: wire.uid,
            resource_version: wire.resource_version,
            creation_timestamp: wire.creation_timestamp,
            labels: wire.labels,
            annotations: trigger_time.map(|time| BTreeMap::from([(TRIGGER_TIME.to_owned(), time)])),
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<EndpointConditions>,
    hints: Option<EndpointHints>,
    node_name: Option<String>,
}

impl From<WireEndpoint> for Endpoint {
    fn from(wire: WireEndpoint) -> Self {
        Self {
            addresses: wire.addresses.unwrap_or_default(),
            conditions: wire.conditions,
            hints: wire.hints,
            node_name: wire.node_name,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata() -> serde_json::Value {
        json!({
            "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "labels": {"l": "1"}, "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {TRIGGER_TIME: "2026-01-02T03:04:05Z", "other": "x"},
            "managedFields": [{"manager": "m", "fieldsV1": {"f:metadata": {}}}],
        })
    }

    fn kept_metadata() -> ObjectMeta {
        serde_json::from_value(json!({
            "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "labels": {"l": "1"}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {TRIGGER_TIME: "2026-01-02T03:04:05Z"},
        }))
        .unwrap()
    }

    #[test]
    fn a_service_keeps_its_spec_and_status() {
        let wire = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(),
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": "http"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}},
        });
        let Lean(lean): Lean<Service> = serde_json::from_value(wire.clone()).unwrap();
        let whole: Service = serde_json::from_value(wire).unwrap();
        assert_eq!(lean.metadata, kept_metadata());
        assert_eq!((lean.spec, lean.status), (whole.spec, whole.status));
    }

    #[test]
    fn a_slice_keeps_what_decides_where_traffic_goes() {
        let wire = json!({
            "metadata": metadata(), "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.0.0.1"], "nodeName": "a", "zone": "z", "hostname": "h",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "hints": {"forZones": [{"name": "z"}]},
                "targetRef": {"kind": "Pod", "name": "p"},
            }],
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        });
        let Lean(lean): Lean<EndpointSlice> = serde_json::from_value(wire.clone()).unwrap();
        let mut whole: EndpointSlice = serde_json::from_value(wire).unwrap();
        whole.metadata = kept_metadata();
        for endpoint in whole.endpoints.iter_mut().flatten() {
            endpoint.zone = None;
            endpoint.hostname = None;
            endpoint.target_ref = None;
        }
        assert_eq!(lean, whole);
    }

    #[test]
    fn nothing_may_be_null() {
        let wire = json!({
            "metadata": {"name": "n", "labels": null, "annotations": null},
            "addressType": "IPv6", "endpoints": null, "ports": null,
        });
        let Lean(lean): Lean<EndpointSlice> = serde_json::from_value(wire).unwrap();
        assert_eq!(lean.endpoints, Some(Vec::new()));
        let wire = json!({"metadata": {"name": "n"}, "spec": null});
        let Lean(lean): Lean<Service> = serde_json::from_value(wire).unwrap();
        assert_eq!(lean.spec, None);
    }
}
