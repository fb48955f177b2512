//! What an operator must act on now, each point with a remedy; pure.

use std::time::Duration;

use serde::Serialize;

use super::report::{
    OpenFiles, REFUSALS_IN_A_ROW, RENEW_CERTIFICATE_DAYS, RefusalStatus, RouteFailures,
    RouteStatus, SecretStatus, StatusReport, UpstreamReport,
};
use crate::clock::{Moment, date};
use crate::token::{SLOW_CALL, TokenStatus};

/// Seconds between the clocks of the token server and this machine above which they are worth a look.
const CLOCK_OFFSET: f64 = 30.0;
/// Days before the expiry of an upstream's certificate from which it is worth a look.
const CERTIFICATE_DAYS: u64 = 14;

/// Time after an answer `insufficient_scope` for which it is worth a look.
const RECENT: Duration = Duration::from_secs(900);

/// The remedy where nothing more is known.
const CHECK_LIVE: &str = "run bearer-proxy check --live, which goes step by step";

/// The remedy for requests that wait for a token call.
pub const CALL_UNDER_WAY: &str = "requests wait up to timeouts.wait for it, then get 503; if it lasts, ask the token \
     server's owner why it does not answer";

/// The shortest time between two token requests that is no burden for a token server.
const SHORT_RENEWAL: Duration = Duration::from_secs(10);

/// The remedy for a shortage of descriptors.
const RAISE_LIMIT: &str = "raise the limit (LimitNOFILE of systemd, ulimit -n), or lower server.max_connections and \
     max_connections of the upstreams";

/// The remedy for scopes that were not granted.
const NOT_GRANTED: &str =
    "ask the provider to approve these scopes for the client, or take them off the routes";

/// Time after a refusal for lack of room for which it needs attention.
const OVERLOAD: Duration = Duration::from_secs(60);

/// The remedy for refusals for lack of room.
pub const RAISE_IN_FLIGHT: &str = "is an upstream slow? else raise the limit that is named";

/// The remedy for answers that apps did not get.
pub const UNDELIVERED: &str = "tell the owner of the app, which does not know what the upstream did; the log has each with \
     delivered=no or partly";

/// The remedy for requests of unknown outcome.
pub const FORWARDED_UNKNOWN: &str = "ask the API's owner what was booked before anything is sent again; the log has each with \
     forwarded=unknown";

/// The remedy for an upstream that does not accept the tokens.
pub const NOT_ACCEPTED: &str =
    "it does not accept the tokens: do token_url, client, scopes and audience belong to this API?";

/// One point that needs an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// What is wrong, in a sentence that can be read alone.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// All points: a shortage of descriptors first, then those about tokens.
pub fn attention(tokens: &[TokenStatus], report: &StatusReport, now: Moment) -> Vec<Attention> {
    let mut points = Points(Vec::new());
    // First, since requests and token calls fail with it, whatever they concern.
    points.open_files(report);
    points.unusable(tokens, now);
    tokens.iter().for_each(|token| points.token(token, now));
    // Where an upstream has never accepted a token, that is the likelier cause, and is told first.
    let contended_last = report.upstreams.iter().any(UpstreamReport::accepted_no_token);
    if !contended_last {
        points.contended(tokens, "");
    }
    report.upstreams.iter().for_each(|upstream| points.upstream(upstream, now));
    if contended_last {
        points.contended(tokens, "mend first what is said of the upstream; if it stays: ");
    }
    report.routes.iter().for_each(|route| points.route(route, now));
    points.unsettled(report);
    for refusals in &report.repeated_refusals {
        points.add(format!("{}.", refusals.words()), refusal_hint(&refusals.code));
    }
    points.overload(report, now);
    points.sources(report);
    points.client_certificates(report);
    points.instance(report);
    points.0
}

/// The remedy for what is wrong with a token, where anything is.
pub fn token_hint(token: &TokenStatus) -> Option<String> {
    let credential = &token.credential;
    if token.secret_refused {
        return Some(format!(
            "check client_id, client_secret and client_auth of credential {credential}; a changed secret is tried by \
             itself, the same one after POST /refresh?credential={credential}"
        ));
    }
    let fewer_calls = if token.tokens_of_credential > 1 {
        ", or spend fewer with tokens = \"union\""
    } else {
        ""
    };
    if token.budget_spent_until.is_some() {
        return Some(format!(
            "wait, or raise token_budget of credential {credential}{fewer_calls}"
        ));
    }
    if token.rate_limited_until.is_some() {
        return Some(format!("wait, let fewer instances use this client id{fewer_calls}"));
    }
    if token.contended {
        return Some(contended_hint(token));
    }
    if let Some(hint) = &token.error_hint {
        return Some(hint.clone());
    }
    if token.last_error.is_some() {
        return Some(CHECK_LIVE.into());
    }
    (!token.missing_scopes.is_empty()).then(|| NOT_GRANTED.into())
}

