//! `status`: the state of a running instance, once or again and again.

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

fn shown(address: &str, body: &str, output: OutputFormat) -> anyhow::Result<String> {
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

/// The page `/status` for a person: what needs attention, then a line for each token, each upstream, and each
/// request in flight, the oldest first.
fn summary(address: &str, status: &Value) -> String {
    let flag = |name: &str| status[name].as_bool().unwrap_or_default();
    let condition = match (flag("draining"), flag("ready")) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let version = status["version"].as_str().unwrap_or("of an unknown version");
    let mut text = format!("bearer-proxy {version} at {address}: {condition}\n");
    text += &process_line(status);
    let each = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
    each("attention").iter().for_each(|point| text += &attention_lines(point));
    each("tokens").iter().for_each(|token| text += &token_line(token));
    each("upstreams").iter().for_each(|upstream| text += &upstream_line(upstream));
    each("secrets").iter().for_each(|secret| text += &secret_line(secret));
    text += &refusals_line(each("refusals"), status["now"].as_str().unwrap_or_default());
    each("requests").iter().for_each(|request| text += &request_line(request));
    // Nothing that an upstream said may move the cursor or change colours.
    text.replace(|found: char| found.is_control() && found != '\n', "?")
}

/// The process: its id, its age, its file, and its last reload.
fn process_line(status: &Value) -> String {
    let Some(pid) = status["pid"].as_u64() else { return String::new() };
    let up = span(status["uptime_s"].as_u64().unwrap_or_default());
    let config = status["config"].as_str().unwrap_or_default();
    let mut line = format!("  pid {pid}, up {up}, {config}");
    let reload = &status["last_reload"];
    if let Some(at) = reload["at"].as_str() {
        let result = if reload["ok"] == true { "reloaded" } else { "reload refused" };
        line += &format!(", {result} {at}");
    }
    line + "\n"
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// One point that needs the operator, and its remedy.
fn attention_lines(point: &Value) -> String {
    let word = |name: &str| point[name].as_str().unwrap_or_default();
    format!("  ! {}\n    -> {}\n", word("what"), word("hint"))
}

/// One upstream: its connections, its last answer, what failed since, and what it said of our tokens.
fn upstream_line(upstream: &Value) -> String {
    let word = |name: &str| upstream[name].as_str();
    let mut line = format!(
        "  upstream {}  connections: {} open, {} idle",
        word("name").unwrap_or("?"),
        upstream["connections_open"],
        upstream["connections_idle"],
    );
    line += &word("last_success").map(|at| format!(", last answer {at}")).unwrap_or_default();
    let error = &upstream["last_error"];
    if let (Some(at), Some(detail)) = (error["at"].as_str(), error["detail"].as_str()) {
        line += &format!(", last error {at}: {detail}");
    }
    for (name, status) in [("unauthorized", "401"), ("forbidden", "403")] {
        let answers = upstream[name].as_u64().filter(|answers| *answers > 0);
        line += &answers.map(|answers| format!(", {answers} x {status}")).unwrap_or_default();
    }
    let lacking = &upstream["last_insufficient_scope"];
    if let (Some(route), Some(scope)) = (lacking["route"].as_str(), lacking["scope"].as_str()) {
        line += &format!(", insufficient_scope on {route}: {scope}");
    }
    let limit = &upstream["last_rate_limit"];
    if let (Some(at), Some(quota)) = (limit["at"].as_str(), limit["quota"].as_str()) {
        line += &match limit["until"].as_str() {
            Some(until) => format!(", rate limited until {until}"),
            None => format!(", rate limited at {at}"),
        };
        if !quota.is_empty() {
            line += &format!(" ({quota})");
        }
    }
    line + "\n"
}

/// One source of secrets: when it was read, and since when it has its value.
fn secret_line(secret: &Value) -> String {
    let word = |name: &str| secret[name].as_str();
    let source = word("source").unwrap_or("?");
    let mut line = format!("  secret {source}  read {}", word("last_read").unwrap_or("?"));
    line += &word("value_since").map(|at| format!(", value first read {at}")).unwrap_or_default();
    line += &word("error").map(|error| format!(", FAILED: {error}")).unwrap_or_default();
    line + "\n"
}

/// The refusals of the last hour by code, as far as the instance keeps them; nothing if there are none.
fn refusals_line(refusals: &[Value], now: &str) -> String {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let Some(now) = time(now) else { return String::new() };
    let mut codes: Vec<(&str, usize)> = Vec::new();
    for refusal in refusals {
        let at = refusal["at"].as_str().and_then(time);
        let is_recent =
            at.is_some_and(|at| now.duration_since(at) < jiff::SignedDuration::from_hours(1));
        let Some(code) = refusal["code"].as_str().filter(|_| is_recent) else { continue };
        match codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => codes.push((code, 1)),
        }
    }
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<String> = codes.iter().map(|(code, count)| format!("{count} {code}")).collect();
    match counts.is_empty() {
        true => String::new(),
        false => format!("  refused in the last hour: {}\n", counts.join(", ")),
    }
}

/// One request in flight: its age, what it waits for, and its id.
fn request_line(request: &Value) -> String {
    let word = |name: &str| request[name].as_str().unwrap_or_default();
    format!(
        "  request {}  {:.1} s  {}  {} {}.{}\n",
        word("request_id"),
        request["age_s"].as_f64().unwrap_or_default(),
        word("phase"),
        word("method"),
        word("upstream"),
        word("route"),
    )
}

/// One token: whose, with which scopes, and how it stands.
fn token_line(token: &Value) -> String {
    let word = |name: &str| token[name].as_str();
    let scopes: Vec<&str> =
        token["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let scopes = if scopes.is_empty() { "(no scopes)".to_owned() } else { scopes.join(" ") };
    let mut line = format!("  {}  {scopes}  ", word("credential").unwrap_or("?"));
    line += match token["usable"].as_bool() {
        Some(true) => "usable",
        _ => "NOT USABLE",
    };
    let facts =
        [("until", "expires"), ("renewal", "refresh_due"), ("failing since", "failing_since")];
    for (what, name) in facts {
        line += &word(name).map(|value| format!(", {what} {value}")).unwrap_or_default();
    }
    line += &word("last_error").map(|error| format!(" ({error})")).unwrap_or_default();
    line + &oddities(token) + "\n"
}

/// The remarks on a token that is lazy, contended, refused, without a scope, or short of calls.
fn oddities(token: &Value) -> String {
    let contended = match token["contended_cause"].as_str() {
        Some("own_second_token") => "contended: a second token of this credential may end it",
        _ => "contended: another instance may end it, or the API does not accept this client",
    };
    let flags = [
        ("lazy", "lazy"),
        ("handing_over", "handing over"),
        ("secret_refused", "the client secret was refused"),
        ("contended", contended),
    ];
    let mut text = String::new();
    for (flag, meaning) in flags {
        if token[flag] == true {
            text += &format!(", {meaning}");
        }
    }
    for scope in token["missing_scopes"].as_array().into_iter().flatten().filter_map(Value::as_str)
    {
        text += &format!(", without {scope}");
    }
    if let Some(until) = token["rate_limited_until"].as_str() {
        text += &format!(", rate limited until {until}");
    }
    let budget = &token["budget"];
    if let (Some(left), Some(limit)) = (budget["left"].as_u64(), budget["limit"].as_u64()) {
        text += &match budget["until"].as_str() {
            Some(until) => format!(", all {limit} calls spent until {until}"),
            None => format!(", {left} of {limit} calls left"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_odd_about_a_token_is_said() {
        let token = json!({ "credential": "bank", "scopes": ["a"], "usable": true, "lazy": false,
            "contended": true, "contended_cause": "own_second_token", "missing_scopes": ["b"],
            "secret_refused": true, "rate_limited_until": "T", "budget": { "limit": 4, "left": 3 } });
        let line = token_line(&token);
        let odd = "usable, the client secret was refused, contended: a second token of this credential may \
                   end it, without b, rate limited until T, 3 of 4 calls left\n";
        assert!(line.ends_with(odd), "{line}");
        assert_eq!(oddities(&json!({ "budget": null, "contended": false })), "");
        let spent = json!({ "budget": { "limit": 4, "left": 0, "until": "T" } });
        assert_eq!(oddities(&spent), ", all 4 calls spent until T");
    }

    #[test]
    fn refusals_of_the_last_hour_are_counted_by_code() {
        let refusal = |at: &str, code: &str| json!({ "at": at, "code": code });
        let recent = "2026-01-01T23:30:00Z";
        let refusals = [
            refusal(recent, "no_route"),
            refusal(recent, "overloaded"),
            refusal(recent, "overloaded"),
            refusal("2026-01-01T22:30:00Z", "loop"),
        ];
        let line = refusals_line(&refusals, "2026-01-02T00:00:00Z");
        assert_eq!(line, "  refused in the last hour: 2 overloaded, 1 no_route\n");
        assert_eq!(refusals_line(&refusals[3..], "2026-01-02T00:00:00Z"), "");
    }

    #[test]
    fn an_instance_is_told_with_what_needs_attention() {
        let status = json!({ "version": "1", "ready": true, "pid": 7, "uptime_s": 130,
            "config": "/etc/x.toml", "last_reload": { "at": "T", "ok": false },
            "attention": [{ "what": "It\u{1b}[31m fails.", "hint": "look" }],
            "secrets": [{ "source": "file /k", "last_read": "R", "value_since": "S", "error": null }],
            "upstreams": [{ "name": "api", "connections_open": 1, "connections_idle": 0,
                "unauthorized": 2, "last_insufficient_scope": { "route": "pay", "scope": "p" },
                "last_rate_limit": { "at": "A", "until": "U", "quota": "x-quota: 0" } }] });
        let expected = "bearer-proxy 1 at here: ready\n\
            \x20 pid 7, up 2 min, /etc/x.toml, reload refused T\n\
            \x20 ! It?[31m fails.\n    -> look\n\
            \x20 upstream api  connections: 1 open, 0 idle, 2 x 401, insufficient_scope on pay: p, \
            rate limited until U (x-quota: 0)\n\
            \x20 secret file /k  read R, value first read S\n";
        assert_eq!(summary("here", &status), expected);
    }
}
