//! The pool against servers of scripted bytes: what is reused, what never is, and what is reported.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ConnectionTrafficSecrets, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::settings::Protocol;
use super::{
    Forwarded, Pool, Reuse, SendError, SendErrorKind, SendFailure, SendRequest, Settings,
    Transport, UpstreamState,
};
use crate::body::{Body, BodyError};
use crate::net::testing::{Authority, Reply, Script, Scripted, ServerSetup, origin};
use crate::net::tls::{TlsCache, TlsSettings};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";

pub(super) fn pool(uri: &str, adjust: impl FnOnce(&mut Settings)) -> Pool {
    let mut settings = Settings::new("bank", origin(uri));
    // A slow test machine must not make a connection look idle for long.
    settings.unsafe_max_idle = Duration::from_secs(20);
    adjust(&mut settings);
    let settings = Arc::new(settings);
    let max = settings.max_connections;
    Pool::new(&TlsCache::default(), settings, max, Arc::default()).unwrap()
}

/// Sends, on another connection where a request is handed back unsent.
pub(super) async fn send(
    pool: &Pool,
    request: Box<Request<Body>>,
    reuse: Reuse,
) -> Result<Response<Body>, SendError> {
    let mut request = *request;
    loop {
        match pool.acquire(reuse, None).await?.send(request).await {
            Ok(answer) => return Ok(answer.response),
            Err(SendFailure::Returned(unsent, _)) => request = *unsent,
            Err(SendFailure::Failed(error)) => return Err(error),
        }
    }
}

pub(super) fn get() -> Box<Request<Body>> {
    request(Method::GET, Body::empty())
}

pub(super) fn request(method: Method, body: Body) -> Box<Request<Body>> {
    let request = Request::builder().method(method).uri("/v1/x?y").header("host", "bank");
    Box::new(request.body(body).unwrap())
}

pub(super) async fn text(response: Response<Body>) -> Result<String, BodyError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lets the other tasks of this thread go on until something is so.
pub(super) async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect(what);
}

/// A body that ends, or fails, when told to.
struct Told(mpsc::UnboundedReceiver<Result<&'static str, &'static str>>);

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx).map(|next| {
            next.map(|next| match next {
                Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
                Err(why) => Err(BodyError::new(why)),
            })
        })
    }
}

fn told() -> (mpsc::UnboundedSender<Result<&'static str, &'static str>>, Body) {
    let (tell, told) = mpsc::unbounded_channel();
    (tell, Body::boxed(Told(told)))
}

