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
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::io::InspectReader;

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
    pub(super) policy: UpgradePolicy,
    pub(super) client: OnUpgrade,
    pub(super) probe: ClientProbe,
    pub(super) connection: Rc<ConnectionInfo>,
    pub(super) scope: RequestScope,
}

impl ClientUpgrade {
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
    let last_read = Cell::new(Instant::now());
    let note_read = |_: &[u8]| last_read.set(Instant::now());
    let mut client = InspectReader::new(client, note_read);
    let mut upstream = InspectReader::new(upstream, note_read);
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut upstream) => Ended::Closed,
        () = silence(&last_read, idle) => Ended::Idle,
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

/// Waits until nothing has been read from either side for `idle`.
async fn silence(last_read: &Cell<Instant>, idle: Duration) {
    while last_read.get().elapsed() < idle {
        sleep_until(last_read.get() + idle).await;
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
