//! The document of `/status` beyond tokens and readiness: what `app` collects from the other parts.
//!
//! Field names are those of the JSON, so that `/status`, the status page and `bearer-proxy status -o json`
//! have one vocabulary.

use serde::{Deserialize, Serialize};

/// The state of the program, beside its tokens.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StatusReport {
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Path of the configuration file.
    pub config: String,
    /// SHA-256 of the configuration in force, in hexadecimal digits, as `sha256sum` prints it of the file.
    pub config_sha256: String,
    /// The last reload; absent before the first.
    pub last_reload: Option<ReloadStatus>,
    /// File descriptors.
    pub open_files: OpenFiles,
    /// Lines that are not in the log, because its reader was too slow.
    pub log_lines_dropped: usize,
    /// The sources of secrets and client ids that were read.
    pub secrets: Vec<SecretStatus>,
    /// The client certificates of credentials and upstreams.
    pub client_certificates: Vec<ClientCertificateStatus>,
    /// Requests in flight.
    pub requests_in_flight: usize,
    /// The oldest requests in flight, at most [`MAX_REQUESTS`].
    pub requests: Vec<RequestStatus>,
    /// All upstreams of the configuration.
    pub upstreams: Vec<UpstreamReport>,
    /// All routes of the configuration, at most [`MAX_ROUTES`].
    pub routes: Vec<RouteStatus>,
    /// The newest refusals first.
    pub refusals: Vec<RefusalStatus>,
    /// Refusals that repeat until the app or the configuration changes, by their code.
    pub repeated_refusals: Vec<RepeatedRefusals>,
    /// Answers that apps did not get.
    pub undelivered: UnsafeRequests,
    /// Requests with an unsafe method of which it is not known whether the upstream acted.
    pub forwarded_unknown: UnsafeRequests,
    /// The last hour by minutes, the newest last.
    pub history: History,
}

/// Requests that a report lists.
pub const MAX_REQUESTS: usize = 100;
/// Answers 401 in a row from which an upstream counts as one that accepts no token.
pub const REFUSALS_IN_A_ROW: u64 = 3;
/// Days before the expiry of a client certificate from which it should be renewed.
pub const RENEW_CERTIFICATE_DAYS: u64 = 30;
/// Routes that a report lists.
pub const MAX_ROUTES: usize = 500;

/// The file descriptors of the process.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct OpenFiles {
    /// Those that are open; absent where the system does not tell.
    pub open: Option<u64>,
    /// The number that may be open; absent without a limit.
    pub limit: Option<u64>,
    /// The number that the settings may use.
    pub needed: u64,
}

/// The last reload of the configuration.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadStatus {
    /// When it was tried, as RFC 3339.
    pub at: String,
    /// False if the file was rejected and the configuration before it stays in force.
    pub ok: bool,
    /// The reason for which it was rejected.
    pub error: Option<String>,
    /// Keys whose new values take effect only after a restart.
    pub restart_needed: Vec<&'static str>,
}

/// One source of secrets.
#[derive(Debug, Clone, Serialize)]
pub struct SecretStatus {
    /// Its description, such as `file /run/qbank/id`.
    pub source: String,
    /// Its kind, as the configuration names it.
    pub kind: &'static str,
    /// When it was last read, with or without success, as RFC 3339.
    pub last_read: String,
    /// When its present value was first read.
    pub value_since: Option<String>,
    /// The error of the last reading; absent if it succeeded.
    pub error: Option<String>,
}

/// The client certificate of a credential or an upstream.
#[derive(Debug, Clone, Serialize)]
pub struct ClientCertificateStatus {
    /// `credential` or `upstream`.
    pub kind: &'static str,
    /// The name of the credential or upstream.
    pub name: String,
    /// When it expires, as RFC 3339; absent if it was never read.
    pub expires: Option<String>,
    /// Whole days until it expires, 0 once it has expired; absent if it was never read.
    pub days_left: Option<u64>,
    /// The error of the last reading; absent if it succeeded.
    pub error: Option<String>,
}

