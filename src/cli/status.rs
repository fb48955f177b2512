//! `status`: the state of a running instance, once or again and again.

mod summary;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::args::{OutputFormat, StatusFlags};
use super::exit::Exit;
use super::operate::{Page, admin_address, ask, get, unreachable};
use super::output::{errln, out, outln};
use super::setup::runtime;
use crate::sensitive::private_file;
use summary::summary;

/// Takes the cursor to the first column of the first line, and clears the rest of the screen.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Shows the state of a running instance.
pub(super) fn status(path: Option<&Path>, flags: StatusFlags) -> anyhow::Result<Exit> {
    let address = admin_address(path, flags.admin, Page::Control);
    if let Some(interval) = flags.watch {
        return runtime()?.block_on(watch(&address, flags.output, interval));
    }
    if let Some(file) = flags.bundle {
        return bundle(&address, &file);
    }
    match ask(&address, "/status") {
        Ok((200, body)) => out!("{}", shown(&address, &body, flags.output)?)?,
        Ok((code, body)) => return Ok(refused(&address, code, &body)),
        Err(error) => return Ok(unreachable(&address, &error)),
    }
    Ok(Exit::Done)
}

/// Writes the support bundle of a running instance into a new file, or to stdout.
fn bundle(address: &str, file: &Path) -> anyhow::Result<Exit> {
    let body = match ask(address, "/bundle") {
        Ok((200, body)) => body,
        Ok((code, body)) => return Ok(refused(address, code, &body)),
        Err(error) => return Ok(unreachable(address, &error)),
    };
    if file == Path::new("-") {
        out!("{body}")?;
        return Ok(Exit::Done);
    }
    let shown = file.display();
    // For its owner alone: it holds no secret, but names hosts, routes and clients.
    let created = private_file().create_new(true).open(file);
    created
        .and_then(|mut file| file.write_all(body.as_bytes()))
        .with_context(|| format!("cannot write {shown}"))?;
    outln!("wrote {shown}: read it before you send it")?;
    Ok(Exit::Done)
}

fn refused(address: &str, code: u16, body: &str) -> Exit {
    errln!("error: {address} answers with {code}: {}", body.trim_end());
    Exit::Failed
}

/// The state that an instance told, as text or JSON.
pub(super) fn shown(address: &str, body: &str, output: OutputFormat) -> anyhow::Result<String> {
    match output {
        OutputFormat::Json => Ok(format!("{}\n", body.trim_end())),
        OutputFormat::Text => {
            let status = serde_json::from_str(body).context("/status is not JSON")?;
            Ok(summary(address, &status))
        }
    }
}

/// Shows the state at each interval until Ctrl-C. An instance that stops answering may be restarting: only
/// where none answers at first is that the end. On a terminal each state replaces the one before.
async fn watch(address: &str, output: OutputFormat, interval: Duration) -> anyhow::Result<Exit> {
    let screen = io::stdout().is_terminal() && output == OutputFormat::Text;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut has_answered = false;
    loop {
        // Cancel safe: a tick or an answer that Ctrl-C outruns is not needed any more.
        let answer = tokio::select! {
            biased;
            ended = &mut interrupted => return ended.map(|()| Exit::Done).map_err(Into::into),
            answer = async { ticks.tick().await; get(address, "/status").await } => answer,
        };
        let text = match answer {
            Ok((200, body)) => {
                has_answered = true;
                match output {
                    OutputFormat::Text => shown(address, &body, output)?,
                    // One document a line.
                    OutputFormat::Json => format!("{}\n", serde_json::from_str::<Value>(&body)?),
                }
            }
            Ok((code, body)) => return Ok(refused(address, code, &body)),
            Err(error) if !has_answered => return Ok(unreachable(address, &error)),
            Err(error) => match output {
                OutputFormat::Text => format!("{address} does not answer: {error:#}\n"),
                OutputFormat::Json => continue,
            },
        };
        let text = match (screen, output) {
            (true, _) => format!("{REDRAW}{text}"),
            (false, OutputFormat::Text) => format!("{text}\n"),
            (false, OutputFormat::Json) => text,
        };
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // The reader, such as `head`, has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
            written => written?,
        }
    }
}