/// The remedy for failed exchanges with an upstream, by the code and the fate of the last, and the status of
/// an answer that is a failure.
pub fn failure_hint(code: &str, forwarded: &str, status: Option<u16>) -> &'static str {
    match (code, forwarded) {
        // Nothing was sent.
        ("connect", _) => CHECK_LIVE,
        ("upstream_status", _) if status == Some(401) => NOT_ACCEPTED,
        ("upstream_status", _) => {
            "after a request that changes something ask what was booked before it is sent again; the API's owner \
             needs this time and the request_id of the log's lines"
        }
        (_, "yes") => {
            "the upstream has answered, and the app lacks the rest of the answer: ask what was booked before \
             anything is sent again, with the request_id of the log's lines with delivered=partly or no"
        }
        (_, "no") => {
            "the upstream has acted on none of it; ask the API's owner, with this time and the request_id of the \
             log's lines"
        }
        _ => {
            "after a request that changes something ask what was booked before it is sent again; the API's owner \
             needs this time and the request_id of the log's lines with forwarded=unknown"
        }
    }
}

/// The remedy for the failures in a row of a route. Methods that change nothing have booked nothing.
pub fn route_failure_hint(failing: &RouteFailures) -> &'static str {
    match (failing.code.as_str(), failing.status) {
        ("connect", _) | (_, Some(401)) => {
            failure_hint(&failing.code, &failing.forwarded, failing.status)
        }
        _ if !failing.is_unsafe => {
            "ask the API's owner, with this time and the request_id of the log's lines"
        }
        (code, status) => failure_hint(code, &failing.forwarded, status),
    }
}

/// The remedy for a scope that the upstream demands of a route.
pub fn scope_hint(upstream: &str, route: &str, lacking: &str) -> String {
    match lacking {
        "" => "the token has the scopes that the answer names, or it names none: ask the API's owner which scopes this \
               request needs"
            .to_owned(),
        lacking => format!(
            "add {lacking} to scopes of {upstream}.{route}, and ask the provider to approve it for the client"
        ),
    }
}

/// The remedy for refusals that repeat, by their code.
pub fn refusal_hint(code: &str) -> &'static str {
    match code {
        "no_route" => {
            "mend the URL in the app, or add a route; `bearer-proxy explain METHOD URL` says what a URL would do"
        }
        "method" => "mend the method in the app, or add it to methods of a route",
        "foreign_host" => {
            "nothing was sent; mend the URL or the proxy settings of the app, or server.allowed_hosts"
        }
        "local_key" | "peer_not_allowed" => {
            "nothing was sent; compare the app with [clients], and with clients of the route"
        }
        "request_timeout" | "request_aborted" => {
            "find out why the app does not send the whole body"
        }
        _ => "the proxy refused them, and will until the app or the setting that is named changes",
    }
}

/// The remedy for a source of secrets that cannot be read.
fn source_hint(secret: &SecretStatus) -> &'static str {
    match secret.kind {
        "aws_secrets_manager" | "azure_key_vault" | "vault" | "exec" => {
            "until then the value that was read last stays in use, if there is one"
        }
        _ => {
            "mend it: each token call and each try reads it again, and makes no call without it; only a header \
             of set_headers keeps the value that was read last"
        }
    }
}

/// Which of the causes of `contended` can be seen from here.
pub fn contended_cause(token: &TokenStatus) -> Option<&'static str> {
    token.contended.then_some(match token.tokens_of_credential {
        0 | 1 => "another_instance",
        _ => "own_second_token",
    })
}

fn contended_hint(token: &TokenStatus) -> String {
    match contended_cause(token) {
        Some("own_second_token") => format!(
            "credential {} has {} tokens here, and the server may keep one per client: set tokens = \"union\"",
            token.credential, token.tokens_of_credential
        ),
        #[cfg(feature = "share")]
        _ if token.share.is_some() => "give all replicas the same store, key_prefix and name_key in [share], and the \
              same token_url, scopes and client; give other programs client ids of their own; else the API does \
              not accept this client"
            .into(),
        _ => "give each instance a client id of its own, or let all apps share one instance; \
              else the API does not accept this client"
            .into(),
    }
}

