//! A worker's own connections to one upstream.
//!
//! The newest idle connection is used first, so that the others age out. A connection is released only
//! when both bodies on it have ended; one that was cut, timed out or left unread never is. There are
//! at most `max_connections`: who needs one more waits, in turn, within the time for connecting.
//!
//! Nothing is repeated here: a request that fails is reported, with whether any byte of it had left.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::Request;
use http::uri::Authority;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::{SendError, SendErrorKind};
use super::exchange::{Reuse, SendFailure, SendRequest, Transport, UpstreamResponse};
use super::http1::{Http1Connection, ReleaseTo};
use super::http2::{ConnectSlot, Http2Connection, Http2Connections};
use super::settings::{Protocol, Settings};
use crate::body::Body;
use crate::net::connect::{self, ConnectError, Connector};
use crate::net::tls::{Alpn, TlsCache};
use crate::x509::TlsSetupError;

/// The connections of one worker to one upstream; clones share them.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    connector: Connector,
    /// Makes HTTP/1.1 connections, which alone can be upgraded to another protocol.
    http1_connector: Option<Connector>,
    authority: Authority,
    idle: RefCell<Vec<Http1Connection>>,
    http2: Http2Connections,
    /// One permit for each connection that may still be opened.
    permits: Arc<Semaphore>,
    /// Requests that wait for a connection.
    waiting: Cell<usize>,
    /// Told when a connection has become idle.
    released: Notify,
}

/// A connection that was acquired.
pub struct Acquired {
    connection: Connection,
    pool: Rc<Shared>,
    reused: bool,
}

enum Connection {
    Http1(Http1Connection),
    Http2(Http2Connection),
}

impl Pool {
    /// Prepares connections; none is made yet. `max_connections` is this worker's share of
    /// [`Settings::max_connections`]; equal TLS settings share what `cache` holds.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn new(
        cache: &TlsCache,
        settings: Arc<Settings>,
        max_connections: usize,
    ) -> Result<Self, TlsSetupError> {
        let http1_connector =
            settings.upgrades.then(|| settings.connector_with(cache, Alpn::Http1));
        let http1_connector = http1_connector.transpose()?;
        let connector = settings.connector(cache)?;
        let authority = settings.origin.authority().parse().map_err(|_| {
            TlsSetupError::new(format!("{} is no authority", settings.origin.authority()))
        })?;
        let permits = max_connections.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self(Rc::new(Shared {
            settings,
            connector,
            http1_connector,
            authority,
            idle: RefCell::default(),
            http2: Http2Connections::default(),
            permits: Arc::new(Semaphore::new(permits)),
            waiting: Cell::new(0),
            released: Notify::new(),
        })))
    }

    /// What it was made from.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.0.settings
    }

    /// Closes connections that were idle for too long or have grown too old.
    pub fn prune(&self, now: Instant) {
        let keep = self.0.settings.idle_timeout;
        self.0.idle.borrow_mut().retain(|idle| {
            idle.retire_at > now
                && now.saturating_duration_since(idle.idle_since) < keep
                && !idle.is_closed()
        });
        self.0.http2.prune(now, keep);
    }

    /// Closes every idle connection: after a suspend the clock does not tell how long they were.
    /// Requests under way go on.
    pub fn close_idle(&self) {
        self.0.idle.borrow_mut().clear();
        self.0.http2.clear();
    }

    /// How many connections are idle.
    pub fn idle(&self) -> usize {
        let mut idle = self.0.idle.borrow_mut();
        idle.retain(|idle| !idle.is_closed());
        idle.len()
    }
}

impl Transport for Pool {
    type Connection = Acquired;

    async fn acquire(&self, reuse: Reuse) -> Result<Acquired, SendError> {
        let shared = &self.0;
        // Those who wait already have the first turn.
        if shared.waiting.get() == 0
            && let Some(acquired) = shared.checkout(reuse, Instant::now())
        {
            return Ok(acquired);
        }
        // In a box: most requests find a connection and need not carry room for more.
        Box::pin(shared.wait_or_connect(reuse)).await
    }
}

impl SendRequest for Acquired {
    fn send(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<UpstreamResponse, SendFailure>> {
        let Self { connection, pool, reused } = self;
        match connection {
            Connection::Http1(connection) => Either::Left(connection.send(request, &pool)),
            // In a box, so that HTTP/1 need not carry room for it.
            Connection::Http2(connection) => Either::Right(Box::pin(async move {
                let (authority, settings) = (&pool.authority, &pool.settings);
                connection.send(request, authority, settings, reused).await
            })),
        }
    }

    fn release(self) {
        if let Connection::Http1(connection) = self.connection {
            self.pool.release(connection);
        }
    }
}

impl ReleaseTo for Shared {
    fn release(&self, connection: Http1Connection) {
        let mut idle = self.idle.borrow_mut();
        if connection.retire_at <= connection.idle_since || self.settings.max_idle == 0 {
            return;
        }
        if idle.len() >= self.settings.max_idle {
            idle.remove(0); // the one idle for longest
        }
        idle.push(connection);
        drop(idle);
        self.released.notify_one();
    }
}

impl Shared {
    fn acquired(self: &Rc<Self>, connection: Connection, reused: bool) -> Acquired {
        Acquired { connection, pool: Rc::clone(self), reused }
    }

