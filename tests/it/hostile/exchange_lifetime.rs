//! What holds a place for as long as it lasts, and what an upstream may say of a request before, beside
//! and in place of its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::recorder::{Act, Recorder, ok};
use super::{Rig, refusal};
use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frames, head,
};
use crate::support::{Client, Extra, Fronted, RawServer, client, in_front_of, raw_server, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const GET: &str = "GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n";
const WEBSOCKET: &str = "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
     Transfer-Encoding: chunked\r\n\r\n8\r\ndata: x\n\r\n";

fn post(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let fields =
        [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "localhost")];
    [&fields[..], more].concat()
}

/// One limit, where it is, and how an answer says that it is reached.
const LIMITS: [(&str, &str); 2] =
    [("max_in_flight = N", ""), ("", "max_connections = N\ntimeouts = { connect = \"500ms\" }")];

async fn limited(url: &str, limit: (&str, &str), most: usize) -> Fronted {
    let (server, upstream) =
        (limit.0.replace('N', &most.to_string()), limit.1.replace('N', &most.to_string()));
    let route = "upgrade = { websocket = true }";
    in_front_of(url, Extra { server: &server, upstream: &upstream, route, ..Extra::default() })
        .await
}

async fn is_overloaded(proxy: &Fronted) -> bool {
    let answer = client(proxy.addr).await.get("/b").await;
    if answer.status == 200 {
        return false;
    }
    assert_eq!((answer.status, refusal(&answer).as_str()), (503, "overloaded"));
    assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
    true
}

#[tokio::test]
async fn a_body_that_outlives_its_answer_holds_its_places() {
    for limit in LIMITS {
        for most in [2, 4] {
            let bank = Recorder::start().await;
            bank.play(|seen| match seen.path() {
                "/a" => Act::Early(OK.into()),
                _ => ok("ok"),
            });
            let proxy = limited(&format!("http://{}", bank.addr), limit, most).await;
            let mut app = frames(proxy.addr).await;
            for number in 0..most {
                let stream = u32::try_from(2 * number + 1).unwrap();
                app.frame(HEADERS, END_HEADERS, stream, &head(&post(&[]))).await;
                app.frame(DATA, 0, stream, b"some").await;
                let reply = app.reply(stream).await;
                assert!(reply.head && reply.ended && reply.body == b"ok", "{limit:?} {reply:?}");
            }
            assert!(is_overloaded(&proxy).await, "{limit:?}, {most}");
            // One ends, and one place is there; it is not lost to those who asked meanwhile.
            app.frame(DATA, END_STREAM, 1, b"more").await;
            soon(async { while is_overloaded(&proxy).await {} }).await;
            for number in 1..most {
                let stream = u32::try_from(2 * number + 1).unwrap();
                app.frame(DATA, END_STREAM, stream, b"").await;
            }
            let whole =
                || bank.seen().iter().filter(|s| s.path() == "/a" && s.body == b"some").count();
            soon(async {
                while whole() < most - 1 {
                    tokio::task::yield_now().await
                }
            })
            .await;
            assert!(!is_overloaded(&proxy).await);
        }
    }
}

#[tokio::test]
async fn streams_hold_their_places_to_their_end() {
    for limit in LIMITS {
        for (ask, answer) in [(WEBSOCKET, SWITCHED), (GET, EVENTS)] {
            for bank_ends in [false, true] {
                let bank = raw_server().await;
                let proxy = limited(&format!("http://{}", bank.addr), limit, 1).await;
                let mut app = client(proxy.addr).await;
                app.send(ask).await;
                let mut serving = bank.accept().await;
                serving.read_head().await;
                serving.send(answer).await;
                app.read_head().await;
                assert!(is_overloaded(&proxy).await, "{limit:?} {answer}");
                // Both halves of a stream end; an app that is gone shows when something is sent to it.
                if bank_ends {
                    drop(serving);
                    app.read_to_close().await;
                    drop(app);
                } else if answer == EVENTS {
                    drop(app);
                    serving.send("8\r\ndata: y\n\r\n").await;
                    serving.send("8\r\ndata: z\n\r\n").await;
                    serving.read_to_close().await;
                } else {
                    drop(app);
                    serving.read_to_close().await;
                    drop(serving);
                }
                let served = tokio::spawn(async move {
                    let mut serving = bank.accept().await;
                    serving.read_head().await;
                    serving.send(OK).await;
                    (bank, serving)
                });
                soon(async { while is_overloaded(&proxy).await {} }).await;
                soon(served).await.unwrap();
            }
        }
    }
}

