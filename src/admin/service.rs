//! The pages of the admin listeners and the small HTTP server for them, on the control runtime.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::either::Either;

use super::attention::attention;
use super::bundle::bundle;
use super::guard::{AccessError, Reach};
use super::page;
use super::readiness::{Health, Readiness, is_started, readiness};
use super::settings::ReadinessRule;
use super::token_report::token_report;
use crate::clock::{Moment, date};
use crate::listen::Listener;
use crate::listen::descriptors::{self, RESERVED_DESCRIPTORS};
use crate::net::unix::{UnixListener, UnixStream};
use crate::server::{ShutdownPhase, StopSignal};
use crate::shortage::lacks_descriptor;
use crate::task;
use crate::telemetry::throttle::Throttle;
use crate::telemetry::{Registry, metrics};
use crate::token::TokenStatus;

/// Open connections per listener; a probe, a scraper and a person need three.
const MAX_CONNECTIONS: usize = 64;

/// Time for the next request of a connection. It is longer than the usual intervals of probes and scrapes,
/// which keep their connections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(75);

/// Bytes of a request head.
const MAX_HEAD: usize = 16 * 1024;

/// Pause after a failed accept, such as one without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The admin service, shared by all admin listeners.
pub struct Admin {
    health: Arc<dyn Health>,
    registry: Registry,
    ready: watch::Sender<ReadinessRule>,
    failures: Mutex<Throttle>,
}

impl Admin {
    /// A service for this program.
    pub fn new(health: Arc<dyn Health>, registry: Registry) -> Arc<Self> {
        let (ready, failures) = (watch::Sender::default(), Mutex::default());
        RESERVED_DESCRIPTORS.hold();
        Arc::new(Self { health, registry, ready, failures })
    }

    /// Changes the condition under which `/readyz` answers 200; a reload may.
    pub fn set_ready(&self, rule: ReadinessRule) {
        self.ready.send_replace(rule);
    }

