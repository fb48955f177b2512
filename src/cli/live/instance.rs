//! The verdicts of the running instance on itself, its tokens and its upstreams. They cost no token call.

use std::path::Path;

use jiff::SignedDuration;
use serde::Deserialize as _;
use serde_json::Value;

use super::result::{CheckGroup, CheckResult};
use crate::admin::attention::{
    CALL_UNDER_WAY, FORWARDED_UNKNOWN, NOT_ACCEPTED, RAISE_IN_FLIGHT, UNDELIVERED, failure_hint,
    refusal_hint, route_failure_hint, scope_hint,
};
use crate::admin::report::{
    REFUSALS_IN_A_ROW, RepeatedRefusals, RouteFailures, ScopeReport, UnsafeRequests,
};
use crate::cli::running_instance::{NotAsked, RunningInstance};
use crate::proxy::code::Code;
use crate::token::SLOW_CALL;

/// The instance itself: where it answers, which file it runs with, and its last reload.
pub(super) fn group(running: &RunningInstance, checked: &Path) -> CheckGroup {
    let status = &running.status;
    let mut found = format!(
        "bearer-proxy {} at {}",
        text(status, "version").unwrap_or("of an unknown version"),
        running.address
    );
    if let (Some(pid), Some(uptime)) = (status["pid"].as_u64(), status["uptime_s"].as_u64()) {
        found += &format!(", pid {pid}, up {uptime} s");
    }
    found += &text(status, "config").map(|path| format!(", with {path}")).unwrap_or_default();
    let step = CheckResult::ok("running", found);
    let mut steps = vec![match status["draining"] == true {
        true => step.warning().hint("it is draining, and accepts no new connections once its lame duck is over; requests under way end within drain_timeout"),
        false if text(status, "config").is_some_and(|path| is_another(path, checked)) => step.hint(
            "it runs with another file than the one that is checked: it tells nothing of what only this one has",
        ),
        false => step,
    }];
    let reload = &status["last_reload"];
    if let Some(at) = text(reload, "at") {
        steps.push(match reload["ok"] == true {
            true => CheckResult::ok("reload", format!("the file was applied at {at}")),
            false => {
                let why = text(reload, "error").map(first_error).unwrap_or_default();
                let found = format!(
                    "the file was refused at {at}, and the configuration before it is in force{why}"
                );
                CheckResult::failed("reload", found).hint("bearer-proxy check says what is wrong")
            }
        });
    }
    steps.extend(open_files(&status["open_files"]));
    steps.extend(overload(status));
    steps.extend(forwarded_unknown(&status["forwarded_unknown"]));
    steps.extend(undelivered(&status["undelivered"]));
    let refusals = status["repeated_refusals"].as_array().into_iter().flatten();
    // An older instance does not tell.
    let refusals = refusals.filter_map(|refusals| RepeatedRefusals::deserialize(refusals).ok());
    steps.extend(refusals.map(|refusals| {
        let step = CheckResult::ok("refusals", refusals.words()).warning();
        step.hint(refusal_hint(&refusals.code))
    }));
    CheckGroup { kind: "instance", name: running.address.clone(), url: None, steps }
}

/// The failed step for an address where something listens, and no instance answers.
pub(super) fn silent(not_asked: &NotAsked) -> CheckGroup {
    let step = CheckResult::failed("running", not_asked.why.clone()).hint(
        "an instance that hangs or is stopped, or another program: see who listens there; --fresh checks \
         without it",
    );
    CheckGroup { kind: "instance", name: not_asked.address.clone(), url: None, steps: vec![step] }
}

/// True if both files exist, and are not one. A relative path of the instance says nothing here.
fn is_another(running: &str, checked: &Path) -> bool {
    let running = Some(Path::new(running)).filter(|path| path.is_absolute());
    let running = running.and_then(|path| path.canonicalize().ok());
    running.zip(checked.canonicalize().ok()).is_some_and(|(running, checked)| running != checked)
}

