//! The control plane's client: one call on a fresh connection, one deadline, a bounded reply.
//!
//! A token call an hour needs no pool, and must never share one with requests.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::connect::{ConnectError, ConnectReport, Connection, Connector};
use super::diagnosis;

/// Bytes of an answer's head.
const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// An answer and how its server was reached.
pub struct Reply {
    /// The answer, whole.
    pub response: Response<Bytes>,
    /// How the server was reached.
    pub connect: ConnectReport,
}

/// Sends one request and reads its whole answer. Redirects are answers like any other: a client's
/// credentials do not follow them (RFC 9700 section 4.12).
///
/// # Errors
/// Says whether connecting, time or the exchange failed.
pub async fn call(
    connector: &Connector,
    request: Request<Bytes>,
    limit: Duration,
    max_reply_bytes: usize,
) -> Result<Reply, CallError> {
    tokio::time::timeout(limit, exchange(connector, request, max_reply_bytes))
        .await
        .unwrap_or(Err(CallError::Timeout(limit)))
}

async fn exchange(
    connector: &Connector,
    request: Request<Bytes>,
    max_reply_bytes: usize,
) -> Result<Reply, CallError> {
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
        let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        let response = sender.send_request(request).await.map_err(CallError::Exchange)?;
        read(response, max_reply_bytes, driver).await?
    } else {
        let (mut sender, connection) = http1::Builder::new()
            .max_header_size(MAX_HEADER_BYTES as usize)
            .handshake(io)
            .await
            .map_err(CallError::Exchange)?;
        let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        let request = origin_form(request, connector);
        let response = sender.send_request(request).await.map_err(CallError::Exchange)?;
        read(response, max_reply_bytes, driver).await?
    };
    Ok(Reply { response, connect: report })
}

/// The task that moves a connection's bytes; ended with the exchange, whichever way that ends.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// RFC 9112 section 3.2.1: path and query in the request line, the authority in Host.
fn origin_form(mut request: Request<Full<Bytes>>, connector: &Connector) -> Request<Full<Bytes>> {
    if let Ok(host) = HeaderValue::try_from(connector.origin().authority()) {
        request.headers_mut().insert(HOST, host);
    }
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
    request
}

async fn read(
    response: Response<hyper::body::Incoming>,
    max_bytes: usize,
    _driver: Driver,
) -> Result<Response<Bytes>, CallError> {
    let (parts, body) = response.into_parts();
    match Limited::new(body, max_bytes).collect().await {
        Ok(whole) => Ok(Response::from_parts(parts, whole.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge(max_bytes)),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => CallError::Exchange(*error),
            Err(_) => CallError::Cut,
        }),
    }
}

/// Why a call brought no answer.
#[derive(Debug)]
pub enum CallError {
    /// No connection was made.
    Connect(ConnectError),
    /// The whole did not finish in time.
    Timeout(Duration),
    /// The exchange broke off.
    Exchange(hyper::Error),
    /// The answer is longer than this many bytes.
    TooLarge(usize),
    /// The answer ended early.
    Cut,
}

impl CallError {
    /// A word for metrics and for the steps of `check --live`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.label(),
            Self::Timeout(_) => "timeout",
            Self::Exchange(_) | Self::Cut => "exchange",
            Self::TooLarge(_) => "too_large",
        }
    }

    /// Whether it ended for want of time.
    pub fn is_timeout(&self) -> bool {
        self.label() == "timeout"
    }

    /// What may help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint().map(str::to_owned),
            Self::Exchange(error) => diagnosis::of_exchange(error).map(str::to_owned),
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Timeout(limit) => write!(f, "no whole answer within {limit:?}"),
            Self::Exchange(error) => {
                write!(f, "the exchange broke off: {error}")?;
                // hyper prints each level by itself.
                error.source().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::TooLarge(bytes) => write!(f, "the answer is longer than {bytes} bytes"),
            Self::Cut => f.write_str("the answer ended early"),
        }
    }
}

impl std::error::Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{Authority, Reply as Say, Script, Scripted, ServerSetup, origin};
    use crate::net::tls::{Alpn, TlsSettings};

    const PATIENT: Duration = Duration::from_secs(10);

    fn connector(uri: &str, tls: &TlsSettings) -> Connector {
        Connector::new(origin(uri), tls, Alpn::Both, PATIENT, PATIENT).unwrap()
    }

    fn request(uri: &str) -> Request<Bytes> {
        Request::post(format!("{uri}/token?x=1")).body(Bytes::from_static(b"a=b")).unwrap()
    }

    async fn outcome(script: Script, limit: Duration) -> Result<Reply, CallError> {
        let server = Scripted::start(script).await;
        let connector = connector(&server.http(), &TlsSettings::default());
        call(&connector, request(&server.http()), limit, 8).await
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
            Err("too_large"),
        )
        .await;
        check(
            |_, _| {
                Say::Answer(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n",
                )
            },
            Err("too_large"),
        )
        .await;
        check(|_, _| Say::Last("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n123"), Err("exchange"))
            .await;
        check(|_, _| Say::Last("SSH-2.0-x\r\n\r\n"), Err("exchange")).await;
        check(|_, _| Say::Last(""), Err("exchange")).await;
    }

    #[tokio::test]
    async fn one_deadline_covers_the_call() {
        let error = outcome(|_, _| Say::Silence, Duration::from_millis(50)).await.err().unwrap();
        assert!(error.is_timeout());
        assert_eq!(error.to_string(), "no whole answer within 50ms");
    }

    #[tokio::test]
    async fn each_call_is_a_connection_of_its_own_in_origin_form() {
        let script = |_, _| Say::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let ca = Authority::new();
        let mut server = Scripted::with_tls(script, ca.server(ServerSetup::default())).await;
        let uri = format!("https://localhost:{}", server.address.port());
        let connector = connector(&uri, &ca.trusted());
        for expected in 1..=2 {
            let reply = call(&connector, request(&uri), PATIENT, 8).await.unwrap();
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
