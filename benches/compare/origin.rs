//! The server behind every proxy: plain and TLS, with a token endpoint.
//!
//! `/NAME/SIZE` is answered with that many bytes, if the request bears a token; otherwise with 401,
//! so that a proxy which attaches none is seen to fail. Segments between change the answer:
//! `wait-50` has it come after 50 ms, `chunked` sends it in chunks, `closing` ends the connection. With
//! `unread` nothing of the request's body is read and nothing is answered, and with `half-900` the
//! answer is 900 bytes of a head that does not end, both for [`STANDSTILL`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use memchr::memmem;
use rustls::HandshakeKind;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::client::{LAST_CHUNK, chunks, more, read_chunks};

/// Where the origin listens, and the certificate that clients must trust.
pub struct Origin {
    pub http: u16,
    pub https: u16,
    pub ca_pem: String,
    pub seen: Arc<Seen>,
}

/// What the origin counts.
#[derive(Default)]
pub struct Seen {
    /// Connections that are open.
    pub open: AtomicU64,
    /// The most that were open at the same time.
    pub most_open: AtomicU64,
    /// TLS handshakes with certificates.
    pub full_handshakes: AtomicU64,
    /// TLS handshakes that went on from an earlier one.
    pub resumed_handshakes: AtomicU64,
    /// Tokens given out.
    pub tokens: AtomicU64,
}

/// Bytes of bodies are taken from here.
static FILLER: [u8; 64 * 1024] = [b'x'; 64 * 1024];
/// The longest head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection lasts on which nothing more happens.
const STANDSTILL: Duration = Duration::from_secs(30);

impl Origin {
    /// Starts it on a thread of its own, pinned to a core.
    pub fn start(core: usize) -> io::Result<Self> {
        let (plain, tls) = (bind()?, bind()?);
        let (http, https) = (plain.local_addr()?.port(), tls.local_addr()?.port());
        let (acceptor, ca_pem) = acceptor().map_err(io::Error::other)?;
        let seen = Arc::new(Seen::default());
        let counted = Arc::clone(&seen);
        thread::Builder::new().name("origin".into()).spawn(move || {
            crate::machine::pin(core);
            let runtime = crate::machine::runtime();
            runtime.block_on(async move {
                let tls = tokio::spawn(accept(tls, Some(acceptor), Arc::clone(&counted)));
                accept(plain, None, counted).await;
                drop(tls);
            });
        })?;
        Ok(Self { http, https, ca_pem, seen })
    }
}

fn bind() -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A certificate for `localhost` under an authority made for this run.
fn acceptor() -> Result<(TlsAcceptor, String), Box<dyn std::error::Error + Send + Sync>> {
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    // OpenSSL takes a leaf with its issuer's name for one that signed itself.
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority of this run");
    let issuer_key = rcgen::KeyPair::generate()?;
    let ca_pem = authority.self_signed(&issuer_key)?.pem();
    let issuer = rcgen::Issuer::new(authority, issuer_key);
    let key = rcgen::KeyPair::generate()?;
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()])?.signed_by(&key, &issuer)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca_pem))
}

async fn accept(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, seen: Arc<Seen>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let open = seen.open.fetch_add(1, Relaxed) + 1;
            seen.most_open.fetch_max(open, Relaxed);
            let _ = match tls {
                None => serve(stream, &seen).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => {
                        seen.handshake(stream.get_ref().1.handshake_kind());
                        serve(stream, &seen).await
                    }
                    Err(error) => Err(error),
                },
            };
            seen.open.fetch_sub(1, Relaxed);
        });
    }
}