pub(super) async fn local(story: impl Future<Output = ()>) {
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_has_ended() {
    local(async {
        let script: Script = |_, n| Reply::Answer(if n == 2 { EMPTY } else { OK });
        let mut server = Scripted::start(script).await;
        let pool = pool(&server.http(), |_| ());
        let first = send(&pool, get(), Reuse::Any).await.unwrap();
        assert_eq!(text(first).await.unwrap(), "ok");
        until("the connection comes back", || pool.idle() == 1).await;

        let second = send(&pool, get(), Reuse::Any).await.unwrap();
        assert_eq!((second.status(), pool.idle()), (StatusCode::NO_CONTENT, 1), "back at once");
        let posted = request(Method::POST, Body::full("a=b"));
        text(send(&pool, posted, Reuse::Recent).await.unwrap()).await.unwrap();
        until("the connection comes back", || pool.idle() == 1).await;
        text(send(&pool, get(), Reuse::Never).await.unwrap()).await.unwrap();

        for (expected, line) in [(1, "get"), (1, "get"), (1, "post"), (2, "get")] {
            let (connection, head) = server.request().await;
            assert_eq!(connection, expected);
            assert!(head.starts_with(&format!("{line} /v1/x?y http/1.1\r\n")), "{head}");
            assert!(head.contains("\r\nhost: bank\r\n"), "{head}");
        }
        until("both are back", || pool.idle() == 2).await;
        pool.close_idle();
        assert_eq!(pool.idle(), 0);
        server.closed(1).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_too_old_or_idle_is_not_used_again() {
    let check = async |adjust: fn(&mut Settings), reuse, expected| {
        local(async {
            let mut server = Scripted::start(|_, _| Reply::Answer(EMPTY)).await;
            let pool = pool(&server.http(), adjust);
            for connection in expected {
                send(&pool, get(), reuse).await.unwrap();
                assert_eq!(server.request().await.0, connection);
                // The clock may be coarse: a moment later is surely later.
                let since = Instant::now();
                until("time passes", || Instant::now() > since).await;
            }
        })
        .await;
    };
    check(|_| (), Reuse::Any, [1, 1]).await;
    check(|_| (), Reuse::Recent, [1, 1]).await;
    check(|_| (), Reuse::Never, [1, 2]).await;
    check(|settings| settings.unsafe_max_idle = Duration::ZERO, Reuse::Recent, [1, 2]).await;
    check(|settings| settings.unsafe_max_idle = Duration::ZERO, Reuse::Any, [1, 1]).await;
    check(|settings| settings.idle_timeout = Duration::ZERO, Reuse::Any, [1, 2]).await;
    check(|settings| settings.max_age = Duration::ZERO, Reuse::Any, [1, 2]).await;
    check(|settings| settings.max_idle = 0, Reuse::Any, [1, 2]).await;
}

#[tokio::test]
async fn pruning_closes_what_was_idle_for_too_long() {
    local(async {
        let mut server = Scripted::start(|_, _| Reply::Answer(EMPTY)).await;
        let pool = pool(&server.http(), |_| ());
        send(&pool, get(), Reuse::Any).await.unwrap();
        pool.prune(Instant::now());
        assert_eq!(pool.idle(), 1);
        pool.prune(Instant::now() + pool.settings().idle_timeout);
        assert_eq!(pool.idle(), 0);
        server.closed(1).await;
    })
    .await;
}

#[tokio::test]
async fn no_more_than_max_idle_are_kept() {
    local(async {
        let mut server = Scripted::start(|_, _| Reply::Answer(OK)).await;
        let pool = pool(&server.http(), |settings| settings.max_idle = 1);
        let (first, second) =
            tokio::join!(send(&pool, get(), Reuse::Any), send(&pool, get(), Reuse::Any));
        text(first.unwrap()).await.unwrap();
        until("the first comes back", || pool.idle() == 1).await;
        text(second.unwrap()).await.unwrap();
        while !matches!(server.event().await, crate::net::testing::Event::Closed { .. }) {}
        assert_eq!(pool.idle(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_its_server_closed_is_left_alone() {
    local(async {
        let script: Script = |connection, _| {
            if connection == 1 { Reply::Last(OK) } else { Reply::Answer(OK) }
        };
        let mut server = Scripted::start(script).await;
        let pool = pool(&server.http(), |_| ());
        text(send(&pool, get(), Reuse::Any).await.unwrap()).await.unwrap();
        server.closed(1).await;
        until("the end is noticed", || {
            pool.prune(Instant::now());
            pool.idle() == 0
        })
        .await;
        let posted = request(Method::POST, Body::full("pay"));
        text(send(&pool, posted, Reuse::Recent).await.unwrap()).await.unwrap();
        assert_eq!(server.request().await.0, 2);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_left_is_reported_and_never_repeated() {
    for method in [Method::GET, Method::POST] {
        local(async {
            // The second request is read, and the connection ends without a word.
            let script: Script = |_, n| if n == 1 { Reply::Answer(EMPTY) } else { Reply::Last("") };
            let mut server = Scripted::start(script).await;
            let pool = pool(&server.http(), |_| ());
            send(&pool, get(), Reuse::Any).await.unwrap();
            let again = request(method, Body::full("pay"));
            let error = send(&pool, again, Reuse::Any).await.unwrap_err();
            assert!(matches!(error.kind, SendErrorKind::Closed), "{error:?}");
            assert_eq!((error.forwarded, error.reused), (Forwarded::Unknown, true));
            let seen = [server.request().await.0, server.request().await.0];
            assert_eq!(seen, [1, 1]);
            server.closed(1).await; // and nothing came in between
            assert_eq!(pool.idle(), 0);
        })
        .await;
    }
}

#[tokio::test]
async fn a_broken_answer_is_an_error_and_ends_its_connection() {
    let check = async |script: Script| {
        local(async {
            let mut server = Scripted::start(script).await;
            let pool = pool(&server.http(), |_| ());
            let response = send(&pool, get(), Reuse::Any).await.unwrap();
            text(response).await.unwrap_err();
            server.closed(1).await;
            assert_eq!(pool.idle(), 0);
        })
        .await;
    };
    check(|_, _| Reply::Last("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok")).await;
    check(|_, _| Reply::Last("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"))
        .await;
    check(|_, _| {
        Reply::Last("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
    })
    .await;
    check(|_, _| {
        Reply::Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n")
    })
    .await;
}

#[tokio::test]
async fn what_is_no_answer_is_reported_and_ends_its_connection() {
    let check = async |script: Script, expected: &str| {
        local(async {
            let mut server = Scripted::start(script).await;
            let pool = pool(&server.http(), |_| ());
            let error = send(&pool, get(), Reuse::Any).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!((error.forwarded, error.reused), (Forwarded::Unknown, false));
            server.closed(1).await;
            assert_eq!(pool.idle(), 0);
        })
        .await;
    };
    let invalid = "not valid HTTP";
    check(|_, _| Reply::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2x\r\n\r\nok"), invalid).await;
    check(|_, _| Reply::Answer("HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok"), invalid).await;
    check(|_, _| Reply::Answer("SSH-2.0-OpenSSH\r\n\r\n"), invalid).await;
    let too_long: Script = |_, _| {
        let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(65 * 1024));
        Reply::Answer(head.leak())
    };
    check(too_long, "too large").await;
    let too_many: Script = |_, _| {
        let head =
            format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(256));
        Reply::Answer(head.leak())
    };
    check(too_many, "too large").await;
    check(
        |_, _| {
            Reply::Answer(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            )
        },
        "without being asked",
    )
    .await;
    let ambiguous = "in two ways";
    check(
        |_, _| Reply::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok"),
        invalid,
    )
    .await;
    check(|_, _| Reply::Answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), ambiguous).await;
    check(
        |_, _| {
            Reply::Answer(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            )
        },
        ambiguous,
    )
    .await;
    check(
        |_, _| {
            Reply::Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        },
        ambiguous,
    )
    .await;
    check(|_, _| Reply::Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), ambiguous).await;
}

/// A second answer would be taken for that of the next request.
#[tokio::test]
async fn a_connection_with_bytes_nobody_asked_for_is_not_used_again() {
    let check = async |script: Script| {
        local(async {
            let mut server = Scripted::start(script).await;
            let pool = pool(&server.http(), |_| ());
            for connection in 1..=2 {
                let response = send(&pool, get(), Reuse::Any).await.unwrap();
                let _ = text(response).await.unwrap();
                assert_eq!(server.request().await.0, connection);
                server.closed(connection).await;
            }
        })
        .await;
    };
    check(|_, _| {
        Reply::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    })
    .await;
    check(|_, _| {
        Reply::Answer(
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        )
    })
    .await;
    check(|_, _| Reply::Answer("HTTP/1.1 204 No Content\r\n\r\n ")).await;
}

#[tokio::test]
async fn whatever_is_cut_short_ends_its_connection() {
    local(async {
        let script: Script = |connection, _| match connection {
            1 => Reply::Silence,
            _ => Reply::Answer("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nok"),
        };
        let mut server = Scripted::start(script).await;
        let pool = pool(&server.http(), |_| ());
        tokio::select! {
            biased;
            _ = send(&pool, get(), Reuse::Any) => panic!("nobody answers"),
            (connection, _) = server.request() => assert_eq!(connection, 1),
        }
        server.closed(1).await; // the caller went away

        drop(send(&pool, get(), Reuse::Any).await.unwrap());
        server.closed(2).await; // the answer was left unread
        assert_eq!(pool.idle(), 0);

        let (tell, body) = told();
        tell.send(Err("the client went away")).unwrap();
        let error = send(&pool, request(Method::POST, body), Reuse::Recent).await.unwrap_err();
        assert_eq!(error.forwarded, Forwarded::No, "{error:?}");
        server.closed(3).await; // its request was cut
        assert_eq!(pool.idle(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_early_answer_does_not_free_a_connection_whose_request_goes_on() {
    local(async {
        let server = Scripted::start(|_, _| Reply::Answer(OK)).await;
        let pool = pool(&server.http(), |_| ());
        let (tell, body) = told();
        tell.send(Ok("first")).unwrap();
        let posted = request(Method::POST, body);
        let response = send(&pool, posted, Reuse::Recent).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert_eq!(pool.idle(), 0);
        }
        drop(tell); // the body ends
        until("the connection comes back", || pool.idle() == 1).await;
    })
    .await;
}

/// A bank that the story plays itself, a pool for it, and the state that counts its connections.
async fn watched() -> (TcpListener, Pool, Arc<UpstreamState>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::<UpstreamState>::default();
    let settings = Arc::new(Settings::new("bank", origin(&uri)));
    let pool = Pool::new(&TlsCache::default(), settings, 8, Arc::clone(&state)).unwrap();
    (listener, pool, state)
}

/// The write fails unseen, and nothing else would wake hyper's task.
#[tokio::test]
async fn a_connection_whose_answer_is_given_up_ends_although_its_request_goes_on() {
    local(async {
        let (listener, pool, state) = watched().await;
        let (tell, body) = told();
        tell.send(Ok("first")).unwrap();
        let serving = async {
            let (mut bank, _) = listener.accept().await.unwrap();
            bank.read_u8().await.unwrap();
            bank.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
            bank
        };
        let request = request(Method::POST, body);
        let (answer, bank) = tokio::join!(send(&pool, request, Reuse::Any), serving);
        assert_eq!(state.status().connections_open, 1);
        drop(answer.unwrap());
        bank.set_zero_linger().unwrap();
        drop(bank);
        until("the socket is closed", || {
            let _ = tell.send(Ok("more"));
            state.status().connections_open == 0
        })
        .await;
    })
    .await;
}

/// The request is in hyper's buffer to its end, which the bank does not read.
#[tokio::test]
async fn a_connection_whose_last_write_failed_is_not_kept() {
    local(async {
        let (listener, pool, state) = watched().await;
        let (tell, body) = told();
        tell.send(Ok("first")).unwrap();
        let serving = async {
            let (mut bank, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            while !received.ends_with(b"first\r\n") {
                bank.read_buf(&mut received).await.unwrap();
            }
            // Without a turn of the runtime in between: when hyper's task runs, it finds nothing to read
            // yet, and the write fails.
            bank.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole").await.unwrap();
            bank.set_zero_linger().unwrap();
            drop(bank);
            tell.send(Ok("last")).unwrap();
            drop(tell);
        };
        let request = request(Method::POST, body);
        let (answer, ()) = tokio::join!(send(&pool, request, Reuse::Any), serving);
        assert_eq!(answer.unwrap().collect().await.unwrap().to_bytes(), "whole");
        until("the socket is closed", || state.status().connections_open == 0).await;
    })
    .await;
}

/// Before the answer was read or after it: nothing waits for the time-out of a request that stalls.
#[tokio::test]
async fn a_connection_whose_request_cannot_be_written_ends_with_its_answer() {
    local(async {
        for reset_first in [true, false] {
            let (listener, pool, state) = watched().await;
            let (tell, body) = told();
            tell.send(Ok("first")).unwrap();
            let serving = async {
                let (mut bank, _) = listener.accept().await.unwrap();
                bank.read_u8().await.unwrap();
                bank.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhalf").await.unwrap();
                bank
            };
            let request = request(Method::POST, body);
            let (answer, bank) = tokio::join!(send(&pool, request, Reuse::Any), serving);
            let answer = answer.unwrap();
            let reset = || {
                bank.set_zero_linger().unwrap();
                drop(bank);
            };
            if reset_first {
                reset();
                for _ in 0..20 {
                    let _ = tell.send(Ok("more"));
                    tokio::task::yield_now().await;
                }
                drop(answer.collect().await);
            } else {
                assert_eq!(answer.collect().await.unwrap().to_bytes(), "half");
                reset();
            }
            until("the socket is closed", || {
                let _ = tell.send(Ok("more"));
                state.status().connections_open == 0
            })
            .await;
        }
    })
    .await;
}

/// A TLS 1.3 server refuses a client certificate after the client has ended its handshake and written a
/// request, which the server then has not read.
#[tokio::test]
async fn a_refused_client_certificate_is_told_in_words_and_nothing_was_forwarded() {
    LocalSet::new()
        .run_until(async {
            let (ca, other) = (Authority::new(), Authority::named("another"));
            let foreign = Some(other.client_certificate());
            for (certificate, alert, meaning) in [
                (None, "certificate_required", "was shown none"),
                (foreign, "unknown_ca", "does not know the authority"),
            ] {
                for (alpn, protocol) in [("http/1.1", Protocol::Http1), ("h2", Protocol::Http2)] {
                    let versions: &[_] = &[&rustls::version::TLS13];
                    let alpn = &[alpn];
                    let setup = ServerSetup { alpn, versions, ..ServerSetup::default() };
                    let tls = ca.server(ServerSetup { asks_for_client: true, ..setup });
                    let server = Scripted::with_tls(|_, _| Reply::Answer(OK), tls).await;
                    let client_certificate = certificate.clone();
                    let url = format!("https://localhost:{}", server.address.port());
                    let pool = pool(&url, |settings| {
                        settings.tls = TlsSettings { client_certificate, ..ca.trusted() };
                        settings.protocol = protocol;
                    });
                    let error = send(&pool, get(), Reuse::Any).await.err().unwrap();
                    let text = error.to_string();
                    assert!(text.contains(alert) && text.contains(meaning), "{protocol:?}: {text}");
                    assert_eq!(error.forwarded, Forwarded::No, "{protocol:?}: {text}");
                }
            }
        })
        .await;
}

/// A session ticket shows that the server had accepted the certificate: an alert after it may come after the
/// request was acted on.
#[tokio::test]
async fn a_certificate_that_is_refused_after_a_session_ticket_leaves_a_payments_fate_unknown() {
    local(async {
        let ca = Authority::new();
        for (tickets, forwarded) in [(0, Forwarded::No), (1, Forwarded::Unknown)] {
            let versions: &[_] = &[&rustls::version::TLS13];
            let setup = ServerSetup { versions, asks_for_client: true, ..ServerSetup::default() };
            let mut config = ServerConfig::clone(ca.server(setup).config());
            config.send_tls13_tickets = tickets;
            config.enable_secret_extraction = true;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            let pool = pool(&url, |settings| {
                let client_certificate = Some(ca.client_certificate());
                settings.tls = TlsSettings { client_certificate, ..ca.trusted() };
            });
            let serving = async {
                let (stream, _) = listener.accept().await.unwrap();
                let mut tls = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
                // The request has left the client.
                tls.read_u8().await.unwrap();
                let (mut stream, session) = tls.into_inner();
                stream.write_all(&sealed_alert(session, 46)).await.unwrap();
                stream
            };
            let request = request(Method::POST, Body::full("pay"));
            let (answer, _stream) = tokio::join!(send(&pool, request, Reuse::Any), serving);
            let error = answer.err().unwrap();
            assert!(error.to_string().contains("certificate_unknown"), "{tickets}: {error}");
            assert_eq!(error.forwarded, forwarded, "{tickets}: {error}");
        }
    })
    .await;
}

/// A fatal alert as the next record of a TLS 1.3 server, which rustls itself never sends by then (RFC 8446
/// sections 5.2 and 5.3).
fn sealed_alert(session: ServerConnection, description: u8) -> Vec<u8> {
    const HEAD: [u8; 5] = [23, 3, 3, 0, 3 + 16];
    let (sequence, secrets) = session.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
        panic!("another cipher suite is preferred")
    };
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sequence.to_be_bytes());
    nonce.iter_mut().zip(iv.as_ref()).for_each(|(byte, mask)| *byte ^= mask);
    // The level, the description, and the type of the record within.
    let mut record = vec![2, description, 21];
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(HEAD), &mut record).unwrap();
    [&HEAD[..], &record].concat()
}

#[tokio::test]
async fn a_server_with_tls_that_is_asked_in_plain_http_is_recognised() {
    LocalSet::new()
        .run_until(async {
            let tls = Authority::new().server(ServerSetup::default());
            let server = Scripted::with_tls(|_, _| Reply::Answer(OK), tls).await;
            let error = send(&pool(&server.http(), |_| ()), get(), Reuse::Any).await.err().unwrap();
            assert!(error.to_string().contains("is it https://?"), "{error}");
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_reported_as_such() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = send(&pool(&uri, |_| ()), get(), Reuse::Any).await.unwrap_err();
        assert!(error.connect().is_some() && error.forwarded == Forwarded::No, "{error:?}");

        let ca = Authority::new();
        let tls = ca.server(ServerSetup::default());
        let server = Scripted::with_tls(|_, _| Reply::Answer(OK), tls).await;
        let uri = format!("https://localhost:{}", server.address.port());
        let other = Authority::named("another");
        let strange = pool(&uri, |settings| settings.tls = other.trusted());
        let error: SendError = send(&strange, get(), Reuse::Any).await.unwrap_err();
        assert!(error.connect().is_some() && error.forwarded == Forwarded::No, "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn pools_with_equal_tls_share_it() {
    local(async {
        let ca = Authority::new();
        let tls = ca.server(ServerSetup::default());
        let server = Scripted::with_tls(|_, _| Reply::Answer(OK), tls).await;
        let uri = format!("https://localhost:{}", server.address.port());
        let mut settings = Settings::new("bank", origin(&uri));
        settings.tls = ca.trusted();
        let (cache, settings) = (TlsCache::default(), Arc::new(settings));
        let first = Pool::new(&cache, Arc::clone(&settings), 8, Arc::default()).unwrap();
        drop(ca); // its files go: a second pool reads none
        let second = Pool::new(&cache, Arc::clone(&settings), 8, Arc::default()).unwrap();
        assert!(Pool::new(&TlsCache::default(), settings, 8, Arc::default()).is_err());
        for pool in [first, second] {
            assert_eq!(text(send(&pool, get(), Reuse::Any).await.unwrap()).await.unwrap(), "ok");
        }
    })
    .await;
}

/// An HTTP/2 server that tells the version, target and Host of each request, and on which
/// connection it came.
async fn http2_server(tls: Option<tokio_rustls::TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut connection = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connection += 1;
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => serve_http2(stream, connection).await,
                    Some(tls) => serve_http2(tls.accept(stream).await.unwrap(), connection).await,
                }
            });
        }
    });
    port
}

async fn serve_http2<S>(stream: S, connection: usize)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let host = request.headers().get("host").is_some();
        let (version, uri) = (request.version(), request.uri().clone());
        let text = format!("{version:?} {uri} host={host} {connection}");
        async move { Ok::<_, Infallible>(Response::new(http_body_util::Full::<Bytes>::from(text))) }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn http2_shares_one_connection() {
    let ca = Authority::new();
    let check = async |secure: bool, protocol: Protocol| {
        local(async {
            let setup = ServerSetup { alpn: &["h2", "http/1.1"], ..ServerSetup::default() };
            let port = http2_server(secure.then(|| ca.server(setup))).await;
            let uri = format!("{}://localhost:{port}", if secure { "https" } else { "http" });
            let pool = pool(&uri, |settings| {
                settings.tls = ca.trusted();
                settings.protocol = protocol;
            });
            let expected = |connection| format!("HTTP/2.0 {uri}/v1/x?y host=false {connection}");
            let first = send(&pool, get(), Reuse::Any).await.unwrap();
            assert_eq!(first.version(), Version::HTTP_2);
            assert_eq!(text(first).await.unwrap(), expected(1));
            let (second, third) = tokio::join!(
                send(&pool, get(), Reuse::Any),
                send(&pool, request(Method::POST, Body::full("a")), Reuse::Recent),
            );
            for response in [second, third] {
                assert_eq!(text(response.unwrap()).await.unwrap(), expected(1));
            }
            let fresh = send(&pool, get(), Reuse::Never).await.unwrap();
            assert_eq!(text(fresh).await.unwrap(), expected(2));
            pool.close_idle();
            let fresh = send(&pool, get(), Reuse::Any).await.unwrap();
            assert_eq!(text(fresh).await.unwrap(), expected(3));
        })
        .await;
    };
    check(true, Protocol::Auto).await;
    check(true, Protocol::Http2).await;
    check(false, Protocol::Http2).await;
}