/// One request in flight.
#[derive(Debug, Clone, Serialize)]
pub struct RequestStatus {
    /// Its id, as in the log.
    pub request_id: String,
    /// Its method.
    pub method: String,
    /// The upstream of its route; empty before it is known.
    pub upstream: String,
    /// The name of its route; empty before it is known.
    pub route: String,
    /// The client of `[clients]` that sent it; empty if it is none of them.
    pub client: String,
    /// Seconds since its head arrived.
    pub age_s: f64,
    /// The event that it waits for.
    pub phase: &'static str,
}

/// One upstream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct UpstreamReport {
    /// Its name.
    pub name: String,
    /// Its base URL.
    pub url: String,
    /// When the head of its last answer arrived, as RFC 3339.
    pub last_success: Option<String>,
    /// When the head of its last answer other than 401 arrived, as RFC 3339.
    pub last_accepted: Option<String>,
    /// Its last failed exchange.
    pub last_error: Option<UpstreamError>,
    /// True if no answer other than 5xx came after that.
    pub failing: bool,
    /// While it fails, the time of the first of these failures, as RFC 3339.
    pub failing_since: Option<String>,
    /// Open connections of all workers.
    pub connections_open: usize,
    /// Those of them that wait for a request.
    pub connections_idle: usize,
    /// Whole days until the certificate of its newest connection expires.
    pub certificate_days_left: Option<u64>,
    /// Answers 401 since the start.
    pub unauthorized: u64,
    /// Answers 401 since the last other one.
    pub unauthorized_in_a_row: u64,
    /// Answers 403 since the start.
    pub forbidden: u64,
    /// Answers since the start that want fewer requests: 429, or 403 with `Retry-After`.
    pub rate_limited: u64,
    /// The last of them.
    pub last_rate_limit: Option<RateLimitReport>,
    /// The last answer that says that the token lacks a scope.
    pub last_insufficient_scope: Option<ScopeReport>,
    /// `WWW-Authenticate` of the last 401 or 403.
    pub last_challenge: Option<String>,
}

impl UpstreamReport {
    /// True if it has answered requests, and each of them with 401.
    pub fn accepted_no_token(&self) -> bool {
        self.unauthorized_in_a_row > 0 && self.last_accepted.is_none()
    }
}

/// An answer that wants fewer requests.
#[derive(Debug, Clone, Serialize)]
pub struct RateLimitReport {
    /// When it came, as RFC 3339.
    pub at: String,
    /// The end of the wait that it asks for.
    pub until: Option<String>,
    /// Its fields about limits and quotas.
    pub quota: String,
}

/// An answer that says that the token lacks a scope.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScopeReport {
    /// When it came, as RFC 3339.
    pub at: String,
    /// The name of the route.
    pub route: String,
    /// The scopes that the answer asks for; may be empty.
    pub scope: String,
    /// Those of them that the token does not have; may be empty.
    #[serde(default)]
    pub lacking: String,
}

impl ScopeReport {
    /// The missing scopes, as far as they are known.
    pub fn words(&self) -> String {
        match (self.lacking.as_str(), self.scope.as_str()) {
            ("", "") => "a scope".into(),
            ("", scope) => format!("one of {scope}"),
            (lacking, scope) if lacking == scope => lacking.to_owned(),
            (lacking, scope) => format!("{lacking} (of {scope}, which it asks for)"),
        }
    }
}

/// A failed exchange with an upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamError {
    /// When it failed, as RFC 3339.
    pub at: String,
    /// The code of the app's problem document; `upstream_status` for an answer of the upstream with a status
    /// of 500 or above.
    pub code: &'static str,
    /// The words of the app's problem document.
    pub detail: String,
    /// Whether the upstream got the request: `no`, `yes` or `unknown`.
    pub forwarded: &'static str,
    /// The remedy, if one is known.
    pub hint: Option<String>,
}