impl Seen {
    fn handshake(&self, kind: Option<HandshakeKind>) {
        let count = match kind {
            Some(HandshakeKind::Resumed) => &self.resumed_handshakes,
            _ => &self.full_handshakes,
        };
        count.fetch_add(1, Relaxed);
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(2 * MAX_HEAD);
    loop {
        let end = loop {
            if let Some(at) = memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if buffer.len() > MAX_HEAD || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let asked = Asked::read(&String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase());
        buffer.drain(..end);
        if asked.stands_still() {
            stream.write_all(&half_head(asked.half)).await?;
            stream.flush().await?;
            tokio::time::sleep(STANDSTILL).await;
            return Ok(());
        }
        read_body(&mut stream, &mut buffer, asked.body).await?;
        if asked.wait > Duration::ZERO {
            tokio::time::sleep(asked.wait).await;
        }
        if asked.token_life.is_some() {
            seen.tokens.fetch_add(1, Relaxed);
        }
        answer(&mut stream, &asked).await?;
        if asked.closing {
            return stream.shutdown().await;
        }
    }
}

/// So many bytes of a head, and no end of it.
fn half_head(bytes: usize) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\nx-fill: ".to_vec();
    head.resize(bytes, b'x');
    head
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    body: Framing,
) -> io::Result<()> {
    match body {
        Framing::Length(mut left) => {
            while left > buffer.len() {
                left -= buffer.len();
                buffer.clear();
                more(stream, buffer).await?;
            }
            buffer.drain(..left);
        }
        Framing::Chunks => {
            read_chunks(stream, buffer).await?;
            buffer.clear();
        }
    }
    Ok(())
}

/// How the end of a body is known.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunks,
}

/// What a head asks for.
struct Asked {
    token_life: Option<u64>,
    bears: bool,
    body: Framing,
    size: usize,
    wait: Duration,
    chunked: bool,
    closing: bool,
    unread: bool,
    /// Bytes of a head that does not end; 0: none.
    half: usize,
}

impl Asked {
    fn read(head: &str) -> Self {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let number = |text: &str| text.trim().parse().unwrap_or(0);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let segment = |name: &str| path.split('/').any(|segment| segment == name);
        let after = |name: &str| path.split('/').find_map(|segment| segment.strip_prefix(name));
        let body = match field("transfer-encoding:") {
            Some(_) => Framing::Chunks,
            None => Framing::Length(field("content-length:").map_or(0, number)),
        };
        Self {
            token_life: path.strip_prefix("/token/").map(|life| number(life) as u64),
            bears: field("authorization:").is_some_and(|value| value.contains("bearer tok-")),
            body,
            size: path.rsplit('/').next().map_or(0, number),
            wait: Duration::from_millis(after("wait-").map_or(0, number) as u64),
            chunked: segment("chunked"),
            closing: segment("closing"),
            unread: segment("unread"),
            half: after("half-").map_or(0, number),
        }
    }

    fn stands_still(&self) -> bool {
        self.bears && (self.unread || self.half > 0)
    }
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), asked: &Asked) -> io::Result<()> {
    if let Some(life) = asked.token_life {
        let secret: u64 = fastrand::u64(..);
        let body = format!(
            r#"{{"access_token":"tok-{secret:016x}-0123456789abcdefghijklmnopqrstuvwxyz","token_type":"Bearer","expires_in":{life}}}"#
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
        return stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    }
    let (status, size) = if asked.bears { ("200 OK", asked.size) } else { ("401 Refused", 0) };
    let closing = if asked.closing { "connection: close\r\n" } else { "" };
    let framing = match asked.chunked {
        true => "transfer-encoding: chunked".to_owned(),
        false => format!("content-length: {size}"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\n{closing}{framing}\r\n\r\n"
    );
    match asked.chunked {
        true => write_chunks(stream, head.into_bytes(), size).await?,
        false => write_bytes(stream, head.into_bytes(), size).await?,
    }
    stream.flush().await
}

async fn write_bytes(
    stream: &mut (impl AsyncWrite + Unpin),
    mut first: Vec<u8>,
    size: usize,
) -> io::Result<()> {
    let with_head = size.min(FILLER.len());
    first.extend_from_slice(&FILLER[..with_head]);
    stream.write_all(&first).await?;
    let mut left = size - with_head;
    while left > 0 {
        let part = left.min(FILLER.len());
        stream.write_all(&FILLER[..part]).await?;
        left -= part;
    }
    Ok(())
}

/// In writes as large as those of [`write_bytes`], so that only the framing differs.
async fn write_chunks(
    stream: &mut (impl AsyncWrite + Unpin),
    mut first: Vec<u8>,
    size: usize,
) -> io::Result<()> {
    let whole = chunks(FILLER.len());
    let mut left = size;
    while left >= FILLER.len() {
        first.extend_from_slice(&whole);
        stream.write_all(&first).await?;
        first.clear();
        left -= FILLER.len();
    }
    first.extend_from_slice(&chunks(left));
    first.extend_from_slice(LAST_CHUNK);
    stream.write_all(&first).await
}
