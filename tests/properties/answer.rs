//! What holds of every answer of an upstream: what is given out as whole was whole, to a strict
//! reader of another hand too.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};

use bearer_proxy::body::Body;
use bearer_proxy::net::Origin;
use bearer_proxy::net::tls::TlsCache;
use bearer_proxy::upstream::{Pool, Reuse, SendRequest, Settings, Transport};
use http::Request;
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// Checks one answer, of these bytes and then the end of the connection.
pub fn check(data: &[u8]) {
    if let Some(given) = given(data) {
        assert_eq!(Some(given), strict(data), "{}", data.escape_ascii());
    }
}

/// Status and body as the program takes them, if it takes them for whole.
fn given(data: &[u8]) -> Option<(u16, Vec<u8>)> {
    static SERVER: LazyLock<(SocketAddr, Mutex<Sender<Vec<u8>>>)> = LazyLock::new(serve);
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    }
    let (address, answers) = &*SERVER;
    // One at a time: the server says what was given to it last.
    let answers = answers.lock().unwrap();
    answers.send(data.to_vec()).unwrap();
    RUNTIME.with(|runtime| {
        LocalSet::new().block_on(runtime, async {
            let origin = Origin::of(&format!("http://{address}").parse().unwrap()).unwrap();
            let settings = Arc::new(Settings::new("any", origin));
            let pool = Pool::new(&TlsCache::default(), settings, 1, Arc::default()).unwrap();
            let request = Request::builder().uri("/").header("host", "any");
            let request = request.body(Body::empty()).unwrap();
            let connection = pool.acquire(Reuse::Never, None).await.ok()?;
            let response = connection.send(request).await.ok()?.response;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?;
            Some((status, body.to_bytes().to_vec()))
        })
    })
}

/// A server that answers each connection with what it was last given.
fn serve() -> (SocketAddr, Mutex<Sender<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, answers) = channel::<Vec<u8>>();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let Ok(answer) = answers.recv() else { return };
            let mut buffer = [0; 1024];
            let _head = stream.read(&mut buffer);
            // It may be refused before it is all told.
            let _told = stream.write_all(&answer).and_then(|()| stream.shutdown(Shutdown::Write));
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    });
    (address, Mutex::new(sender))
}

/// The first final answer to a GET in these bytes, if it is whole in every respect (RFC 9112). What a
/// recipient may forgive in a head is forgiven: a line that ends with LF alone (section 2.2), a space
/// before the colon of an answer (section 5.1), a folded line (section 5.2), an equal length repeated
/// (section 6.3).
fn strict(mut data: &[u8]) -> Option<(u16, Vec<u8>)> {
    loop {
        while let Some(rest) = data.strip_prefix(b"\r\n").or(data.strip_prefix(b"\n")) {
            data = rest;
        }
        let (lines, rest) = head_lines(data)?;
        let mut lines = lines.iter().map(Vec::as_slice);
        let (old, status) = status_line(lines.next()?)?;
        let fields: Vec<_> = lines.map(field).collect::<Option<_>>()?;
        // An interim answer ends with its head, whatever its fields say of a body (RFC 9112 section 6.3).
        match status {
            101 => return None,
            100..200 => {
                data = rest;
                continue;
            }
            _ => {}
        }
        let all = |wanted: &str| -> Vec<&[u8]> {
            let known =
                fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
            known.map(|(_, value)| *value).collect()
        };
        let body = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
            ([], []) => rest.to_vec(),
            (lengths @ [_, ..], []) => {
                let length = one_length(lengths)?;
                match status {
                    204 | 304 => Vec::new(),
                    _ => rest.get(..usize::try_from(length).ok()?)?.to_vec(),
                }
            }
            ([], [coding]) if !old && coding.eq_ignore_ascii_case(b"chunked") => match status {
                204 | 304 => Vec::new(),
                _ => chunks(rest)?,
            },
            _ => return None,
        };
        match status {
            204 | 304 => return Some((status, Vec::new())),
            _ => return Some((status, body)),
        }
    }
}

/// The one number that all lines of Content-Length say.
fn one_length(lines: &[&[u8]]) -> Option<u64> {
    let mut members = lines.iter().flat_map(|line| line.split(|byte| *byte == b','));
    let number = |member: &[u8]| {
        let text = std::str::from_utf8(member.trim_ascii()).ok()?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    let first: u64 = number(members.next()?)?;
    members.all(|member| number(member) == Some(first)).then_some(first)
}

/// The lines of a head, unfolded, and what comes after its empty line.
fn head_lines(data: &[u8]) -> Option<(Vec<Vec<u8>>, &[u8])> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut rest = data;
    loop {
        let at = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..at].strip_suffix(b"\r").unwrap_or(&rest[..at]);
        rest = &rest[at + 1..];
        if line.contains(&b'\r') {
            return None;
        }
        match (line, lines.last_mut()) {
            ([], Some(_)) => return Some((lines, rest)),
            ([b' ' | b'\t', ..], Some(last)) => {
                last.push(b' ');
                last.extend_from_slice(line.trim_ascii());
            }
            (line, _) => lines.push(line.to_vec()),
        }
    }
}

fn status_line(line: &[u8]) -> Option<(bool, u16)> {
    let old = line.starts_with(b"HTTP/1.0 ");
    if !old && !line.starts_with(b"HTTP/1.1 ") {
        return None;
    }
    let (code, reason) = line[9..].split_at_checked(3)?;
    let text = |byte: &u8| *byte == b'\t' || (b' '..=b'~').contains(byte) || *byte >= 0x80;
    let sound = reason.is_empty() || (reason[0] == b' ' && reason.iter().all(text));
    let code: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
    let digits = line[9..12].iter().all(u8::is_ascii_digit);
    (sound && digits && code >= 100).then_some((old, code))
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (line[..at].trim_ascii_end(), line[at + 1..].trim_ascii());
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let text = |byte: &u8| *byte == b'\t' || (b' '..=b'~').contains(byte) || *byte >= 0x80;
    (!name.is_empty() && name.iter().all(token) && value.iter().all(text)).then_some((name, value))
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let at = rest.windows(2).position(|two| two == b"\r\n")?;
        let (line, after) = (&rest[..at], &rest[at + 2..]);
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = line[digits..].trim_ascii_start();
        // An extension is dropped, whatever bytes it has but those that end lines.
        let ends_line = line.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        let sound = extension.is_empty() || extension[0] == b';';
        if !sound || ends_line {
            return None;
        }
        let size = std::str::from_utf8(&line[..digits]).ok()?;
        let size = usize::try_from(u64::from_str_radix(size, 16).ok()?).ok()?;
        if size == 0 {
            return filter_trailers(after).then_some(body);
        }
        body.extend(after.get(..size)?);
        rest = after[size..].strip_prefix(b"\r\n")?;
    }
}

/// True if trailers end with an empty line, and each is a field. A line may end with LF alone (RFC 9112
/// section 2.2).
fn filter_trailers(rest: &[u8]) -> bool {
    for line in rest.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { return false };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return true;
        }
        if field(line).is_none() {
            return false;
        }
    }
    false
}
