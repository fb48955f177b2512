//! Protocol upgrades: who may have one, and the stream that follows.
//!
//! A route may let WebSocket through (RFC 6455), nothing else: what a client could say in `h2c`
//! would be requests that no route claims. Other offers are ignored (RFC 9110 section 7.8). The
//! handshake is a request like any other, with its token and its guards; the stream is bytes, in both
//! directions, until one side ends it or
//!
//! * nothing has come from either side for the route's `idle`;
//! * the token of the handshake may no longer be used, unless the route says `keep`: the app
//!   connects again and is let in with a newer one;
//! * the program leaves and its drain time is over.
//!
//! A reload does not touch streams that are open. Each holds its client's connection, its place under
//! `server.max_in_flight`, and its upstream's connection.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep};

use super::scope::RequestScope;
use crate::body::Body;
use crate::clock::Moment;
use crate::proxy::policy::settings::{AtTokenExpiry, UpgradePolicy};
use crate::server::{ClientProbe, ConnectionInfo};
use crate::token::Bearer;

/// How often a token is looked at beside its own time: the wall clock goes on during a suspend.
const TOKEN_CHECK: Duration = Duration::from_secs(30);

/// How often it is asked whether the client has reset its connection.
const CLIENT_CHECK: Duration = Duration::from_secs(1);

/// Asks for the one protocol there is, or says that it is spoken from now on.
pub fn name_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The client's side of an upgrade that it asked for.
pub struct ClientUpgrade {
    policy: UpgradePolicy,
    client: OnUpgrade,
    probe: ClientProbe,
    connection: Rc<ConnectionInfo>,
    scope: RequestScope,
}

impl ClientUpgrade {
    /// Keeps what the stream needs.
    pub fn new(
        policy: UpgradePolicy,
        client: OnUpgrade,
        probe: ClientProbe,
        connection: Rc<ConnectionInfo>,
        scope: RequestScope,
    ) -> Self {
        Self { policy, client, probe, connection, scope }
    }

    /// Carries the stream from here on, once the upstream has switched. It begins when the client has
    /// been sent this answer.
    pub fn begin(self, response: &mut Response<Body>, bearer: Option<Arc<Bearer>>) {
        let Self { policy, client, probe, connection, scope } = self;
        let upstream = hyper::upgrade::on(response);
        let bearer = bearer.filter(|_| policy.at_token_expiry == AtTokenExpiry::Close);
        tokio::task::spawn_local(async move {
            // An error means that one of the two has left.
            if let (Ok(client), Ok(upstream)) = (client.await, upstream.await) {
                let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
                let ended = tokio::select! {
                    ended = carry(client, upstream, policy.idle, bearer.as_deref()) => ended,
                    () = reset(&probe) => Ended::Closed,
                };
                tracing::debug!(?ended, "a stream ended");
            }
            drop((connection, scope));
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

/// Waits until the client has reset its connection, which reading does not tell while the upstream takes
/// nothing of what was read.
async fn reset(client: &ClientProbe) {
    loop {
        sleep(CLIENT_CHECK).await;
        if client.has_left(true).await {
            return;
        }
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
