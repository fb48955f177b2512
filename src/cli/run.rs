//! `run`: load, build, run until told to stop.

use std::path::Path;

use super::args::Run;
use super::exit::Exit;
use super::setup::{colors, load, runtime};
use crate::app::{App, RunOutcome};
use crate::telemetry::log;

/// Serves until told to stop.
pub fn run(path: Option<&Path>, flags: &Run) -> anyhow::Result<Exit> {
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return Ok(exit),
    };
    let log = log::init(&config.log, colors())?;
    all_descriptors();
    runtime()?.block_on(async {
        let app = match App::build(config).await {
            Ok(app) => app,
            Err(error) => {
                tracing::error!(%error, "cannot start");
                return Ok(if error.is_address() { Exit::Address } else { Exit::Config });
            }
        };
        match app.run_beside(&log, &flags.command).await {
            RunOutcome::Drained => Ok(Exit::Done),
            RunOutcome::Command(code) => Ok(Exit::Command(code)),
            RunOutcome::Interrupted => Ok(Exit::Interrupted),
            RunOutcome::Failed => Ok(Exit::Failed),
        }
    })
}

/// Most shells allow few open files at first, for programs that use select(2), and more on demand.
fn all_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}