/// One route.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RouteStatus {
    /// The name of its upstream.
    pub upstream: String,
    /// Its name.
    pub route: String,
    /// Its methods.
    pub methods: Vec<String>,
    /// The pattern of its path, mount included.
    pub path: String,
    /// Requests answered since the start.
    pub requests: u64,
    /// Those of them answered with 5xx.
    pub errors: u64,
    /// Mean time to the head of the answer, in seconds.
    pub mean_s: f64,
    /// Seconds within which 95 of 100 requests were answered, as the upper bound of a bucket of the
    /// histogram; absent without requests, and where it is above the last bound.
    pub p95_s: Option<f64>,
    /// Requests since the start with an unsafe method that the upstream answered, of which the app did not
    /// get the whole answer.
    pub undelivered: u64,
    /// Requests since the start with an unsafe method of which it is not known whether the upstream acted.
    pub forwarded_unknown: u64,
    /// The last failures in a row, of safe methods and of the others.
    pub failing: Vec<RouteFailures>,
    /// The last answer that says that the token lacks a scope, if no request of the route has succeeded
    /// since.
    pub insufficient_scope: Option<ScopeReport>,
}

/// Failures of a route without a success between them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteFailures {
    /// The time of the first, as RFC 3339.
    pub since: String,
    /// The time of the last, as RFC 3339.
    pub at: String,
    /// Their number.
    pub failures: u64,
    /// Those of them with `forwarded=unknown`.
    pub unknown: u64,
    /// True for methods that change something (RFC 9110 section 9.2.1).
    #[serde(rename = "unsafe")]
    pub is_unsafe: bool,
    /// The method of the last.
    pub method: String,
    /// The code of the last, as in `last_error` of an upstream.
    pub code: String,
    /// The last in words.
    pub detail: String,
    /// Whether the upstream got the last: `no`, `yes` or `unknown`.
    #[serde(default)]
    pub forwarded: String,
    /// The status of the upstream's answer, if that is the failure.
    #[serde(default)]
    pub status: Option<u16>,
    /// The remedy for the last, if one is known.
    #[serde(default)]
    pub hint: Option<String>,
}

impl RouteFailures {
    /// True if they are enough to be reported: one failure says little, and of payments two are too many.
    pub fn count(&self) -> bool {
        self.failures >= if self.is_unsafe { 2 } else { REFUSALS_IN_A_ROW }
    }

    /// What failed, as a clause.
    pub fn words(&self) -> String {
        let Self { failures, unknown, since, method, code, detail, .. } = self;
        let safety = if self.is_unsafe { "unsafe" } else { "safe" };
        let unknown = match unknown {
            0 => String::new(),
            unknown => format!(", {unknown} with forwarded=unknown"),
        };
        format!(
            "the last {failures} {safety} requests ({method}) failed since {since}: {code}{unknown}: {detail}"
        )
    }
}

/// Requests with an unsafe method that somebody must follow up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UnsafeRequests {
    /// Those of the last hour.
    pub last_hour: u64,
    /// The last of them, however long ago.
    pub last: Option<UnsafeRequest>,
    /// Those of the last hour, the newest first; at most 20.
    #[serde(default)]
    pub recent: Vec<UnsafeRequest>,
}

/// One such request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnsafeRequest {
    /// When it ended, as RFC 3339.
    pub at: String,
    /// Its method.
    pub method: String,
    /// The upstream of its route.
    pub upstream: String,
    /// The name of its route.
    pub route: String,
    /// The status of the answer, which the app may not have got.
    pub status: u16,
    /// The reason for which it must be followed up.
    #[serde(default)]
    pub detail: String,
    /// The address of the app, or its user on a Unix socket.
    #[serde(default)]
    pub peer: String,
    /// Its id, as in the log.
    pub request_id: String,
}

impl UnsafeRequests {
    /// The answers of the last hour that apps did not get, as a sentence without a full stop; `None` if there
    /// are none.
    pub fn undelivered(&self) -> Option<String> {
        let (requests, last) = self.in_words()?;
        Some(format!(
            "Apps did not get the upstream's whole answer to {requests} in the last hour; the last: {last}"
        ))
    }

