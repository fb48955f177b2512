//! The state of a running instance in words, for a terminal.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::cli::output::{span, with_ages};
use crate::token::SLOW_CALL;

/// The page `/status` for a person: what needs attention, then tables of tokens, upstreams, secrets and
/// requests in flight, the oldest first.
pub(super) fn summary(address: &str, status: &Value) -> String {
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
    text += &table(&["TOKEN", "SCOPES", "STATE"], each("tokens"), token_row);
    text += &table(&["UPSTREAM", "STATE"], each("upstreams"), upstream_row);
    text += &table(&["SECRET", "STATE"], each("secrets"), secret_row);
    let now: Option<Timestamp> = status["now"].as_str().and_then(|now| now.parse().ok());
    text += &now.map(|now| refusals_line(each("refusals"), now)).unwrap_or_default();
    text += &table(&["REQUEST", "AGE", "PHASE", "ROUTE"], each("requests"), request_row);
    let more = status["requests_in_flight"].as_u64().unwrap_or_default();
    let more = more.saturating_sub(each("requests").len() as u64);
    if more > 0 {
        text += &format!("  and {more} more, which began later\n");
    }
    // Nothing that an upstream said may move the cursor or change colours.
    let text = text.replace(|found: char| found.is_control() && found != '\n', "?");
    now.map_or(text.clone(), |now| with_ages(&text, now))
}

/// Longest cell that others are aligned with.
const MAX_WIDTH: usize = 72;

