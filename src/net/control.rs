//! The HTTP client of the control plane: one call on a fresh connection, with one deadline and a bounded
//! response.
//!
//! A token call per hour needs no pool, and must never share one with requests.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use zeroize::Zeroizing;

use super::connect::{ConnectError, ConnectFailureReason, ConnectReport, Connection, Connector};
use crate::body::plain_words;
use crate::task;
use crate::x509::diagnosis;

/// Header lines of a response, in HTTP/1 and HTTP/2. Token servers behind gateways send some dozens.
const MAX_HEADERS: usize = 256;

/// Bytes of a response head: as received with HTTP/1, and as RFC 9113 section 6.5.2 counts them with HTTP/2
/// (names, values and 32 for each field). It also bounds the read buffer of HTTP/1, for which hyper
/// requires at least 8 KiB.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Number of times that a body without a length is examined before its end. It bounds the work for a server
/// that sends many small pieces.
const MAX_WHOLE_CHECKS: usize = 64;

/// Limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for the whole call.
    pub time: Duration,
    /// Bytes of the response body.
    pub body_bytes: usize,
}

/// A complete response, with a report on the connection.
pub struct ControlResponse {
    /// The response with its whole body.
    pub response: Response<Bytes>,
    /// Report on the connection.
    pub connect: ConnectReport,
}

/// Sends one request and reads the whole response. Redirects are not followed, because client credentials
/// must not follow them (RFC 9700 section 4.12).
///
/// `is_whole` tells from headers and body whether a body is complete by its own form. Such a body is
/// accepted even if the connection breaks off where its framing or TLS (`close_notify`) promised more.
///
/// # Errors
/// A failed connection, the end of the time, a failed exchange, or a response that is too large.
pub async fn call(
    connector: &Connector,
    request: Request<Bytes>,
    limits: Limits,
    is_whole: fn(&HeaderMap, &[u8]) -> bool,
) -> Result<ControlResponse, CallError> {
    // One limit around everything. When it ends, the exchange is dropped with its connection, so a late
    // response can never be read by another call.
    tokio::time::timeout(limits.time, exchange(connector, request, limits.body_bytes, is_whole))
        .await
        .unwrap_or(Err(CallError::Timeout(limits.time)))
}

async fn exchange(
    connector: &Connector,
    request: Request<Bytes>,
    max_body_bytes: usize,
    is_whole: fn(&HeaderMap, &[u8]) -> bool,
) -> Result<ControlResponse, CallError> {
    let Connection { stream, http2, report } =
        connector.connect().await.map_err(CallError::Connect)?;
    let io = TokioIo::new(stream);
    let request = request.map(Full::new);
    let response = if http2 {
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEADER_BYTES)
            .handshake(io)
            .await
            .map_err(CallError::Exchange)?;
        // The result is dropped: `send_request` reports a failure of the connection as its own.
        let driver = Driver(task::spawn(async move { drop(connection.await) }));
        let response = sender.send_request(request).await.map_err(CallError::of_head)?;
        // h2 bounds the bytes of the fields, but not their number.
        if response.headers().len() > MAX_HEADERS {
            return Err(CallError::HeadTooLarge);
        }
        read(response, max_body_bytes, is_whole, driver).await?
    } else {
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEADER_BYTES as usize)
            .max_buf_size(MAX_HEADER_BYTES as usize)
            .handshake(io)
            .await
            .map_err(CallError::Exchange)?;
        let driver = Driver(task::spawn(async move { drop(connection.await) }));
        let request = origin_form(request, connector);
        let response = sender.send_request(request).await.map_err(CallError::of_head)?;
        read(response, max_body_bytes, is_whole, driver).await?
    };
    Ok(ControlResponse { response, connect: report })
}

/// The task that drives a connection. hyper splits a connection into a sender and a future that does the
/// I/O; without this guard that future would run on after a time-out has dropped the exchange.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        // Also after a complete response: the connection is used once, so nothing on it is wanted any
        // more. Aborting closes the socket at the task's next poll; there is nothing to wait for.
        self.0.abort();
    }
}