/// The first error of a rendered report, with which it begins, after a colon.
fn first_error(report: &str) -> String {
    let error = report.lines().next().unwrap_or_default();
    format!(": {}", error.trim_start_matches("error: "))
}

/// A warning if requests of the last hour were refused because a limit of ours was reached, a failure if one
/// was in the last minute.
fn overload(status: &Value) -> Option<CheckResult> {
    let refusals = status["refusals"].as_array()?;
    let is_overload = |refusal: &&Value| refusal["code"] == Code::Overloaded.as_str();
    // The newest stands first.
    let last = refusals.iter().find(is_overload)?;
    let at = text(last, "at").filter(|at| is_recent(at, &status["now"]))?;
    let of = text(last, "upstream").filter(|name| !name.is_empty());
    let of = of.map(|name| format!(" of upstream {name}")).unwrap_or_default();
    let detail = text(last, "detail").unwrap_or_default();
    let found = format!("a request{of} was refused with 503 overloaded at {at}: {detail}");
    let is_now = is_within(at, &status["now"], SignedDuration::from_mins(1));
    let step = CheckResult::ok("overload", found).hint(RAISE_IN_FLIGHT);
    Some(if is_now { step.failure() } else { step.warning() })
}

/// A warning if it is not known whether an upstream acted on unsafe requests of the last hour.
fn forwarded_unknown(unknown: &Value) -> Option<CheckResult> {
    let words = UnsafeRequests::deserialize(unknown).ok()?.unknown()?;
    Some(CheckResult::ok("fate", words).warning().hint(FORWARDED_UNKNOWN))
}

/// A warning if apps did not get answers to unsafe requests in the last hour. Nothing of it can be mended in
/// the instance, so that it is no failure.
fn undelivered(undelivered: &Value) -> Option<CheckResult> {
    // An older instance does not tell.
    let words = UnsafeRequests::deserialize(undelivered).ok()?.undelivered()?;
    Some(CheckResult::ok("delivery", words).warning().hint(UNDELIVERED))
}

/// A failure if nearly all file descriptors are in use: then connections are neither accepted nor made.
fn open_files(files: &Value) -> Option<CheckResult> {
    let (open, limit) = (files["open"].as_u64()?, files["limit"].as_u64()?);
    let found = format!("{open} of {limit} file descriptors are in use");
    let hint =
        "raise the limit (LimitNOFILE of systemd, ulimit -n), or lower server.max_connections";
    (open >= limit / 10 * 9).then(|| CheckResult::failed("open files", found).hint(hint))
}

/// What the instance knows of one of its tokens. `with` names the scopes.
pub(super) fn token(steps: &mut Vec<CheckResult>, token: &Value, with: &str, address: &str) {
    steps.push(usable(token, with, address));
    let failures = token["failures"].as_u64().unwrap_or_default();
    if token["usable"] == true && failures > 0 {
        let since = text(token, "failing_since").unwrap_or("an unknown time");
        let found = format!("failed {failures} times since {since}: {}{with}", last_error(token));
        steps.push(advised(CheckResult::failed("renewal", found), token, "see its log"));
    }
    if token["secret_refused"] == true {
        let found = "the token server refused the client secret";
        let hint = "give it the right secret: the next call tries it by itself; --fresh shows the server's own words, for one more \
                    call";
        steps.push(CheckResult::failed("secret", found).hint(hint));
    }
    let missing: Vec<_> = strings(&token["missing_scopes"]).collect();
    if !missing.is_empty() {
        let found = format!("not granted: {}", missing.join(" "));
        let hint = "ask the API's owner to approve these scopes for your client";
        steps.push(CheckResult::failed("scopes", found).hint(hint));
    }
    if token["contended"] == true {
        let found = format!("an upstream has refused three tokens within one life{with}");
        let hint = "if an upstream answers nothing but 401, mend that first; else: does another instance use the same \
                    client id? give each one of its own";
        steps.push(CheckResult::failed("contended", found).hint(hint));
    }
    if token["budget_left"] == 0 {
        let found = "token_budget is spent: no token call until the hour has room for one";
        let hint = "what asks so often? the log has each token request, and bearer_proxy_token_requests_total their results";
        steps.push(CheckResult::failed("budget", found).hint(hint));
    }
    // A call that failed is told by its error.
    let took = token["last_call_s"].as_f64().filter(|_| failures == 0);
    if let Some(took) = took.filter(|took| *took > SLOW_CALL.as_secs_f64()) {
        let found = format!("the last token call took {took:.1} s{with}");
        let hint = "a request without a token waits at most timeouts.wait for one, then gets 503; ask the \
                    token server's owner";
        steps.push(CheckResult::failed("slow", found).hint(hint));
    }
}

