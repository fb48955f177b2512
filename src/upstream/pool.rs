//! A worker's own keep-alive connections to one upstream.
//!
//! The newest idle connection is used first, so that the others age out. A connection comes back
//! only when hyper is ready for another request on it, which is when both bodies have ended; one
//! that was cut, timed out or left unread never does. What was handed back unwritten may be sent on
//! another connection; whatever else fails is reported, never repeated.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::error::{Forwarded, SendError, SendErrorKind};
use super::expect::Expectation;
use super::multiplexed::{self, Connection, Connections, Turn};
use super::settings::{Protocol, Settings};
use crate::body::Body;
use crate::net::connect::{self, Connector};
use crate::net::tls::{Alpn, TlsCache, TlsSetupError};
use crate::secret::EgressProxy;

/// How many connections are tried for a request that is handed back unwritten each time.
const MAX_CONNECTIONS_TRIED: usize = 3;
/// Fields of an answer's head; hyper keeps to the same bound with HTTP/1.
const MAX_HEADERS: usize = 100;
/// Bytes of an answer's head.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Which connections may carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any that is open: the request may be sent again if the connection turns out dead.
    Any,
    /// One used within [`Settings::unsafe_max_idle`], else a new one: the request cannot be sent
    /// again, so that the race with a server closing an idle connection is kept short.
    Recent,
    /// A new one.
    Never,
}

/// The connections of one worker to one upstream.
pub struct Pool(Rc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    connector: Connector,
    authority: Authority,
    idle: RefCell<Vec<Idle>>,
    multiplexed: Connections,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
    retire_at: Instant,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(Connection),
}

struct Checked {
    sender: Sender,
    reused: bool,
    retire_at: Instant,
}

impl Pool {
    /// Prepares connections; none is made yet.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn new(settings: Arc<Settings>) -> Result<Self, TlsSetupError> {
        Self::sharing(&TlsCache::default(), settings)
    }

    /// Like [`new`](Self::new), with a TLS configuration that equal settings share.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn sharing(cache: &TlsCache, settings: Arc<Settings>) -> Result<Self, TlsSetupError> {
        let alpn = match settings.protocol {
            Protocol::Auto => Alpn::Both,
            Protocol::Http1 => Alpn::Http1,
            Protocol::Http2 => Alpn::Http2,
        };
        let connector = Connector::sharing(
            cache,
            settings.origin.clone(),
            &settings.tls,
            alpn,
            settings.connect_timeout,
            settings.tcp_user_timeout,
        )?
        .through(settings.egress.as_ref().map(EgressProxy::way))?;
        let authority = settings.origin.authority().parse().map_err(|_| {
            TlsSetupError::new(format!("{} is no authority", settings.origin.authority()))
        })?;
        let (idle, multiplexed) = (RefCell::default(), Connections::default());
        Ok(Self(Rc::new(Shared { settings, connector, authority, idle, multiplexed })))
    }

    /// What it was made from.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.0.settings
    }

    /// Sends a request in origin form and waits for the head of its answer. Dropping the future
    /// closes the connection.
    ///
    /// # Errors
    /// What failed, and whether any byte had left.
    pub async fn send(
        &self,
        mut request: Box<Request<Body>>,
        reuse: Reuse,
    ) -> Result<Response<Body>, SendError> {
        let expectation = Expectation::hold(&mut request);
        let mut tried = 0;
        loop {
            tried += 1;
            // Those still in the pool may be as dead as the ones tried so far.
            let last = tried == MAX_CONNECTIONS_TRIED;
            let checked = match self.0.checkout(if last { Reuse::Never } else { reuse }) {
                Some(checked) => checked,
                // In a box: most requests find a connection and need not carry room for its making.
                None => Box::pin(self.0.fresh(reuse)).await?,
            };
            let reused = checked.reused;
            match self.0.exchange(checked, request, expectation.as_ref()).await {
                Ok(response) => match unusable(&response) {
                    Some(kind) => {
                        return Err(SendError { kind, forwarded: Forwarded::Unknown, reused });
                    }
                    None => {
                        return Ok(match &expectation {
                            Some(expectation) => expectation.answered(response),
                            None => response,
                        });
                    }
                },
                Err(mut error) => match error.take_message() {
                    Some(unwritten) if tried < MAX_CONNECTIONS_TRIED => {
                        request = Box::new(unwritten);
                    }
                    unwritten => {
                        return Err(failed(error.into_error(), unwritten.is_some(), reused));
                    }
                },
            }
        }
    }

    /// Closes connections that were idle for too long or have grown too old.
    pub fn prune(&self, now: Instant) {
        let keep = self.0.settings.idle_timeout;
        self.0.idle.borrow_mut().retain(|idle| {
            !idle.sender.is_closed()
                && idle.retire_at > now
                && now.duration_since(idle.since) < keep
        });
        self.0.multiplexed.prune(now, keep);
    }

    /// Closes every idle connection: after a suspend the clock does not tell how long they were.
    /// Requests under way go on.
    pub fn close_idle(&self) {
        self.0.idle.borrow_mut().clear();
        self.0.multiplexed.clear();
    }

    /// How many connections are idle.
    pub fn idle(&self) -> usize {
        self.0.idle.borrow().len()
    }
}

