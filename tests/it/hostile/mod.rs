//! What an attacker, a broken client or a broken upstream may send, as tables over raw sockets:
//! request bytes, the answer, and what the upstream saw of it.

// What may stand in a request line, and which path reaches which route.
mod targets;
// What may stand in a head.
mod heads;
// Where one request ends and the next begins.
mod framing;
// What comes back.
mod answers;
// How often a request arrives, whatever fails.
mod retries;
mod retries_http2;
// What runs out.
mod resource_exhaustion;
// What bytes spread over time come to.
mod over_time;
// What holds a place, and what is said beside an answer.
mod exchange_lifetime;
// What no table has.
mod message_boundaries;
// Whose answer it is.
mod recorder;
mod response_origin;

use std::cell::RefCell;

use bearer_proxy::proxy::code::Code;
use bearer_proxy::sandbox::{AuthServer, Persona};
use tempfile::TempDir;

pub use self::message_boundaries::used;
pub use self::recorder::{Act, Recorder, Seen};
use crate::support::{Answer, Proxy, auth_server, client, secret_file, soon};

/// The program between a raw client and a raw upstream.
pub struct Rig {
    pub proxy: Proxy,
    pub upstream: Recorder,
    #[allow(dead_code, reason = "it lives as long as its program")]
    pub auth: AuthServer,
    failed: RefCell<Vec<String>>,
    _secrets: TempDir,
}

/// Routes that most tables use.
pub const ROUTES: &str = r#"
    { name = "pay", path = "/pay", methods = ["POST"] },
    { name = "item", path = "/v1/items/{id}", methods = ["GET", "POST", "PUT", "OPTIONS"] },
    { name = "files", path = "/files/**", methods = ["GET", "POST"] },
"#;

impl Rig {
    /// The program with these routes. A FIN cancels nothing: rows end with one, and are to be refused
    /// for what they say.
    pub async fn start(routes: &str) -> Self {
        let upstreams = "[upstreams.bank]\nurl = \"{url}\"\nROUTES";
        Self::serving("half_closed = \"serve\"", upstreams, routes).await
    }

    /// The program with these upstream tables, in which `{url}`, `{id}` (a file with a secret) and
    /// `ROUTES` are filled in.
    pub async fn with(upstreams: &str, routes: &str) -> Self {
        Self::serving("", upstreams, routes).await
    }