struct Points(Vec<Attention>);

impl Points {
    /// Adds a point, once.
    #[inline(never)]
    fn add(&mut self, what: String, hint: impl Into<String>) {
        let point = Attention { what, hint: hint.into() };
        if !self.0.contains(&point) {
            self.0.push(point);
        }
    }

    fn token(&mut self, token: &TokenStatus, now: Moment) {
        let name = &token.credential;
        let hint = || token_hint(token).unwrap_or_else(|| CHECK_LIVE.to_owned());
        let until = |time: Option<_>| time.map(date).unwrap_or_default();
        if token.secret_refused {
            self.add(format!("The token server refused the client secret of {name}."), hint());
        } else if token.budget_spent_until.is_some() {
            let until = until(token.budget_spent_until);
            self.add(format!("token_budget of {name} is spent until {until}."), hint());
        } else if token.rate_limited_until.is_some() {
            let until = until(token.rate_limited_until);
            self.add(format!("{name} is rate limited by its token server until {until}."), hint());
        } else if let Some(error) = token.error_text.as_deref().or(token.last_error) {
            let what = match token.last_error {
                Some("secret_unreadable" | "client_certificate_unusable" | "store_unusable") => {
                    format!("No token of {name} can be requested: {error}.")
                }
                _ if token.token_url.is_empty() => {
                    format!("Token requests of {name} fail: {error}.")
                }
                _ => format!("Token requests of {name} fail: {error} ({}).", token.token_url),
            };
            self.add(what, hint());
        }
        let under_way = token.call_under_way(now).filter(|_| !token.usable(now));
        if let Some(time) = under_way.filter(|time| *time > SLOW_CALL) {
            let time = time.as_secs();
            let what = format!("A token call of {name} has been under way for {time} s.");
            self.add(what, CALL_UNDER_WAY);
        }
        if let Some(life) = token.life.filter(|_| token.renews_within(SHORT_RENEWAL)) {
            let what = format!(
                "The tokens of {name} live {} s: one is requested every few seconds.",
                life.as_secs()
            );
            self.add(
                what,
                "ask the token server's owner for a longer life; if it states one, check expires_in under response",
            );
        }
        #[cfg(feature = "share")]
        if let Some(trouble) = token.share.as_ref().and_then(|share| share.trouble.as_ref()) {
            let what = format!("The token of {name} is not shared with other replicas: {trouble}.");
            self.add(what, "run `bearer-proxy check --live`: it tests the store of shared tokens");
        }
        if !token.missing_scopes.is_empty() {
            let missing = token.missing_scopes.join(" ");
            self.add(format!("The token server did not grant {name}: {missing}."), NOT_GRANTED);
        }
        if let Some(offset) = token.clock_offset.filter(|offset| offset.abs() >= CLOCK_OFFSET) {
            let what = format!(
                "The clocks of {name}'s token server and this machine differ by {:.0} s.",
                offset.abs()
            );
            self.add(what, "compare this machine's time with a time server");
        }
    }

    /// One point for each credential whose requests are refused now.
    fn unusable(&mut self, tokens: &[TokenStatus], now: Moment) {
        // At the start, a call may take its time.
        let is_slow = |token: &TokenStatus| {
            token.call_waits(now).or(token.call_under_way(now)).is_some_and(|time| time > SLOW_CALL)
        };
        let is_missing = |token: &&TokenStatus| {
            (token.attempted || is_slow(token)) && token.wanted() && !token.usable(now)
        };
        for first in tokens.iter().filter(is_missing) {
            let name = &first.credential;
            let same = || {
                let missing = tokens.iter().filter(is_missing);
                missing.filter(|token| token.credential == *name)
            };
            let scopes: Vec<String> = same().map(scopes).collect();
            let what = format!(
                "Requests that need {name} get 503 after timeouts.wait: no usable token for {}.",
                scopes.join("; ")
            );
            // One for them all: that of a failure says more than that of a call which may succeed.
            let hint = same().find_map(token_hint);
            let otherwise = if is_slow(first) { CALL_UNDER_WAY } else { CHECK_LIVE };
            self.add(what, hint.unwrap_or_else(|| otherwise.to_owned()));
        }
    }

