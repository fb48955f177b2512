//! `check`: load and report every problem at once; `--live` also asks each token endpoint.

use std::path::Path;

use super::args::{Check, OutputFormat};
use super::exit::Exit;
use super::live;
use super::output::{err, outln};
use super::setup::{colors, locate};
use crate::config;

/// Checks a configuration.
pub fn check(path: Option<&Path>, flags: &Check) -> anyhow::Result<Exit> {
    let path = locate(path)?;
    let loaded = match config::load(&path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            match flags.output {
                OutputFormat::Text => err!("{}", problems.render(colors())),
                OutputFormat::Json => outln!("{}", problems.to_json())?,
            }
            return Ok(Exit::Config);
        }
    };
    let notes = &loaded.notes;
    if flags.output == OutputFormat::Text {
        if !notes.is_empty() {
            err!("{}", notes.render(colors()));
        }
        let config = &loaded.config;
        let routes: usize =
            config.proxy.upstreams.iter().map(|upstream| upstream.routes.len()).sum();
        let clients = config.proxy.clients.len();
        let clients =
            if clients == 0 { String::new() } else { format!(", {}", count(clients, "client")) };
        outln!(
            "{}: ok, {}, {}, {}{clients}",
            path.display(),
            count(config.credentials.len(), "credential"),
            count(config.proxy.upstreams.len(), "upstream"),
            count(routes, "route"),
        )?;
    }
    if flags.live {
        return live::check(&loaded.config, notes, flags);
    }
    if flags.output == OutputFormat::Json {
        outln!("{}", notes.to_json())?;
    }
    Ok(Exit::Done)
}

/// A number with its noun: `1 route`, `2 routes`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