    /// The same, with these lines under `[server]`.
    async fn serving(server: &str, upstreams: &str, routes: &str) -> Self {
        let (auth, upstream) = (auth_server(Persona::Sqr).await, Recorder::start().await);
        let secrets = TempDir::new().unwrap();
        let file =
            |name: &str, text: &str| secret_file(secrets.path(), name, text).display().to_string();
        let upstreams = upstreams
            .replace("{url}", &format!("http://{}", upstream.addr))
            .replace("{id}", &file("id", auth.client_id()))
            .replace("ROUTES", &format!("credential = \"a\"\nroutes = [{routes}]"));
        let text = format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [credentials.a]\npreset = \"sqr\"\ntoken_url = \"{}\"\nclient_id.file = \"{}\"\n\
             client_secret.file = \"{}\"\n{upstreams}\n",
            auth.token_url(),
            file("id", auth.client_id()),
            file("key", auth.client_secret()),
        );
        let proxy = Proxy::start(&text).await;
        soon(proxy.wait_ready()).await;
        Self { proxy, upstream, auth, failed: RefCell::default(), _secrets: secrets }
    }

    /// Sends bytes, then perhaps a FIN; gives back the answer, if one came, what came after it until
    /// the connection closed (nothing if it is still open), and whether it is open.
    async fn exchange(&self, bytes: &[u8], finish: bool) -> (Option<Answer>, Option<Vec<u8>>) {
        let mut app = client(self.proxy.addr).await;
        app.send(bytes).await;
        if finish {
            app.finish().await;
        }
        let answer = soon(app.try_read("POST")).await;
        let open = answer.as_ref().is_some_and(|answer| answer.header("connection").is_none());
        let rest = if open { None } else { Some(app.read_to_close().await) };
        (answer, rest)
    }

    /// Notes a row that does not hold; the test fails when all have been tried.
    fn check(&self, holds: bool, row: &[u8], found: impl std::fmt::Display) {
        if !holds {
            self.failed.borrow_mut().push(format!("{}\n   {found}", show(row)));
        }
    }

    /// Sends bytes and expects a refusal: this status and code (none where it is hyper that refuses,
    /// which says no more than the status), a closed connection, and nothing at the upstream.
    pub async fn refuses(&self, bytes: impl AsRef<[u8]>, status: u16, code: &str) {
        let (bytes, before) = (bytes.as_ref(), self.upstream.count());
        let (answer, rest) = self.exchange(bytes, false).await;
        let found = answer.map(|answer| (answer.status, refusal(&answer)));
        self.check(found == Some((status, code.into())), bytes, format!("{found:?}"));
        self.check(rest.as_deref() == Some(b""), bytes, "not closed after one answer");
        self.check(self.upstream.count() == before, bytes, "forwarded");
    }

    /// Sends bytes and expects an answer of ours that leaves the connection open: this status and
    /// code, and nothing at the upstream.
    pub async fn declines(&self, bytes: impl AsRef<[u8]>, status: u16, code: &str) {
        let (bytes, before) = (bytes.as_ref(), self.upstream.count());
        let (answer, rest) = self.exchange(bytes, false).await;
        let found = answer.map(|answer| (answer.status, refusal(&answer)));
        self.check(found == Some((status, code.into())), bytes, format!("{found:?}"));
        self.check(rest.is_none(), bytes, "closed");
        self.check(self.upstream.count() == before, bytes, "forwarded");
    }

    /// Sends bytes and a FIN, and expects a refusal of any kind, a closed connection, and nothing
    /// at the upstream.
    pub async fn refuses_somehow(&self, bytes: impl AsRef<[u8]>) {
        let (bytes, before) = (bytes.as_ref(), self.upstream.count());
        let (answer, rest) = self.exchange(bytes, true).await;
        let status = answer.map_or(400, |answer| answer.status);
        let refused = (400..600).contains(&status) && ![401, 407, 499].contains(&status);
        self.check(refused, bytes, status);
        self.check(rest.is_none_or(|rest| rest.is_empty()), bytes, "more than one answer");
        self.check(self.upstream.count() == before, bytes, "forwarded");
    }

    /// Sends a request whose body is malformed or ends early, and a FIN. Expects no success, a closed
    /// connection, and no whole request at the upstream.
    pub async fn cuts(&self, bytes: impl AsRef<[u8]>) {
        let (bytes, before) = (bytes.as_ref(), self.upstream.whole());
        let (answer, rest) = self.exchange(bytes, true).await;
        let status = answer.map_or(400, |answer| answer.status);
        self.check((400..600).contains(&status) && status != 499, bytes, status);
        self.check(rest.as_deref() == Some(b""), bytes, "not closed after one answer");
        self.check(self.upstream.whole() == before, bytes, "taken for whole");
    }

    /// Sends bytes and expects the upstream to see this request line and body, once, with our
    /// token and no other, and the app to get its answer.
    pub async fn passes(&self, bytes: impl AsRef<[u8]>, line: &str, body: &str) -> Seen {
        let (bytes, before) = (bytes.as_ref(), self.upstream.count());
        let (answer, _) = self.exchange(bytes, false).await;
        let status = answer.map(|answer| answer.status);
        self.check(status == Some(200), bytes, format!("{status:?}"));
        let seen = self.upstream.seen();
        self.check(seen.len() == before + 1, bytes, format!("sent {} times", seen.len() - before));
        let Some(seen) = seen.last().cloned() else { panic!("nothing was ever sent") };
        self.check(seen.line() == line, bytes, seen.line());
        self.check(seen.body == body.as_bytes(), bytes, show(&seen.body));
        let tokens = seen.header("authorization");
        let ours = tokens.len() == 1 && tokens[0].starts_with("Bearer demo-");
        self.check(ours, bytes, &seen.head);
        seen
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let failed = self.failed.borrow();
        if !failed.is_empty() && !std::thread::panicking() {
            panic!("{} rows do not hold:\n{}", failed.len(), failed.join("\n"));
        }
    }
}

/// The code of an answer of ours, which says so in all its ways; none for hyper's own, which has no
/// body and says nothing but that the connection ends, and for answers of the upstream.
pub fn refusal(answer: &Answer) -> String {
    if answer.header("content-type") != Some("application/problem+json") {
        return String::new();
    }
    let document = answer.json();
    let code = document["code"].as_str().unwrap().to_owned();
    let known = Code::ALL.into_iter().find(|known| known.as_str() == code).unwrap();
    assert_eq!(
        (answer.status, &document["status"]),
        (known.status().as_u16(), &answer.status.into())
    );
    assert!(
        known.forwarded().iter().any(|word| document["forwarded"] == word.as_str()),
        "{document}"
    );
    assert_eq!(answer.header("bearer-proxy-forwarded"), document["forwarded"].as_str());
    for name in ["x-request-id", "bearer-proxy-request-id"] {
        assert_eq!(answer.header(name), document["request_id"].as_str(), "{name}");
    }
    assert!(answer.header("proxy-status").unwrap().contains(&format!("details=\"{code}\"")));
    code
}

/// Bytes as a failed row shows them.
fn show(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(200)
        .flat_map(|byte| std::ascii::escape_default(*byte))
        .map(char::from)
        .collect()
}
