//! `ApiConnection`: one connection to the API server, over which requests go one after the other.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::net::Origin;
use crate::net::connect::MaybeTlsStream;
use crate::net::control::CallError;
use crate::task;

/// Header lines of an answer.
const MAX_HEADERS: usize = 128;
/// Bytes of the head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Bytes of an answer, and of one event of a watch: a Secret of 1 MiB in base64, with its metadata.
pub(super) const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Longest use of a connection: the certificates that it was opened with are read again then.
const MAX_AGE: Duration = Duration::from_secs(60);

/// A connection, which ends when it is dropped.
pub(super) struct ApiConnection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    opened: Instant,
    _driver: AbortOnDropHandle<()>,
}

impl ApiConnection {
    /// Begins HTTP on a stream to an origin.
    pub(super) async fn over(stream: MaybeTlsStream, origin: &Origin) -> Result<Self, CallError> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(CallError::Exchange)?;
        // The result is dropped: `send_request` reports a failure of the connection as its own.
        let driver = AbortOnDropHandle::new(task::spawn(async move { drop(connection.await) }));
        let host = HeaderValue::try_from(origin.authority()).map_err(|_| CallError::Incomplete)?;
        Ok(Self { sender, host, opened: Instant::now(), _driver: driver })
    }

    /// Tells whether another request may go over it.
    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.opened.elapsed() < MAX_AGE
    }

    /// Sends a request whose target is in origin-form.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        request.headers_mut().insert(HOST, self.host.clone());
        self.sender.ready().await.map_err(CallError::Exchange)?;
        self.sender.send_request(request).await.map_err(CallError::Exchange)
    }
}

/// Reads the whole body of an answer.
pub(super) async fn read_whole(body: Incoming) -> Result<Bytes, CallError> {
    let collected = Limited::new(body, MAX_BYTES).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => CallError::Exchange(*error),
        Err(_) => CallError::TooLarge(MAX_BYTES),
    })
}
