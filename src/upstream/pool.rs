//! A worker's own connections to one upstream.
//!
//! They are grouped by the client certificate that they were opened with: a certificate-bound token (RFC
//! 8705 section 3) travels only on connections with its own certificate, and other tokens only on those
//! with the upstream's.
//!
//! A connection is reused only when both bodies on it have ended, and never after one was cut, timed out
//! or left unread. At most `max_connections` are open; further requests wait in turn, for as long as the
//! time-out for connecting.
//!
//! The pool repeats nothing: it reports a request that fails, and whether any byte of it was sent.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::Request;
use http::uri::Authority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::{SendError, SendErrorKind};
use super::exchange::{Reuse, SendFailure, SendRequest, Transport, UpstreamResponse};
use super::http1::{Http1Connection, Http1Connections};
use super::http2::{ConnectSlot, Http2Connection, Http2Connections};
use super::io::SocketGuard;
use super::settings::{Protocol, Settings};
use super::state::UpstreamState;
use crate::body::Body;
use crate::net::connect::{self, ConnectError, Connector};
use crate::net::tls::{Alpn, ClientIdentity, TlsCache};
use crate::x509::TlsSetupError;

/// The connections of one worker to one upstream; clones share them.
#[derive(Clone)]
pub struct Pool(Rc<Groups>);

/// All connections, by the client certificate that they were opened with.
struct Groups {
    /// Those with the upstream's own certificate, or with none.
    own: Rc<PoolInner>,
    /// Those with the certificates of bound tokens.
    bound: RefCell<Vec<Rc<PoolInner>>>,
}

/// The connections with one client certificate.
struct PoolInner {
    settings: Arc<Settings>,
    state: Arc<UpstreamState>,
    /// The certificate of a bound token; `None` for the upstream's own.
    identity: Option<Arc<ClientIdentity>>,
    connector: Connector,
    /// Makes HTTP/1.1 connections, the only ones that can be upgraded to another protocol.
    http1_connector: Option<Connector>,
    authority: Authority,
    http1: Rc<Http1Connections>,
    http2: Http2Connections,
    /// One permit for each connection that may still be opened, with whatever certificate.
    permits: Arc<Semaphore>,
    /// Cloned by each request that waits for a connection.
    queue: Rc<()>,
    /// All groups of the pool, which share the permits.
    groups: Weak<Groups>,
}

/// A connection for one request.
pub struct Acquired {
    connection: Connection,
    pool: Rc<PoolInner>,
    reused: bool,
}

enum Connection {
    Http1(Http1Connection),
    Http2(Http2Connection),
}

impl Pool {
    /// Prepares a pool without making a connection. `max_connections` is this worker's share of
    /// [`Settings::max_connections`]; equal TLS settings share what `cache` holds.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn new(
        cache: &TlsCache,
        settings: Arc<Settings>,
        max_connections: usize,
        state: Arc<UpstreamState>,
    ) -> Result<Self, TlsSetupError> {
        let http1 = settings.upgrades.then(|| settings.connector_with(cache, Alpn::Http1));
        let authority = settings.origin.authority();
        let authority = authority
            .parse()
            .map_err(|_| TlsSetupError::new(format!("{authority} is no authority")))?;
        let permits = max_connections.clamp(1, Semaphore::MAX_PERMITS);
        let (connector, http1_connector) = (settings.connector(cache)?, http1.transpose()?);
        let pool = |groups: &Weak<Groups>| PoolInner {
            identity: None,
            connector,
            http1_connector,
            authority,
            http1: Rc::new(Http1Connections::new(settings.max_idle, Rc::default())),
            http2: Http2Connections::new(Rc::default()),
            permits: Arc::new(Semaphore::new(permits)),
            queue: Rc::default(),
            settings,
            state,
            groups: Weak::clone(groups),
        };
        Ok(Self(Rc::new_cyclic(|groups| Groups {
            own: Rc::new(pool(groups)),
            bound: RefCell::default(),
        })))
    }

    /// The settings it was made from.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.0.own.settings
    }

    /// Closes connections that were idle for too long or have grown too old.
    pub fn prune(&self, now: Instant) {
        let keep = self.settings().idle_timeout;
        self.0.for_each(|pool| {
            pool.http1.prune(now, keep);
            pool.http2.prune(now, keep);
        });
        // A certificate that was renewed has no new connections, and its old ones end. A count above 1
        // means that a request connects or is being sent.
        let in_use = |pool: &Rc<PoolInner>| {
            Rc::strong_count(pool) > 1 || pool.http1.idle() > 0 || !pool.http2.is_empty()
        };
        self.0.bound.borrow_mut().retain(in_use);
    }

    /// Closes all idle connections, because the clock does not count the time that a machine was
    /// suspended. Requests under way go on.
    pub fn close_idle(&self) {
        self.0.for_each(|pool| {
            pool.http1.clear();
            pool.http2.clear();
        });
    }

    /// The number of idle connections.
    pub fn idle(&self) -> usize {
        let mut idle = 0;
        self.0.for_each(|pool| idle += pool.http1.idle() + pool.http2.idle());
        idle
    }
}