    /// The requests of the last hour of unknown outcome, as a sentence without a full stop; `None` if there
    /// are none.
    pub fn unknown(&self) -> Option<String> {
        let (requests, last) = self.in_words()?;
        Some(format!(
            "It is not known whether the upstream acted on {requests} of the last hour; the last: {last}"
        ))
    }

    fn in_words(&self) -> Option<(String, String)> {
        let last = self.last.as_ref().filter(|_| self.last_hour > 0)?;
        let UnsafeRequest { at, method, upstream, route, status, detail, request_id, .. } = last;
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        let requests = match self.last_hour {
            1 => "1 unsafe request".to_owned(),
            count => format!("{count} unsafe requests"),
        };
        let before = self.recent.iter().skip(1).map(|request| &*request.request_id);
        let before = match before.collect::<Vec<_>>() {
            none if none.is_empty() => String::new(),
            ids => format!("; before it: {}", ids.join(" ")),
        };
        let last = format!(
            "{method} {upstream}.{route} at {at}, status {status}{detail}, request_id {request_id}{before}"
        );
        Some((requests, last))
    }
}

/// A request that was answered by bearer-proxy itself.
#[derive(Debug, Clone, Serialize)]
pub struct RefusalStatus {
    /// When, as RFC 3339.
    pub at: String,
    /// The code of its problem document.
    pub code: &'static str,
    /// The upstream of its route; empty if no route claimed it.
    pub upstream: String,
    /// The name of its route; empty if no route claimed it.
    pub route: String,
    /// The words of its problem document.
    pub detail: String,
    /// Its method.
    pub method: String,
    /// Whether the upstream got it: `no`, `yes` or `unknown`.
    pub forwarded: &'static str,
    /// Its path if no route claims it, with `_` in place of segments that are no words; else empty.
    pub path: String,
    /// The address of the app, or its user on a Unix socket.
    pub peer: String,
    /// Its id, as in the log.
    pub request_id: String,
}

/// Refusals of one code, two or more, none of them an hour after the one before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RepeatedRefusals {
    /// The code of their problem documents.
    pub code: String,
    /// Their status.
    pub status: u16,
    /// Their number.
    pub count: u64,
    /// The time of the first, as RFC 3339.
    pub since: String,
    /// The time of the last, as RFC 3339.
    pub at: String,
    /// The method of the last.
    pub method: String,
    /// The path of the last, as in `refusals`.
    pub path: String,
    /// Methods and paths of others, the newest first.
    #[serde(default)]
    pub others: Vec<String>,
    /// The route that this path is like, if there is one.
    pub nearest_route: Option<String>,
    /// The address of the app that sent the last, or its user.
    pub peer: String,
    /// The words of the problem document of the last.
    pub detail: String,
    /// The id of the last, as in the log.
    pub request_id: String,
}

impl RepeatedRefusals {
    /// Their number, their code, and the last, as a sentence without a full stop.
    pub fn words(&self) -> String {
        let Self { code, status, count, since, at, method, path, peer, request_id, .. } = self;
        let path = if path.is_empty() { String::new() } else { format!(" {path}") };
        let why = match &self.nearest_route {
            _ if path.is_empty() => self.detail.clone(),
            Some(route) => format!("the nearest route is {route}"),
            None => "no route is like it".to_owned(),
        };
        let others = match self.others.join(", ") {
            none if none.is_empty() => none,
            others => format!("; others: {others}"),
        };
        format!(
            "{count} requests got {status} {code} since {since}; the last: {method}{path} from {peer} at {at}, \
             request_id {request_id}: {why}{others}"
        )
    }
}

/// Counts of the last hour, one for each minute, the newest last.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    /// Requests answered.
    pub requests: Vec<u64>,
    /// Those of them answered with 5xx.
    pub errors: Vec<u64>,
}
