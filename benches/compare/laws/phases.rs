//! What one connection holds, by what it is doing: so many are brought into the same state, and the
//! proxy's memory before is taken from that during. Each phase has a limit of its own: what the
//! configured limits allow in it, and a constant for the connections themselves.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use bearer_proxy::server::settings::ConnectionSettings;
use bearer_proxy::upstream;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

use super::{Bench, law, rss};
use crate::proxies::Running;

/// Connections that are measured.
const COUNT: usize = 200;
/// Connections that are there before, so that code which is run for the first time does not count.
const EARLIER: usize = 8;
/// How long the proxy's memory must stay the same.
const SETTLED: Duration = Duration::from_millis(500);
/// What the kernel keeps for a client, so that bytes pile up in the proxy and not there.
const SOCKET_BUFFER: usize = 64 * 1024;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A client connection: hyper's first buffer of 8 KiB and what the first read has brought, 4 KiB; the
/// rest is its task, its timers and its socket.
const CLIENT: usize = 16 * KIB;
/// A request under way: its head, its task's part, and a connection to the upstream with hyper's first
/// buffer of 8 KiB and a task of its own.
const EXCHANGE: usize = 24 * KIB;
/// An HTTP/2 connection: h2's buffers for reading, 8 KiB, and writing, 16 KiB, and 4 KiB for each of
/// HPACK's two tables; the rest as for [`CLIENT`].
const HTTP2: usize = 40 * KIB;
/// The largest frame that HTTP/2 clients may send, unless a server says otherwise.
const FRAME: usize = 16 * KIB;
/// How many frames of a header block h2 takes: one HEADERS and five CONTINUATION; more from a
/// `max_header_bytes` of 80 KiB on.
const BLOCK_FRAMES: usize = 6;
/// What an HTTP/2 field counts beside its name and value (RFC 9113 section 6.5.2).
const COUNTED: usize = 32;
/// What it takes beside its value: a place in `HeaderMap` of 104 bytes, some 9 in its index, and an
/// allocation for the name.
const STORED: usize = 150;
/// What hyper reads ahead at most, on either side, and what it holds of a message that the other side
/// does not take; a larger limit on heads would raise it.
const READ_AHEAD: usize = 64 * KIB;
/// A body that stands still, in pieces of [`READ_AHEAD`]: one in the buffer that is read into, one on
/// its way between the two connections, and two where it is written, since hyper takes one more while
/// it holds less than that.
const BODY: usize = 4 * READ_AHEAD;

/// One state of a connection.
struct Phase {
    name: &'static str,
    client: Client,
    /// Bytes that one connection in this state may hold.
    limit: usize,
}

/// What a client sends.
enum Client {
    /// One request, of which it reads the answer.
    Asks(Vec<u8>),
    /// This, and then it waits.
    Stops(Vec<u8>),
    /// This, and then a letter as often as it is taken.
    Fills(Vec<u8>),
    /// This, and it reads nothing of the answer.
    ReadsNothing(Vec<u8>),
}

/// All phases, one after the other, each with a proxy of its own.
pub fn phases(bench: &Bench<'_>) -> bool {
    println!("phase | connections | MiB before | during | KiB each | at most");
    let mut held = true;
    for phase in all() {
        let running = bench.start(bench.site);
        let earlier = open(&running, &phase, EARLIER);
        let before = rss(&running);
        let measured = open(&running, &phase, COUNT);
        let during = rss(&running);
        drop((earlier, measured));
        let each = (during - before) / COUNT as f64;
        let (name, limit) = (phase.name, (phase.limit / KIB) as f64);
        let [before, during] = [before, during].map(|kib| kib / KIB as f64);
        println!("{name} | {COUNT} | {before:.1} | {during:.1} | {each:.1} | {limit}");
        held &= law(&format!("KiB for each, {name}"), each, limit);
    }
    held
}

