//! The story harness.
//!
//! ```ignore
//! let sandbox = Sandbox::start(lifetime).await.unwrap();       // fake token servers and fake APIs
//! let proxy = Proxy::start(&support::config(&sandbox, &dir)).await; // the real binary, as a child
//! let mut client = support::client(proxy.addr).await;         // a socket, nothing in between
//! let answer = client.get("/qbank/v1/balances/42").await;
//! assert_eq!(answer.status, 200);
//! ```

#![allow(dead_code, reason = "each story uses its part of the harness")]

mod client;
pub mod corporate;
pub mod http2;
mod proxy;
pub mod secured;
pub mod service;
pub mod tls;

use std::future::Future;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearer_proxy::sandbox::{
    AuthOptions, AuthServer, Bank, Persona, Sandbox, Upstream, UpstreamOptions,
};

#[allow(unused_imports, reason = "each story uses its part of the harness")]
pub use client::{Answer, Client, RawServer, client, raw_server};
#[allow(unused_imports, reason = "each story uses its part of the harness")]
pub use proxy::{Proxy, collect};

/// No event in a story takes longer than this on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for an event and fails the story, at the line that waits, if it does not come.
#[track_caller]
pub fn soon<T>(event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, event).await {
            Ok(value) => value,
            Err(_) => panic!("nothing happened within {PATIENCE:?} at {caller}"),
        }
    }
}

/// A fake token server on a free port, with tokens that live an hour.
pub async fn auth_server(persona: Persona) -> AuthServer {
    AuthServer::start(persona, AuthOptions::for_persona(persona)).await.unwrap()
}

/// A fake API that trusts `auth`.
pub async fn upstream(auth: &AuthServer) -> Upstream {
    let (persona, ledgers) = (auth.persona(), vec![auth.ledger().clone()]);
    Upstream::start(UpstreamOptions { persona, ledgers, port: 0 }).await.unwrap()
}

/// A fake token server and its API, with tokens that live an hour.
pub async fn bank(persona: Persona) -> Bank {
    Bank::start(persona, Duration::from_secs(3600)).await.unwrap()
}

/// Waits until the bank has issued `count` more tokens.
pub async fn issued(bank: &Bank, count: usize) {
    let so_far = bank.auth.ledger().issued().len();
    soon(bank.auth.ledger().wait_issued(so_far + count)).await;
}

/// Writes a secret into a file that only its owner may read, as the program demands.
pub fn secret_file(dir: &std::path::Path, name: &str, text: &str) -> std::path::PathBuf {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let path = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    path
}

/// A new Ed25519 key as a JWK (RFC 8037), and its public half.
pub fn ed25519_jwk() -> (String, Vec<u8>) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    // Version 1 ends with the seed (RFC 8410 section 7).
    let (_, seed) = pkcs8.as_ref().split_at(pkcs8.as_ref().len() - 32);
    let public = pair.public_key().as_ref().to_vec();
    let [d, x] = [seed, &public].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let jwk = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "d": d, "x": x });
    (jwk.to_string(), public)
}

/// The program's configuration for a whole sandbox, on free ports. The secrets' directory must
/// live as long as the program.
pub fn config(sandbox: &Sandbox, secrets: &tempfile::TempDir) -> String {
    sandbox.write_secrets(secrets.path()).unwrap();
    sandbox.config_toml("127.0.0.1:0", "127.0.0.1:0", secrets.path())
}

/// A proxy in front of one upstream that takes any path, with a token for it.
pub struct Fronted {
    pub proxy: Proxy,
    pub auth: AuthServer,
    _secrets: tempfile::TempDir,
}

impl std::ops::DerefMut for Fronted {
    fn deref_mut(&mut self) -> &mut Proxy {
        &mut self.proxy
    }
}

impl std::ops::Deref for Fronted {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

/// What a story needs of a configuration beyond the least; lines of TOML.
#[derive(Default)]
pub struct Extra<'a> {
    pub server: &'a str,
    pub credential: &'a str,
    pub upstream: &'a str,
    pub route: &'a str,
    /// Tables of their own.
    pub more: &'a str,
    /// Of tokens; an hour unless told.
    pub lifetime: Option<Duration>,
}

/// Puts a proxy in front of `url` and waits until it holds a token.
pub async fn in_front_of(url: &str, extra: Extra<'_>) -> Fronted {
    let Extra { server, credential, upstream, route, more, lifetime } = extra;
    let mut options = AuthOptions::for_persona(Persona::Sqr);
    options.lifetime = lifetime.unwrap_or(options.lifetime);
    let auth = AuthServer::start(Persona::Sqr, options).await.unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let id = secret_file(secrets.path(), "id", auth.client_id());
    let key = secret_file(secrets.path(), "key", auth.client_secret());
    let text = format!(
        r#"version = 1
[server]
listen = "127.0.0.1:0"
{server}
[admin]
listen = "127.0.0.1:0"
[credentials.a]
preset = "sqr"
token_url = "{token_url}"
client_id.file = {id:?}
client_secret.file = {key:?}
{credential}
[upstreams.a]
url = "{url}"
credential = "a"
{upstream}
[[upstreams.a.routes]]
name = "all"
path = "/**"
methods = ["GET", "POST", "PUT", "OPTIONS"]
{route}
{more}
"#,
        token_url = auth.token_url(),
    );
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    Fronted { proxy, auth, _secrets: secrets }
}
