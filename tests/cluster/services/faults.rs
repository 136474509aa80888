//! Rules that somebody removes, and agents that die: traffic goes on, or does so again
//! soon. Each on a cluster of its own.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{From, UdpClient, until_only};
use super::{UDP, selecting, serve, serve_with, service};
use crate::harness::{PATIENCE, Scene, Test, poll_until, shell, tests};

pub const TESTS: &[Test] = tests!(Own:
    rules_flushed_by_hand_come_back,
    chains_deleted_in_all_tables_come_back,
    traffic_goes_on_without_the_agent,
);

async fn rules_flushed_by_hand_come_back(t: Scene) -> anyhow::Result<()> {
    let url = served(&t).await?;
    for table in ["nat", "filter", "nat"] {
        t.cluster.exec(["iptables", "-t", table, "-F"]).await?;
        until_only(&t, From::Node, &url, &["a"]).await?;
        until_only(&t, From::Host, &url, &["a"]).await?;
    }
    Ok(())
}

async fn chains_deleted_in_all_tables_come_back(t: Scene) -> anyhow::Result<()> {
    let url = served(&t).await?;
    // As firewalld does when it is restarted: emptied and deleted in one step, as
    // chains may be used again a moment after they were emptied.
    let empty = "printf '*%s\nCOMMIT\n' mangle filter nat | iptables-restore";
    t.cluster.exec(["sh", "-c", empty]).await?;
    until_only(&t, From::Node, &url, &["a"]).await?;
    until_only(&t, From::Host, &url, &["a"]).await
}

/// A service with one endpoint, `a`, that answers.
async fn served(t: &Scene) -> anyhow::Result<String> {
    let ip = service(t, "web", selecting("web")).await?;
    serve(t, "a", "web").await?;
    let url = format!("http://{ip}/hostname");
    until_only(t, From::Host, &url, &["a"]).await?;
    Ok(url)
}

async fn traffic_goes_on_without_the_agent(t: Scene) -> anyhow::Result<()> {
    let url = served(&t).await?;
    let mut spec = selecting("echo");
    spec["ports"] = json!([{ "port": 7, "targetPort": 9090 }]);
    let echo_ip = service(&t, "echo", spec).await?;
    serve_with(
        &t,
        "echo",
        "echo",
        shell("main", "exec nc -ll -p 9090 -e cat"),
    )
    .await?;
    let mut spec = selecting("udp");
    spec["ports"] = json!([{ "port": 53, "targetPort": UDP, "protocol": "UDP" }]);
    let udp_ip = service(&t, "udp", spec).await?;
    serve(&t, "u1", "udp").await?;
    let udp = UdpClient::start(&format!("{udp_ip}:53"), "hostname").await?;
    udp.until_hears("u1", PATIENCE).await?;
    let mut session = Session::open(&format!("{echo_ip}:7")).await?;

    for (action, round) in [("kill", 1), ("stop", 2)] {
        t.cluster.ctl_agent(action).await?;
        session.echo().await?;
        until_only(&t, From::Node, &url, &["a"]).await?;
        until_only(&t, From::Host, &url, &["a"]).await?;
        Session::open(&format!("{echo_ip}:7")).await?.echo().await?;
        // The endpoint of the UDP flow goes while nobody watches.
        let (old, new) = (format!("u{round}"), format!("u{}", round + 1));
        t.delete_pod_within(&old, 0).await?;
        t.cluster.ctl_agent("start").await?;
        t.gone::<Pod>(&old).await?;
        serve(&t, &new, "udp").await?;
        udp.until_hears(&new, PATIENCE).await?;
        session.echo().await?;
        until_only(&t, From::Host, &url, &["a"]).await?;
    }
    Ok(())
}

/// A connection that lasts.
struct Session(TcpStream);

impl Session {
    const LIMIT: Duration = Duration::from_secs(10);

    /// Tries until the service is there.
    async fn open(address: &str) -> anyhow::Result<Self> {
        let connect = || async {
            let connecting = TcpStream::connect(address);
            Ok(
                match tokio::time::timeout(Duration::from_secs(3), connecting).await {
                    Ok(Ok(stream)) => Ok(Self(stream)),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("silence".to_owned()),
                },
            )
        };
        poll_until("a connection", PATIENCE, connect).await
    }

    /// Says something and hears it again.
    async fn echo(&mut self) -> anyhow::Result<()> {
        let exchange = async {
            self.0.write_all(b"still here").await?;
            let mut heard = [0; 10];
            self.0.read_exact(&mut heard).await?;
            ensure!(heard == *b"still here", "{heard:?}");
            Ok(())
        };
        tokio::time::timeout(Self::LIMIT, exchange)
            .await
            .context("no echo")?
    }
}
