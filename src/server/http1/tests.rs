//! The life of an HTTP/1 connection told in stories, over in-memory streams and paused time.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;
use tower::service_fn;

use super::*;
use crate::listen::peer::Peer;
use crate::server::connection::serve;
use crate::server::drain::empty_tracker;
use crate::server::head_error::RefusedHeads;
use crate::server::timer::FIRST_REQUEST_GRACE;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

struct Rig {
    client: DuplexStream,
    ended: JoinHandle<CloseReason>,
    drain: Rc<Drain>,
    started: Instant,
    refused: mpsc::Receiver<HeadError>,
}

impl Rig {
    /// A connection whose service takes `work` for each answer; inside a `LocalSet` only.
    fn new(work: Duration) -> Self {
        let (client, server) = duplex(64 * 1024);
        let (drain, settings) = (Drain::new(empty_tracker()), ConnectionSettings::default());
        let handle = drain.join();
        let peer = Peer::tcp("127.0.0.1:1".parse().unwrap());
        let info = Rc::new(ConnectionInfo::new(0, peer));
        let service = service_fn(move |_: Inbound| async move {
            sleep(work).await;
            Ok::<_, Infallible>(Response::new(Body::full("done")))
        });
        let (told, refused) = mpsc::channel();
        let heads = RefusedHeads::new(Arc::new(move |reason| told.send(reason).unwrap()));
        let io = SharedIo::new(server, None);
        let ended =
            spawn_local(async move { serve(io, info, service, &settings, &heads, handle).await });
        Self { client, ended, drain, started: Instant::now(), refused }
    }

    async fn answer(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with("done") {
            let byte = self.client.read_u8().await.unwrap();
            text.push(char::from(byte));
        }
        text
    }

    async fn ended(self) -> (CloseReason, u64) {
        let ended = self.ended.await.unwrap();
        (ended, self.started.elapsed().as_secs())
    }
}

fn timed_out((ended, seconds): (CloseReason, u64)) -> (ConnectionPhase, u64) {
    let CloseReason::TimedOut(phase) = ended else { panic!("ended otherwise: {ended:?}") };
    (phase, seconds)
}

const NO_TIME: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let local = LocalSet::new();
    let end = local.run_until(async { Rig::new(NO_TIME).ended().await }).await;
    assert_eq!(timed_out(end), (ConnectionPhase::Idle, 75));
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte_however_it_trickles() {
    let trickle = async {
        let mut rig = Rig::new(NO_TIME);
        sleep(20 * SECOND).await;
        rig.client.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        for _ in 0..9 {
            sleep(SECOND).await;
            rig.client.write_all(b"y").await.unwrap();
        }
        rig.ended().await
    };
    let end = LocalSet::new().run_until(trickle).await;
    assert_eq!(timed_out(end), (ConnectionPhase::Head, 30));
}

#[tokio::test(start_paused = true)]
async fn idle_time_begins_anew_after_each_answer() {
    let several = async {
        let mut rig = Rig::new(NO_TIME);
        for _ in 0..3 {
            sleep(70 * SECOND).await;
            rig.client.write_all(GET).await.unwrap();
            rig.answer().await;
        }
        rig.ended().await
    };
    let end = LocalSet::new().run_until(several).await;
    assert_eq!(timed_out(end), (ConnectionPhase::Idle, 3 * 70 + 75));
}

