//! Bytes to the whole program, and a strict reader of another hand behind it: whatever a client
//! writes, the upstream gets requests that can be read in one way only, each with one token, of a
//! route that exists.

#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bearer_proxy::app::App;
use bearer_proxy::config;
use bearer_proxy::telemetry::log;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TOKEN: &str = "fuzz-token-of-the-wire";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static PROXY: LazyLock<SocketAddr> = LazyLock::new(start);
    let Ok(mut stream) = TcpStream::connect(*PROXY) else { return };
    let patience = Some(Duration::from_secs(4));
    stream.set_read_timeout(patience).unwrap();
    // A refused request may close the connection before all of it is written.
    let _ = stream.write_all(data).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains(TOKEN), "the token came back: {answer}");
    // What begins with the preface of HTTP/2 is answered in frames.
    let http1 = answer.is_empty() || answer.starts_with("HTTP/1.");
    assert!(http1 || data.starts_with(PREFACE), "no answer of HTTP: {answer}");
    assert!(!answer.starts_with("HTTP/1.1 401"), "a 401 of our own");
});

/// The program, a token server and the upstream, once for all runs.
fn start() -> SocketAddr {
    let tokens = serve(|_, stream| {
        let body =
            format!(r#"{{"access_token":"{TOKEN}","token_type":"bearer","expires_in":86400}}"#);
        let head =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}", body.len());
        let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes());
        false
    });
    let upstream = serve(|request, stream| {
        judge(request);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    });
    let secret = std::env::temp_dir().join(format!("bearer-proxy-fuzz-{}", std::process::id()));
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        r#"
version = 1
server.listen = "127.0.0.1:0"
# Each input ends with a FIN, after which no payment would be begun.
server.half_closed = "serve"
admin.listen = "127.0.0.1:0"
log.level = "error"
[credentials.c]
token_url = "http://{tokens}/token"
client_id.file = {secret:?}
client_secret.file = {secret:?}
[upstreams.u]
url = "http://{upstream}"
credential = "c"
routes = [
  {{ name = "read", path = "/v1/read/{{id}}", methods = ["GET"] }},
  {{ name = "pay", path = "/v1/pay", methods = ["POST"] }},
]
"#
    );
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let config = config::parse(&text, Path::new("fuzz.toml"), &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{}", problems.render(false))).config;
        let log = log::init(&config.log, false).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = App::build(config).await.unwrap();
            sender.send(app.addresses()[0][0]).unwrap();
            app.run(&log).await
        })
    });
    let addr = receiver.recv().unwrap();
    wait_for_token(addr);
    addr
}

/// The first request waits for the token by itself.
fn wait_for_token(addr: SocketAddr) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .write_all(b"GET /v1/read/1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A request as the strict reader found it.
struct Request {
    line: String,
    fields: Vec<(String, String)>,
}

/// A server whose connections live as long as `answer` says so.
fn serve(answer: fn(&Request, &mut TcpStream) -> bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || connection(stream, answer));
        }
    });
    addr
}

fn connection(mut stream: TcpStream, answer: fn(&Request, &mut TcpStream) -> bool) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer) {
        if !answer(&request, &mut stream) {
            return;
        }
    }
    // What is left is half a request: only a client that went away may leave that.
}

/// Reads one request to its end; `None` where the connection ends first.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at;
        }
        fill(stream, buffer)?;
    };
    let head: Vec<u8> = buffer.drain(..end + 4).collect();
    // Field values may hold obs-text (RFC 9110 section 5.5): each byte is a character here.
    let head: String = head.into_iter().map(char::from).collect();
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    // Without a space where the value is empty.
    let field = |line: &str| match line.split_once(':') {
        Some((name, value)) => {
            (name.to_ascii_lowercase(), value.trim_start_matches(' ').to_owned())
        }
        None => fail(&format!("a line that is no field: {line:?}")),
    };
    let request = Request { line, fields: lines.map(field).collect() };
    read_body(&request, stream, buffer)?;
    Some(request)
}