    /// A connection that is open and free.
    fn checkout(self: &Rc<Self>, reuse: Reuse, now: Instant) -> Option<Acquired> {
        let max_idle = match reuse {
            Reuse::Any => self.settings.idle_timeout,
            Reuse::Recent => self.settings.unsafe_max_idle,
            Reuse::Never | Reuse::Upgrade => return None,
        };
        if let Some(shared) = self.http2.with_room(now, max_idle) {
            return Some(self.acquired(Connection::Http2(shared), true));
        }
        let mut idle = self.idle.borrow_mut();
        // The newest first; those below one that is too old have been idle for longer.
        let mut at = idle.len();
        while let Some(candidate) = at.checked_sub(1).and_then(|below| idle.get(below)) {
            at -= 1;
            if now.saturating_duration_since(candidate.idle_since) > max_idle {
                return None;
            }
            // hyper may have something left to do after the last exchange.
            let usable = candidate.retire_at > now && !candidate.is_closed();
            if usable && !candidate.is_ready() {
                continue;
            }
            let candidate = idle.remove(at);
            if usable {
                return Some(self.acquired(Connection::Http1(candidate), true));
            }
        }
        None
    }

    /// Makes a connection, or waits for one that somebody else makes or releases.
    async fn wait_or_connect(self: &Rc<Self>, reuse: Reuse) -> Result<Acquired, SendError> {
        while matches!(reuse, Reuse::Any | Reuse::Recent)
            && let Some(slot) = self.http2.connect_slot().await
        {
            match slot {
                ConnectSlot::Leader(leader) => {
                    return self.admitted(reuse).await.inspect_err(|error| {
                        if let SendErrorKind::Connect(error) = &error.kind {
                            leader.failed(error);
                        }
                    });
                }
                ConnectSlot::Done => {
                    if let Some(acquired) = self.checkout(reuse, Instant::now()) {
                        return Ok(acquired);
                    }
                }
                ConnectSlot::Failed(error) => return Err(unconnected(error)),
            }
        }
        self.admitted(reuse).await
    }

    /// Connects once `max_connections` allow it, or takes a connection that has become free meanwhile.
    async fn admitted(self: &Rc<Self>, reuse: Reuse) -> Result<Acquired, SendError> {
        if self.waiting.get() == 0
            && let Some(permit) = self.try_permit()
        {
            return self.connect(reuse, permit).await;
        }
        let deadline = Instant::now() + self.settings.connect_timeout;
        let _waiting = Waiting::new(&self.waiting);
        loop {
            // Enabled before the look: a connection that is released after it is not missed.
            let released = self.released.notified();
            if let Some(acquired) = self.checkout(reuse, Instant::now()) {
                return Ok(acquired);
            }
            if let Some(permit) = self.try_permit() {
                return self.connect(reuse, permit).await;
            }
            let permits = Arc::clone(&self.permits);
            let next = async {
                tokio::select! {
                    permit = permits.acquire_owned() => permit.ok(),
                    () = released => None,
                }
            };
            match timeout_at(deadline, next).await {
                Ok(Some(permit)) => return self.connect(reuse, permit).await,
                Ok(None) => {}
                Err(_) => return Err(SendError::unsent(SendErrorKind::Overloaded)),
            }
        }
    }

    /// The right to open one more connection. Where there is none, an idle connection that this request
    /// cannot use makes room; its permit is free a moment later.
    fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            self.http2.close_one_idle();
        } else {
            drop(idle.remove(0));
        }
        None
    }

    /// Makes a connection that nobody has used.
    async fn connect(
        self: &Rc<Self>,
        reuse: Reuse,
        permit: OwnedSemaphorePermit,
    ) -> Result<Acquired, SendError> {
        let connector = match (&self.http1_connector, reuse) {
            (Some(http1), Reuse::Upgrade) => http1,
            _ => &self.connector,
        };
        let connected = connector.connect().await.map_err(unconnected)?;
        let connect::Connection { stream, http2, .. } = connected;
        let prior_knowledge = self.settings.protocol == Protocol::Http2
            && !self.settings.origin.is_https()
            && reuse != Reuse::Upgrade;
        let (settings, retire_at) = (&*self.settings, self.retirement());
        let connection = if http2 || prior_knowledge {
            Connection::Http2(self.http2.start(stream, settings, retire_at, permit).await?)
        } else {
            if reuse != Reuse::Upgrade {
                self.http2.unexpected();
            }
            Connection::Http1(Http1Connection::start(stream, settings, retire_at, permit).await?)
        };
        Ok(self.acquired(connection, false))
    }

    /// When a connection that is made now is used no more.
    fn retirement(&self) -> Instant {
        Instant::now() + with_jitter(self.settings.max_age)
    }
}

/// While it lives, a request waits for a connection.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn unconnected(error: ConnectError) -> SendError {
    SendError::unsent(SendErrorKind::Connect(error))
}

/// The greatest age, give or take 10 %, so that connections do not all end at once.
fn with_jitter(max_age: Duration) -> Duration {
    max_age.mul_f64(0.9 + 0.2 * fastrand::f64())
}
