//! A server of one story: TLS or none, HTTP/1.1 or HTTP/2, and a function that answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The server. Ended when dropped.
pub struct Service {
    /// Where it listens.
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

/// The certificate of the client, DER; an extension of each request that came over TLS with one.
#[derive(Clone)]
pub struct ClientLeaf(pub Vec<u8>);

/// What answers a request that came in whole.
type Answer = dyn Fn(&Request<Bytes>) -> Response<String> + Send + Sync;

impl Service {
    /// Starts one; without TLS it speaks HTTP/1.1.
    pub async fn start(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Request<Bytes>) -> Response<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answer: Arc<Answer> = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tls.clone(), Arc::clone(&answer)));
            }
        });
        Self { addr, task }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, answer: Arc<Answer>) {
    let leaf = Arc::new(OnceLock::<ClientLeaf>::new());
    let shown = Arc::clone(&leaf);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, shown) = (Arc::clone(&answer), Arc::clone(&shown));
        async move {
            let (mut head, body) = request.into_parts();
            if let Some(leaf) = shown.get() {
                head.extensions.insert(leaf.clone());
            }
            let body = body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
            let answer = answer(&Request::from_parts(head, body));
            Ok::<_, Infallible>(answer.map(|body| Full::new(Bytes::from(body))))
        }
    });
    // A client that hangs up, or refuses our certificate, is part of the story.
    let _ended = match tls {
        None => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            let chain = stream.get_ref().1.peer_certificates();
            if let Some(der) = chain.and_then(|chain| chain.first()) {
                let _first = leaf.set(ClientLeaf(der.to_vec()));
            }
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => {
                    let io = TokioIo::new(stream);
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                }
                _ => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
            }
        }
    };
}