    /// True if `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        self.readiness(None) == Readiness::Ready
    }

    fn readiness(&self, credential: Option<&str>) -> Readiness {
        let rule = *self.ready.borrow();
        readiness(&*self.health, rule, credential)
    }

    /// Serves a listener until the stop signal; responses in flight are finished. It serves more than probes
    /// and metrics while `control` is true.
    ///
    /// # Errors
    /// A socket that the runtime does not accept.
    pub async fn serve(
        self: Arc<Self>,
        listener: Listener,
        control: Arc<AtomicBool>,
        stop: StopSignal,
    ) -> io::Result<()> {
        let (reach, listener) = match listener {
            Listener::Tcp(listener) => {
                let reach = Reach::of(listener.local_addr()?);
                (reach, Either::Left(TcpListener::from_std(listener)?))
            }
            Listener::Unix(listener) => {
                (Reach::SOCKET, Either::Right(UnixListener::from_std(listener)?))
            }
        };
        self.accept(listener, View { reach, control }, stop).await;
        Ok(())
    }

    async fn accept(self: Arc<Self>, listener: Acceptor, view: View, stop: StopSignal) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.reached(ShutdownPhase::Finishing) => break,
                Some(_) = connections.join_next() => {
                    RESERVED_DESCRIPTORS.refill();
                    continue;
                }
                accepted = accept_one(&listener, &slots) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let (admin, view, stop) = (Arc::clone(&self), view.clone(), stop.clone());
                    connections.spawn(task::boxed(async move {
                        admin.connection(stream, view, stop).await;
                        drop(permit);
                    }));
                }
                Err(error) => self.recover(&error).await,
            }
        }
        drop(listener);
        tokio::select! {
            () = stop.reached(ShutdownPhase::Aborting) => {}
            () = async { while connections.join_next().await.is_some() {} } => {}
        }
    }

    /// After a failed accept. Without a free descriptor one that was held back is set free, and the next
    /// accept has it unless a worker is faster; where none is left, it waits a moment.
    async fn recover(&self, error: &io::Error) {
        let exhausted = lacks_descriptor(error);
        if !exhausted {
            tracing::debug!(%error, "accepting an admin connection failed");
        } else if let Some(suppressed) =
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).allow()
        {
            tracing::warn!(
                limit = descriptors::limit(),
                suppressed,
                "too many open files: an admin connection needs a descriptor that was held back"
            );
        }
        if !(exhausted && RESERVED_DESCRIPTORS.release()) {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            RESERVED_DESCRIPTORS.refill();
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: Either<TcpStream, UnixStream>,
        view: View,
        stop: StopSignal,
    ) {
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (admin, view) = (Arc::clone(&self), view.clone());
            async move { Ok::<_, Infallible>(admin.respond(&view, &request).await) }
        });
        let connection = Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stop.reached(ShutdownPhase::Finishing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection ended");
        }
    }

    /// The response to one request. Only this function knows the pages.
    async fn respond<B>(&self, view: &View, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Err(refusal) = view.reach.admit(request) {
            return refused(refusal);
        }
        let query = request.uri().query().unwrap_or_default();
        // hyper sends no body in answer to HEAD.
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.uri().path(), view.shows_control()) {
            ("/refresh", true) => self.refresh(request.method(), query),
            ("/livez" | "/readyz" | "/startupz" | "/metrics", _)
            | ("/" | "/status" | "/bundle", true)
                if !reads =>
            {
                not_allowed("method not allowed", "use GET or HEAD", "GET, HEAD")
            }
            ("/livez", _) => self.livez(),
            ("/readyz", _) => self.readyz(query),
            ("/startupz", _) => self.startupz(),
            ("/metrics", _) => self.metrics(),
            ("/status", true) => {
                response(StatusCode::OK, JSON, format!("{:#}\n", self.status().await))
            }
            ("/bundle", true) => self.bundle().await,
            ("/", true) => page::page(),
            _ => problem(StatusCode::NOT_FOUND, "no such page", PAGES),
        }
    }

    /// Forces a refresh of a credential's tokens; `/status` shows its result later.
    fn refresh(&self, method: &Method, query: &str) -> Response<Full<Bytes>> {
        if method != Method::POST {
            return not_allowed("method not allowed", "use POST", "POST");
        }
        let Some(credential) = Parameters::read(query).credential else {
            let how = "POST /refresh?credential=NAME";
            return problem(StatusCode::BAD_REQUEST, "missing parameter credential", how);
        };
        match self.health.refresh(&credential) {
            0 => problem(StatusCode::NOT_FOUND, "no such credential", "see /status"),
            tokens => {
                let of = |token: &TokenStatus| {
                    (*token.credential == *credential).then_some(token.secret_closed_until)?
                };
                let next_try = self.health.tokens().iter().filter_map(of).max().map(date);
                tracing::info!(credential, tokens, next_try, "a refresh is forced");
                let mut accepted = json!({ "credential": credential, "tokens": tokens });
                if let Some(next_try) = next_try {
                    accepted["next_try"] = next_try.into();
                    accepted["hint"] = REFUSED_LATELY.into();
                }
                response(StatusCode::ACCEPTED, JSON, format!("{accepted}\n"))
            }
        }
    }

    fn livez(&self) -> Response<Full<Bytes>> {
        match self.health.alive() {
            true => text(StatusCode::OK, "alive\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "a worker is unresponsive\n"),
        }
    }

    fn startupz(&self) -> Response<Full<Bytes>> {
        match is_started(&*self.health) {
            true => text(StatusCode::OK, "started\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        }
    }

    fn readyz(&self, query: &str) -> Response<Full<Bytes>> {
        let parameters = Parameters::read(query);
        let credential = parameters.credential.as_deref();
        let readiness = self.readiness(credential);
        if matches!(readiness, Readiness::Missing(_)) {
            // A client that polls for readiness waits for tokens like a request: request them.
            self.health.ask(credential);
        }
        let (status, mut lines) = match readiness {
            Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
            Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n".to_owned()),
            Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
            Readiness::Unknown => (StatusCode::NOT_FOUND, "no such credential\n".to_owned()),
            Readiness::Missing(names) => (StatusCode::SERVICE_UNAVAILABLE, missing(&names)),
        };
        if parameters.verbose {
            let now = Moment::now();
            lines.extend(self.health.tokens().iter().map(|token| verbose_line(token, now)));
        }
        text(status, lines)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
        response(StatusCode::OK, content_type, self.registry.render())
    }

    async fn bundle(&self) -> Response<Full<Bytes>> {
        let status = self.status().await;
        let metrics = String::from_utf8_lossy(&self.registry.render()).into_owned();
        let _spare = RESERVED_DESCRIPTORS.spare();
        let parts = self.health.bundle_parts();
        let bundle = bundle(&parts, status, &metrics, Moment::now().wall);
        response(StatusCode::OK, JSON, format!("{bundle:#}\n"))
    }

    async fn status(&self) -> Value {
        let report = self.health.report().await;
        let now = Moment::now();
        let tokens = self.health.tokens();
        let attention = attention(&tokens, &report, now);
        let tokens: Vec<Value> = tokens.iter().map(|token| token_report(token, now)).collect();
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": date(now.wall),
            "ready": self.is_ready(),
            "started": is_started(&*self.health),
            "draining": self.health.draining(),
            "attention": attention,
            "tokens": tokens,
        });
        // Two objects as one: what `app` reports stands beside the rest.
        if let (Some(status), Ok(Value::Object(report))) =
            (status.as_object_mut(), serde_json::to_value(report))
        {
            status.extend(report);
        }
        status
    }
}

