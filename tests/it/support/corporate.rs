//! A fake corporate proxy that takes CONNECT.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does about one head: tunnel to an address, or answer with these bytes and hang up.
pub enum Verdict {
    /// Answers 200 and leads the tunnel there, whatever host was asked for.
    Lead(SocketAddr),
    /// Answers so.
    Say(&'static str),
}

/// The fake. Ended when dropped.
pub struct Corporate {
    /// Where it listens.
    pub addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Corporate {
    /// Starts one that asks `judge` about each head.
    pub async fn start(judge: impl Fn(&str) -> Verdict + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (seen, judge) = (Arc::clone(&heads), Arc::new(judge));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, judge) = (Arc::clone(&seen), Arc::clone(&judge));
                tokio::spawn(async move { converse(stream, &seen, &*judge).await });
            }
        });
        Self { addr, heads, task }
    }

    /// Every head it was sent, in clear text.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Corporate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    mut stream: TcpStream,
    heads: &Mutex<Vec<String>>,
    judge: &(dyn Fn(&str) -> Verdict + Send + Sync),
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let verdict = judge(&head);
    heads.lock().unwrap().push(head);
    match verdict {
        // Whoever hangs up here is the story.
        Verdict::Say(bytes) => drop(stream.write_all(bytes.as_bytes()).await),
        Verdict::Lead(to) => {
            let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
            if let (Ok(()), Ok(mut there)) =
                (stream.write_all(established).await, TcpStream::connect(to).await)
            {
                let _ended = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
            }
        }
    }
}