/// Tells whether a request could use the token.
fn usable(token: &Value, with: &str, address: &str) -> CheckResult {
    let until = text(token, "usable_until").or(text(token, "expires"));
    let until = until.unwrap_or("an unknown time");
    if token["usable"] == true {
        return CheckResult::ok(
            "token",
            format!(
                "the instance at {address} holds a usable one until {until}{with}; \
                 --fresh asks for a new one"
            ),
        );
    }
    if token["lazy"] == true && token["last_error"].is_null() {
        let found = format!("lazy: the instance at {address} asks for it at its first use{with}");
        return CheckResult::ok("token", found).hint("--fresh asks for a new one");
    }
    // A call that begins just now outweighs no failure.
    let is_first = token["attempted"] != true;
    let failed = match is_first {
        true => String::new(),
        false => format!("; the last one failed: {}", last_error(token)),
    };
    let told = |time: &f64| is_first || *time > SLOW_CALL.as_secs_f64();
    if let Some(time) = token["call_under_way_s"].as_f64().filter(told) {
        let found = format!(
            "the instance at {address} holds no usable one; a token call has been under way for {time:.0} s{failed}{with}"
        );
        return CheckResult::failed("token", found).hint(CALL_UNDER_WAY);
    }
    if let Some(time) = token["call_waits_s"].as_f64().filter(told) {
        let found = format!(
            "the instance at {address} holds no usable one; its call waits for the answer to another one of the credential, for {time:.0} s{failed}{with}"
        );
        return CheckResult::failed("token", found).hint(CALL_UNDER_WAY);
    }
    if is_first {
        let found = format!(
            "the instance at {address} has no token yet: its first call has not begun{with}"
        );
        return CheckResult::failed("token", found).hint("ask again in a few seconds");
    }
    let since = text(token, "failing_since").map(|at| format!(" since {at}")).unwrap_or_default();
    let limited = text(token, "rate_limited_until");
    let limited = limited.map(|until| format!(", rate limited until {until}")).unwrap_or_default();
    let found = format!(
        "the instance at {address} holds no usable one; its calls fail{since}: {}{limited}{with}",
        last_error(token)
    );
    let otherwise = match text(token, "last_error") {
        Some("token_budget") => "wait, or raise token_budget of the credential",
        Some(
            "secret_unreadable" | "client_certificate_unusable" | "store_unusable" | "settings",
        ) => "mend it here: the token server was not asked",
        None => "ask again in a few seconds",
        Some(_) => "ask the token server's owner, with time and status",
    };
    advised(CheckResult::failed("token", found), token, otherwise)
}

/// The last error in words, else as its word of the fixed list.
fn last_error(token: &Value) -> &str {
    text(token, "error_text").or_else(|| text(token, "last_error")).unwrap_or("unknown")
}

/// The hint of the instance, else another one.
fn advised(step: CheckResult, token: &Value, otherwise: &str) -> CheckResult {
    step.hint(text(token, "error_hint").unwrap_or(otherwise))
}

