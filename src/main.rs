//! The `kubelet` process: argv in, exit code out.

use std::path::PathBuf;
use std::process::ExitCode;

use kubelet::agent::{self, proxy_alone, telemetry};
use kubelet::config::{
    self, Cli, ExplainArgs, LoadedProxy, OutputFormat, ProxyAction, ProxyArgs, RunArgs,
};
use kubelet::error::chain;
use kubelet::pod::PodName;
use kubelet::server::explain;

/// Enough for the API server's and the runtime's streams at once; the machine's
/// other cores belong to its pods.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    match Cli::parse(std::env::args_os()) {
        Err(error) => error.exit(),
        Ok(Cli::Version(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Cli::Explain(args)) => in_runtime(explain(args)),
        Ok(Cli::Proxy(args)) => proxy(&args),
        Ok(Cli::Run(args)) => in_runtime(run(args)),
    }
}

fn in_runtime(program: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(program),
        Err(error) => failed(&error),
    }
}

async fn run(args: Box<RunArgs>) -> ExitCode {
    let loaded = match config::load(&args) {
        Ok(loaded) => loaded,
        Err(errors) => {
            telemetry::complain(&errors);
            return ExitCode::FAILURE;
        }
    };
    telemetry::init(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match agent::build(loaded.config).await {
        Ok(agent) => agent.run(agent::shutdown_signals()).await,
        Err(error) => {
            tracing::error!(error = %chain(&error), "cannot start");
            ExitCode::FAILURE
        }
    }
}

fn proxy(args: &ProxyArgs) -> ExitCode {
    let loaded = match config::load_proxy(args) {
        Ok(loaded) => loaded,
        Err(errors) => {
            telemetry::complain(&errors);
            return ExitCode::FAILURE;
        }
    };
    telemetry::init(&loaded.process.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match args.action() {
        ProxyAction::WriteConfig(path) => match std::fs::write(path, loaded.config.to_yaml()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "cannot write the configuration");
                ExitCode::FAILURE
            }
        },
        ProxyAction::Run => {
            let file = args.config_file().map(Into::into);
            in_runtime(run_proxy(loaded, file))
        }
        ProxyAction::InitOnly => {
            proxy_alone::init_only(&loaded);
            ExitCode::SUCCESS
        }
        ProxyAction::Cleanup => in_runtime(async {
            match proxy_alone::cleanup().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            }
        }),
    }
}

async fn run_proxy(loaded: LoadedProxy, file: Option<PathBuf>) -> ExitCode {
    match proxy_alone::run(loaded, file, agent::shutdown_signals()).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = %chain(&error), "cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn explain(args: ExplainArgs) -> ExitCode {
    let pod = PodName::new(args.pod.namespace.as_str(), args.pod.name.as_str());
    let output = match args.output {
        OutputFormat::Text => explain::Output::Text,
        OutputFormat::Json => explain::Output::Json,
    };
    match explain::ask(&args.socket(), &pod, output).await {
        Ok(answer) => {
            println!("{}", answer.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    telemetry::complain(&format_args!("kubelet: {}", chain(error)));
    ExitCode::FAILURE
}
