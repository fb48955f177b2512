//! Protocol upgrades: who may have one, and the stream that follows.
//!
//! A route may let WebSocket through (RFC 6455), nothing else: what a client could say in `h2c`
//! would be requests that no route claims. The handshake is a request like any other, with its token
//! and its guards; the stream is bytes, in both directions, until one side ends it or
//!
//! * nothing has come from either side for the route's `idle`;
//! * the token of the handshake may no longer be used, unless the route says `keep`: the app
//!   connects again and is let in with a newer one;
//! * the program leaves and its drain time is over.
//!
//! A reload does not touch streams that are open. Each counts as a connection, and no longer as a
//! request under way.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Version};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep};

use super::rejection::{Code, Rejection};
use super::routed::Routed;
use crate::clock::Moment;
use crate::message::{Fields, Request, Response};
use crate::server::{ConnectionInfo, Takeover};
use crate::token::Bearer;
use crate::upstream::Switched;

/// How often a token is looked at beside its own time: the wall clock goes on during a suspend.
const TOKEN_CHECK: Duration = Duration::from_secs(30);

/// What a route says of upgrades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradePolicy {
    /// Whether WebSocket is let through.
    pub websocket: bool,
    /// How long a stream may be silent in both directions.
    pub idle: Duration,
    /// What becomes of a stream that outlives its token.
    pub at_token_expiry: AtTokenExpiry,
}

impl Default for UpgradePolicy {
    fn default() -> Self {
        Self {
            websocket: false,
            idle: Duration::from_secs(300),
            at_token_expiry: AtTokenExpiry::default(),
        }
    }
}

/// What becomes of a stream that outlives the token of its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtTokenExpiry {
    /// It is closed.
    #[default]
    Close,
    /// It goes on: the upstream is trusted to end what it no longer wants.
    Keep,
}

impl UpgradePolicy {
    /// Whether a request may ask for another protocol as it does.
    ///
    /// # Errors
    /// Says what the route or this program does not offer.
    pub fn check(&self, request: &Request, has_body: bool) -> Result<(), Rejection> {
        let refused = |why: &'static str| Err(Rejection::new(Code::Upgrade, why));
        if !self.websocket {
            return refused("the route offers no protocol upgrades; see its `upgrade`");
        }
        if request.method != Method::GET || request.version != Version::HTTP_11 || has_body {
            return refused("an upgrade is asked for by GET, in HTTP/1.1 and without a body");
        }
        if !is_websocket(&request.fields) || !is_nominated(&request.fields) {
            return refused(
                "the one upgrade there is: `Upgrade: websocket`, `Connection: upgrade`",
            );
        }
        Ok(())
    }
}

/// Asks for the one protocol there is, or says that it is spoken from now on.
pub fn name_websocket(headers: &mut Fields) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn is_websocket(headers: &Fields) -> bool {
    let mut protocols = headers.get_all(&UPGRADE);
    let first = protocols.next().is_some_and(|one| one.eq_ignore_ascii_case(b"websocket"));
    first && protocols.next().is_none()
}

fn is_nominated(headers: &Fields) -> bool {
    let lines = headers.get_all(&CONNECTION);
    let mut options = lines.flat_map(|line| line.split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// A client that asked for another protocol.
pub struct Switch {
    policy: UpgradePolicy,
    connection: Rc<ConnectionInfo>,
}

impl Switch {
    /// Remembers what the stream needs, where the request asks for another protocol.
    pub fn asked(routed: &Routed, connection: &Rc<ConnectionInfo>) -> Option<Box<Self>> {
        routed.asks_to_switch().then(|| {
            let (policy, connection) = (routed.route.upgrade, Rc::clone(connection));
            Box::new(Self { policy, connection })
        })
    }

    /// Carries the stream from here on, once the upstream has switched.
    pub fn begin(self, response: &mut Response, bearer: Option<Arc<Bearer>>) {
        let Self { policy, connection } = self;
        let upstream = response.extensions.remove::<Switched>();
        let (takeover, client) = Takeover::new();
        response.extensions.insert(takeover);
        let bearer = bearer.filter(|_| policy.at_token_expiry == AtTokenExpiry::Close);
        tokio::task::spawn_local(async move {
            let upstream = upstream.and_then(|switched| switched.take());
            // An error means that the client has left.
            if let (Ok(client), Some(upstream)) = (client.await, upstream) {
                let ended = carry(client, upstream, policy.idle, bearer.as_deref()).await;
                tracing::debug!(?ended, "a stream ended");
            }
            drop(connection);
        });
    }
}

/// How a stream ended.
#[derive(Debug)]
enum Ended {
    /// By its sides.
    Closed,
    /// Nothing came for too long.
    Idle,
    /// Its token may no longer be used.
    Expired,
}

async fn carry(
    client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
    bearer: Option<&Bearer>,
) -> Ended {
    let heard = Rc::new(Cell::new(Instant::now()));
    let mut client = Heard { io: client, last: Rc::clone(&heard) };
    let mut upstream = Heard { io: upstream, last: Rc::clone(&heard) };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut upstream) => Ended::Closed,
        () = silence(&heard, idle) => Ended::Idle,
        () = expiry(bearer) => Ended::Expired,
    }
}

async fn silence(heard: &Cell<Instant>, idle: Duration) {
    loop {
        let quiet = heard.get().elapsed();
        match idle.checked_sub(quiet).filter(|left| !left.is_zero()) {
            Some(left) => sleep(left).await,
            None => return,
        }
    }
}

async fn expiry(bearer: Option<&Bearer>) {
    let Some(bearer) = bearer else { return std::future::pending().await };
    loop {
        match bearer.usable_for(Moment::now()) {
            Duration::ZERO => return,
            left => sleep(left.min(TOKEN_CHECK)).await,
        }
    }
}

/// One side of a stream, which notes when it was heard of.
struct Heard<T> {
    io: T,
    last: Rc<Cell<Instant>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.last.set(Instant::now());
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