/// A server's end of an HTTP/2 connection, by hand.
pub struct Server(Client);

impl Server {
    pub async fn accept(bank: &RawServer) -> Self {
        let mut client = bank.accept().await;
        assert!(client.read_bytes(24).await.starts_with(b"PRI * HTTP/2.0"));
        let mut server = Self(client);
        server.frame(SETTINGS, 0, 0, b"").await;
        server
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.send([&head, payload].concat()).await;
    }

    /// The stream of the next frame of a kind.
    pub async fn next(&mut self, wanted: u8) -> u32 {
        loop {
            let header = self.0.read_bytes(9).await;
            let [a, b, c, kind, flags, id @ ..] = <[u8; 9]>::try_from(header).unwrap();
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            self.0.read_bytes(length).await;
            if kind == SETTINGS && flags == 0 {
                self.frame(SETTINGS, 1, 0, b"").await;
            }
            if kind == wanted {
                return u32::from_be_bytes(id);
            }
        }
    }

    /// The frame that ends a stream of the other side: DATA or HEADERS with END_STREAM, or RST_STREAM.
    pub async fn until_end(&mut self, stream: u32) -> u8 {
        loop {
            let header = self.0.read_bytes(9).await;
            let [a, b, c, kind, flags, id @ ..] = <[u8; 9]>::try_from(header).unwrap();
            self.0.read_bytes(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)).await;
            let ends = kind == RST_STREAM || (kind <= HEADERS && flags & END_STREAM != 0);
            if ends && u32::from_be_bytes(id) == stream {
                return kind;
            }
        }
    }

    /// `:status 200`, and a body as far as it goes.
    async fn answer(&mut self, stream: u32, body: &[u8], ends: bool) {
        self.frame(HEADERS, END_HEADERS, stream, &[0x88]).await;
        self.frame(DATA, if ends { END_STREAM } else { 0 }, stream, body).await;
    }

    async fn leave(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        self.frame(GOAWAY, 0, 0, &payload).await;
    }
}

