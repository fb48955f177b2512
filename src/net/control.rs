//! The control plane's client: one call on a fresh connection, one deadline, a bounded reply.
//!
//! A token call an hour needs no pool, and must never share one with requests.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::connect::{ConnectError, ConnectReport, Connection, Connector};

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
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Timeout(limit) => write!(f, "no whole answer within {limit:?}"),
            Self::Exchange(error) => write!(f, "the exchange broke off: {error}"),
            Self::TooLarge(bytes) => write!(f, "the answer is longer than {bytes} bytes"),
            Self::Cut => f.write_str("the answer ended early"),
        }
    }
}

impl std::error::Error for CallError {}
