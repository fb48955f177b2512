//! Protocol upgrades, and the stream that follows one.
//!
//! A route may allow WebSocket (RFC 6455) and nothing else: `h2c` would carry requests that no route
//! claims. Other offers are ignored (RFC 9110 section 7.8). The handshake is a request like any
//! other, with its token and its checks. The stream carries bytes in both directions until both sides
//! have ended it, or
//!
//! * the upstream has ended it, and the client does not within 2 s;
//! * the client resets it;
//! * no byte arrives from either side for the route's `idle`;
//! * the token of the handshake expires, unless the route says `keep`: the app connects again and gets a
//!   newer token;
//! * the drain timeout of a shutdown has passed.
//!
//! A reload does not affect open streams. Each holds its client's connection, its place under
//! `server.max_in_flight`, and its upstream's connection.

use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::io::InspectReader;

use super::scope::RequestScope;
use crate::body::Body;
use crate::clock::Moment;
use crate::proxy::access_log::AccessRecord;
use crate::proxy::policy::settings::{AtTokenExpiry, UpgradePolicy};
use crate::server::{ClientProbe, ConnectionInfo};
use crate::task;
use crate::token::Bearer;
use crate::x509::diagnosis;

/// Longest time between two checks of a token's expiry, since the wall clock goes on during a suspend.
const TOKEN_CHECK: Duration = Duration::from_secs(30);

/// Time between two checks of whether the client has reset its connection.
const CLIENT_CHECK: Duration = Duration::from_secs(1);

/// Time for the client to close its side after the upstream has. The server of a WebSocket closes first, and
/// its client then at once (RFC 6455 section 7.1.1).
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Names WebSocket as the protocol that a request asks for, or that a 101 switches to.
pub fn name_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The client's side of an upgrade that the client asks for.
pub struct ClientUpgrade {
    pub(super) policy: UpgradePolicy,
    pub(super) client: OnUpgrade,
    pub(super) probe: ClientProbe,
    pub(super) connection: Rc<ConnectionInfo>,
    pub(super) scope: RequestScope,
}

impl ClientUpgrade {
    /// Starts to carry the stream after the upstream has switched protocols. The stream begins when
    /// the client has received the response.
    pub fn begin(self, response: &mut Response<Body>, bearer: Option<Arc<Bearer>>) {
        let Self { policy, client, probe, connection, scope } = self;
        let upstream = hyper::upgrade::on(response);
        let bearer = bearer.filter(|_| policy.at_token_expiry == AtTokenExpiry::Close);
        task::spawn_local(async move {
            // An error means that one of the two has closed its connection.
            if let (Ok(client), Ok(upstream)) = (client.await, upstream.await) {
                // Until it ends: a shutdown drops this task in the middle.
                scope.record(AccessRecord::stream_began);
                let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
                let ended = carry(client, upstream, policy.idle, bearer.as_deref(), &probe).await;
                tracing::debug!(ended = ended.as_str(), "a stream ended");
                scope.record(|record| match ended.cut(policy.idle) {
                    None => record.stream_completed(),
                    Some(why) => record.stream_cut(&why, matches!(ended, Ended::Broken(_))),
                });
            }
            drop((connection, scope));
        });
    }
}

/// The reason why a stream ended.
enum Ended {
    /// One or both sides closed it.
    Closed,
    /// The client reset its connection.
    Reset,
    /// The upstream's connection broke off.
    Broken(io::Error),
    /// No byte arrived within the idle timeout.
    Idle,
    /// Its token has expired.
    Expired,
}

impl Ended {
    /// The reason as a word for the log.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset by the client",
            Self::Broken(_) => "broken off by the upstream",
            Self::Idle => "idle",
            Self::Expired => "token expired",
        }
    }

    /// The reason in words, if it was cut before both sides had ended it. `idle` is its idle timeout.
    fn cut(&self, idle: Duration) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Closed => return None,
            Self::Reset => "the app reset the connection of the stream".into(),
            Self::Broken(error) => {
                format!("the upstream's side of the stream broke off: {}", diagnosis::io_words(error)).into()
            }
            Self::Idle => format!(
                "bearer-proxy closed the stream: no byte came from either side for upgrade.idle, {idle:?}"
            )
            .into(),
            Self::Expired => "bearer-proxy closed the stream: the token of its handshake has expired, see \
                              upgrade.at_token_expiry"
                .into(),
        })
    }
}

/// Copies bytes in both directions until the stream ends.
async fn carry(
    client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
    bearer: Option<&Bearer>,
    probe: &ClientProbe,
) -> Ended {
    let last_read = Cell::new(Instant::now());
    let upstream_ended = Notify::new();
    let note_read = |_: &[u8]| last_read.set(Instant::now());
    let mut client = InspectReader::new(client, note_read);
    let mut upstream = InspectReader::new(upstream, |read| {
        note_read(read);
        // A read of no bytes is the end of the upstream's direction.
        if read.is_empty() {
            upstream_ended.notify_one();
        }
    });
    // In the order in which they stand: a stream that has ended is not taken for one that was cut.
    tokio::select! {
        biased;
        copied = copy_bidirectional(&mut client, &mut upstream) => match copied {
            Ok(_) => Ended::Closed,
            // Asked while the client's socket is still open: a closed one would look like one that left.
            Err(_) if probe.has_left(true).await => Ended::Reset,
            Err(error) => Ended::Broken(error),
        },
        () = reset(probe) => Ended::Reset,
        () = closing(&upstream_ended) => Ended::Closed,
        () = silence(&last_read, idle) => Ended::Idle,
        () = expiry(bearer) => Ended::Expired,
    }
}

/// Waits until the client has had [`CLOSING_TIME`] since the upstream ended its direction.
async fn closing(upstream_ended: &Notify) {
    upstream_ended.notified().await;
    sleep(CLOSING_TIME).await;
}

/// Waits until the client has reset its connection. The stream itself does not notice that while the
/// upstream accepts no bytes, since it reads no further then.
async fn reset(client: &ClientProbe) {
    loop {
        sleep(CLIENT_CHECK).await;
        if client.has_left(true).await {
            return;
        }
    }
}

/// Waits until no byte has been read from either side for `idle`.
async fn silence(last_read: &Cell<Instant>, idle: Duration) {
    while last_read.get().elapsed() < idle {
        sleep_until(last_read.get() + idle).await;
    }
}

/// Waits until the token may no longer be used; without a token, forever.
async fn expiry(bearer: Option<&Bearer>) {
    let Some(bearer) = bearer else { return std::future::pending().await };
    loop {
        match bearer.usable_for(Moment::now()) {
            Duration::ZERO => return,
            left => sleep(left.min(TOKEN_CHECK)).await,
        }
    }
}