/// RFC 9112 section 3.2.1: path and query in the request line, the authority in Host.
fn origin_form(mut request: Request<Full<Bytes>>, connector: &Connector) -> Request<Full<Bytes>> {
    // hyper's low-level HTTP/1 client sends target and Host as they are given to it.
    if let Ok(host) = HeaderValue::try_from(connector.origin().authority()) {
        request.headers_mut().insert(HOST, host);
    }
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
    request
}

async fn read(
    response: Response<Incoming>,
    max_bytes: usize,
    is_whole: fn(&HeaderMap, &[u8]) -> bool,
    // Held until the body has ended, because the driver task reads it.
    _driver: Driver,
) -> Result<Response<Bytes>, CallError> {
    let (parts, body) = response.into_parts();
    let mut body = Limited::new(body, max_bytes);
    let mut read = Zeroizing::new(Vec::new());
    let mut checks = if ends_with_connection(&parts) { MAX_WHOLE_CHECKS } else { 0 };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(CallError::TooLarge(max_bytes));
            }
            Err(_) if is_whole(&parts.headers, &read) => break,
            Err(error) => {
                let error = error.downcast::<hyper::Error>();
                return Err(error.map_or(CallError::Incomplete, |e| CallError::Exchange(*e)));
            }
        }
        // Some servers state no length and leave the connection open.
        if checks > 0 && read.trim_ascii_end().ends_with(b"}") {
            checks -= 1;
            if is_whole(&parts.headers, &read) {
                break;
            }
        }
    }
    Ok(Response::from_parts(parts, Bytes::from_owner(read)))
}

/// RFC 9112 section 6.3: a body without a length ends with its connection. In HTTP/2 a stream has an end of
/// its own.
fn ends_with_connection(head: &Parts) -> bool {
    let framed = |name| head.headers.contains_key(name);
    head.version < Version::HTTP_2 && !framed(CONTENT_LENGTH) && !framed(TRANSFER_ENCODING)
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection failed.
    #[error("{0}")]
    Connect(ConnectError),
    /// The call did not finish within this time.
    #[error("no whole answer within {0:.1?}")]
    Timeout(Duration),
    /// The exchange failed after the connection was open.
    #[error("the exchange broke off: {error}{}", cause(.0), error = .0)]
    Exchange(hyper::Error),
    /// The response head exceeds a limit.
    #[error("the head of the answer has more than {MAX_HEADERS} lines or {MAX_HEADER_BYTES} bytes")]
    HeadTooLarge,
    /// The response body is longer than this many bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The response ended early.
    #[error("the answer ended early")]
    Incomplete,
}

impl CallError {
    fn of_head(error: hyper::Error) -> Self {
        if error.is_parse_too_large() { Self::HeadTooLarge } else { Self::Exchange(error) }
    }

    /// The `result` label of metrics, and the word in `/status`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason().as_str(),
            Self::Timeout(_) => "timeout",
            // A TLS 1.3 server refuses a client certificate only after the handshake.
            Self::Exchange(error) if diagnosis::tls_cause(error).is_some() => {
                ConnectFailureReason::Tls.as_str()
            }
            Self::Exchange(_) | Self::Incomplete | Self::HeadTooLarge | Self::TooLarge(_) => {
                "error"
            }
        }
    }

    /// A remedy, if one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint().map(str::to_owned),
            Self::Exchange(error) if error.is_parse() => Some(
                "what answered does not speak HTTP: is it https://? else check the port".into(),
            ),
            Self::Exchange(error) => diagnosis::of_exchange(error).map(str::to_owned),
            _ => None,
        }
    }
}