pub async fn second_version() -> (RawServer, Fronted) {
    let bank = raw_server().await;
    let extra = Extra { upstream: "http = \"2\"", ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    (bank, proxy)
}

#[tokio::test]
async fn a_server_that_leaves_finishes_what_it_has_and_gets_no_more() {
    for head_first in [true, false] {
        let (bank, proxy) = second_version().await;
        let mut old = client(proxy.addr).await;
        old.send(GET).await;
        let mut server = Server::accept(&bank).await;
        let stream = server.next(HEADERS).await;
        if head_first {
            server.answer(stream, b"half", false).await;
            assert!(old.read_head().await.starts_with("HTTP/1.1 200"));
        }
        server.leave(stream).await;
        // A ping that is answered shows that the frame before it has been read.
        server.frame(6, 0, 0, b"see this").await;
        server.next(6).await;
        let mut new = client(proxy.addr).await;
        new.send(GET).await;
        let mut next = Server::accept(&bank).await;
        let on_next = next.next(HEADERS).await;
        next.answer(on_next, b"new", true).await;
        assert_eq!(new.read("GET").await.text(), "new", "{head_first}");
        if head_first {
            server.frame(DATA, END_STREAM, stream, b"rest").await;
            let rest = b"4\r\nhalf\r\n4\r\nrest\r\n0\r\n\r\n";
            assert_eq!(old.read_bytes(rest.len()).await, rest);
        } else {
            server.answer(stream, b"all", true).await;
            assert_eq!(old.read("GET").await.text(), "all");
        }
        assert_eq!(server.0.read_to_close().await.len() % 9, 8, "GOAWAY alone, if anything");
    }
}

#[tokio::test]
async fn a_stream_that_a_leaving_server_never_saw_is_sent_again_if_it_is_safe() {
    for (method, body) in [("GET", ""), ("POST", "pay")] {
        let (bank, proxy) = second_version().await;
        let mut old = client(proxy.addr).await;
        old.send(GET).await;
        let mut server = Server::accept(&bank).await;
        let first = server.next(HEADERS).await;
        server.answer(first, b"half", false).await;
        old.read_head().await;
        let mut app = client(proxy.addr).await;
        let length = body.len();
        let ask =
            format!("{method} /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        app.send(format!("{ask}{body}")).await;
        let unseen = server.next(HEADERS).await;
        assert!(unseen > first);
        server.leave(first).await;
        if method == "GET" {
            let mut next = Server::accept(&bank).await;
            let stream = next.next(HEADERS).await;
            next.answer(stream, b"new", true).await;
            assert_eq!(app.read("GET").await.text(), "new");
        } else {
            let answer = app.read("POST").await;
            assert_eq!((answer.status, refusal(&answer).as_str()), (502, "upstream_reset"));
            assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
        }
        server.frame(DATA, END_STREAM, first, b"rest").await;
        assert_eq!(old.read_bytes(23).await, b"4\r\nhalf\r\n4\r\nrest\r\n0\r\n\r\n");
    }
}

/// The first try may have been read, whatever becomes of the second.
#[tokio::test]
async fn a_second_try_that_is_refused_does_not_unsay_the_first() {
    for resets in [false, true] {
        let bank = raw_server().await;
        let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
        let mut app = client(proxy.addr).await;
        app.send(GET).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        serving.send(OK).await;
        assert_eq!(app.read("GET").await.status, 200);
        app.send(GET).await;
        serving.read_head().await;
        drop(bank);
        if resets {
            serving.reset();
        } else {
            drop(serving);
        }
        let answer = app.read("GET").await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("bearer-proxy-forwarded"), Some("unknown"), "{answer:?}");
        refusal(&answer);
    }
}

const ALL: &str =
    r#"{ name = "all", path = "/**", methods = ["GET", "POST", "PUT", "PATCH", "DELETE"] }"#;

#[tokio::test]
async fn a_body_has_the_same_end_for_the_bank_as_for_the_app() {
    let rig = Rig::start(ALL).await;
    let mut app = client(rig.proxy.addr).await;
    for method in ["POST", "PUT", "PATCH"] {
        for fields in ["", "Content-Length: 0\r\n"] {
            app.send(format!("{method} /a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
            assert_eq!(app.read(method).await.status, 200);
            let seen = rig.upstream.seen().pop().unwrap();
            assert_eq!(seen.header("content-length"), ["0"], "{method}");
            assert_eq!(seen.header("transfer-encoding"), [""; 0]);
        }
    }
    // And with a version that has no need to say so.
    let mut streams = frames(rig.proxy.addr).await;
    let stream = streams.send(&post(&[]), None).await;
    assert_eq!(streams.reply(stream).await.body, b"ok");
    assert_eq!(rig.upstream.seen().pop().unwrap().header("content-length"), ["0"]);
    for old in [false, true] {
        if old {
            let kept = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
            rig.upstream.play(move |_| Act::Answer(kept.into()));
        }
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let before = rig.upstream.seen().pop().unwrap();
            let chunked =
                "Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
            app.send(format!("{method} /a HTTP/1.1\r\n{chunked}")).await;
            assert_eq!(app.read(method).await.status, 200, "{method} old={old}");
            let seen = rig.upstream.seen().pop().unwrap();
            assert_eq!((&seen.body[..], seen.whole), (&b"abcd"[..], true), "{method} old={old}");
            assert!(seen.line().ends_with(" HTTP/1.1"), "{}", seen.line());
            if old && method != "GET" {
                assert!(seen.connection > before.connection, "{method}");
            }
        }
    }
}

/// A server of HTTP/2 that says what it was sent, and answers at once with this status, of which it
/// may reset the rest.
async fn refusing(
    status: StatusCode,
    wants_body: bool,
) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream, status, wants_body, tell.clone()));
        }
    });
    (address, told)
}