    fn contended(&mut self, tokens: &[TokenStatus], first: &str) {
        for token in tokens.iter().filter(|token| token.contended) {
            let name = &token.credential;
            let what =
                format!("{name} is contended: upstreams refuse tokens that are still valid.");
            self.add(what, format!("{first}{}", contended_hint(token)));
        }
    }

    fn upstream(&mut self, upstream: &UpstreamReport, now: Moment) {
        let (name, now) = (&upstream.name, date(now.wall));
        if let Some(error) = upstream.last_error.as_ref().filter(|_| upstream.failing) {
            self.add(
                format!(
                    "Upstream {name} fails since {}: {}",
                    upstream.failing_since.as_ref().unwrap_or(&error.at),
                    sentence(&error.detail)
                ),
                error.hint.as_deref().unwrap_or(failure_hint(error.code, error.forwarded, None)),
            );
        }
        let in_a_row = upstream.unauthorized_in_a_row;
        if upstream.accepted_no_token() || in_a_row >= REFUSALS_IN_A_ROW {
            let said = upstream.last_challenge.as_ref();
            let said = said.map(|said| format!("; it says: {said}")).unwrap_or_default();
            let what =
                format!("Upstream {name} answers nothing but 401: {in_a_row} in a row{said}.");
            self.add(what, NOT_ACCEPTED);
        }
        if let Some(limit) = &upstream.last_rate_limit
            // Dates of RFC 3339 in UTC compare as text.
            && let Some(until) = limit.until.as_ref().filter(|until| **until > now)
        {
            let quota = if limit.quota.is_empty() { "" } else { "; " };
            let what =
                format!("Upstream {name} is rate limited until {until}{quota}{}.", limit.quota);
            self.add(what, "send fewer requests, or ask the provider for a higher limit");
        }
        if let Some(days) = upstream.certificate_days_left.filter(|days| *days < CERTIFICATE_DAYS) {
            self.add(
                format!("The certificate of upstream {name} expires in {days} days."),
                "ask its operator for the renewal; a pin_sha256 may have to change with it",
            );
        }
    }

    fn route(&mut self, status: &RouteStatus, now: Moment) {
        let recent = date(now.wall.checked_sub(RECENT).unwrap_or(now.wall));
        let (upstream, route) = (&status.upstream, &status.route);
        for failing in status.failing.iter().filter(|failing| failing.count()) {
            self.add(
                format!("Route {upstream}.{route}: {}", sentence(&failing.words())),
                failing.hint.as_deref().unwrap_or(route_failure_hint(failing)),
            );
        }
        if let Some(last) = status.insufficient_scope.as_ref().filter(|last| last.at > recent) {
            let what = format!(
                "Upstream {upstream} says that the token of route {route} lacks {}.",
                last.words()
            );
            self.add(what, scope_hint(upstream, route, &last.lacking));
        }
    }

    /// The newest request of the last minute that was refused because a limit of ours was reached.
    fn overload(&mut self, report: &StatusReport, now: Moment) {
        let recent = date(now.wall.checked_sub(OVERLOAD).unwrap_or(now.wall));
        let is_overload = |last: &&RefusalStatus| last.code == "overloaded" && last.at > recent;
        if let Some(RefusalStatus { at, upstream, detail, .. }) =
            report.refusals.iter().find(is_overload)
        {
            let of = if upstream.is_empty() { "" } else { " of upstream " };
            let count = report.refusals.iter().filter(is_overload).count();
            let requests = if count == 1 { "A request" } else { "Requests" };
            let last = if count == 1 { "" } else { ", the last" };
            let what =
                format!("{requests}{of}{upstream} got 503 overloaded{last} at {at}: {detail}.");
            self.add(what, RAISE_IN_FLIGHT);
        }
    }

    fn unsettled(&mut self, report: &StatusReport) {
        if let Some(words) = report.forwarded_unknown.unknown() {
            self.add(format!("{words}."), FORWARDED_UNKNOWN);
        }
        if let Some(words) = report.undelivered.undelivered() {
            self.add(format!("{words}."), UNDELIVERED);
        }
    }

    fn sources(&mut self, report: &StatusReport) {
        for secret in &report.secrets {
            if let Some(error) = &secret.error {
                let what = format!("A secret cannot be read: {error}.");
                self.add(what, source_hint(secret));
            }
        }
    }

