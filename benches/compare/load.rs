//! The load: clients on one thread that ask, read the answer to its end, and ask again.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// What each client sends, over and over.
#[derive(Clone)]
pub struct Job {
    /// Paths, in turn.
    pub paths: Vec<String>,
    /// Bytes of a request body; `None` is a GET.
    pub post: Option<usize>,
    /// A new connection for each request.
    pub close: bool,
    /// Clients that ask at the same time.
    pub clients: usize,
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After this many answers.
    Requests(u64),
    /// After this time.
    Elapsed(Duration),
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    /// Answers 200, read to their end.
    pub answered: u64,
    /// Everything else.
    pub failed: u64,
}

/// Loads a proxy.
pub fn run(address: SocketAddr, job: &Job, until: Until) -> Outcome {
    let started = Instant::now();
    let count = Rc::new(Count { until, started, asked: 0.into(), good: 0.into(), bad: 0.into() });
    crate::machine::runtime().block_on(LocalSet::new().run_until(async {
        let clients: Vec<_> = (0..job.clients)
            .map(|number| {
                let (job, count) = (job.clone(), Rc::clone(&count));
                tokio::task::spawn_local(client(address, job, number, count))
            })
            .collect();
        for client in clients {
            let _ = client.await;
        }
    }));
    Outcome { answered: count.good.get(), failed: count.bad.get() }
}

struct Count {
    until: Until,
    started: Instant,
    asked: Cell<u64>,
    good: Cell<u64>,
    bad: Cell<u64>,
}

impl Count {
    fn another(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        match self.until {
            Until::Requests(limit) => self.asked.get() <= limit,
            Until::Elapsed(limit) => self.started.elapsed() < limit,
        }
    }
}

async fn client(address: SocketAddr, job: Job, number: usize, count: Rc<Count>) {
    let requests: Vec<_> = job.paths.iter().map(|path| request(path, &job)).collect();
    let mut stream = None;
    let mut buffer = Vec::with_capacity(256 * 1024);
    for turn in number.. {
        if !count.another() {
            return;
        }
        let asked = ask(&mut stream, address, &requests[turn % requests.len()], &mut buffer).await;
        let tally = if matches!(asked, Ok(true)) { &count.good } else { &count.bad };
        tally.set(tally.get() + 1);
        if job.close || asked.is_err() {
            stream = None;
        }
    }
}

fn request(path: &str, job: &Job) -> Vec<u8> {
    let close = if job.close { "connection: close\r\n" } else { "" };
    let fields = format!("host: localhost\r\nuser-agent: load/1\r\naccept: */*\r\n{close}");
    match job.post {
        None => format!("GET {path} HTTP/1.1\r\n{fields}\r\n").into_bytes(),
        Some(size) => {
            let head = format!("POST {path} HTTP/1.1\r\n{fields}content-length: {size}\r\n\r\n")
                .into_bytes();
            [head, vec![b'x'; size]].concat()
        }
    }
}

/// Whether the answer is a 200, once it has been read to its end.
async fn ask(
    stream: &mut Option<TcpStream>,
    address: SocketAddr,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<bool> {
    let stream = match stream {
        Some(stream) => stream,
        None => {
            let fresh = TcpStream::connect(address).await?;
            fresh.set_nodelay(true)?;
            stream.insert(fresh)
        }
    };
    stream.write_all(request).await?;
    buffer.clear();
    let end = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize =
        length.and_then(|text| text.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut left = length.saturating_sub(buffer.len() - end);
    let good = head.starts_with("http/1.1 200");
    while left > 0 {
        buffer.clear();
        let read = stream.read_buf(buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(read);
    }
    Ok(good)
}

/// Connections that were used once and are then held open.
pub struct Idle(#[expect(dead_code, reason = "held open")] Vec<std::net::TcpStream>);

impl Idle {
    /// Opens them, one after the other.
    pub fn open(address: SocketAddr, path: &str, count: usize) -> io::Result<Self> {
        use std::io::{Read, Write};
        let mut all = Vec::with_capacity(count);
        let mut answer = [0; 4096];
        for _ in 0..count {
            let mut stream = std::net::TcpStream::connect(address)?;
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
            if !stream.read(&mut answer).is_ok_and(|_| answer.starts_with(b"HTTP/1.1 200")) {
                return Err(io::Error::other("an idle connection got no 200"));
            }
            all.push(stream);
        }
        Ok(Self(all))
    }
}