async fn refuse(
    stream: TcpStream,
    status: StatusCode,
    wants_body: bool,
    tell: mpsc::UnboundedSender<Vec<u8>>,
) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (tell, mut body) = (tell.clone(), request.into_body());
        tokio::spawn(async move {
            let mut whole = Vec::new();
            if wants_body {
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    whole.extend_from_slice(&data);
                }
            }
            let answer = Response::builder().status(status).body(()).unwrap();
            let mut answer = respond.send_response(answer, false).ok()?;
            answer.send_data(Bytes::from_static(b"said"), true).ok()?;
            // What it did not read is let go of: h2 resets the stream with NO_ERROR.
            tell.send(whole).ok()
        });
    }
    None
}

/// How many heads come on a stream before its end; the first of them is waited for, then `body` is sent.
async fn expecting(app: &mut Frames, body: &[u8]) -> (usize, Vec<u8>) {
    let fields = post(&[("content-length", "5"), ("expect", "100-continue")]);
    app.frame(HEADERS, END_HEADERS, 1, &head(&fields)).await;
    let (mut heads, mut came) = (0, Vec::new());
    loop {
        let frame = app.next().await.expect("the connection ended");
        match frame.kind {
            HEADERS => {
                heads += 1;
                if heads == 1 {
                    app.frame(DATA, END_STREAM, 1, body).await;
                }
            }
            DATA => came.extend(frame.payload),
            RST_STREAM | GOAWAY => panic!("{frame:?}"),
            _ => continue,
        }
        if frame.stream == 1 && frame.flags & END_STREAM != 0 {
            return (heads, came);
        }
    }
}

#[tokio::test]
async fn an_app_with_http2_is_asked_for_its_body() {
    for asks in [true, false] {
        let bank = raw_server().await;
        let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
        let serving = async {
            let mut serving = bank.accept().await;
            assert!(serving.read_head().await.contains("expect: 100-continue"));
            if asks {
                serving.send(CONTINUE).await;
            }
            assert_eq!(serving.read_bytes(5).await, b"money");
            serving.send(OK).await;
            serving
        };
        let mut app = frames(proxy.addr).await;
        let ((heads, body), _) =
            soon(async { tokio::join!(expecting(&mut app, b"money"), serving) }).await;
        assert_eq!((heads, body), (2, b"ok".to_vec()), "asks={asks}");
    }
    let (address, mut told) = refusing(StatusCode::OK, true).await;
    let extra = Extra { upstream: "http = \"2\"", ..Extra::default() };
    let proxy = in_front_of(&format!("http://{address}"), extra).await;
    let mut app = frames(proxy.addr).await;
    assert_eq!(expecting(&mut app, b"money").await, (2, b"said".to_vec()));
    assert_eq!(soon(told.recv()).await.unwrap(), b"money");
}

/// How an upstream ends after it has refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
    Old,
    Second,
}

/// Asks over HTTP/1 and gives back status and body.
async fn told_over_1(
    proxy: &Fronted,
    version: &str,
    expects: bool,
    body: Arc<Vec<u8>>,
) -> (u16, String) {
    let expect = if expects { "Expect: 100-continue\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "POST /a HTTP/{version}\r\nHost: localhost\r\nContent-Length: {length}\r\n{expect}\r\n"
    );
    let stream = soon(TcpStream::connect(proxy.addr)).await.unwrap();
    let (from, mut to) = tokio::io::split(stream);
    let uploading = tokio::spawn(async move {
        to.write_all(head.as_bytes()).await?;
        if !expects || length > 5 {
            to.write_all(&body).await?;
        }
        std::future::pending::<std::io::Result<()>>().await
    });
    let told = answer(from).await;
    uploading.abort();
    told
}