/// Rows below their headings, in columns; nothing if there are no rows.
fn table(headings: &[&str], values: &[Value], row: fn(&Value) -> Vec<String>) -> String {
    if values.is_empty() {
        return String::new();
    }
    let mut rows = vec![headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>()];
    rows.extend(values.iter().map(row));
    let mut widths = vec![0; headings.len()];
    for (cell, width) in rows.iter().flat_map(|row| row.iter().zip(0..)) {
        let length = cell.chars().count();
        if length <= MAX_WIDTH {
            widths[width] = length.max(widths[width]);
        }
    }
    let mut text = "\n".to_owned();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("  {cell:width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
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
    if let Some(sha256) = status["config_sha256"].as_str() {
        line += &format!(", sha256 {sha256:.12}");
    }
    line + "\n"
}

/// One point that needs the operator, and its remedy.
fn attention_lines(point: &Value) -> String {
    let word = |name: &str| point[name].as_str().unwrap_or_default();
    format!("  ! {}\n    -> {}\n", word("what"), word("hint"))
}

/// One upstream: its connections, its last answer, what failed since, and what it said of our tokens.
fn upstream_row(upstream: &Value) -> Vec<String> {
    let word = |name: &str| upstream[name].as_str();
    let mut line = format!(
        "connections: {} open, {} idle",
        upstream["connections_open"], upstream["connections_idle"],
    );
    line += &word("last_success").map(|at| format!(", last answer {at}")).unwrap_or_default();
    line += &match upstream["certificate_days_left"].as_i64() {
        Some(days) => format!(", certificate: {days} days left"),
        None => String::new(),
    };
    let error = &upstream["last_error"];
    if let (Some(at), Some(detail)) = (error["at"].as_str(), error["detail"].as_str()) {
        line += &format!(", last error {at}: {detail}");
    }
    for (name, status) in [("unauthorized", "401"), ("forbidden", "403")] {
        let answers = upstream[name].as_u64().filter(|answers| *answers > 0);
        line += &answers.map(|answers| format!(", {answers} x {status}")).unwrap_or_default();
    }
    line +=
        &word("last_challenge").map(|said| format!(", the last with {said}")).unwrap_or_default();
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
    vec![word("name").unwrap_or("?").to_owned(), line]
}

/// One source of secrets: when it was read, and since when it has its value.
fn secret_row(secret: &Value) -> Vec<String> {
    let word = |name: &str| secret[name].as_str();
    let mut line = format!("read {}", word("last_read").unwrap_or("?"));
    line += &word("value_since").map(|at| format!(", value first read {at}")).unwrap_or_default();
    line += &word("error").map(|error| format!(", FAILED: {error}")).unwrap_or_default();
    vec![word("source").unwrap_or("?").to_owned(), line]
}

/// The refusals of the last hour by code, as far as the instance keeps them; nothing if there are none.
fn refusals_line(refusals: &[Value], now: Timestamp) -> String {
    let mut codes: Vec<(&str, usize)> = Vec::new();
    for refusal in refusals {
        let at: Option<Timestamp> = refusal["at"].as_str().and_then(|at| at.parse().ok());
        let is_recent = at.is_some_and(|at| now.duration_since(at) < SignedDuration::from_hours(1));
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
        false => {
            format!(
                "\n  without an answer of an upstream in the last hour: {}\n",
                counts.join(", ")
            )
        }
    }
}

/// One request in flight: its age, what it waits for, and its id.
fn request_row(request: &Value) -> Vec<String> {
    let word = |name: &str| request[name].as_str().unwrap_or_default();
    let age = format!("{:.1} s", request["age_s"].as_f64().unwrap_or_default());
    let route = format!("{} {}.{}", word("method"), word("upstream"), word("route"));
    vec![word("request_id").to_owned(), age, word("phase").to_owned(), route]
}

/// One token: whose, with which scopes, and how it stands.
fn token_row(token: &Value) -> Vec<String> {
    let word = |name: &str| token[name].as_str();
    let scopes: Vec<&str> =
        token["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let scopes = if scopes.is_empty() { "(no scopes)".to_owned() } else { scopes.join(" ") };
    let mut state = match token["usable"].as_bool() {
        Some(true) => "usable".to_owned(),
        _ => "NOT USABLE".to_owned(),
    };
    let seconds = |name: &str| {
        let time = token[name].as_f64().filter(|time| *time > SLOW_CALL.as_secs_f64())?;
        Some(format!("{time:.0} s"))
    };
    let (under_way, waits) = (seconds("call_under_way_s"), seconds("call_waits_s"));
    if let Some(time) = &under_way {
        state += &format!(", a call has been under way for {time}");
    } else if let Some(time) = &waits {
        state += &format!(", its call has waited {time} for the answer to another one");
    }
    let next = if token["usable"] == true { "renewal" } else { "next try" };
    // A call that is under way was due in the past.
    let due = if under_way.or(waits).is_some() { "" } else { "refresh_due" };
    let facts = [("until", "usable_until"), (next, due), ("failing since", "failing_since")];
    for (what, name) in facts {
        state += &word(name).map(|value| format!(", {what} {value}")).unwrap_or_default();
    }
    state += &word("last_error").map(|error| format!(" ({error})")).unwrap_or_default();
    state += &oddities(token);
    vec![word("credential").unwrap_or("?").to_owned(), scopes, state]
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
    if let Some(share) = token["share"]["text"].as_str() {
        text += &format!(", {share}");
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
        let row = token_row(&token);
        assert_eq!(row[..2], ["bank", "a"]);
        let line = &row[2];
        let odd = "usable, the client secret was refused, contended: a second token of this credential may \
                   end it, without b, rate limited until T, 3 of 4 calls left";
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
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let line = refusals_line(&refusals, now);
        assert_eq!(
            line,
            "\n  without an answer of an upstream in the last hour: 2 overloaded, 1 no_route\n"
        );
        assert_eq!(refusals_line(&refusals[3..], now), "");
    }

    #[test]
    fn an_instance_is_told_with_what_needs_attention() {
        let upstream = json!({ "name": "api", "connections_open": 1, "connections_idle": 0,
            "unauthorized": 2, "last_insufficient_scope": { "route": "pay", "scope": "p" },
            "last_rate_limit": { "at": "A", "until": "2026-01-01T00:02:00Z", "quota": "x-quota: 0" } });
        let token = |credential: &str, scopes: Value| {
            json!({ "credential": credential, "scopes": scopes, "usable": true,
                "usable_until": "2026-01-01T01:00:00Z" })
        };
        let status = json!({ "version": "1", "ready": true, "pid": 7, "uptime_s": 130,
            "now": "2026-01-01T00:00:00Z", "config": "/etc/x.toml",
            "config_sha256": "0123456789abcdef", "requests_in_flight": 4,
            "last_reload": { "at": "2025-12-31T23:59:48Z", "ok": false },
            "attention": [{ "what": "It\u{1b}[31m fails.", "hint": "look" }],
            "tokens": [token("bank", json!(["read", "write"])), token("b", json!([]))],
            "secrets": [{ "source": "file /k", "last_read": "R", "value_since": "S", "error": null }],
            "requests": [{ "request_id": "id-1", "age_s": 1.25, "phase": "sent", "method": "POST",
                "upstream": "api", "route": "pay" }],
            "upstreams": [upstream] });
        let expected = "bearer-proxy 1 at here: ready\n\
            \x20 pid 7, up 2 min, /etc/x.toml, reload refused 2025-12-31T23:59:48Z (12 s ago), sha256 0123456789ab\n\
            \x20 ! It?[31m fails.\n    -> look\n\
            \n\x20 TOKEN  SCOPES       STATE\n\
            \x20 bank   read write   usable, until 2026-01-01T01:00:00Z (in 60 min)\n\
            \x20 b      (no scopes)  usable, until 2026-01-01T01:00:00Z (in 60 min)\n\
            \n\x20 UPSTREAM  STATE\n\
            \x20 api       connections: 1 open, 0 idle, 2 x 401, insufficient_scope on pay: p, \
            rate limited until 2026-01-01T00:02:00Z (in 2 min) (x-quota: 0)\n\
            \n\x20 SECRET   STATE\n\
            \x20 file /k  read R, value first read S\n\
            \n\x20 REQUEST  AGE    PHASE  ROUTE\n\
            \x20 id-1     1.2 s  sent   POST api.pay\n\
            \x20 and 3 more, which began later\n";
        assert_eq!(summary("here", &status), expected);
    }
}
