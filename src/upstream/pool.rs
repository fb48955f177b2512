//! A worker's own keep-alive connections to one upstream.
//!
//! The newest idle connection is used first, so that the others age out. A connection comes back
//! only when both bodies on it have ended; one that was cut, timed out or left unread never does.
//! What HTTP/2 handed back unwritten may be sent on another connection; whatever else fails is
//! reported, never repeated.

use std::cell::{Cell, RefCell, RefMut};
use std::future::Future;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{StatusCode, Uri, Version};
use tokio::time::Instant;

use super::alarms::Alarms;
use super::error::{Forwarded, SendError, SendErrorKind};
use super::expect::Expectation;
use super::http1;
use super::multiplexed::{self, Connection, Connections, Turn};
use super::settings::{Protocol, Settings};
use crate::http1::decimal;
use crate::message::{Request, Response};
use crate::net::connect::{self, ConnectError, Connector, Stream};
use crate::net::tls::{Alpn, TlsCache, TlsSetupError};

/// How many connections are tried for a request that is handed back unwritten each time.
const MAX_CONNECTIONS_TRIED: usize = 3;
/// Fields of an answer's head in HTTP/2, as in HTTP/1.
const MAX_HEADERS: usize = 100;
/// Bytes of an answer's head in HTTP/2.
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

/// What carries requests to one upstream; simulations have another than [`Pool`].
pub trait Way {
    /// Sends a request in origin form and waits for the head of its answer; notes when it has a
    /// connection to leave on. The body is taken, the head stays as it is.
    ///
    /// # Errors
    /// What failed, and whether any byte had left.
    fn send(
        &self,
        request: &mut Request,
        reuse: Reuse,
        departure: &Departure,
    ) -> impl Future<Output = Result<Box<Response>, SendError>>;

    /// For those who wait for its answers.
    fn alarms(&self) -> &Alarms;
}

impl Way for Pool {
    fn send(
        &self,
        request: &mut Request,
        reuse: Reuse,
        departure: &Departure,
    ) -> impl Future<Output = Result<Box<Response>, SendError>> {
        self.send_noting(request, reuse, departure)
    }

    fn alarms(&self) -> &Alarms {
        &self.0.alarms
    }
}

/// When a request had a connection to leave on. While one is being made, which has a time-out of
/// its own, an answer is not late.
pub struct Departure(Cell<Option<Instant>>);

impl Departure {
    /// Of a request that finds a connection now, unless it turns out otherwise.
    pub fn at(now: Instant) -> Self {
        Self(Cell::new(Some(now)))
    }

    /// Since when an answer may come; `None` while a connection is being made.
    pub fn since(&self) -> Option<Instant> {
        self.0.get()
    }

    async fn after<T>(&self, making: impl Future<Output = T>) -> T {
        self.0.set(None);
        let made = making.await;
        self.0.set(Some(Instant::now()));
        made
    }
}

/// The connections of one worker to one upstream.
pub struct Pool(Shared);

struct Shared {
    settings: Arc<Settings>,
    connector: Connector,
    /// Makes HTTP/1.1 connections, which alone can be switched to another protocol.
    switching: Option<Connector>,
    authority: Authority,
    idle: RefCell<Vec<Http1>>,
    /// Where answers that stream leave their connections.
    home: http1::Home<Stream>,
    returned: mpsc::Receiver<Http1>,
    multiplexed: Connections,
    alarms: Alarms,
}

type Http1 = Box<http1::Connection<Stream>>;

enum Sender {
    Http1(Http1),
    Http2(Connection),
}

