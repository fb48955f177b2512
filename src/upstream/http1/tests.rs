//! What is written and what is read, byte by byte, and hyper's reading of the same bytes as the
//! oracle: whatever this codec accepts, hyper reads alike.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::LocalSet;

use super::*;
use crate::http1::Step;

type Outcome = Result<(StatusCode, HeaderMap, Bytes, HeaderMap), ()>;

fn request(method: Method, body: Body) -> Box<Request<Body>> {
    let request = Request::builder().method(method).uri("/v1/x?y").header("host", "bank");
    Box::new(request.body(body).unwrap())
}

async fn local<T>(story: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(story).await
}

fn connection(stream: DuplexStream) -> Box<Connection<DuplexStream>> {
    Connection::new(stream, Instant::now() + Duration::from_secs(300))
}

async fn collected<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Outcome {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| ())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok((parts.status, parts.headers, body.to_bytes(), trailers))
}

/// Ours: what an app would get of these bytes, and whether the connection is used again.
async fn ours(method: Method, bytes: Vec<u8>, cut: usize) -> (Outcome, bool) {
    local(async {
        let (client, mut server) = duplex(64 * 1024);
        tokio::task::spawn_local(async move {
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            server.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            server.write_all(rest).await.unwrap();
            server.shutdown().await.unwrap();
            while server.read_u8().await.is_ok() {}
        });
        let (home, returned) = mpsc::channel();
        let sent = connection(client)
            .exchange(&mut (*request(method, Body::empty())).into(), None, &home)
            .await;
        let Ok(Answered { response, connection }) = sent else { return (Err(()), false) };
        let outcome = collected(http::Response::from(*response)).await;
        (outcome, connection.is_some() || returned.try_recv().is_ok())
    })
    .await
}

/// hyper's client on the same bytes.
async fn hypers(method: Method, bytes: Vec<u8>) -> Outcome {
    local(async {
        let (client, mut server) = duplex(64 * 1024);
        tokio::task::spawn_local(async move {
            let mut head = [0; 4096];
            let _ = server.read(&mut head).await;
            let _ = server.write_all(&bytes).await;
            let _ = server.shutdown().await;
            while server.read_u8().await.is_ok() {}
        });
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client));
        let (mut sender, driver) = handshake.await.unwrap();
        tokio::task::spawn_local(async move { drop(driver.await) });
        let request = *request(method, Body::empty());
        collected(sender.send_request(request).await.map_err(|_| ())?).await
    })
    .await
}

async fn reads(method: Method, text: &str) -> (Option<(u16, String)>, bool) {
    let (outcome, again) = ours(method, text.as_bytes().to_vec(), 7).await;
    let outcome = outcome
        .map(|(status, _, body, _)| (status.as_u16(), String::from_utf8(body.to_vec()).unwrap()));
    (outcome.ok(), again)
}