/// Reads one answer, after any 100, while somebody else writes.
async fn answer(mut from: impl AsyncRead + Unpin) -> (u16, String) {
    let mut came = Vec::new();
    let whole = |came: &[u8]| {
        let text = String::from_utf8_lossy(came).replace(CONTINUE, "");
        let ended =
            ["\r\n\r\nsaid", "4\r\nsaid\r\n0\r\n\r\n"].iter().any(|end| text.ends_with(end));
        (text, ended)
    };
    soon(async {
        // A reset is an end too.
        while !whole(&came).1 && from.read_buf(&mut came).await.unwrap_or(0) > 0 {}
    })
    .await;
    let (text, _) = whole(&came);
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, if text.contains("said") { "said".to_owned() } else { text })
}

async fn told_over_2(proxy: &Fronted, expects: bool, body: Arc<Vec<u8>>) -> (u16, String) {
    let stream = soon(TcpStream::connect(proxy.addr)).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut request = http::Request::post(format!("http://localhost:{}/a", proxy.addr.port()))
        .header("content-length", body.len());
    if expects {
        request = request.header("expect", "100-continue");
    }
    let (answer, mut upload) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    if !expects || body.len() > 5 {
        let _refused = upload.send_data(Bytes::from(body.to_vec()), true);
    }
    let answer = match soon(answer).await {
        Ok(answer) => answer,
        Err(error) => return (0, error.to_string()),
    };
    let status = answer.status().as_u16();
    let (mut came, mut body) = (Vec::new(), answer.into_body());
    while let Some(data) = soon(body.data()).await {
        match data {
            Ok(data) => came.extend_from_slice(&data),
            Err(error) => return (status, error.to_string()),
        }
    }
    (status, String::from_utf8(came).unwrap())
}

/// A body that nobody takes: small and held back, small, and larger than all buffers.
#[tokio::test]
async fn a_refusal_in_place_of_100_arrives_however_the_upstream_ends() {
    let mut failed = Vec::new();
    for status in [413, 411, 401] {
        for end in [End::Fin, End::Reset, End::Old, End::Second] {
            for (expects, size) in [(true, 5), (false, 5), (true, 16 << 20), (false, 16 << 20)] {
                let (url, upstream, serving) = if end == End::Second {
                    let (address, _told) =
                        refusing(StatusCode::from_u16(status).unwrap(), false).await;
                    (format!("http://{address}"), "http = \"2\"", None)
                } else {
                    let bank = raw_server().await;
                    let url = format!("http://{}", bank.addr);
                    let version = if end == End::Old { "1.0" } else { "1.1" };
                    let close = if end == End::Old {
                        ""
                    } else {
                        "Connection: close\r\nContent-Length: 4\r\n"
                    };
                    let answer = format!("HTTP/{version} {status} No\r\n{close}\r\nsaid");
                    let serving = tokio::spawn(async move {
                        loop {
                            let mut serving = bank.accept().await;
                            serving.read_head().await;
                            serving.send(&answer).await;
                            match end {
                                End::Reset => serving.reset(),
                                _ => {
                                    serving.finish().await;
                                    tokio::spawn(async move { serving.read_to_close().await });
                                }
                            }
                        }
                    });
                    (url, "", Some(serving))
                };
                let proxy = in_front_of(&url, Extra { upstream, ..Extra::default() }).await;
                let body = Arc::new(vec![b'x'; size]);
                for app in ["1.1", "1.0", "2"] {
                    let told = async {
                        match app {
                            "2" => told_over_2(&proxy, expects, Arc::clone(&body)).await,
                            // HTTP/1.0 knows no expectation and sends its body at once.
                            "1.0" => told_over_1(&proxy, app, false, Arc::clone(&body)).await,
                            _ => told_over_1(&proxy, app, expects, Arc::clone(&body)).await,
                        }
                    };
                    let told = tokio::time::timeout(std::time::Duration::from_secs(4), told)
                        .await
                        .unwrap_or((0, "hung".into()));
                    if told != (status, "said".to_owned()) {
                        failed.push(format!(
                            "{status} {end:?} expects={expects} {size} app {app}: {told:?}"
                        ));
                    }
                }
                if let Some(serving) = serving {
                    serving.abort();
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} rows:\n{}", failed.len(), failed.join("\n"));
}