impl Groups {
    /// The connections with a certificate.
    fn group(&self, identity: Option<&Arc<ClientIdentity>>) -> Rc<PoolInner> {
        let Some(identity) = identity else { return Rc::clone(&self.own) };
        let mut bound = self.bound.borrow_mut();
        let same = |pool: &&Rc<PoolInner>| pool.identity.as_ref() == Some(identity);
        if let Some(known) = bound.iter().find(same) {
            return Rc::clone(known);
        }
        let group = Rc::new(self.own.with_identity(identity));
        bound.push(Rc::clone(&group));
        group
    }

    fn for_each(&self, mut act: impl FnMut(&PoolInner)) {
        act(&self.own);
        self.bound.borrow().iter().for_each(|pool| act(pool));
    }

    /// Closes one idle connection, with whatever certificate.
    fn close_one_idle(&self) {
        let close = |pool: &PoolInner| pool.http1.close_one_idle() || pool.http2.close_one_idle();
        let _closed = close(&self.own) || self.bound.borrow().iter().any(|pool| close(pool));
    }
}

impl Transport for Pool {
    type Connection = Acquired;

    async fn acquire(
        &self,
        reuse: Reuse,
        identity: Option<&Arc<ClientIdentity>>,
    ) -> Result<Acquired, SendError> {
        let pool = self.0.group(identity);
        // Requests that wait already come first.
        if pool.is_queue_empty()
            && let Some(acquired) = pool.checkout(reuse, Instant::now())
        {
            return Ok(acquired);
        }
        // Boxed, because most requests find a connection and need no room for more.
        Box::pin(async move { pool.connect_or_join(reuse).await }).await
    }
}

impl SendRequest for Acquired {
    fn send(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<UpstreamResponse, SendFailure>> {
        let Self { connection, pool, reused } = self;
        match connection {
            Connection::Http1(connection) => Either::Left(connection.send(request, &pool.http1)),
            // Boxed, so that requests over HTTP/1 need no room for it.
            Connection::Http2(connection) => Either::Right(Box::pin(async move {
                connection.send(request, &pool.authority, &pool.settings, reused).await
            })),
        }
    }

    fn peer_address(&self) -> Option<SocketAddr> {
        match &self.connection {
            Connection::Http1(connection) => connection.peer(),
            Connection::Http2(connection) => connection.peer(),
        }
    }

    fn release(self) {
        if let Connection::Http1(connection) = self.connection {
            self.pool.http1.checkin(connection);
        }
    }
}

impl PoolInner {
    /// No connections yet with this certificate, for which the same limits hold.
    fn with_identity(&self, identity: &Arc<ClientIdentity>) -> Self {
        let http1 = self.http1_connector.clone();
        Self {
            settings: Arc::clone(&self.settings),
            state: Arc::clone(&self.state),
            identity: Some(Arc::clone(identity)),
            connector: self.connector.clone().with_identity(identity),
            http1_connector: http1.map(|connector| connector.with_identity(identity)),
            authority: self.authority.clone(),
            // Notified with all others: whoever waits for a permit may close what was released there.
            http1: Rc::new(Http1Connections::new(
                self.settings.max_idle,
                Rc::clone(&self.http1.released),
            )),
            http2: Http2Connections::new(Rc::clone(&self.http2.released)),
            permits: Arc::clone(&self.permits),
            queue: Rc::default(),
            groups: Weak::clone(&self.groups),
        }
    }

    fn is_queue_empty(&self) -> bool {
        Rc::strong_count(&self.queue) == 1
    }

    fn acquired(self: &Rc<Self>, connection: Connection, reused: bool) -> Acquired {
        Acquired { connection, pool: Rc::clone(self), reused }
    }