#[tokio::test]
async fn answers_are_read_to_their_end_and_free_their_connection() {
    let check = async |text: &str, body: &str, again: bool| {
        let (read, reused) = reads(Method::GET, text).await;
        assert_eq!(read.map(|(_, body)| body).as_deref(), Some(body), "{text:?}");
        assert_eq!(reused, again, "{text:?}");
    };
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok", true).await;
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP", "ok", false).await;
    check("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok", "ok", false)
        .await;
    check("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok", false).await;
    check("HTTP/1.1 200 OK\r\n\r\nall of it", "all of it", false).await;
    check("HTTP/1.1 204 No Content\r\n\r\n", "", true).await;
    check("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "", true).await;
    check(
        "HTTP/1.1 103 Early\r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "",
        true,
    )
    .await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n";
    check(&format!("{chunked}2\r\nok\r\n0\r\n\r\n"), "ok", true).await;
    check(&format!("{chunked}02;a=\"b\"\r\nok\r\n1 ;c\r\n!\r\n000\r\nx: y\r\n\r\n"), "ok!", true)
        .await;
    check(&format!("{chunked}0\r\n\r\nHTTP"), "", false).await;
    let (head, reused) = reads(Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
    assert_eq!((head, reused), (Some((200, String::new())), true));
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    for head in [
        "content-length: 2\r\ncontent-length: 2",
        "content-length: 2, 2",
        "content-length: +2",
        "content-length: ",
        "content-length: 18446744073709551616",
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: identity",
        "x : y\r\ncontent-length: 2",
        "x: y\r\n folded\r\ncontent-length: 2",
        "x: y\ncontent-length: 2",
        "x: \0\r\ncontent-length: 2",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        assert_eq!(reads(Method::GET, &text).await, (None, false), "{head:?}");
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [
        "\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "2\nok\r\n0\r\n\r\n",
        "2 2\r\nok\r\n0\r\n\r\n",
        "2\r\nokay\r\n0\r\n\r\n",
        "2;\u{1}\r\nok\r\n0\r\n\r\n",
        "10000000000000002\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nno trailer\r\n\r\n",
        "2\r\nok\r\n0\r\nx: y\n\r\n",
        "2\r\nok\r\n0\r\n",
    ] {
        assert_eq!(
            reads(Method::GET, &format!("{chunked}{body}")).await,
            (None, false),
            "{body:?}"
        );
    }
    let old = chunked.replace("1.1", "1.0");
    assert_eq!(reads(Method::GET, &format!("{old}0\r\n\r\n")).await, (None, false));
}

#[tokio::test]
async fn a_head_is_refused_as_soon_as_it_is_no_http() {
    let mut read = BytesMut::from("HTTP/2");
    assert!(matches!(head::read(&mut read, &Method::GET, || None), Err(Failure::Invalid(_))));
    let mut read = BytesMut::from("HTT");
    assert!(matches!(head::read(&mut read, &Method::GET, || None), Ok(None)));
    let mut long = BytesMut::from(&*format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(33 * 1024)));
    assert!(matches!(head::read(&mut long, &Method::GET, || None), Err(Failure::Invalid(_))));
}

#[tokio::test]
async fn a_reason_of_the_servers_own_is_kept() {
    let mut read = BytesMut::from("HTTP/1.1 200 Fine\r\n\r\n");
    let head = head::read(&mut read, &Method::GET, || None).unwrap().unwrap();
    let reason = head.response.extensions.get::<hyper::ext::ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Fine");
}

#[tokio::test]
async fn requests_are_written_with_one_framing() {
    let check = async |method: Method, fields: &[(&'static str, &str)], body: Body, wire: &str| {
        let written = local(async {
            let (client, mut server) = duplex(64 * 1024);
            let mut request = request(method, body);
            for (name, value) in fields {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            let mut request = (*request).into();
            let (home, _) = mpsc::channel();
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            let (sent, _) = tokio::join!(
                connection(client).exchange(&mut request, None, &home),
                server.write_all(answer)
            );
            drop(sent);
            let mut written = String::new();
            server.read_to_string(&mut written).await.unwrap();
            written
        });
        assert_eq!(written.await, wire);
    };
    let pieces = |frames: Vec<Frame<Bytes>>| Body::boxed(Pieces(frames.into()));
    let data = |text: &'static str| Frame::data(Bytes::from_static(text.as_bytes()));
    let get = "GET /v1/x?y HTTP/1.1\r\nhost: bank\r\n";
    let post = "POST /v1/x?y HTTP/1.1\r\nhost: bank\r\n";
    check(Method::GET, &[], Body::empty(), &format!("{get}\r\n")).await;
    check(
        Method::GET,
        &[("te", "trailers")],
        Body::empty(),
        &format!("{get}te: trailers\r\nconnection: te\r\n\r\n"),
    )
    .await;
    check(
        Method::POST,
        &[("content-length", "0")],
        Body::empty(),
        &format!("{post}content-length: 0\r\n\r\n"),
    )
    .await;
    check(Method::POST, &[], Body::full("a=b"), &format!("{post}content-length: 3\r\n\r\na=b"))
        .await;
    let told = pieces(vec![data("a"), data(""), data("=b")]);
    check(
        Method::POST,
        &[("content-length", "3")],
        told,
        &format!("{post}content-length: 3\r\n\r\na=b"),
    )
    .await;
    let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n");
    let untold = pieces(vec![data("a"), data(""), data("=b")]);
    check(
        Method::POST,
        &[("transfer-encoding", "gzip")],
        untold,
        &format!("{chunked}1\r\na\r\n2\r\n=b\r\n0\r\n\r\n"),
    )
    .await;
    let trailers = HeaderMap::from_iter([("x".parse().unwrap(), "y".parse().unwrap())]);
    let trailed = pieces(vec![data("a"), Frame::trailers(trailers)]);
    check(Method::POST, &[], trailed, &format!("{chunked}1\r\na\r\n0\r\nx: y\r\n\r\n")).await;
    // Never more or less than the head says: what is wrong is cut.
    check(Method::POST, &[("content-length", "3")], Body::full("a=bc"), "").await;
    let short = pieces(vec![data("a")]);
    check(
        Method::POST,
        &[("content-length", "3")],
        short,
        &format!("{post}content-length: 3\r\n\r\na"),
    )
    .await;
}

/// Frames in turn.
struct Pieces(std::collections::VecDeque<Frame<Bytes>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

#[test]
fn a_body_is_the_same_however_it_is_cut() {
    let wire = b"2\r\nok\r\nA;x\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
    for cut in 0..wire.len() {
        let (mut framing, mut input) = (Framing::Chunked, BytesMut::new());
        let (mut body, mut ended) = (Vec::new(), false);
        for part in [&wire[..cut], &wire[cut..]] {
            input.extend_from_slice(part);
            while !ended {
                match framing.step(&mut input).unwrap() {
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::Trailers(trailers) => {
                        assert_eq!(trailers["x"], "y");
                        ended = true;
                    }
                    Step::End => ended = true,
                    Step::More => break,
                }
            }
        }
        assert!(ended && body == b"ok0123456789" && input.is_empty(), "cut at {cut}");
    }
}

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "content-length: 2\r\n",
        "content-length: 0\r\n",
        "transfer-encoding: chunked\r\n",
        "connection: close\r\n",
        "x: y\r\n",
        "\r\n",
        "\r\n",
        "2\r\nok\r\n",
        "0\r\n",
        "1;e\r\n.\r\n",
        "ok",
        "\n",
        "\r",
        ": ",
        "z",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    /// Ours may refuse what hyper accepts, never the other way round, and never reads otherwise.
    #[test]
    fn hyper_reads_alike(start in prop::sample::select(vec!["HTTP/1.1 200 OK\r\n", "HTTP/1.1 304 X\r\n", ""]),
        pieces in prop::collection::vec(piece(), 0..9), head in any::<bool>(), cut in 0_usize..60) {
        let method = if head { Method::HEAD } else { Method::GET };
        let bytes = format!("{start}{}", pieces.concat()).into_bytes();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, _) = runtime.block_on(ours(method.clone(), bytes.clone(), cut));
        if ours.is_ok() {
            prop_assert_eq!(ours, runtime.block_on(hypers(method, bytes)));
        }
    }
}
