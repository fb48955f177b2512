//! The pool against HTTP/2 servers that refuse, leave, stand still and cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use http::{Method, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::body::Body;
use crate::net::tls::TlsCache;
use crate::upstream::settings::Protocol;
use crate::upstream::tests::{get, local, pool, request, send, text, until};
use crate::upstream::{Forwarded, Pool, Reuse, SendErrorKind, Settings};

/// What a server does with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    Reset(Reason),
    /// Half an answer, and then this.
    Cut(Reason),
    /// Nothing, for as long as the connection lasts.
    Hold,
}

/// A server that allows this many streams, and tells the connection of each request; both count
/// from 1.
async fn server(limit: u32, act: fn(usize) -> Act) -> (Pool, mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut connection = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connection += 1;
            tokio::spawn(serve(stream, limit, connection, act, tell.clone()));
        }
    });
    (prior(&format!("http://{address}")), told)
}

fn prior(uri: &str) -> Pool {
    pool(uri, |settings| {
        settings.protocol = Protocol::Http2;
        settings.ping = Duration::from_millis(200);
    })
}

async fn serve(
    stream: TcpStream,
    limit: u32,
    number: usize,
    act: fn(usize) -> Act,
    tell: mpsc::UnboundedSender<usize>,
) {
    let mut builder = server::Builder::new();
    let mut connection =
        builder.max_concurrent_streams(limit).handshake::<_, Bytes>(stream).await.unwrap();
    let (mut requests, mut held) = (0, Vec::new());
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        requests += 1;
        let _ = tell.send(number);
        match act(requests) {
            Act::Answer => {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"ok"), true).unwrap();
            }
            Act::Reset(reason) => respond.send_reset(reason),
            Act::Cut(reason) => {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"o"), false).unwrap();
                tokio::spawn(async move {
                    // What is sent at once may overtake what came before it.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    body.send_reset(reason);
                });
            }
            Act::Hold => held.push(respond),
        }
    }
}

#[tokio::test]
async fn requests_share_connections_up_to_the_servers_limit() {
    local(async {
        let act = |n| if n == 1 { Act::Answer } else { Act::Hold };
        let (pool, mut seen) = server(2, act).await;
        assert_eq!(text(send(&pool, get(), Reuse::Any).await.unwrap()).await.unwrap(), "ok");
        assert_eq!(seen.recv().await, Some(1));
        let all = async {
            let sent = || send(&pool, get(), Reuse::Any);
            tokio::join!(sent(), sent(), sent(), sent())
        };
        let mut connections = Vec::new();
        tokio::select! {
            // The first on each further connection is answered, the others are held.
            _ = all => panic!("nobody answers"),
            () = async {
                while connections.len() < 4 {
                    connections.extend(seen.recv().await);
                }
            } => {}
        }
        connections.sort_unstable();
        assert_eq!(connections, [1, 1, 2, 2]);
    })
    .await;
}

#[tokio::test]
async fn requests_that_wait_for_room_go_as_soon_as_a_stream_ends() {
    local(async {
        let (pool, _seen) = server(1, |_| Act::Answer).await;
        let settings = Settings {
            connect_timeout: Duration::from_secs(60),
            ..Settings::clone(pool.settings())
        };
        let pool = Pool::new(&TlsCache::default(), Arc::new(settings), 1, Arc::default()).unwrap();
        let asked = async || text(send(&pool, get(), Reuse::Any).await.unwrap()).await.unwrap();
        let all = async { tokio::join!(asked(), asked(), asked(), asked(), asked()) };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("nobody is woken");
        assert_eq!(pool.idle(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_the_server_promises_not_to_have_processed_was_not_sent() {
    let check = async |act: fn(usize) -> Act, refused: bool| {
        local(async {
            let (pool, _seen) = server(100, act).await;
            let posted = request(Method::POST, Body::full("pay"));
            let error = send(&pool, posted, Reuse::Recent).await.unwrap_err();
            assert_eq!(error.is_refused(), refused, "{error:?}");
            let expected = if refused { Forwarded::No } else { Forwarded::Unknown };
            assert_eq!(error.forwarded, expected);
        })
        .await;
    };
    check(|_| Act::Reset(Reason::REFUSED_STREAM), true).await;
    check(|_| Act::Reset(Reason::INTERNAL_ERROR), false).await;
    check(|_| Act::Reset(Reason::CANCEL), false).await;
    check(|_| Act::Reset(Reason::NO_ERROR), false).await;
}

/// A server of bytes: it greets, waits for a head, and says these frames.
async fn saying(frames: &'static [&'static [u8]]) -> Pool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut came = vec![0; 24];
        stream.read_exact(&mut came).await.unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            if head[3] == 1 {
                break;
            }
        }
        stream.write_all(&frames.concat()).await.unwrap();
        // Until the client has left.
        let _ = stream.read_to_end(&mut came).await;
    });
    prior(&format!("http://{address}"))
}

const GOAWAY_BELOW: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const GOAWAY_WITH: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
const HEAD_200: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
const DATA: &[u8] = &[0, 0, 2, 0, 0, 0, 0, 0, 1, b'o', b'k'];

#[tokio::test]
async fn a_server_that_leaves_says_which_requests_it_looked_at() {
    local(async {
        let pool = saying(&[GOAWAY_BELOW]).await;
        let posted = request(Method::POST, Body::full("pay"));
        let error = send(&pool, posted, Reuse::Recent).await.unwrap_err();
        assert!(error.is_refused() && error.forwarded == Forwarded::No, "{error:?}");
        let pool = saying(&[GOAWAY_WITH]).await;
        let error = send(&pool, get(), Reuse::Any).await.unwrap_err();
        assert!(!error.is_refused() && error.forwarded == Forwarded::Unknown, "{error:?}");
    })
    .await;
}

/// Silence is the answer to a ping, too.
#[tokio::test]
async fn a_connection_that_has_died_is_noticed() {
    local(async {
        let pool = saying(&[]).await;
        let error = send(&pool, get(), Reuse::Any).await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::Exchange(_)), "{error:?}");
        assert_eq!(error.forwarded, Forwarded::Unknown);
        let pool = saying(&[HEAD_200, DATA]).await;
        text(send(&pool, get(), Reuse::Any).await.unwrap()).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_cut_never_looks_whole() {
    for act in [|_| Act::Cut(Reason::NO_ERROR), |_| Act::Cut(Reason::CANCEL)] {
        local(async {
            let (pool, _seen) = server(100, act).await;
            text(send(&pool, get(), Reuse::Any).await.unwrap()).await.unwrap_err();
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_is_made_once_for_all_who_wait() {
    local(async {
        let (pool, mut seen) = server(100, |_| Act::Answer).await;
        let first = send(&pool, get(), Reuse::Any).await.unwrap();
        assert_eq!(text(first).await.unwrap(), "ok");
        pool.close_idle();
        let sent = async || text(send(&pool, get(), Reuse::Any).await.unwrap()).await.unwrap();
        tokio::join!(sent(), sent(), sent(), sent());
        let mut connections = Vec::new();
        for _ in 0..5 {
            connections.extend(seen.recv().await);
        }
        assert_eq!(connections, [1, 2, 2, 2, 2]);
        until("all are done", || pool.idle() == 1).await;
    })
    .await;
}
