//! HTTP/2 connections in virtual time: a real client for what is in order, bytes for what is not.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use hyper::client::conn::http2::{Builder as ClientBuilder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tower::service_fn;

use super::super::connection;
use super::super::drain::{Drain, empty_tracker};
use super::*;
use crate::body::{Body, BodyError};
use crate::listen::peer::Peer;
use crate::server::Inbound;

const SECOND: Duration = Duration::from_secs(1);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// GET / of `a`, on a stream.
fn get(stream: u8, flags: u8) -> Vec<u8> {
    let block = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    [&[0, 0, block.len() as u8, 1, flags, 0, 0, 0, stream][..], &block].concat()
}

fn reset(stream: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, 8]
}

struct Rig {
    client: DuplexStream,
    ended: JoinHandle<CloseReason>,
    drain: Rc<Drain>,
    started: Instant,
    /// Bytes of endless answers that were taken so far.
    taken: Rc<Cell<usize>>,
}

/// A body without an end, in pieces of 1 KiB.
struct Endless(Arc<std::sync::atomic::AtomicUsize>);

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.fetch_add(1024, std::sync::atomic::Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 1024])))))
    }
}

impl Rig {
    fn new() -> Self {
        let (client, server) = duplex(64 * 1024);
        let (drain, settings) = (Drain::new(empty_tracker()), ConnectionSettings::default());
        let handle = drain.join();
        let info = Rc::new(ConnectionInfo::new(0, Peer::tcp(([127, 0, 0, 1], 1).into())));
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let service = service_fn(move |inbound: Inbound| {
            let counter = Arc::clone(&counter);
            async move {
                let body = match inbound.request.uri().path() {
                    "/endless" => Body::boxed(Endless(counter)),
                    "/slow" => {
                        sleep(10 * SECOND).await;
                        Body::full("slow")
                    }
                    _ => Body::full("quick"),
                };
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        let ended = spawn_local(async move {
            let (io, heads) = (SharedIo::new(server, None), RefusedHeads::new(Arc::new(drop)));
            connection::serve(io, info, service, &settings, &heads, handle).await
        });
        let cell = Rc::new(Cell::new(0));
        let shared = Rc::clone(&cell);
        spawn_local(async move {
            loop {
                shared.set(taken.load(std::sync::atomic::Ordering::Relaxed));
                sleep(SECOND).await;
            }
        });
        Self { client, ended, drain, started: Instant::now(), taken: cell }
    }

    async fn ended(self) -> (CloseReason, u64) {
        let ended = self.ended.await.unwrap();
        (ended, self.started.elapsed().as_secs())
    }

    /// A real client in place of the bare socket.
    async fn client(&mut self) -> SendRequest<Body> {
        let (nobody, _) = duplex(1);
        let io = TokioIo::new(std::mem::replace(&mut self.client, nobody));
        let (sender, connection) = ClientBuilder::new(BoundAddress).handshake(io).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        sender
    }
}

#[derive(Clone)]
struct BoundAddress;

impl<F: Future + 'static> hyper::rt::Executor<F> for BoundAddress {
    fn execute(&self, task: F) {
        spawn_local(async move { drop(task.await) });
    }
}

fn asked(path: &str) -> Request<Body> {
    Request::builder().uri(format!("http://a{path}")).body(Body::empty()).unwrap()
}

async fn text(client: &mut SendRequest<Body>, path: &str) -> Result<String, hyper::Error> {
    let answer = client.send_request(asked(path)).await?;
    Ok(String::from_utf8(answer.collect().await?.to_bytes().to_vec()).unwrap())
}

async fn story(story: impl Future<Output = ()>) {
    LocalSet::new().run_until(story).await;
}

fn timed_out((ended, seconds): (CloseReason, u64)) -> (ConnectionPhase, u64) {
    let CloseReason::TimedOut(phase) = ended else { panic!("ended otherwise: {ended:?}") };
    (phase, seconds)
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection_and_do_not_wait_for_each_other() {
    story(async {
        let mut rig = Rig::new();
        let mut one = rig.client().await;
        let mut two = one.clone();
        let slow = spawn_local(async move { text(&mut two, "/slow").await.unwrap() });
        assert_eq!(text(&mut one, "/").await.unwrap(), "quick");
        assert_eq!(rig.started.elapsed().as_secs(), 0);
        assert_eq!(slow.await.unwrap(), "slow");
        assert_eq!(rig.started.elapsed().as_secs(), 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_begins_and_does_not_go_on_is_closed() {
    let check = async |sent: &[u8], expected| {
        story(async {
            let mut rig = Rig::new();
            rig.client.write_all(sent).await.unwrap();
            let (mut reader, _writer) =
                tokio::io::split(std::mem::replace(&mut rig.client, duplex(1).0));
            spawn_local(async move { drop(reader.read_to_end(&mut Vec::new()).await) });
            assert_eq!(timed_out(rig.ended().await), expected, "{sent:?}");
        })
        .await;
    };
    let greeting = [PREFACE, SETTINGS].concat();
    check(b"PRI * HT", (ConnectionPhase::Head, 10)).await;
    check(PREFACE, (ConnectionPhase::Head, 10)).await;
    check(&[&greeting[..], &get(1, 1)].concat(), (ConnectionPhase::Head, 10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_told_and_closed() {
    story(async {
        let mut rig = Rig::new();
        let mut client = rig.client().await;
        text(&mut client, "/slow").await.unwrap();
        // The client leaves when it is told to.
        assert_eq!(rig.ended().await.1, 85);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cancels_without_end_is_closed() {
    let check = async |pause: Duration, expected: fn(&CloseReason) -> bool| {
        story(async {
            let mut rig = Rig::new();
            rig.client.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
            for stream in (1..=203).step_by(2) {
                let bytes = [get(stream, 5), reset(stream)].concat();
                if rig.client.write_all(&bytes).await.is_err() {
                    break;
                }
                sleep(pause).await;
            }
            let (ended, _) = rig.ended().await;
            assert!(expected(&ended), "{ended:?}");
        })
        .await;
    };
    // At once, so that most are gone before anybody looks: the h2 crate's own limit.
    check(Duration::ZERO, |ended| matches!(ended, CloseReason::Failed(_))).await;
    check(Duration::from_millis(50), |ended| matches!(ended, CloseReason::Flooded)).await;
    check(Duration::from_millis(200), |ended| !matches!(ended, CloseReason::Flooded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_takes_little_and_is_reset() {
    story(async {
        let mut rig = Rig::new();
        let mut client = rig.client().await;
        let answer = client.send_request(asked("/endless")).await.unwrap();
        sleep(30 * SECOND).await;
        let taken = rig.taken.get();
        assert!((1024..8 << 20).contains(&taken), "{taken}");
        sleep(29 * SECOND).await;
        assert_eq!(rig.taken.get(), taken);
        assert_eq!(text(&mut client, "/").await.unwrap(), "quick");
        sleep(5 * SECOND).await;
        answer.into_body().collect().await.unwrap_err();
        assert_eq!(text(&mut client, "/").await.unwrap(), "quick");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn leaving_lets_requests_end_and_takes_no_new_ones() {
    story(async {
        let mut rig = Rig::new();
        let mut client = rig.client().await;
        let mut other = client.clone();
        let slow = spawn_local(async move { text(&mut other, "/slow").await.unwrap() });
        sleep(SECOND).await;
        rig.drain.advance(ShutdownPhase::Finishing);
        assert_eq!(slow.await.unwrap(), "slow");
        text(&mut client, "/").await.unwrap_err();
        let (ended, seconds) = rig.ended().await;
        assert!(matches!(ended, CloseReason::Closed), "{ended:?}");
        assert!((10..=11).contains(&seconds), "{seconds}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_listen_does_not_hold_up_leaving() {
    story(async {
        let mut rig = Rig::new();
        rig.client.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        sleep(SECOND).await;
        rig.drain.advance(ShutdownPhase::Finishing);
        assert_eq!(timed_out(rig.ended().await), (ConnectionPhase::Idle, 2));
    })
    .await;
}