fn all() -> Vec<Phase> {
    let head = ConnectionSettings::default().max_header_bytes;
    let answer_head = upstream::Settings::MAX_RESPONSE_HEADER_BYTES;
    let phase = |name, limit, client| Phase { name, client, limit };
    vec![
        // No limit but the constant.
        phase("idle after a request", CLIENT, Client::Asks(get("/r0/1024"))),
        // `max_header_bytes`.
        phase("half a head", CLIENT + head, Client::Stops(half_head(head - 1))),
        phase(
            "upload, the upstream reads nothing",
            CLIENT + EXCHANGE + BODY,
            Client::Fills(post(&format!("content-length: {}", 100 * MIB))),
        ),
        phase(
            "download, the client reads nothing",
            CLIENT + EXCHANGE + BODY,
            Client::ReadsNothing(get(&format!("/r0/{}", 100 * MIB))),
        ),
        // Extensions are read over, and at most 16 KiB of them in one body.
        phase(
            "chunks of 1 byte with extensions of 1 KiB",
            CLIENT + EXCHANGE + READ_AHEAD,
            Client::Stops(extended_chunks()),
        ),
        phase("HTTP/2, idle after a request", HTTP2, Client::Asks(http2_request())),
        // `max_header_bytes` counts decoded fields. Of one that is not complete h2 holds all the frames
        // that it takes, and reads into a buffer for one more.
        phase(
            "HTTP/2, half a value in a header block",
            HTTP2 + (BLOCK_FRAMES + 1) * FRAME,
            Client::Stops(http2_half_value()),
        ),
        // `max_header_bytes`, in the smallest fields.
        phase(
            "HTTP/2, a header block of many fields",
            HTTP2 + head / (NAME + COUNTED) * STORED,
            Client::Stops(http2_many_fields(head)),
        ),
        // `max_response_header_bytes`.
        phase(
            "half the head of an answer",
            CLIENT + EXCHANGE + answer_head,
            Client::Stops(get(&format!("/r0/half-{}/0", answer_head - 1))),
        ),
    ]
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

fn post(framing: &str) -> Vec<u8> {
    format!("POST /r0/unread/0 HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n").into_bytes()
}

/// So many bytes of a head, and no end of it.
fn half_head(bytes: usize) -> Vec<u8> {
    let mut head = b"GET /r0/1024 HTTP/1.1\r\nhost: localhost\r\nx-fill: ".to_vec();
    head.resize(bytes, b'x');
    head
}

/// Fifteen chunks, and the beginning of one more.
fn extended_chunks() -> Vec<u8> {
    let extension = "e".repeat(KIB);
    let chunk = format!("1;{extension}\r\nx\r\n");
    let mut body = post("transfer-encoding: chunked");
    body.extend_from_slice(chunk.repeat(15).as_bytes());
    body.extend_from_slice(format!("1;{}", &extension[..KIB / 2]).as_bytes());
    body
}

/// RFC 9113 section 4.1.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A GET in HPACK: method and scheme by their numbers, path and authority written out.
fn http2_fields() -> Vec<u8> {
    [b"\x82\x86\x04\x08/r0/1024".as_slice(), b"\x01\x09localhost"].concat()
}

fn http2_request() -> Vec<u8> {
    let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &http2_fields());
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &headers].concat()
}

/// A block in full frames, as many as are taken; none of them ends it.
fn http2_block(block: &[u8]) -> Vec<u8> {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for (number, part) in block.chunks(FRAME).take(BLOCK_FRAMES).enumerate() {
        let (kind, flags) = if number == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        bytes.extend_from_slice(&frame(kind, flags, 1, part));
    }
    bytes
}

/// A field whose value is to have a mebibyte and some.
fn http2_half_value() -> Vec<u8> {
    let mut block = http2_fields();
    block.extend_from_slice(b"\x00\x01x\x7f\x80\x80\x40");
    block.resize(BLOCK_FRAMES * FRAME, b'x');
    http2_block(&block)
}

/// Letters of a name of which there are enough.
const NAME: usize = 3;