struct Checked {
    sender: Sender,
    reused: bool,
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
        let switching = settings.upgrades.then(|| settings.connector_with(cache, Alpn::Http1));
        let switching = switching.transpose()?;
        let connector = settings.connector(cache)?;
        let authority = settings.origin.authority().parse().map_err(|_| {
            TlsSetupError::new(format!("{} is no authority", settings.origin.authority()))
        })?;
        let (home, returned) = mpsc::channel();
        Ok(Self(Shared {
            settings,
            connector,
            switching,
            authority,
            idle: RefCell::default(),
            home,
            returned,
            multiplexed: Connections::default(),
            alarms: Alarms::default(),
        }))
    }

    /// What it was made from.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.0.settings
    }

    /// Sends a request in origin form and waits for the head of its answer. The body is taken, the
    /// head stays as it is. Dropping the future closes the connection.
    ///
    /// # Errors
    /// What failed, and whether any byte had left.
    pub async fn send(
        &self,
        request: &mut Request,
        reuse: Reuse,
    ) -> Result<Box<Response>, SendError> {
        self.send_noting(request, reuse, &Departure::at(Instant::now())).await
    }

    async fn send_noting(
        &self,
        request: &mut Request,
        reuse: Reuse,
        departure: &Departure,
    ) -> Result<Box<Response>, SendError> {
        let expectation = Expectation::hold(request);
        let mut tried = 0;
        loop {
            tried += 1;
            // Those still in the pool may be as dead as the ones tried so far.
            let last = tried == MAX_CONNECTIONS_TRIED;
            let now = departure.since().unwrap_or_else(Instant::now);
            // In boxes: most requests find a connection of HTTP/1 and need not carry room for more.
            let Checked { sender, reused } = if request.fields.contains(UPGRADE) {
                Box::pin(departure.after(self.0.switchable())).await?
            } else if let Some(checked) =
                self.0.checkout(if last { Reuse::Never } else { reuse }, now)
            {
                checked
            } else {
                Box::pin(departure.after(self.0.fresh(reuse))).await?
            };
            match sender {
                Sender::Http1(connection) => {
                    let expectation = expectation.as_ref();
                    let sent = connection.exchange(request, expectation, &self.0.home).await;
                    return self.0.answered(sent, reused, expectation);
                }
                Sender::Http2(connection) => {
                    if let Some(expectation) = &expectation {
                        expectation.release();
                    }
                    let sending = self.0.share(connection, request, reused, last);
                    if let Some(response) = Box::pin(sending).await? {
                        return Ok(response);
                    }
                }
            }
        }
    }

    /// Closes connections that were idle for too long or have grown too old.
    pub fn prune(&self, now: Instant) {
        let keep = self.0.settings.idle_timeout;
        self.0.idle().retain_mut(|idle| {
            idle.retire_at > now
                && now.saturating_duration_since(idle.free_since) < keep
                && idle.is_quiet()
        });
        self.0.multiplexed.prune(now, keep);
    }

    /// Closes every idle connection: after a suspend the clock does not tell how long they were.
    /// Requests under way go on.
    pub fn close_idle(&self) {
        self.0.idle().clear();
        self.0.multiplexed.clear();
    }

    /// How many connections are idle.
    pub fn idle(&self) -> usize {
        self.0.idle().len()
    }
}

/// Why an answer over HTTP/2 is not passed on: nobody asked for another protocol, it has too many
/// fields, or its length can be read in two ways. `http1` sees to its own.
fn unusable(response: &Response) -> Option<SendErrorKind> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return Some(SendErrorKind::UnaskedUpgrade);
    }
    let headers = &response.fields;
    if headers.len() > MAX_HEADERS {
        return Some(SendErrorKind::TooManyHeaders);
    }
    let mut lengths = headers.get_all(&CONTENT_LENGTH);
    let sound = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => decimal(length).is_some(),
        _ => false,
    };
    let sound = sound && !headers.contains(TRANSFER_ENCODING);
    (!sound).then_some(SendErrorKind::AmbiguousLength)
}

impl Shared {
    fn checkout(&self, reuse: Reuse, now: Instant) -> Option<Checked> {
        let max_idle = match reuse {
            Reuse::Any => self.settings.idle_timeout,
            Reuse::Recent => self.settings.unsafe_max_idle,
            Reuse::Never => return None,
        };
        if let Some(shared) = self.multiplexed.with_room(now, max_idle) {
            return Some(Checked { sender: Sender::Http2(shared), reused: true });
        }
        let mut all = self.idle();
        while let Some(newest) = all.last() {
            if now.duration_since(newest.free_since) > max_idle {
                return None; // those below it have been idle for longer
            }
            let mut newest = all.pop()?;
            if newest.retire_at > now && newest.is_quiet() {
                return Some(Checked { sender: Sender::Http1(newest), reused: true });
            }
        }
        None
    }

