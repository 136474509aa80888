//! What every test stands on: settings, clusters, scenes, waiting, reports.
//!
//! [`run`] turns [`Test`]s into trials of libtest-mimic, which brings names, filters,
//! `--list` and threads. A trial gets a [`Scene`]: a cluster and a namespace of its own.

mod cgroups;
mod cluster;
mod host;
mod json;
mod kubectl;
mod leaks;
mod manifest;
mod report;
mod scene;
mod settings;
mod stage;
mod wait;

pub use cgroups::Cgroup;
pub use host::poll_until;
pub use json::{condition, container, number, text, truth};
pub use manifest::{AGNHOST, BUSYBOX, FOREVER, shell};
pub use scene::{Scene, has_ended, is_ready};

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Handle;

use settings::Settings;
use stage::Stage;

/// How long a test waits for what should take seconds. Generous, because the machine may
/// be busy; a test that waits this long is about to fail.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where a test runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the cluster that it shares with others; it must not disturb them.
    Shared,
    /// On a cluster of its own, whose components it may break.
    Own,
}

/// One test; made by [`tests!`].
#[derive(Clone, Copy)]
pub struct Test {
    pub path: &'static str,
    pub place: Place,
    pub run: fn(Scene) -> BoxFuture<'static, anyhow::Result<()>>,
}

impl Test {
    /// `module::function`, without the name of this crate.
    fn name(&self) -> &'static str {
        self.path
            .split_once("::")
            .map_or(self.path, |(_, name)| name)
    }
}

/// `tests!(Shared: f, g)`: a list of tests, named by module and function.
macro_rules! tests {
    ($place:ident: $($function:ident),+ $(,)?) => {
        &[$(crate::harness::Test {
            path: concat!(module_path!(), "::", stringify!($function)),
            place: crate::harness::Place::$place,
            run: |scene| Box::pin($function(scene)),
        }),+]
    };
}
pub(crate) use tests;

/// Runs the tests that the command line selects, and prints the closing counts.
pub fn run(tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A thread for each: the stage says how many may run.
    arguments.test_threads.get_or_insert(tests.len());
    let settings = match Settings::new(&arguments) {
        Ok(settings) => Arc::new(settings),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let stage = Stage::new(settings.clone());
    runtime.spawn(stage.clone().strike_on_signal());
    let trials = tests
        .into_iter()
        .map(|test| trial(test, stage.clone(), runtime.handle().clone()));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let traces = runtime.block_on(stage.finish());
    if let Err(error) = &traces {
        println!("the shared cluster FAILED at its end: {error:#}\n");
    }
    println!(
        "cluster tests with {settings}: {} passed; {} failed; {} skipped",
        conclusion.num_passed,
        conclusion.num_failed + u64::from(traces.is_err()),
        conclusion.num_ignored,
    );
    if conclusion.has_failed() || traces.is_err() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn trial(test: Test, stage: Arc<Stage>, runtime: Handle) -> Trial {
    Trial::ignorable_test(test.name(), move || {
        if let Some(reason) = stage.settings.why_not(test.name()) {
            println!("{} is skipped: {reason}", test.name());
            return Ok(Completion::ignored_with(reason));
        }
        match runtime.block_on(stage.perform(test)) {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => Err(Failed::from(format!("{error:#}"))),
        }
    })
}