/// The reason why a forced refresh makes no call at once.
const REFUSED_LATELY: &str = "the token server refused this client lately: servers lock one out that tries again \
     too soon, so that the next call is made at next_try";

const PAGES: &str = "there are /livez, /readyz, /startupz and /metrics, and on the control listener the status page \
     at /, /status, /bundle and /refresh";

type Acceptor = Either<TcpListener, UnixListener>;

/// The reach of one listener, and the pages that it serves.
#[derive(Debug, Clone)]
struct View {
    reach: Reach,
    control: Arc<AtomicBool>,
}

impl View {
    /// True if control pages are served; never beyond this machine, whatever is configured.
    fn shows_control(&self) -> bool {
        self.reach != Reach::Remote && self.control.load(Ordering::Relaxed)
    }
}

/// Waits for a free slot, then for a connection.
async fn accept_one(
    listener: &Acceptor,
    slots: &Arc<Semaphore>,
) -> io::Result<(Either<TcpStream, UnixStream>, OwnedSemaphorePermit)> {
    let permit = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let stream = match listener {
        Either::Left(listener) => Either::Left(listener.accept().await?.0),
        Either::Right(listener) => Either::Right(listener.accept().await?.0),
    };
    Ok((stream, permit))
}

/// The query of `/readyz`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    credential: Option<String>,
    verbose: bool,
}

impl Parameters {
    fn read(query: &str) -> Self {
        let mut parameters = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("credential", name) => {
                    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
                    parameters.credential = Some(name.into_owned());
                }
                ("verbose", _) => parameters.verbose = true,
                _ => {}
            }
        }
        parameters
    }
}

fn missing(names: &[String]) -> String {
    names.iter().map(|name| format!("{name}: no usable token\n")).collect()
}

fn verbose_line(status: &TokenStatus, now: Moment) -> String {
    let usable = if status.usable(now) { "usable" } else { "not usable" };
    let lazy = if status.lazy { ", lazy" } else { "" };
    format!("{}/{}: {usable}{lazy}\n", status.credential, status.token)
}

fn refused(refusal: AccessError) -> Response<Full<Bytes>> {
    let (status, title, detail) = match refusal {
        AccessError::BadHost => {
            (StatusCode::BAD_REQUEST, "bad Host", "send exactly one valid Host field")
        }
        AccessError::ForeignHost => (
            StatusCode::MISDIRECTED_REQUEST,
            "unknown host",
            "this listener answers to localhost and its own address only",
        ),
        AccessError::CrossSite => {
            (StatusCode::FORBIDDEN, "cross-site request", "web pages of other sites have no access")
        }
    };
    problem(status, title, detail)
}

/// 405 with the Allow header that it requires (RFC 9110 section 15.5.6).
fn not_allowed(title: &str, detail: &str, allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, title, detail);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A problem document (RFC 9457).
fn problem(status: StatusCode, title: &str, detail: &str) -> Response<Full<Bytes>> {
    let problem = json!({ "status": status.as_u16(), "title": title, "detail": detail });
    response(status, PROBLEM, format!("{problem}\n"))
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    response(status, TEXT, text.into())
}

