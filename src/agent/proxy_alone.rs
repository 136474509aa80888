//! `kubelet proxy`: the service proxy as a process of its own, in kube-proxy's place.
//!
//! In: kube-proxy's configuration. Out: an exit code. It ends when its configuration
//! file changes, to be started anew with it, as kube-proxy does. Rules stay.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::service_proxy::{self, Hearing, ServiceProxy};
use super::supervise::{Tasks, run_tasks};
use super::{StartError, settings};
use crate::apiserver::{self, EventRecorder};
use crate::config::LoadedProxy;
use crate::error::chain;
use crate::proxy::apply::{HostIptables, Iptables, IptablesError, Programs};
use crate::proxy::limits;
use crate::proxy::model::Family;
use crate::proxy::presence::Mode;
use crate::proxy::rules::RuleSet;

/// How often the configuration file is looked at.
const FILE_PERIOD: Duration = Duration::from_secs(5);
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Runs the proxy until `stop` resolves.
///
/// # Errors
/// If what was configured cannot be used.
pub async fn run(
    loaded: LoadedProxy,
    config_file: Option<PathBuf>,
    stop: impl Future<Output = ()>,
) -> Result<ExitCode, StartError> {
    let LoadedProxy {
        config, process, ..
    } = loaded;
    if let Err(failure) = std::fs::write(OOM_SCORE, process.oom_score_adj.to_string()) {
        warn!(error = %chain(&failure), "cannot set the OOM score");
    }
    let shutdown = CancellationToken::new();
    let mut tasks = Tasks::default();
    let (api, connection) = apiserver::connect(&settings::proxy_api(&config, &process)).await?;
    tasks.add("credentials", connection.follow(shutdown.clone()));
    let node_name: Arc<str> = config.node_name.as_str().into();
    let (events, event_task) = EventRecorder::new(node_name, Arc::new(api.clone()));
    tasks.add("events", event_task.run(shutdown.clone()));
    let inbox = service_proxy::inbox(&config.node_name);
    let (node_reflector, node) = api.reflect_node();
    tasks.add("node-watch", node_reflector.run(shutdown.clone()));
    let (services, _) = api.reflect_services();
    let services = services.with_proxy(inbox.services());
    tasks.add("services", services.run(shutdown.clone()));
    let slices = api.reflect_slices(inbox.slices());
    tasks.add("endpointslices", slices.run(shutdown.clone()));
    let proxy = ServiceProxy {
        config,
        mode: Mode::On,
        hearing: Hearing {
            inbox,
            node: Some(node),
            pods: None,
            events: Arc::new(move |event| events.record_proxy(event)),
        },
        verdict: watch::channel(None).0,
    };
    proxy.assemble(&mut tasks, &shutdown)?;
    if let Some(file) = config_file {
        tasks.add("configuration-file", until_changed(file, shutdown.clone()));
    }
    info!("the service proxy starts");
    Ok(run_tasks(tasks, shutdown, stop).await)
}

/// Sets what takes full privileges, and no more (`--init-only`).
pub fn init_only(loaded: &LoadedProxy) {
    let limits = settings::proxy_limits(&loaded.config);
    limits::ensure(Path::new("/"), &limits, service_proxy::cpus());
}

/// Removes all rules of Services on this machine, whoever wrote them.
///
/// # Errors
/// The first failure, after everything was tried.
pub async fn cleanup() -> Result<(), IptablesError> {
    let iptables = HostIptables::detect(&Programs::default()).await;
    let mut result = Ok(());
    for facts in service_proxy::facts(&iptables) {
        let cleaned = clean_family(&iptables, facts.family).await;
        if let Err(failure) = &cleaned {
            let family = facts.family.as_str();
            error!(family, error = %chain(failure), "cannot remove the rules of Services");
        }
        result = result.and(cleaned);
    }
    result
}

async fn clean_family(iptables: &HostIptables, family: Family) -> Result<(), IptablesError> {
    let found = iptables.found(family).await?;
    let script = RuleSet::cleanup(&found);
    iptables.restore(family, &script).await?;
    if let Err(failure) = iptables.remove_nftables_mode(family).await {
        let family = family.as_str();
        warn!(family, error = %chain(&failure), "rules of kube-proxy's nftables mode may be left");
    }
    Ok(())
}

/// Completes when the file is another one than now, which ends the process.
async fn until_changed(file: PathBuf, shutdown: CancellationToken) {
    let first = written_at(&file);
    let mut period = tokio::time::interval(FILE_PERIOD);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = period.tick() => {}
        }
        let now = written_at(&file);
        if now.is_some() && now != first {
            warn!(file = %file.display(), "the configuration has changed: ending, to be started with it");
            return;
        }
    }
}

fn written_at(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