    /// The idle connections, with those that came home meanwhile.
    fn idle(&self) -> RefMut<'_, Vec<Http1>> {
        let mut idle = self.idle.borrow_mut();
        while let Ok(connection) = self.returned.try_recv() {
            self.park(connection, &mut idle);
        }
        idle
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
                    if let Some(checked) = self.checkout(reuse, Instant::now()) {
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

    /// An HTTP/1.1 connection, which alone can be switched to another protocol.
    async fn switchable(&self) -> Result<Checked, SendError> {
        let connector = self.switching.as_ref().unwrap_or(&self.connector);
        let connected = connector.connect().await.map_err(unconnected)?;
        let sender = Sender::Http1(http1::Connection::new(connected.stream, self.retirement()));
        Ok(Checked { sender, reused: false })
    }

    async fn connect(&self) -> Result<Checked, SendError> {
        let connected = self.connector.connect().await;
        let connect::Connection { stream, http2, .. } = connected.map_err(unconnected)?;
        let retire_at = self.retirement();
        let prior_knowledge =
            self.settings.protocol == Protocol::Http2 && !self.settings.origin.is_https();
        let sender = if http2 || prior_knowledge {
            let (ping, bytes) = (self.settings.ping, MAX_HEADER_BYTES as u32);
            let started = self.multiplexed.start(stream, ping, bytes, retire_at).await;
            let unsent = |error| SendError {
                kind: SendErrorKind::Exchange(error),
                forwarded: Forwarded::No,
                reused: false,
            };
            Sender::Http2(started.map_err(unsent)?)
        } else {
            self.multiplexed.unexpected();
            Sender::Http1(http1::Connection::new(stream, retire_at))
        };
        Ok(Checked { sender, reused: false })
    }

    /// Sends a request on a connection that others are on too; `None` where it was handed back
    /// unwritten, and this is not the last connection that is tried.
    async fn share(
        &self,
        mut connection: Connection,
        request: &mut Request,
        reused: bool,
        last: bool,
    ) -> Result<Option<Box<Response>>, SendError> {
        match connection.send(self.absolute(request)).await {
            Ok(response) => match unusable(&response) {
                Some(kind) => Err(SendError { kind, forwarded: Forwarded::Unknown, reused }),
                None => Ok(Some(Box::new(response))),
            },
            Err(mut error) => match error.take_message() {
                Some(unwritten) if !last => {
                    request.body = unwritten.into_body();
                    Ok(None)
                }
                unwritten => Err(failed(error.into_error(), unwritten.is_some(), reused)),
            },
        }
    }

    /// The end of an exchange in HTTP/1: its connection is free again, if all of the answer came with
    /// its head.
    fn answered(
        &self,
        sent: Result<http1::Answered<Stream>, http1::Failed>,
        reused: bool,
        expectation: Option<&Expectation>,
    ) -> Result<Box<Response>, SendError> {
        match sent {
            Ok(http1::Answered { mut response, connection }) => {
                if let Some(connection) = connection {
                    self.park(connection, &mut self.idle.borrow_mut());
                }
                if let Some(expectation) = expectation {
                    expectation.answered(&mut response);
                }
                Ok(response)
            }
            Err(failed) => {
                let forwarded = if failed.touched { Forwarded::Unknown } else { Forwarded::No };
                Err(SendError { kind: SendErrorKind::Http1(failed.failure), forwarded, reused })
            }
        }
    }

    /// When a connection that is made now is used no more.
    fn retirement(&self) -> Instant {
        Instant::now() + aged(self.settings.max_age)
    }

    fn park(&self, connection: Http1, idle: &mut Vec<Http1>) {
        if connection.retire_at <= connection.free_since || self.settings.max_idle == 0 {
            return;
        }
        if idle.len() >= self.settings.max_idle {
            idle.remove(0); // the one idle for longest
        }
        idle.push(connection);
    }

    /// RFC 9113 section 8.3.1: scheme and authority are fields of their own, and Host is not sent. Nor is
    /// Expect: hyper does not tell what comes before an answer, and the server has its windows to say
    /// how much of a body it wants.
    fn absolute(&self, request: &mut Request) -> Request {
        let mut absolute = Request::new(request.method.clone(), Uri::default());
        absolute.body = std::mem::take(&mut request.body);
        absolute.version = Version::HTTP_2;
        absolute.fields = request.fields.clone();
        absolute.fields.remove(HOST);
        absolute.fields.remove(EXPECT);
        let mut parts = request.uri.clone().into_parts();
        parts.scheme =
            Some(if self.settings.origin.is_https() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        absolute.uri = Uri::from_parts(parts).unwrap_or_default();
        absolute
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

fn unconnected(error: ConnectError) -> SendError {
    SendError { kind: SendErrorKind::Connect(error), forwarded: Forwarded::No, reused: false }
}

/// The greatest age, give or take 10 %, so that connections do not all end at once.
fn aged(max_age: Duration) -> Duration {
    max_age.mul_f64(0.9 + 0.2 * fastrand::f64())
}