#[tokio::test(start_paused = true)]
async fn a_second_head_is_timed_like_the_first() {
    let second = async {
        let mut rig = Rig::new(NO_TIME);
        rig.client.write_all(GET).await.unwrap();
        rig.answer().await;
        sleep(5 * SECOND).await;
        rig.client.write_all(b"GET").await.unwrap();
        rig.ended().await
    };
    let end = LocalSet::new().run_until(second).await;
    assert_eq!(timed_out(end), (ConnectionPhase::Head, 15));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_not_our_concern() {
    let slow = async {
        let mut rig = Rig::new(600 * SECOND);
        rig.client.write_all(GET).await.unwrap();
        assert!(rig.answer().await.starts_with("HTTP/1.1 200 OK"));
        rig.ended().await
    };
    let end = LocalSet::new().run_until(slow).await;
    assert_eq!(timed_out(end), (ConnectionPhase::Idle, 675));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_is_answered_while_finishing() {
    let leave = async {
        let mut rig = Rig::new(SECOND);
        let (first, rest) = GET.split_at(9);
        rig.client.write_all(first).await.unwrap();
        sleep(SECOND).await;
        rig.drain.advance(ShutdownPhase::Finishing);
        sleep(SECOND).await;
        rig.client.write_all(rest).await.unwrap();
        let answer = rig.answer().await;
        assert!(answer.contains("connection: close"), "{answer}");
        rig.ended().await
    };
    let (ended, seconds) = LocalSet::new().run_until(leave).await;
    assert!(matches!(ended, CloseReason::Closed), "{ended:?}");
    assert_eq!(seconds, 3);
}

#[tokio::test(start_paused = true)]
async fn a_first_request_that_is_on_its_way_is_answered_while_finishing() {
    let leave = async |work| {
        let mut rig = Rig::new(work);
        rig.drain.advance(ShutdownPhase::Finishing);
        sleep(FIRST_REQUEST_GRACE / 2).await;
        rig.client.write_all(GET).await.unwrap();
        let answer = rig.answer().await;
        assert!(answer.contains("connection: close"), "{answer}");
        let silent = Rig::new(work);
        silent.drain.advance(ShutdownPhase::Finishing);
        (rig.ended().await.0, silent.ended().await.1)
    };
    for work in [NO_TIME, SECOND] {
        let (ended, silent) = LocalSet::new().run_until(leave(work)).await;
        assert!(matches!(ended, CloseReason::Closed), "{ended:?}");
        assert_eq!(silent, 0, "its grace is half a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retiring_connection_waits_for_a_request_and_answers_it_as_its_last() {
    let retire = async {
        let mut rig = Rig::new(SECOND);
        rig.client.write_all(GET).await.unwrap();
        assert!(!rig.answer().await.contains("connection: close"));
        rig.drain.advance(ShutdownPhase::Retiring);
        sleep(5 * SECOND).await;
        rig.client.write_all(GET).await.unwrap();
        assert!(rig.answer().await.contains("connection: close"));
        rig.ended().await
    };
    let (ended, seconds) = LocalSet::new().run_until(retire).await;
    assert!(matches!(ended, CloseReason::Closed), "{ended:?}");
    assert_eq!(seconds, 7);
}

#[tokio::test(start_paused = true)]
async fn limits_of_heads_are_kept() {
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(33 * 1024));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
    for head in [long, many] {
        let refused = async {
            let mut rig = Rig::new(NO_TIME);
            // A byte at a time, and all at once: the limits are those of the head, not of a read.
            for piece in head.as_bytes().chunks(head.len().div_ceil(2000)) {
                if rig.client.write_all(piece).await.is_err() {
                    break;
                }
            }
            let mut answer = String::new();
            rig.client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
            // At once, however long the client keeps its side open.
            assert_eq!(rig.refused.try_recv(), Ok(HeadError::TooLarge));
            assert_eq!(rig.refused.try_iter().count(), 0);
        };
        LocalSet::new().run_until(refused).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_a_body_is_told_when_its_connection_ends() {
    let story = async {
        let (mut client, server) = duplex(1024);
        let (told, body_ended) = tokio::sync::oneshot::channel();
        let told = Rc::new(Cell::new(Some(told)));
        let service = service_fn(move |inbound: Inbound| {
            let told = told.take();
            spawn_local(async move {
                let read = inbound.request.into_body().collect().await;
                told.map(|told| told.send(read.is_err()))
            });
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        let (drain, settings) = (Drain::new(empty_tracker()), ConnectionSettings::default());
        let handle = drain.join();
        let info = Rc::new(ConnectionInfo::new(0, Peer::tcp("127.0.0.1:1".parse().unwrap())));
        let (io, heads) = (SharedIo::new(server, None), RefusedHeads::new(Arc::new(drop)));
        spawn_local(async move { serve(io, info, service, &settings, &heads, handle).await });
        client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        let started = Instant::now();
        (body_ended.await.unwrap(), started.elapsed().as_secs())
    };
    // The answer has ended; what is left of the request has the time of a head.
    assert_eq!(LocalSet::new().run_until(story).await, (true, 10));
}

/// Reports how much of an answer was delivered, when its answer has ended.
struct Receipt {
    delivery: Cell<Option<Delivery>>,
    ended: mpsc::Sender<Option<Delivery>>,
}

impl DeliveryObserver for Receipt {
    fn delivered(&self, delivery: Delivery) {
        assert_eq!(self.delivery.replace(Some(delivery)), None, "it is told once");
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.ended.send(self.delivery.get()).unwrap();
    }
}

/// Serves one request on a connection with `room` bytes between client and server, has the client read
/// `reads` bytes and leave, and says how much of an answer of 1,000 bytes counts as delivered.
async fn delivered(request: &'static [u8], room: usize, reads: usize) -> Option<Delivery> {
    let (mut client, server) = duplex(room);
    let (ended, receipts) = mpsc::channel();
    let served = async move {
        let service = service_fn(move |_: Inbound| {
            let receipt = Receipt { delivery: Cell::new(None), ended: ended.clone() };
            let body = Body::full(vec![b'x'; 1000]).observed_by(Rc::new(receipt));
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let info = Rc::new(ConnectionInfo::new(0, Peer::tcp("127.0.0.1:1".parse().unwrap())));
        let drain = Drain::new(empty_tracker());
        let (heads, settings) =
            (RefusedHeads::new(Arc::new(|_| ())), ConnectionSettings::default());
        serve(SharedIo::new(server, None), info, service, &settings, &heads, drain.join()).await
    };
    let asking = async move {
        client.write_all(request).await.unwrap();
        let mut answer = vec![0; reads];
        client.read_exact(&mut answer).await.unwrap();
    };
    tokio::join!(served, asking);
    receipts.recv().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_delivered_when_its_last_byte_is_taken() {
    let check = async |request: &'static [u8], room, reads, expected| {
        let found = LocalSet::new().run_until(delivered(request, room, reads)).await;
        assert_eq!(found, expected, "{room} {reads}");
    };
    const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n";
    // All of it lies in the buffers of the connection, which is as much as a server can know.
    check(GET, 64 * 1024, 20, Some(Delivery::Complete)).await;
    check(GET, 100, 1050, Some(Delivery::Complete)).await;
    check(GET, 100, 200, Some(Delivery::Partial)).await;
    check(HEAD, 64 * 1024, 20, Some(Delivery::Complete)).await;
}
