//! Apps that are sockets: each sends one request after the other over a connection that it keeps,
//! and tells exactly one outcome of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::World;

/// No answer takes longer than all time-outs together.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an app was told of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer of a bank, and whose answer it says it is.
    Whole { status: u16, id: usize },
    /// A whole answer of the proxy.
    Refused { code: String, forwarded: String },
    /// An answer that ended before its end.
    Cut,
    /// The app did not wait.
    Left,
    /// What no app can make sense of.
    Strange(String),
}

impl Outcome {
    /// Its kind, for counting.
    pub fn name(&self) -> String {
        match self {
            Self::Whole { status, .. } => format!("whole {status}"),
            Self::Refused { code, forwarded } => format!("{code}, forwarded: {forwarded}"),
            Self::Cut => "cut".into(),
            Self::Left => "the app left".into(),
            Self::Strange(_) => "strange".into(),
        }
    }
}

/// Sends requests until there are no more.
pub async fn send(world: Arc<World>, proxy: SocketAddr, number: usize) {
    let mut dice = fastrand::Rng::with_seed(world.seed ^ number as u64);
    let mut kept = None;
    while let Some(id) = world.take() {
        let (stream, buffer) = match kept.take() {
            Some(open) => open,
            None => (TcpStream::connect(proxy).await.unwrap(), Vec::new()),
        };
        let mut app = App { stream, buffer };
        let method = if dice.bool() { "GET" } else { "POST" };
        let request = request(&mut dice, method, id);
        // Some leave before they have sent all, some before they were answered.
        let leaves = (dice.u32(0..200) == 0).then(|| dice.usize(1..=request.len()));
        let asked = app.ask(&request, leaves);
        let (outcome, open) = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(told) => told,
            Err(_) => (Outcome::Strange("no answer at all".into()), false),
        };
        if open {
            kept = Some((app.stream, app.buffer));
        }
        world.judge(id, method, &outcome);
    }
}

fn request(dice: &mut fastrand::Rng, method: &str, id: usize) -> Vec<u8> {
    let bank = if dice.bool() { "a" } else { "b" };
    let way = if method == "GET" { "read" } else { "pay" };
    let head = format!("{method} /{bank}/{way}/{id} HTTP/1.1\r\nHost: localhost\r\n");
    if method == "GET" {
        return format!("{head}\r\n").into();
    }
    let body = "y".repeat(dice.usize(0..3000));
    if dice.u32(0..4) == 0 {
        let length = body.len().max(1);
        let body = if body.is_empty() { "y" } else { &body };
        let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        return format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n").into();
    }
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into()
}

struct App {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl App {
    /// One request and its outcome, and whether the connection can be used again.
    async fn ask(&mut self, request: &[u8], leaves: Option<usize>) -> (Outcome, bool) {
        // An early answer may end the connection before all is written.
        let _cut = self.stream.write_all(&request[..leaves.unwrap_or(request.len())]).await;
        if leaves.is_some() {
            return (Outcome::Left, false);
        }
        let Some(head) = self.head().await else {
            return (Outcome::Strange("closed without an answer".into()), false);
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let field = |name: &str| {
            let mut all = head.lines().filter_map(|line| line.split_once(':'));
            all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let body = match field("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => self.exactly(length).await,
            None => self.chunks().await,
        };
        let open = field("connection") != Some("close");
        let Some(body) = body else { return (Outcome::Cut, false) };
        let text = String::from_utf8_lossy(&body).into_owned();
        if let Some(forwarded) = field("bearer-proxy-forwarded") {
            let code = text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
            let code = code.unwrap_or_default().to_owned();
            return (Outcome::Refused { code, forwarded: forwarded.to_owned() }, open);
        }
        match text.split(':').nth(1).and_then(|id| id.parse().ok()) {
            Some(id) => (Outcome::Whole { status, id }, open),
            None => (Outcome::Strange(format!("{head}{text}")), false),
        }
    }

    async fn fill(&mut self) -> Option<()> {
        self.stream.read_buf(&mut self.buffer).await.ok().filter(|count| *count > 0).map(drop)
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return String::from_utf8(head).ok();
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.buffer.windows(2).position(|two| two == b"\r\n") {
                    Some(at) => break at,
                    None => self.fill().await?,
                }
            };
            let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?, 16).ok()?;
            let mut chunk = self.exactly(size + 2).await?;
            chunk.truncate(size);
            body.extend(chunk);
            if size == 0 {
                return Some(body);
            }
        }
    }
}