fn response(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<bytes::Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::admin::readiness::tests::{Fake, fake};

    const LOOPBACK: Reach = Reach::Loopback(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn admin(health: Fake) -> Arc<Admin> {
        Admin::new(Arc::new(health), Registry::with_process().unwrap())
    }

    fn view(reach: Reach) -> View {
        View { reach, control: Arc::new(AtomicBool::new(true)) }
    }

    fn request(line: &str, fields: &[(&str, &str)]) -> Request<()> {
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    async fn body(answer: Response<Full<Bytes>>) -> String {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn pages_by_state() {
        let draining = Fake { draining: true, ..fake(&["a+"]) };
        let rows: &[(&str, Fake, u16, &str)] = &[
            ("GET /livez", fake(&["a"]), 200, "alive"),
            ("GET /readyz", fake(&["a+", "b~"]), 200, "ready"),
            ("GET /readyz", fake(&["a", "b+", "c"]), 503, "a: no usable token\nc: no usable token"),
            ("GET /readyz", draining.clone(), 503, "leaving"),
            ("GET /readyz?credential=b", fake(&["a", "b+"]), 200, "ready"),
            ("GET /readyz?credential=b%2Bx", fake(&["a"]), 404, "no such credential"),
            ("GET /readyz?verbose", fake(&["a+"]), 200, "a/0: usable"),
            ("GET /startupz", fake(&["a?"]), 503, "starting"),
            ("GET /startupz", fake(&["a"]), 200, "started"),
            ("GET /metrics", fake(&[]), 200, "bearer_proxy_build_info"),
            ("GET /status", fake(&["a+"]), 200, "\"credential\": \"a\""),
            ("HEAD /livez", fake(&[]), 200, ""),
            ("POST /livez", fake(&[]), 405, "GET or HEAD"),
            ("POST /refresh?credential=a", fake(&["a", "a+", "b"]), 202, "\"tokens\":2"),
            ("POST /refresh?credential=c", fake(&["a"]), 404, "no such credential"),
            ("POST /refresh", fake(&["a"]), 400, "missing parameter credential"),
            ("GET /refresh?credential=a", fake(&["a"]), 405, "use POST"),
            ("GET /", fake(&[]), 200, "<title>bearer-proxy</title>"),
            ("GET /bundle", fake(&["a+"]), 200, "\"bundle\": 1"),
            ("POST /bundle", fake(&[]), 405, "GET or HEAD"),
            ("GET /nowhere", fake(&[]), 404, "no such page"),
            ("POST /nowhere", fake(&[]), 404, "no such page"),
        ];
        for (line, health, status, part) in rows {
            let request = request(line, &[("host", "localhost:6751")]);
            let answer = admin(health.clone()).respond(&view(LOOPBACK), &request).await;
            assert_eq!(answer.status().as_u16(), *status, "{line}");
            assert_eq!(answer.headers().contains_key(ALLOW), *status == 405, "{line}");
            let text = body(answer).await;
            assert!(text.contains(part), "{line}: {part:?} is missing in {text:?}");
        }
    }

    #[tokio::test]
    async fn names_and_pages_by_reach() {
        let check = async |reach: Reach, path: &str, fields: &[(&str, &str)], status: u16| {
            let request = request(&format!("GET {path}"), fields);
            let answer = admin(fake(&["a+"])).respond(&view(reach), &request).await;
            assert_eq!(answer.status().as_u16(), status, "{reach:?} {path} {fields:?}");
        };
        for host in ["localhost", "LocalHost:6751", "127.0.0.1:6751", "[::1]:6751", "[::1]"] {
            check(LOOPBACK, "/status", &[("host", host)], 200).await;
        }
        for host in ["evil.example", "localhost.evil.example:6751", "10.0.0.1", "127.0.0.1.nip.io"]
        {
            check(LOOPBACK, "/livez", &[("host", host)], 421).await;
            check(Reach::Remote, "/livez", &[("host", host)], 200).await;
        }
        check(LOOPBACK, "/livez", &[], 400).await;
        check(LOOPBACK, "/livez", &[("host", "localhost"), ("host", "localhost")], 400).await;
        check(LOOPBACK, "/livez", &[("host", "a b")], 400).await;
        check(LOOPBACK, "http://evil.example/livez", &[("host", "localhost")], 421).await;
        let own = ("host", "localhost:6751");
        check(LOOPBACK, "/status", &[own, ("origin", "http://localhost:6751")], 200).await;
        check(LOOPBACK, "/status", &[own, ("origin", "http://localhost:8080")], 403).await;
        check(LOOPBACK, "/status", &[own, ("origin", "null")], 403).await;
        check(LOOPBACK, "/status", &[own, ("sec-fetch-site", "cross-site")], 403).await;
        check(LOOPBACK, "/status", &[own, ("sec-fetch-site", "none")], 200).await;
        check(LOOPBACK, "/", &[own], 200).await;
        check(LOOPBACK, "/", &[own, ("sec-fetch-site", "cross-site")], 403).await;
        check(Reach::Remote, "/", &[own], 404).await;
        check(Reach::Remote, "/status", &[own], 404).await;
        check(Reach::Remote, "/bundle", &[own], 404).await;
        check(Reach::Remote, "/refresh", &[own], 404).await;
        check(Reach::Remote, "/metrics", &[], 200).await;
    }

    #[tokio::test]
    async fn it_is_served_until_told_to_stop() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = StopSignal::new();
        let served = tokio::spawn(admin(fake(&["a+"])).serve(
            Listener::Tcp(listener),
            Arc::default(),
            stop.clone(),
        ));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"HEAD /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(client.read_u8().await.unwrap()));
        }
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        stop.advance(ShutdownPhase::Finishing);
        served.await.unwrap().unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed");
    }
}