/// Message of the cause of an error: hyper prints each level by itself.
fn cause(error: &hyper::Error) -> String {
    match diagnosis::tls_cause(error) {
        Some(tls) => format!(": {}", diagnosis::tls_words(tls)),
        None => error
            .source()
            .map_or_else(String::new, |cause| format!(": {}", plain_words(&cause.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::net::connect::ConnectSettings;
    use crate::net::testing::{Authority, Reply as Say, Script, Scripted, ServerSetup, origin};
    use crate::net::tls::{Alpn, TlsCache, TlsSettings};

    const PATIENT: Duration = Duration::from_secs(10);
    const LIMITS: Limits = Limits { time: PATIENT, body_bytes: 8 };

    fn connector(uri: &str, tls: &TlsSettings) -> Connector {
        let settings = ConnectSettings { timeout: PATIENT, tcp_user_timeout: PATIENT };
        Connector::new(&TlsCache::default(), origin(uri), tls, Alpn::Both, settings).unwrap()
    }

    fn request(uri: &str) -> Request<Bytes> {
        Request::post(format!("{uri}/token?x=1")).body(Bytes::from_static(b"a=b")).unwrap()
    }

    async fn outcome(script: Script, limit: Duration) -> Result<ControlResponse, CallError> {
        let server = Scripted::start(script).await;
        let connector = connector(&server.http(), &TlsSettings::default());
        let limits = Limits { time: limit, body_bytes: 8 };
        call(&connector, request(&server.http()), limits, |_, body| body == b"{}").await
    }

    #[tokio::test]
    async fn an_answer_comes_whole_or_not_at_all() {
        let check = async |script: Script, expected: Result<(u16, &str), &str>| match (
            outcome(script, PATIENT).await,
            expected,
        ) {
            (Ok(reply), Ok((status, body))) => {
                assert_eq!(reply.response.status().as_u16(), status);
                assert_eq!(reply.response.body(), body);
            }
            (Err(error), Err(label)) => assert_eq!(error.label(), label, "{error}"),
            (found, _) => panic!("{expected:?}: {:?}", found.map(|reply| reply.response)),
        };
        check(
            |_, _| Say::Answer("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678"),
            Ok((200, "12345678")),
        )
        .await;
        check(|_, _| Say::Last("HTTP/1.1 400 No\r\n\r\nuntil"), Ok((400, "until"))).await;
        check(
            |_, _| Say::Answer("HTTP/1.1 307 T\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n"),
            Ok((307, "")),
        )
        .await;
        check(
            |_, _| Say::Answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789"),
            Err("error"),
        )
        .await;
        check(
            |_, _| {
                Say::Answer(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n",
                )
            },
            Err("error"),
        )
        .await;
        check(|_, _| Say::Last("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n123"), Err("error"))
            .await;
        // A body that is whole by its own form needs no other proof.
        check(|_, _| Say::Last("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{}"), Ok((200, "{}")))
            .await;
        check(|_, _| Say::Answer("HTTP/1.1 200 OK\r\n\r\n{}"), Ok((200, "{}"))).await;
        check(
            |_, _| Say::Last("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"),
            Ok((200, "{}")),
        )
        .await;
        check(|_, _| Say::Last("SSH-2.0-x\r\n\r\n"), Err("error")).await;
        let other = outcome(|_, _| Say::Last("SSH-2.0-x\r\n\r\n"), PATIENT).await.err().unwrap();
        assert!(other.hint().is_some_and(|hint| hint.contains("is it https://?")), "{other}");
        check(|_, _| Say::Last(""), Err("error")).await;
    }

    /// The server closes TCP and sends no close_notify.
    #[tokio::test]
    async fn tls_may_break_off_behind_a_whole_body() {
        let ca = Authority::new();
        let check = async |body: &'static str, expected: Result<&'static [u8], &str>| {
            let tls = ca.server(ServerSetup::default());
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let uri = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            tokio::spawn(async move {
                let mut stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let answer = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            });
            let whole = |_: &HeaderMap, body: &[u8]| body == b"{}";
            let outcome = call(&connector(&uri, &ca.trusted()), request(&uri), LIMITS, whole).await;
            let found = outcome.map(|reply| reply.response.into_body());
            assert_eq!(found.map_err(|error| error.label()), expected.map(Bytes::from_static));
        };
        check("{}", Ok(b"{}")).await;
        check("{", Err("error")).await;
        check("{}\r\n ", Err("error")).await;
    }

    /// In TLS 1.3 the client writes its request before it hears of the refusal.
    #[tokio::test]
    async fn a_refused_client_certificate_is_told_in_words() {
        let ca = Authority::new();
        let tls = ca.server(ServerSetup { asks_for_client: true, ..ServerSetup::default() });
        let server = Scripted::with_tls(|_, _| Say::Silence, tls).await;
        let uri = format!("https://localhost:{}", server.address.port());
        let connector = connector(&uri, &ca.trusted());
        let error = call(&connector, request(&uri), LIMITS, |_, _| false).await.err().unwrap();
        assert_eq!(error.label(), "tls", "{error}");
        assert!(
            error.to_string().ends_with("received fatal alert: certificate_required"),
            "{error}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("client_certificate_file")));
    }

    const TOO_LARGE: &str = "the head of the answer has more than 256 lines or 65536 bytes";

    /// An empty answer with this many header lines, each with so many bytes of text.
    fn head(lines: usize, text: usize) -> Say {
        let fields = format!("x: {}\r\n", "y".repeat(text)).repeat(lines - 1);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
        Say::Answer(answer.leak())
    }

    #[tokio::test]
    async fn the_head_of_an_answer_is_bounded() {
        let check = async |script: Script, expected: Result<usize, &str>| {
            let outcome = outcome(script, PATIENT).await;
            let found = outcome.map(|reply| reply.response.headers().len());
            let found = found.map_err(|error| (error.label(), error.to_string()));
            assert_eq!(found, expected.map_err(|text| ("error", text.to_owned())));
        };
        check(|_, _| head(250, 1), Ok(250)).await;
        check(|_, _| head(256, 1), Ok(256)).await;
        check(|_, _| head(257, 1), Err(TOO_LARGE)).await;
        check(|_, _| head(300, 1), Err(TOO_LARGE)).await;
        check(|_, _| head(64, 1024), Ok(64)).await;
        check(|_, _| head(65, 1024), Err(TOO_LARGE)).await;
        check(|_, _| head(2, 100_000), Err(TOO_LARGE)).await;
    }

    /// Answers one HTTP/2 connection with so many header fields, and tells its port.
    async fn http2_server(fields: usize, tls: tokio_rustls::TlsAcceptor) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
            let mut response = Response::new(Full::<Bytes>::default());
            // hyper adds Date.
            for _ in 1..fields {
                response.headers_mut().append("x", HeaderValue::from_static("y"));
            }
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = TokioIo::new(tls.accept(stream).await.unwrap());
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(stream, service).await;
        });
        port
    }

    #[tokio::test]
    async fn so_is_that_of_http2() {
        let ca = Authority::new();
        let check = async |fields: usize, expected: Result<usize, &str>| {
            let setup = ServerSetup { alpn: &["h2"], ..ServerSetup::default() };
            let port = http2_server(fields, ca.server(setup)).await;
            let uri = format!("https://localhost:{port}");
            let outcome =
                call(&connector(&uri, &ca.trusted()), request(&uri), LIMITS, |_, _| false).await;
            let found = outcome.map(|reply| reply.response.headers().len());
            let expected = expected.map_err(str::to_owned);
            assert_eq!(found.map_err(|error| error.to_string()), expected);
        };
        check(250, Ok(250)).await;
        check(256, Ok(256)).await;
        check(257, Err(TOO_LARGE)).await;
        check(300, Err(TOO_LARGE)).await;
    }

    #[tokio::test]
    async fn one_deadline_covers_the_call() {
        let error = outcome(|_, _| Say::Silence, Duration::from_millis(50)).await.err().unwrap();
        assert_eq!(error.label(), "timeout");
        assert_eq!(error.to_string(), "no whole answer within 50.0ms");
    }

    #[tokio::test]
    async fn each_call_is_a_connection_of_its_own_in_origin_form() {
        let script = |_, _| Say::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let ca = Authority::new();
        let mut server = Scripted::with_tls(script, ca.server(ServerSetup::default())).await;
        let uri = format!("https://localhost:{}", server.address.port());
        let connector = connector(&uri, &ca.trusted());
        for expected in 1..=2 {
            let reply = call(&connector, request(&uri), LIMITS, |_, _| false).await.unwrap();
            assert!(reply.connect.tls.is_some());
            let (connection, head) = server.request().await;
            assert_eq!(connection, expected);
            assert!(head.starts_with("post /token?x=1 http/1.1\r\n"), "{head}");
            let host = format!("\r\nhost: localhost:{}\r\n", server.address.port());
            assert!(head.contains(&host), "{head}");
            server.closed(expected).await;
        }
    }
}