    fn client_certificates(&mut self, report: &StatusReport) {
        for certificate in &report.client_certificates {
            let of = format!("The client certificate of {} {}", certificate.kind, certificate.name);
            if let Some(error) = &certificate.error {
                let hint =
                    "until then no new token is requested with it; connections that need it fail";
                self.add(format!("{of} cannot be used: {error}."), hint);
            }
            if let Some(days) = certificate.days_left.filter(|days| *days < RENEW_CERTIFICATE_DAYS)
            {
                let what = match days {
                    0 => format!("{of} has expired, or does so today."),
                    days => format!("{of} expires in {days} days."),
                };
                self.add(what, "ask its issuer for the renewal, and replace both files");
            }
        }
    }

    fn instance(&mut self, report: &StatusReport) {
        if let Some(reload) = &report.last_reload {
            if let Some(error) = &reload.error {
                // The first error stands first.
                let error = error.lines().next().unwrap_or_default().trim_start_matches("error: ");
                let what = format!("The configuration file was refused at {}: {error}", reload.at);
                self.add(
                    what,
                    "run bearer-proxy check; until it passes the one before stays in force",
                );
            }
            if !reload.restart_needed.is_empty() {
                let keys = reload.restart_needed.join(", ");
                self.add(format!("New values of {keys} are not in force."), "restart the program");
            }
        }
        if report.log_lines_dropped > 0 {
            let what = format!("{} lines are missing in the log.", report.log_lines_dropped);
            self.add(what, "the reader of stderr is too slow, or log.level is too low");
        }
    }

    fn open_files(&mut self, report: &StatusReport) {
        let OpenFiles { open, limit, needed } = report.open_files;
        if let Some((open, limit)) = open.zip(limit).filter(|(open, limit)| open * 10 > limit * 9) {
            self.add(format!("{open} of {limit} file descriptors are in use."), RAISE_LIMIT);
        } else if let Some(limit) = limit.filter(|limit| *limit < needed) {
            let what =
                format!("The limit of open files is {limit}, and the settings may need {needed}.");
            self.add(what, RAISE_LIMIT);
        }
    }
}

/// The text with a full stop, unless it ends like a sentence already.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', '?', '!']) { text.to_owned() } else { format!("{text}.") }
}