    /// Takes an open connection that can carry one more request.
    fn checkout(self: &Rc<Self>, reuse: Reuse, now: Instant) -> Option<Acquired> {
        let max_idle = match reuse {
            Reuse::Any => self.settings.idle_timeout,
            Reuse::Recent => self.settings.unsafe_max_idle,
            Reuse::Never | Reuse::Upgrade => return None,
        };
        let http2 = self.http2.with_room(now, max_idle).map(Connection::Http2);
        let connection =
            http2.or_else(|| self.http1.checkout(now, max_idle).map(Connection::Http1))?;
        Some(self.acquired(connection, true))
    }

    /// Makes a connection, or shares an HTTP/2 connection that another request makes.
    async fn connect_or_join(self: &Rc<Self>, reuse: Reuse) -> Result<Acquired, SendError> {
        while matches!(reuse, Reuse::Any | Reuse::Recent)
            && let Some(slot) = self.http2.connect_slot().await
        {
            match slot {
                ConnectSlot::Leader(leader) => {
                    return self.connect_with_permit(reuse).await.inspect_err(|error| {
                        if let Some(error) = error.connect() {
                            leader.failed(error);
                        }
                    });
                }
                ConnectSlot::Done => {
                    if let Some(acquired) = self.checkout(reuse, Instant::now()) {
                        return Ok(acquired);
                    }
                }
                ConnectSlot::Failed(error) => return Err(connect_failed(error)),
            }
        }
        self.connect_with_permit(reuse).await
    }

    /// Connects as soon as `max_connections` allows, or takes a connection that was released meanwhile.
    async fn connect_with_permit(self: &Rc<Self>, reuse: Reuse) -> Result<Acquired, SendError> {
        if self.is_queue_empty()
            && let Some(permit) = self.try_permit()
        {
            return self.connect(reuse, permit).await;
        }
        let deadline = Instant::now() + self.settings.connect_timeout;
        let _queued = Rc::clone(&self.queue);
        loop {
            // Made before the look at the connections: `notify_one` keeps a permit for a release that
            // comes between the two, so that it is not missed.
            let released = (self.http1.released.notified(), self.http2.released.notified());
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
                    () = released.0 => None,
                    () = released.1 => None,
                }
            };
            match timeout_at(deadline, next).await {
                Ok(Some(permit)) => return self.connect(reuse, permit).await,
                Ok(None) => {}
                Err(_) => return Err(SendError::unsent(SendErrorKind::Overloaded)),
            }
        }
    }

    /// The permit for one more connection. If there is none, an idle connection that this request cannot
    /// use is closed; its permit is free only when its task has dropped the socket.
    fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        if permit.is_none()
            && !self.http1.close_one_idle()
            && !self.http2.close_one_idle()
            && let Some(groups) = self.groups.upgrade()
        {
            groups.close_one_idle();
        }
        permit
    }

    async fn connect(
        self: &Rc<Self>,
        reuse: Reuse,
        permit: OwnedSemaphorePermit,
    ) -> Result<Acquired, SendError> {
        let connector = match (&self.http1_connector, reuse) {
            (Some(http1), Reuse::Upgrade) => http1,
            _ => &self.connector,
        };
        let connected = connector.connect().await.map_err(connect_failed)?;
        if let Some(expires) = connected.certificate_expires() {
            self.state.certificate(expires);
        }
        let connect::Connection { stream, http2, report } = connected;
        let guard = SocketGuard { _permit: permit, _open: self.state.open(), peer: report.peer };
        let prior_knowledge = self.settings.protocol == Protocol::Http2
            && !self.settings.origin.is_https()
            && reuse != Reuse::Upgrade;
        let settings = &*self.settings;
        let retire_at = Instant::now() + with_jitter(settings.max_age);
        let connection = if http2 || prior_knowledge {
            Connection::Http2(self.http2.start(stream, settings, retire_at, guard).await?)
        } else {
            if reuse != Reuse::Upgrade {
                self.http2.unexpected();
            }
            Connection::Http1(Http1Connection::start(stream, settings, retire_at, guard).await?)
        };
        Ok(self.acquired(connection, false))
    }
}

fn connect_failed(error: ConnectError) -> SendError {
    SendError::unsent(SendErrorKind::Connect(error))
}

/// A maximum age plus or minus 10 %, so that connections do not all end at once.
fn with_jitter(max_age: Duration) -> Duration {
    max_age.mul_f64(0.9 + 0.2 * fastrand::f64())
}
