//! The server behind every proxy: plain and TLS, with a token endpoint.
//!
//! `/NAME/SIZE` is answered with that many bytes, if the request bears a token; otherwise with 401,
//! so that a proxy which attaches none is seen to fail.

use std::io;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Where the origin listens, and the certificate that clients must trust.
pub struct Origin {
    pub http: u16,
    pub https: u16,
    pub ca_pem: String,
}

/// Bytes of bodies are taken from here.
static FILLER: [u8; 64 * 1024] = [b'x'; 64 * 1024];
/// The longest head that is read.
const MAX_HEAD: usize = 16 * 1024;

impl Origin {
    /// Starts it on a thread of its own, pinned to a core.
    pub fn start(core: usize) -> io::Result<Self> {
        let (plain, tls) = (bind()?, bind()?);
        let (http, https) = (plain.local_addr()?.port(), tls.local_addr()?.port());
        let (acceptor, ca_pem) = acceptor().map_err(io::Error::other)?;
        thread::Builder::new().name("origin".into()).spawn(move || {
            crate::machine::pin(core);
            let runtime = crate::machine::runtime();
            runtime.block_on(async move {
                let tls = tokio::spawn(accept(tls, Some(acceptor)));
                accept(plain, None).await;
                drop(tls);
            });
        })?;
        Ok(Self { http, https, ca_pem })
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

async fn accept(listener: std::net::TcpListener, tls: Option<TlsAcceptor>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let tls = tls.clone();
        tokio::spawn(async move {
            let _ = match tls {
                None => serve(stream).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(2 * MAX_HEAD);
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if buffer.len() > MAX_HEAD || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let asked = Asked::read(&head);
        let mut left = asked.body.saturating_sub(buffer.len() - end);
        buffer.drain(..(end + asked.body).min(buffer.len()));
        while left > 0 {
            buffer.clear();
            let read = stream.read_buf(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            left = left.saturating_sub(read);
            buffer.clear();
        }
        answer(&mut stream, &asked).await?;
    }
}

/// What a head asks for.
struct Asked {
    token_life: Option<u64>,
    bears: bool,
    body: usize,
    size: usize,
}

impl Asked {
    fn read(head: &str) -> Self {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let number = |text: &str| text.trim().parse().unwrap_or(0);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        Self {
            token_life: path.strip_prefix("/token/").map(|life| number(life) as u64),
            bears: field("authorization:").is_some_and(|value| value.contains("bearer tok-")),
            body: field("content-length:").map_or(0, number),
            size: path.rsplit('/').next().map_or(0, number),
        }
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
    let mut first = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n\r\n"
    )
    .into_bytes();
    let with_head = size.min(FILLER.len());
    first.extend_from_slice(&FILLER[..with_head]);
    stream.write_all(&first).await?;
    let mut left = size - with_head;
    while left > 0 {
        let part = left.min(FILLER.len());
        stream.write_all(&FILLER[..part]).await?;
        left -= part;
    }
    stream.flush().await
}