fn read_body(request: &Request, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match (request.all("content-length").as_slice(), request.all("transfer-encoding").as_slice()) {
        ([], []) => Some(()),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            take(length.parse().ok()?, stream, buffer).map(drop)
        }
        ([], ["chunked"]) => loop {
            let size = line(stream, buffer)?;
            let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| fail("a chunk size"));
            if size == 0 {
                loop {
                    match line(stream, buffer)?.as_str() {
                        "" => return Some(()),
                        trailer => judge_trailer(trailer, request.is_grpc()),
                    }
                }
            }
            take(size, stream, buffer)?;
            if !line(stream, buffer)?.is_empty() {
                fail("a chunk longer than it says");
            }
        },
        _ => fail("a body that can be read in two ways"),
    }
}

/// What every request of the program must be.
fn judge(request: &Request) {
    let parts: Vec<&str> = request.line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { fail("a request line of another shape") };
    let path = target.split('?').next().unwrap_or_default();
    let id = path.strip_prefix("/v1/read/").unwrap_or_default();
    let read = matches!(method, "GET" | "HEAD") && !id.is_empty() && !id.contains('/');
    let pay = method == "POST" && path == "/v1/pay";
    if !(read || pay) || id.contains("..") || target.bytes().any(|byte| !byte.is_ascii_graphic()) {
        fail(&format!("a target that no route claims: {}", request.line));
    }
    if request.all("host").len() != 1 {
        fail("not one Host");
    }
    let token = format!("Bearer {TOKEN}");
    if request.all("authorization") != [token.as_str()] {
        fail("not one token, ours");
    }
    for name in ["proxy-authorization", "keep-alive", "proxy-connection", "upgrade"] {
        if !request.all(name).is_empty() {
            fail(&format!("{name} travelled on"));
        }
    }
    // It is for our own connection, on which gRPC asks for trailers.
    let trailers = request.is_grpc() && request.all("te").iter().all(|value| *value == "trailers");
    if !(trailers || request.all("te").is_empty()) {
        fail("a TE that is not ours");
    }
    let plain = |(name, value): &(String, String)| {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty()
            && name.bytes().all(token)
            && !value.bytes().any(|byte| byte < b' ' && byte != b'\t')
    };
    if !request.fields.iter().all(plain) {
        fail("a field with bytes that have no place in it");
    }
}

/// Of trailers those that no server could take for a credential or for framing; of gRPC calls, which
/// have metadata of their own, no others are known.
fn judge_trailer(trailer: &str, grpc: bool) {
    let name = trailer.split(':').next().unwrap_or_default().to_ascii_lowercase().replace('_', "-");
    let usual = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "content-digest",
        "repr-digest",
        "digest",
        "etag",
        "server-timing",
    ];
    let never = [
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "host",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let metadata = grpc && !never.contains(&name.as_str()) && !name.starts_with("proxy-");
    if !usual.contains(&name.as_str()) && !metadata {
        fail(&format!("a trailer that no policy let pass: {trailer}"));
    }
}

impl Request {
    fn is_grpc(&self) -> bool {
        self.all("content-type").iter().any(|kind| {
            kind.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case("application/grpc"))
        })
    }

    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect()
    }
}

fn line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = find(buffer, b"\r\n") {
            let line: Vec<u8> = buffer.drain(..at + 2).collect();
            return Some(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        fill(stream, buffer)?;
    }
}

fn take(count: usize, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    while buffer.len() < count {
        fill(stream, buffer)?;
    }
    Some(buffer.drain(..count).collect())
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes) {
        Ok(count) if count > 0 => buffer.extend_from_slice(&bytes[..count]),
        _ => return None,
    }
    Some(())
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

/// Ends the whole process: a panic in this thread alone would go unseen.
fn fail(why: &str) -> ! {
    eprintln!("the upstream got {why}");
    std::process::abort();
}