/// What the instance knows of one of its upstreams: what it answered and what failed last.
pub(super) fn upstream(steps: &mut Vec<CheckResult>, upstream: &Value, now: &Value) {
    let in_a_row = upstream["unauthorized_in_a_row"].as_u64().unwrap_or_default();
    let never_accepted = text(upstream, "last_accepted").is_none();
    let challenge = text(upstream, "last_challenge");
    let challenge = challenge.map(|said| format!(", and says: {said}")).unwrap_or_default();
    let answered = text(upstream, "last_success");
    if in_a_row >= REFUSALS_IN_A_ROW || in_a_row > 0 && never_accepted {
        let times = if in_a_row == 1 { "time" } else { "times" };
        let found = format!("it answers nothing but 401, {in_a_row} {times} in a row{challenge}");
        steps.push(CheckResult::failed("answers", found).hint(NOT_ACCEPTED));
    } else if let Some(at) = answered {
        steps.push(CheckResult::ok("answers", format!("the last one came at {at}")));
    }
    steps.extend(rate_limit(upstream, now));
    let error = &upstream["last_error"];
    let Some(at) = text(error, "at") else { return };
    if upstream["failing"] == true {
        let (code, detail) = (text(error, "code"), text(error, "detail"));
        let (code, detail) = (code.unwrap_or("?"), detail.unwrap_or_default());
        let since = text(upstream, "failing_since").filter(|since| *since != at);
        let since = since.map(|since| format!(", as all since {since}")).unwrap_or_default();
        let found = format!("the last request failed at {at}{since}: {code}: {detail}");
        let hint = match code {
            "connect" => CONNECT,
            code => failure_hint(code, text(error, "forwarded").unwrap_or("unknown"), None),
        };
        steps.push(CheckResult::failed("requests", found).hint(hint));
    }
}

/// The remedy for failed connections, below the steps of one that is tried now.
const CONNECT: &str = "nothing was sent; the steps above say how far a connection comes now";

/// What the instance knows of the routes of one upstream: failures in a row, and scopes that are lacking.
pub(super) fn routes(steps: &mut Vec<CheckResult>, status: &Value, upstream: &str) {
    let all = status["routes"].as_array().into_iter().flatten();
    for route in all.filter(|route| route["upstream"] == upstream) {
        let name = text(route, "route").unwrap_or_default();
        let series = route["failing"].as_array().into_iter().flatten();
        // An older instance has other fields, or none.
        let series = series.filter_map(|series| RouteFailures::deserialize(series).ok());
        for failing in series.filter(RouteFailures::count) {
            let step = CheckResult::failed(format!("route {name}"), failing.words());
            let is_connect = failing.code == Code::Connect.as_str();
            let hint = route_failure_hint(&failing);
            steps.push(step.hint(if is_connect { CONNECT } else { hint }));
        }
        let last = ScopeReport::deserialize(&route["insufficient_scope"]).ok();
        if let Some(last) = last.filter(|last| is_recent(&last.at, &status["now"])) {
            let found = format!("at {} the token of route {name} lacked {}", last.at, last.words());
            let hint = scope_hint(upstream, name, &last.lacking);
            steps.push(CheckResult::failed("scopes", found).hint(hint));
        }
    }
}

/// A warning if the upstream asked for fewer requests in the last hour, a failure if it did for a time that
/// has not ended.
fn rate_limit(upstream: &Value, now: &Value) -> Option<CheckResult> {
    let limit = &upstream["last_rate_limit"];
    let at = text(limit, "at")?;
    // Both are RFC 3339 in UTC of the same length: their order is that of time.
    let until = text(limit, "until").filter(|until| now.as_str().is_some_and(|now| *until > now));
    if until.is_none() && !is_recent(at, now) {
        return None;
    }
    let mut found = format!("it wants fewer requests: rate limited at {at}");
    found += &until.map(|until| format!(" until {until}")).unwrap_or_default();
    let quota = text(limit, "quota").filter(|quota| !quota.is_empty());
    found += &quota.map(|quota| format!("; {quota}")).unwrap_or_default();
    let hint = "send fewer requests, or ask the API's owner for a higher limit";
    let step = CheckResult::ok("rate limit", found).hint(hint);
    Some(if until.is_some() { step.failure() } else { step.warning() })
}

