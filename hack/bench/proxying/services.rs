//! Many services with two endpoints each, made once through the API and then looked at
//! by every subject in turn.
//!
//! Nobody stands behind most endpoints: their rules are what costs. Every 64th service
//! and the last have ours, so that a connection tells whether a service's rules are there.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::prober::{Group, PORT};
use crate::cluster::Cluster;
use crate::pods::{NAMESPACE, client, make_namespace};
use crate::progress;

/// Requests at once.
const PARALLEL: usize = 64;
/// One in so many services has endpoints that answer.
const SAMPLED: usize = 64;
/// The service whose endpoints change.
const CHANGING: &str = "changing";

/// All services of the benchmark.
#[derive(Debug)]
pub(crate) struct Services {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    count: usize,
    samples: Vec<SocketAddr>,
    /// Where the service with changing endpoints is.
    pub(crate) changing: SocketAddr,
}

impl Services {
    /// Just the one whose endpoints change.
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        let client: Client = client(cluster).await?;
        make_namespace(&client).await?;
        let mut made = Self {
            services: Api::namespaced(client.clone(), NAMESPACE),
            slices: Api::namespaced(client, NAMESPACE),
            count: 0,
            samples: Vec::new(),
            changing: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        made.changing = made.create(CHANGING, Group::A.addresses()).await?;
        Ok(made)
    }

    /// Makes what is missing to this many services.
    pub(crate) async fn grow(&mut self, count: usize) -> Result<()> {
        progress(&format!("making services up to {count}"));
        let this = &*self;
        let new = self.count + 1..count;
        let made = stream::iter(new.map(|number| async move {
            let is_sample = number.is_multiple_of(SAMPLED) || number + 1 == count;
            let endpoints = if is_sample {
                Group::A.addresses()
            } else {
                nobody(number)?
            };
            let name = format!("service-{number:05}");
            let at = this.create(&name, endpoints).await.context(name)?;
            anyhow::Ok(is_sample.then_some(at))
        }));
        let made: Vec<Option<SocketAddr>> = made.buffer_unordered(PARALLEL).try_collect().await?;
        self.samples.extend(made.into_iter().flatten());
        self.count = count.saturating_sub(1);
        Ok(())
    }

    /// Addresses of services that answer once their rules are there; the one whose
    /// endpoints change comes last.
    pub(crate) fn samples(&self) -> Vec<SocketAddr> {
        self.samples
            .iter()
            .copied()
            .chain([self.changing])
            .collect()
    }

    /// Points the changing service at these endpoints; returns with the API's answer.
    pub(crate) async fn point(&self, endpoints: &[Ipv4Addr]) -> Result<()> {
        let patch = Patch::Merge(json!({ "endpoints": endpoints_of(endpoints) }));
        let params = PatchParams::default();
        self.slices.patch(CHANGING, &params, &patch).await?;
        Ok(())
    }

    async fn create(&self, name: &str, endpoints: [Ipv4Addr; 2]) -> Result<SocketAddr> {
        let service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "ports": [{ "port": PORT }] },
        }))?;
        let slice = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "endpoints": endpoints_of(&endpoints),
            "ports": [{ "port": PORT, "protocol": "TCP" }],
        }))?;
        let params = PostParams::default();
        let made = self.services.create(&params, &service).await?;
        self.slices.create(&params, &slice).await?;
        let ip = made.spec.and_then(|spec| spec.cluster_ip);
        let ip: Ipv4Addr = ip.context("a service without address")?.parse()?;
        Ok(SocketAddr::from((ip, PORT)))
    }
}

fn endpoints_of(addresses: &[Ipv4Addr]) -> Value {
    let endpoints = addresses.iter();
    endpoints
        .map(|address| json!({ "addresses": [address] }))
        .collect()
}

/// Two addresses of a shared network, RFC 6598, that no other service has.
fn nobody(number: usize) -> Result<[Ipv4Addr; 2]> {
    const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
    let offset = u32::try_from(number)? * 2;
    Ok([0, 1].map(|which| Ipv4Addr::from_bits(FIRST.to_bits() + offset + which)))
}
