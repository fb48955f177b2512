//! `run`: load, build, run until told to stop.

use std::path::Path;

use super::args::Run;
use super::exit::Exit;
use super::{colors, load, runtime};
use crate::app::{App, Ended};
use crate::telemetry::log;

/// Serves until told to stop.
pub fn run(path: Option<&Path>, _flags: &Run) -> anyhow::Result<Exit> {
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return Ok(exit),
    };
    let _log = log::init(&config.log, colors())?;
    no_core_dumps();
    runtime()?.block_on(async {
        let app = match App::build(config).await {
            Ok(app) => app,
            Err(error) => {
                tracing::error!(%error, "cannot start");
                return Ok(if error.is_address() { Exit::Address } else { Exit::Config });
            }
        };
        match app.run().await {
            Ended::Drained => Ok(Exit::Done),
            Ended::Interrupted => Ok(Exit::Interrupted),
        }
    })
}

/// A core file would hold secrets and tokens.
fn no_core_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}