/// Why an answer is not passed on, and its connection not used again: nobody asked for another
/// protocol, or the end of its body can be read in two ways (RFC 9112 section 6.3; hyper follows
/// the transfer coding and leaves the length in the head, and reads no length after a HEAD).
fn unusable(response: &Response<Body>) -> Option<SendErrorKind> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Some(SendErrorKind::UnaskedUpgrade);
    }
    let headers = response.headers();
    if headers.len() > MAX_HEADERS {
        return Some(SendErrorKind::TooManyHeaders);
    }
    let one = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        (values.next(), values.next().is_some())
    };
    let sound = match (one(CONTENT_LENGTH), one(TRANSFER_ENCODING)) {
        ((None, _), (None, _)) => true,
        ((Some(length), false), (None, _)) => {
            !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
        }
        ((None, _), (Some(coding), false)) => {
            response.version() == Version::HTTP_11
                && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        _ => false,
    };
    (!sound).then_some(SendErrorKind::AmbiguousLength)
}

impl Shared {
    fn checkout(&self, reuse: Reuse) -> Option<Checked> {
        let now = Instant::now();
        let max_idle = match reuse {
            Reuse::Any => self.settings.idle_timeout,
            Reuse::Recent => self.settings.unsafe_max_idle,
            Reuse::Never => return None,
        };
        if let Some(shared) = self.multiplexed.with_room(now, max_idle) {
            let retire_at = shared.retire_at;
            return Some(Checked { sender: Sender::Http2(shared), reused: true, retire_at });
        }
        let mut all = self.idle.borrow_mut();
        while let Some(newest) = all.last() {
            if now.duration_since(newest.since) > max_idle {
                return None; // those below it have been idle for longer
            }
            let Idle { sender, retire_at, .. } = all.pop()?;
            if retire_at > now && sender.is_ready() {
                return Some(Checked { sender: Sender::Http1(sender), reused: true, retire_at });
            }
        }
        None
    }