fn scopes(token: &TokenStatus) -> String {
    match token.scopes_label() {
        none if none.is_empty() => "no scopes".into(),
        scopes => scopes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{
        ClientCertificateStatus, RateLimitReport, RefusalStatus, ReloadStatus, RepeatedRefusals,
        RouteFailures, ScopeReport, SecretStatus, UnsafeRequest, UnsafeRequests, UpstreamError,
    };
    use super::*;
    use crate::admin::readiness::tests::token;

    fn told(tokens: &[TokenStatus], report: &StatusReport) -> Vec<String> {
        let points = attention(tokens, report, Moment::now());
        assert!(points.iter().all(|point| !point.hint.is_empty()), "{points:?}");
        points.into_iter().map(|point| format!("{} {}", point.what, point.hint)).collect()
    }

    /// Checks that there is one point, and that it has these parts.
    fn one(tokens: &[TokenStatus], report: &StatusReport, parts: &[&str]) {
        let told = told(tokens, report);
        assert_eq!(told.len(), 1, "{told:?}");
        parts.iter().for_each(|part| assert!(told[0].contains(part), "{part}: {told:?}"));
    }

    #[test]
    fn nothing_is_said_while_nothing_is_wrong() {
        let tokens = [token("a+"), token("b~?")];
        assert_eq!(attention(&tokens, &StatusReport::default(), Moment::now()), []);
    }

    #[test]
    fn each_trouble_of_a_token_is_told_with_a_remedy() {
        let none = StatusReport::default();
        let until = Some(Moment::now().after(Duration::from_secs(60)).wall);
        let usable = || token("bank+");
        let failing = |error: &str| TokenStatus {
            last_error: Some("connect"),
            error_text: Some(error.into()),
            ..usable()
        };
        let row = |token: TokenStatus, parts: &[&str]| one(&[token], &none, parts);
        row(failing("no route to host"), &["bank fail: no route to host.", "check --live"]);
        let hint = Some("check token_url".to_owned());
        row(TokenStatus { error_hint: hint, ..failing("status 404") }, &["check token_url"]);
        let token_url = "https://auth.bank.example/token".to_owned();
        let named = "fail: timeout (https://auth.bank.example/token).";
        row(TokenStatus { token_url, ..failing("timeout") }, &[named]);
        let unread = TokenStatus { last_error: Some("secret_unreadable"), ..failing("no file") };
        row(unread, &["No token of bank can be requested: no file."]);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let short = |life| TokenStatus { life: seconds(life), renewal: seconds(life), ..usable() };
        row(short(2), &["tokens of bank live 2 s", "expires_in under response"]);
        assert_eq!(told(&[short(10)], &none).len(), 0);
        let began = |seconds| {
            let mono = Moment::now().mono.checked_sub(Duration::from_secs(seconds)).unwrap();
            TokenStatus { call_began: Some(mono), ..token("bank?") }
        };
        // A known failure, and a call of the other token, are one point.
        let hint = Some("ask them".to_owned());
        let failed = TokenStatus {
            attempted: true,
            last_error: Some("timeout"),
            error_hint: hint,
            ..token("bank?")
        };
        let points = told(&[began(5), failed], &none);
        let of_503 = |point: &&String| point.starts_with("Requests that need bank");
        assert_eq!(points.iter().filter(of_503).count(), 1, "{points:?}");
        let points = told(&[began(5)], &none);
        let starts =
            ["Requests that need bank get 503", "A token call of bank has been under way for 5 s"];
        assert!(
            points.iter().zip(starts).all(|(point, start)| point.starts_with(start)),
            "{points:?}"
        );
        assert!(points.len() == 2 && points[1].contains("timeouts.wait"), "{points:?}");
        assert_eq!(told(&[began(1)], &none).len(), 0);
        let refused = TokenStatus { secret_refused: true, ..failing("invalid_client") };
        row(refused, &["refused the client secret of bank", "POST /refresh?credential=bank"]);
        let spent = TokenStatus { budget_spent_until: until, ..failing("x") };
        row(
            spent,
            &["token_budget of bank is spent until 2", "raise token_budget of credential bank"],
        );
        let limited = TokenStatus { rate_limited_until: until, ..failing("status 429") };
        row(limited, &["bank is rate limited by its token server until 2", "wait"]);
        let missing = vec!["pay".to_owned(), "read".to_owned()];
        let missing = TokenStatus { missing_scopes: missing, ..usable() };
        row(missing, &["did not grant bank: pay read.", "ask the provider"]);
        row(
            TokenStatus { clock_offset: Some(-90.2), ..usable() },
            &["differ by 90 s", "time server"],
        );
        let contended = TokenStatus { contended: true, tokens_of_credential: 1, ..usable() };
        row(contended.clone(), &["bank is contended", "each instance a client id of its own"]);
        let own = TokenStatus { tokens_of_credential: 2, ..contended };
        row(own, &["has 2 tokens here", "tokens = \"union\""]);
        #[cfg(feature = "share")]
        {
            let share = crate::token::ShareStatus {
                replica: "r1".into(),
                owner: "r2".into(),
                generation: 8,
                trouble: Some("the store is not reachable".into()),
            };
            assert_eq!(
                share.to_string(),
                "held by r2, generation 8, this replica follows as r1, without the store: the store is not reachable"
            );
            let contended = TokenStatus {
                contended: true,
                share: Some(crate::token::ShareStatus { trouble: None, ..share.clone() }),
                ..usable()
            };
            row(contended, &["bank is contended", "key_prefix and name_key in [share]"]);
            let alone = TokenStatus { share: Some(share), ..usable() };
            row(alone, &["is not shared with other replicas", "check --live"]);
        }
        row(
            token("bank"),
            &["need bank get 503 after timeouts.wait: no usable token for no scopes."],
        );
        let with = |scope: &str| TokenStatus { scopes: vec![scope.into()], ..token("bank") };
        one(
            &[with("a"), with("b")],
            &none,
            &["need bank get 503 after timeouts.wait: no usable token for a; b."],
        );
    }

    #[test]
    fn client_certificates_are_told_from_30_days_before_their_end() {
        let check = |days_left, error: Option<&str>, expected: &str| {
            let certificate = ClientCertificateStatus {
                kind: "credential",
                name: "bank".into(),
                expires: None,
                days_left,
                error: error.map(str::to_owned),
            };
            let client_certificates = vec![certificate];
            let report = StatusReport { client_certificates, ..StatusReport::default() };
            match expected {
                "" => assert_eq!(told(&[], &report).len(), 0),
                expected => {
                    one(&[], &report, &["The client certificate of credential bank", expected])
                }
            }
        };
        check(Some(30), None, "");
        check(Some(29), None, "expires in 29 days.");
        check(Some(0), None, "has expired, or does so today.");
        check(None, Some("it is damaged"), "cannot be used: it is damaged.");
    }

    #[test]
    fn a_fault_of_a_credential_is_told_once_for_all_its_tokens() {
        let refused = TokenStatus { secret_refused: true, ..token("bank+") };
        let report = StatusReport::default();
        one(&[refused.clone(), TokenStatus { token: "1".into(), ..refused }], &report, &[]);
    }

    #[test]
    fn upstreams_sources_and_reloads_are_told() {
        let now = Moment::now();
        let at = date(now.wall);
        let upstream = || UpstreamReport { name: "api".into(), ..UpstreamReport::default() };
        let row = |upstream: UpstreamReport, parts: &[&str]| {
            let upstreams = vec![upstream];
            one(&[], &StatusReport { upstreams, ..StatusReport::default() }, parts);
        };
        let error = UpstreamError {
            at: at.clone(),
            code: "connect",
            detail: "refused".into(),
            forwarded: "no",
            hint: None,
        };
        let failing = UpstreamReport { last_error: Some(error), failing: true, ..upstream() };
        row(failing.clone(), &["Upstream api fails since", "refused", "check --live"]);
        let mut hinted = failing.clone();
        hinted.last_error.as_mut().unwrap().hint = Some("check the port".into());
        row(hinted, &["Upstream api fails since", "refused. check the port"]);
        let error = UpstreamError {
            at: "LAST".into(),
            code: "upstream_status",
            detail: "the upstream answered with status 500".into(),
            forwarded: "yes",
            hint: None,
        };
        let since = UpstreamReport {
            last_error: Some(error),
            failing_since: Some("FIRST".into()),
            ..failing.clone()
        };
        row(since, &["fails since FIRST: the upstream answered", "request_id", "what was booked"]);
        let until = Some(date(now.after(Duration::from_secs(60)).wall));
        let quota = "x-quota: 0".to_owned();
        let last_rate_limit = Some(RateLimitReport { at: at.clone(), until, quota });
        row(
            UpstreamReport { unauthorized_in_a_row: 3, ..upstream() },
            &["nothing but 401: 3 in a row"],
        );
        row(UpstreamReport { last_rate_limit, ..upstream() }, &["limited until 2", "x-quota: 0"]);
        let route = || RouteStatus {
            upstream: "api".into(),
            route: "pay".into(),
            ..RouteStatus::default()
        };
        let lacking = |at: &str| {
            let insufficient_scope = Some(ScopeReport {
                at: at.into(),
                route: "pay".into(),
                scope: "read payments".into(),
                lacking: "payments".into(),
            });
            let routes = vec![RouteStatus { insufficient_scope, ..route() }];
            StatusReport { routes, ..StatusReport::default() }
        };
        one(
            &[],
            &lacking(&at),
            &["route pay lacks payments (of read payments", "add payments to scopes of api.pay"],
        );
        assert_eq!(told(&[], &lacking("2020-01-01T00:00:00Z")).len(), 0);
        let series = |failures, is_unsafe| {
            let series = RouteFailures {
                since: "SINCE".into(),
                at: at.clone(),
                failures,
                unknown: failures - 1,
                is_unsafe,
                method: "POST".into(),
                code: "upstream_timeout".into(),
                detail: "no answer".into(),
                forwarded: "unknown".into(),
                status: None,
                hint: None,
            };
            let routes = vec![RouteStatus { failing: vec![series], ..route() }];
            StatusReport { routes, ..StatusReport::default() }
        };
        let words = "Route api.pay: the last 4 unsafe requests (POST) failed since SINCE: upstream_timeout, 3 \
                     with forwarded=unknown: no answer.";
        one(&[], &series(4, true), &[words, "request_id", "what was booked"]);
        assert_eq!(told(&[], &series(1, true)).len(), 0);
        assert_eq!(told(&[], &series(2, false)).len(), 0);
        let mut reads = series(4, false);
        reads.routes[0].failing[0].status = Some(503);
        let hint = told(&[], &reads).concat();
        assert!(!hint.contains("booked"), "nothing was: {hint}");
        let certificate_days_left = Some(3);
        row(UpstreamReport { certificate_days_left, ..upstream() }, &["expires in 3 days"]);
        let well = UpstreamReport { failing: false, ..failing };
        let upstreams = vec![well];
        assert_eq!(told(&[], &StatusReport { upstreams, ..StatusReport::default() }).len(), 0);

        let secret = |kind| SecretStatus {
            source: "file /run/key".into(),
            kind,
            last_read: at.clone(),
            value_since: None,
            error: Some("file /run/key does not exist".into()),
        };
        let report = |kind| StatusReport { secrets: vec![secret(kind)], ..StatusReport::default() };
        one(&[], &report("file"), &["file /run/key does not exist", "makes no call without it"]);
        one(
            &[],
            &report("azure_key_vault"),
            &["file /run/key does not exist", "read last stays in use"],
        );
        let reload = |error: Option<&str>, keys: &[&'static str]| {
            let (error, restart_needed) = (error.map(str::to_owned), keys.to_vec());
            let reload =
                ReloadStatus { at: at.clone(), ok: error.is_none(), error, restart_needed };
            StatusReport { last_reload: Some(reload), ..StatusReport::default() }
        };
        one(
            &[],
            &reload(Some("error: bad key\n at 3"), &[]),
            &["was refused at 2", ": bad key", "check"],
        );
        one(&[], &reload(None, &["log.format"]), &["New values of log.format", "restart"]);
        let files = |open, limit, needed| {
            let open_files = OpenFiles { open, limit, needed };
            StatusReport { open_files, ..StatusReport::default() }
        };
        one(&[], &files(Some(95), Some(100), 50), &["95 of 100 file descriptors", "LimitNOFILE"]);
        one(&[], &files(Some(10), Some(100), 200), &["limit of open files is 100", "need 200"]);
        assert_eq!(told(&[], &files(Some(90), Some(100), 100)), Vec::<String>::new());
        assert_eq!(told(&[], &files(None, None, 100)), Vec::<String>::new());
        let last = UnsafeRequest {
            at: at.clone(),
            method: "POST".into(),
            upstream: "api".into(),
            route: "pay".into(),
            status: 201,
            detail: "it left".into(),
            peer: "127.0.0.1:7".into(),
            request_id: "R1".into(),
        };
        let undelivered = |last_hour| {
            let before = UnsafeRequest { request_id: "R0".into(), ..last.clone() };
            let recent = vec![last.clone(), before];
            let undelivered = UnsafeRequests { last_hour, last: Some(last.clone()), recent };
            StatusReport { undelivered, ..StatusReport::default() }
        };
        let parts = [
            "to 2 unsafe requests in the last hour",
            "POST api.pay",
            "201 (it left), request_id R1; before it: R0.",
        ];
        one(&[], &undelivered(2), &parts);
        assert_eq!(told(&[], &undelivered(0)).len(), 0);
        let forwarded_unknown =
            UnsafeRequests { last_hour: 1, last: Some(last.clone()), recent: Vec::new() };
        let report = StatusReport { forwarded_unknown, ..StatusReport::default() };
        one(&[], &report, &["not known whether the upstream acted on 1 unsafe", "what was booked"]);
        let overloaded = |age| {
            let at = date(Moment::now().wall.checked_sub(Duration::from_secs(age)).unwrap());
            let (upstream, route) = ("api".into(), "pay".into());
            let (detail, request_id) = ("no room".into(), "R".into());
            let refusal = RefusalStatus {
                at,
                code: "overloaded",
                upstream,
                route,
                detail,
                method: "POST".into(),
                forwarded: "no",
                path: String::new(),
                peer: String::new(),
                request_id,
            };
            StatusReport { refusals: vec![refusal], ..StatusReport::default() }
        };
        let parts = [
            "A request of upstream api got 503 overloaded at 2",
            ": no room.",
            "raise the limit that is named",
        ];
        one(&[], &overloaded(5), &parts);
        assert_eq!(told(&[], &overloaded(90)).len(), 0);
        let refusals = RepeatedRefusals {
            code: "no_route".into(),
            status: 404,
            count: 3,
            method: "POST".into(),
            path: "/bank/v1/payment".into(),
            peer: "127.0.0.1:7".into(),
            request_id: "R2".into(),
            others: vec!["GET /x".into()],
            nearest_route: Some("bank.pay (POST /bank/v1/payments)".into()),
            ..RepeatedRefusals::default()
        };
        let repeated_refusals = vec![refusals];
        let report = StatusReport { repeated_refusals, ..StatusReport::default() };
        let parts = [
            "3 requests got 404 no_route since",
            "POST /bank/v1/payment from 127.0.0.1:7 at",
            "request_id R2: the nearest route is bank.pay (POST /bank/v1/payments); others: GET /x. mend the URL",
        ];
        one(&[], &report, &parts);
        let dropped = StatusReport { log_lines_dropped: 7, ..StatusReport::default() };
        one(&[], &dropped, &["7 lines are missing"]);
    }
}