/// True for a date of the hour before `now`.
fn is_recent(at: &str, now: &Value) -> bool {
    is_within(at, now, SignedDuration::from_hours(1))
}

/// True for a date of this time before `now`.
fn is_within(at: &str, now: &Value, time: SignedDuration) -> bool {
    let parsed = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let times = now.as_str().and_then(parsed).zip(parsed(at));
    times.is_some_and(|(now, at)| now.duration_since(at) < time)
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value[name].as_str()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::result::CheckStatus;
    use super::*;

    fn failed(steps: &[CheckResult]) -> Vec<&str> {
        steps.iter().filter(|step| step.has_failed()).map(|step| &*step.name).collect()
    }

    #[test]
    fn each_fault_of_a_token_is_a_failed_step() {
        let check = |token_: Value, expected: &[&str], words: &str| {
            let mut steps = Vec::new();
            token(&mut steps, &token_, ", asked with a", "localhost:6751");
            assert_eq!(failed(&steps), expected, "{token_}");
            let all: String =
                steps.iter().map(|step| format!("{}{:?}\n", step.found, step.hint)).collect();
            assert!(all.contains(words), "{all}");
        };
        let usable = |extra: Value| {
            let mut token = json!({ "usable": true, "attempted": true, "expires": "2030" });
            token.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            token
        };
        check(usable(json!({})), &[], "holds a usable one until 2030, asked with a");
        check(usable(json!({ "contended": true })), &["contended"], "another instance");
        check(usable(json!({ "budget_left": 0 })), &["budget"], "token_budget is spent");
        check(usable(json!({ "budget_left": 1, "missing_scopes": [] })), &[], "");
        check(usable(json!({ "missing_scopes": ["b"] })), &["scopes"], "not granted: b");
        check(usable(json!({ "last_call_s": 2.5 })), &["slow"], "took 2.5 s");
        check(usable(json!({ "last_call_s": 1.9 })), &[], "");
        check(usable(json!({ "last_call_s": 9.9, "failures": 1 })), &["renewal"], "");
        check(usable(json!({ "secret_refused": true })), &["secret"], "refused the client secret");
        let failing = json!({ "failures": 3, "failing_since": "2026", "error_text": "status 500",
            "error_hint": "wait" });
        check(usable(failing), &["renewal"], "failed 3 times since 2026: status 500");
        let none = json!({ "usable": false, "attempted": true, "last_error": "connect" });
        check(none, &["token"], "its calls fail: connect, asked with a");
        check(json!({ "usable": false, "attempted": false }), &["token"], "has not begun");
        let again = json!({ "usable": false, "attempted": true, "call_waits_s": 7.0,
            "error_text": "no answer" });
        check(again, &["token"], "for 7 s; the last one failed: no answer, asked with a");
        let behind = json!({ "usable": false, "attempted": false, "call_waits_s": 7.0 });
        check(behind, &["token"], "waits for the answer to another one of the credential, for 7 s");
        let hanging = json!({ "usable": false, "attempted": false, "call_under_way_s": 5.2 });
        check(hanging, &["token"], "a token call has been under way for 5 s");
        let limited = json!({ "usable": false, "attempted": true, "last_error": "rate_limited",
            "rate_limited_until": "U" });
        check(limited, &["token"], "rate_limited, rate limited until U, asked with a");
        let unread = json!({ "usable": false, "attempted": true, "last_error": "secret_unreadable",
            "error_hint": "mend this source" });
        check(unread, &["token"], "mend this source");
        check(json!({ "usable": false, "lazy": true }), &[], "lazy");
    }

    #[test]
    fn an_upstream_that_answers_nothing_but_401_is_a_failed_step() {
        let check = |upstream_: Value, expected: &[&str], words: &str| {
            let mut steps = Vec::new();
            upstream(&mut steps, &upstream_, &json!("2026-01-02T00:00:00Z"));
            assert_eq!(failed(&steps), expected, "{upstream_}");
            let all: String = steps.iter().map(|step| format!("{}\n", step.found)).collect();
            assert!(all.contains(words), "{all}");
        };
        check(json!({}), &[], "");
        let once = json!({ "unauthorized_in_a_row": 1, "last_challenge": "Bearer" });
        check(once, &["answers"], "401, 1 time in a row, and says: Bearer");
        check(json!({ "unauthorized_in_a_row": 2, "last_accepted": "2026" }), &[], "");
        check(json!({ "unauthorized_in_a_row": 3, "last_accepted": "2026" }), &["answers"], "3");
        let error = json!({ "at": "2026-02", "code": "connect", "detail": "no connection" });
        let broken = json!({ "last_success": "2026-01", "last_error": error, "failing": true });
        check(broken.clone(), &["requests"], "failed at 2026-02: connect: no connection");
        let mut since = broken;
        since["failing_since"] = json!("2026-01");
        check(since, &["requests"], "failed at 2026-02, as all since 2026-01: connect");
        let recovered = json!({ "last_success": "2026-03", "last_error": error, "failing": false });
        check(recovered, &[], "the last one came at 2026-03");
    }

    #[test]
    fn a_route_that_fails_or_lacks_a_scope_is_a_failed_step() {
        let check = |route: Value, expected: &[&str], words: &str| {
            let mut route = route;
            (route["upstream"], route["route"]) = ("api".into(), "pay".into());
            let mut steps = Vec::new();
            let status = json!({ "now": "2026-01-02T00:00:00Z", "routes": [route] });
            routes(&mut steps, &status, "other");
            assert_eq!(steps, []);
            routes(&mut steps, &status, "api");
            assert_eq!(failed(&steps), expected, "{status}");
            let all: String = steps.iter().map(|step| format!("{}\n", step.found)).collect();
            assert!(all.contains(words), "{all}");
        };
        let failing = |failures: u64, is_unsafe: bool| {
            json!({ "failing": [{ "since": "S", "at": "A", "failures": failures, "unknown": 1, "unsafe": is_unsafe,
                "method": "POST", "code": "upstream_timeout", "detail": "no answer" }] })
        };
        check(json!({}), &[], "");
        check(failing(1, true), &[], "");
        check(failing(2, false), &[], "");
        let words = "the last 2 unsafe requests (POST) failed since S: upstream_timeout, 1 with \
                     forwarded=unknown: no answer";
        check(failing(2, true), &["route pay"], words);
        let lacking = |at: &str| {
            json!({ "insufficient_scope": { "at": at, "route": "pay", "scope": "admin pay",
                "lacking": "admin" } })
        };
        let words = "the token of route pay lacked admin (of admin pay, which it asks for)";
        check(lacking("2026-01-01T23:30:00Z"), &["scopes"], words);
        check(lacking("2026-01-01T22:30:00Z"), &[], "");
    }

    #[test]
    fn limits_that_were_reached_are_warnings_and_those_in_force_failures() {
        let now = json!("2026-01-02T00:00:00Z");
        let limited = |at: &str, until: Value| {
            let limit = json!({ "at": at, "until": until, "quota": "x-left: 0" });
            let mut steps = Vec::new();
            upstream(&mut steps, &json!({ "last_rate_limit": limit }), &now);
            steps.into_iter().map(|step| (step.outcome, step.found)).collect::<Vec<_>>()
        };
        let (recent, old) = ("2026-01-01T23:30:00Z", "2026-01-01T01:00:00Z");
        let found = |status, end: &str| {
            (status, format!("it wants fewer requests: rate limited at {end}; x-left: 0"))
        };
        let warning = || found(CheckStatus::Warning, recent);
        assert_eq!(limited(recent, Value::Null), [warning()]);
        assert_eq!(limited(recent, json!("2026-01-01T23:31:00Z")), [warning()]);
        let until = "2026-01-02T03:00:00Z";
        let in_force = found(CheckStatus::Failed, &format!("{old} until {until}"));
        assert_eq!(limited(old, json!(until)), [in_force]);
        assert_eq!(limited(old, Value::Null), []);

        let refused = |at: &str, code: &str, name: &str| {
            let refusal = json!({ "at": at, "code": code, "upstream": name, "detail": "no room" });
            overload(
                &json!({ "now": now, "refusals": [{ "code": "no_route", "at": recent }, refusal] }),
            )
            .map(|step| (step.outcome, step.found))
        };
        let found = |of: &str| {
            let found =
                format!("a request{of} was refused with 503 overloaded at {recent}: no room");
            Some((CheckStatus::Warning, found))
        };
        assert_eq!(refused(recent, "overloaded", ""), found(""));
        assert_eq!(refused(recent, "overloaded", "bank"), found(" of upstream bank"));
        let last_minute = refused("2026-01-01T23:59:30Z", "overloaded", "bank");
        assert_eq!(last_minute.unwrap().0, CheckStatus::Failed);
        assert_eq!(refused(old, "overloaded", "bank"), None);
        assert_eq!(refused(recent, "connect", "bank"), None);
    }

    #[test]
    fn answers_that_apps_did_not_get_are_a_warning() {
        let found = |last_hour: u64| {
            let last = json!({ "at": "T", "method": "POST", "upstream": "bank", "route": "pay", "status": 201,
                "request_id": "R" });
            undelivered(&json!({ "last_hour": last_hour, "last": last }))
                .map(|step| (step.outcome, step.found))
        };
        let (status, words) = found(2).unwrap();
        assert_eq!(status, CheckStatus::Warning);
        let parts = ["to 2 unsafe requests", "POST bank.pay at T, status 201, request_id R"];
        parts.iter().for_each(|part| assert!(words.contains(part), "{part}: {words}"));
        assert!(found(1).unwrap().1.contains("to 1 unsafe request in the last hour"));
        assert_eq!(found(0), None);
        assert_eq!(undelivered(&Value::Null), None);
        let last = json!({ "at": "T", "method": "POST", "upstream": "bank", "route": "pay", "status": 504,
            "request_id": "R" });
        let unknown = forwarded_unknown(&json!({ "last_hour": 1, "last": last })).unwrap();
        assert_eq!(unknown.outcome, CheckStatus::Warning);
        assert!(unknown.found.contains("acted on 1 unsafe request"), "{}", unknown.found);
    }

    #[test]
    fn another_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (one, two) = (file("one"), file("two"));
        let running = one.to_str().unwrap();
        assert!(is_another(running, &two));
        assert!(!is_another(running, &one));
        assert!(!is_another(running, Path::new("/nowhere")));
        assert!(!is_another("one", &two));
    }

    #[test]
    fn a_refused_reload_and_a_lack_of_descriptors_are_failed_steps() {
        let running = |status| RunningInstance { address: "localhost:1".into(), status };
        let status = json!({ "version": "1", "pid": 7, "uptime_s": 8, "config": "/a.toml" });
        let file = Path::new("/a.toml");
        let group_ = group(&running(status), file);
        assert_eq!(
            group_.steps[0].found,
            "bearer-proxy 1 at localhost:1, pid 7, up 8 s, with /a.toml"
        );
        let check = |open: u64, expected: &[&str]| {
            let status = json!({ "open_files": { "open": open, "limit": 100 } });
            assert_eq!(failed(&group(&running(status), file).steps), expected, "{open}");
        };
        check(89, &[]);
        check(90, &["open files"]);
        let reload = json!({ "last_reload": { "at": "2026", "ok": false,
            "error": "error: no routes\n --> b\nwarning: odd\n --> a" } });
        let steps = group(&running(reload), file).steps;
        assert_eq!(failed(&steps), ["reload"]);
        assert!(steps[1].found.ends_with("is in force: no routes"), "{}", steps[1].found);
    }
}