    /// A connection that nobody has used, or one that somebody else has just made room on.
    async fn fresh(&self, reuse: Reuse) -> Result<Checked, SendError> {
        while reuse != Reuse::Never
            && let Some(turn) = self.multiplexed.turn().await
        {
            match turn {
                Turn::Ours(leading) => {
                    return self.connect().await.inspect_err(|error| {
                        if let SendErrorKind::Connect(error) = &error.kind {
                            leading.failed(error);
                        }
                    });
                }
                Turn::Over => {
                    if let Some(checked) = self.checkout(reuse) {
                        return Ok(checked);
                    }
                }
                Turn::Failed(error) => {
                    let kind = SendErrorKind::Connect(error);
                    return Err(SendError { kind, forwarded: Forwarded::No, reused: false });
                }
            }
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<Checked, SendError> {
        let unsent = |kind| SendError { kind, forwarded: Forwarded::No, reused: false };
        let connected = self.connector.connect().await;
        let connect::Connection { stream, http2, .. } =
            connected.map_err(|error| unsent(SendErrorKind::Connect(error)))?;
        let retire_at = Instant::now() + aged(self.settings.max_age);
        let exchange = |error| unsent(SendErrorKind::Exchange(error));
        let prior_knowledge =
            self.settings.protocol == Protocol::Http2 && !self.settings.origin.is_https();
        let sender = if http2 || prior_knowledge {
            let (ping, bytes) = (self.settings.ping, MAX_HEADER_BYTES as u32);
            let started = self.multiplexed.start(stream, ping, bytes, retire_at).await;
            Sender::Http2(started.map_err(exchange)?)
        } else {
            self.multiplexed.unexpected();
            let (sender, connection) = http1::Builder::new()
                .max_header_size(MAX_HEADER_BYTES)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(exchange)?;
            tokio::task::spawn_local(async move { drop(connection.await) });
            Sender::Http1(sender)
        };
        Ok(Checked { sender, reused: false, retire_at })
    }

    async fn exchange(
        self: &Rc<Self>,
        checked: Checked,
        mut request: Box<Request<Body>>,
        expectation: Option<&Expectation>,
    ) -> Result<Response<Body>, TrySendError<Request<Body>>> {
        match checked.sender {
            Sender::Http2(mut connection) => {
                if let Some(expectation) = expectation {
                    expectation.release();
                }
                connection.send(self.absolute(*request)).await
            }
            Sender::Http1(mut sender) => {
                frame(&mut request);
                if let Some(expectation) = expectation {
                    expectation.listen(&mut request);
                }
                let response = sender.try_send_request(*request).await?;
                let response = response.map(|body| Body::incoming(Version::HTTP_11, body));
                if unusable(&response).is_none() {
                    self.take_back(sender, checked.retire_at);
                }
                Ok(response)
            }
        }
    }

    /// Keeps a connection once it is ready for another request: at once where the whole answer came
    /// with its head, as most do.
    fn take_back(self: &Rc<Self>, mut sender: http1::SendRequest<Body>, retire_at: Instant) {
        if sender.is_ready() {
            return self.park(sender, retire_at);
        }
        let pool = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok()
                && let Some(pool) = pool.upgrade()
            {
                pool.park(sender, retire_at);
            }
        });
    }

    fn park(&self, sender: http1::SendRequest<Body>, retire_at: Instant) {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        if retire_at <= now || self.settings.max_idle == 0 {
            return;
        }
        if idle.len() >= self.settings.max_idle {
            idle.remove(0); // the one idle for longest
        }
        idle.push(Idle { sender, since: now, retire_at });
    }

    /// RFC 9113 section 8.3.1: scheme and authority are fields of their own, and Host is not sent. Nor is
    /// Expect: hyper does not tell what comes before an answer, and the server has its windows to say
    /// how much of a body it wants.
    fn absolute(&self, mut request: Request<Body>) -> Request<Body> {
        request.headers_mut().remove(HOST);
        request.headers_mut().remove(EXPECT);
        *request.version_mut() = Version::HTTP_2;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme =
            Some(if self.settings.origin.is_https() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request
    }
}

/// hyper takes the body of a GET for none unless its framing is stated. What of a request belongs to
/// this connection alone is named in Connection (RFC 9110 section 10.1.4).
fn frame(request: &mut Request<Body>) {
    if request.headers().contains_key(TE) {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
    }
    let unframed = !request.headers().contains_key(CONTENT_LENGTH)
        && request.body().size_hint().exact().is_none();
    if unframed {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn failed(error: hyper::Error, unwritten: bool, reused: bool) -> SendError {
    let kind = if multiplexed::is_refused(&error) {
        SendErrorKind::Refused
    } else if error.is_incomplete_message() || error.is_canceled() {
        SendErrorKind::Closed
    } else {
        SendErrorKind::Exchange(error)
    };
    let untouched = unwritten || matches!(kind, SendErrorKind::Refused);
    let forwarded = if untouched { Forwarded::No } else { Forwarded::Unknown };
    SendError { kind, forwarded, reused }
}

/// The greatest age, give or take 10 %, so that connections do not all end at once.
fn aged(max_age: Duration) -> Duration {
    max_age.mul_f64(0.9 + 0.2 * fastrand::f64())
}
