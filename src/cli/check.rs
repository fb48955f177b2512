//! `check`: load and report every problem at once; `--live` also asks each token endpoint.

use std::path::Path;

use super::args::{Check, OutputFormat};
use super::exit::Exit;
use super::live;
use super::operate::{Page, admin_address, ask};
use super::output::{err, out, outln};
use super::setup::{colors, locate};
use super::status::shown;
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
            if flags.live && flags.output == OutputFormat::Text {
                tell_instance(&path)?;
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

/// Shows the state of the instance that runs with an older version of a file with errors, if one answers at
/// the address that the file names.
fn tell_instance(path: &Path) -> anyhow::Result<()> {
    let address = admin_address(Some(path), None, Page::Control);
    let Ok((200, body)) = ask(&address, "/status") else { return Ok(()) };
    outln!(
        "nothing was tried with this file; an instance that runs with an older configuration says of itself:\n"
    )?;
    out!("{}", shown(&address, &body, OutputFormat::Text)?)?;
    Ok(())
}

/// A number with its noun: `1 route`, `2 routes`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