/// As many fields without a value as the limit allows, each with a name of its own.
fn http2_many_fields(limit: usize) -> Vec<u8> {
    let mut block = http2_fields();
    for number in 0..(limit - KIB) / (NAME + COUNTED) {
        let name = format!("{number:03x}");
        block.extend_from_slice(&[0, NAME as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(0);
    }
    http2_block(&block)
}

/// So many connections in this state.
fn open(running: &Running, phase: &Phase, count: usize) -> Vec<TcpStream> {
    let mut all: Vec<_> = (0..count).map(|_| connect(running.address, &phase.client)).collect();
    if let Client::Fills(_) = phase.client {
        fill(&mut all);
    }
    settle(running);
    for stream in &mut all {
        if matches!(phase.client, Client::Stops(_) | Client::Fills(_)) {
            let came = everything(stream);
            assert!(is_silence(&came), "{}: {}", phase.name, String::from_utf8_lossy(&came));
        }
    }
    all
}

/// A client that has written what it has to say.
fn connect(address: SocketAddr, client: &Client) -> TcpStream {
    let (Client::Asks(first)
    | Client::Stops(first)
    | Client::Fills(first)
    | Client::ReadsNothing(first)) = client;
    let mut stream = TcpStream::connect(address).unwrap();
    set_socket_send_buffer_size(&stream, SOCKET_BUFFER).unwrap();
    set_socket_recv_buffer_size(&stream, SOCKET_BUFFER).unwrap();
    stream.write_all(first).unwrap();
    match client {
        // One after the other, so that one upstream connection is enough for all.
        Client::Asks(_) => read_answer(&mut stream),
        Client::ReadsNothing(_) => {
            let mut beginning = [0; 12];
            stream.peek(&mut beginning[..1]).unwrap(); // the head comes in one piece
            stream.peek(&mut beginning).unwrap();
            assert_eq!(&beginning, b"HTTP/1.1 200");
        }
        Client::Stops(_) | Client::Fills(_) => {}
    }
    stream.set_nonblocking(true).unwrap();
    stream
}

fn read_answer(stream: &mut TcpStream) {
    let mut came = Vec::new();
    while !is_answer(&came) {
        let mut more = [0; 4096];
        let length = stream.read(&mut more).unwrap();
        assert!(length > 0, "no answer, but {}", String::from_utf8_lossy(&came));
        came.extend_from_slice(&more[..length]);
    }
}

/// Waits until the proxy's memory has stopped changing; for less than half of what a head may take.
fn settle(running: &Running) {
    let mut last = f64::NAN;
    for _ in 0..8 {
        sleep(SETTLED);
        let now = rss(running);
        if now == last {
            return;
        }
        last = now;
    }
}

/// Writes until none of them has taken a byte for some time.
fn fill(all: &mut [TcpStream]) {
    let piece = vec![b'x'; SOCKET_BUFFER];
    let mut still = 0;
    while still < 5 {
        let taken = all.iter_mut().filter_map(|stream| stream.write(&piece).ok()).sum::<usize>();
        still = if taken > 0 { 0 } else { still + 1 };
        if taken == 0 {
            sleep(SETTLED / 5);
        }
    }
}

/// What has come, or what its end was.
fn everything(stream: &mut TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    match stream.read_to_end(&mut came) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => came,
        end => format!("{end:?}").into_bytes(),
    }
}

/// A 200 with all of its 1,024 bytes, by HTTP/1, or by HTTP/2 where `:status` is the eighth of HPACK's
/// fields.
fn is_answer(came: &[u8]) -> bool {
    let is_200 = |(kind, payload): (u8, &[u8])| kind == HEADERS && payload.first() == Some(&0x88);
    let is_whole = came.ends_with(&[b'x'; KIB]) || came.ends_with(&frame(DATA, END_STREAM, 1, &[]));
    is_whole && (came.starts_with(b"HTTP/1.1 200") || frames(came).any(is_200))
}

/// Nothing, or what HTTP/2 says by itself.
fn is_silence(came: &[u8]) -> bool {
    came.is_empty()
        || (!came.starts_with(b"HTTP/")
            && frames(came).all(|(kind, _)| [SETTINGS, PING, WINDOW_UPDATE].contains(&kind)))
}

/// Frames with their payloads, as far as they are whole.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((head[3], payload))
    })
}
