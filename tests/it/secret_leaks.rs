//! What is never said. One secret and all tokens of a run full of faults are looked for in everything
//! that the program says: both streams, its log at its loudest, metrics, status, its answers, its
//! verbs' words.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bearer_proxy::sandbox::{AuthServer, Bank, Fault, Persona, ScriptedResponse};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    Answer, Client, Proxy, RawServer, auth_server, client, raw_server, secret_file, soon,
};

/// Part of every secret here, in every encoding that leaves letters as they are.
const CANARY: &str = "cAnArY";

/// A secret that no two encodings write alike.
const SECRET: &str = "cAnArY+s3cr3t/%=&\"x";

/// A client's own token, and a key that upstreams are sent.
const OWN: &str = "cAnArY-of-the-app";

/// Everything that was heard, with where.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    fn add(&mut self, from: impl Into<String>, words: impl Into<String>) {
        self.0.push((from.into(), words.into()));
    }

    /// An answer of the program's own: all of it.
    fn answer(&mut self, from: &str, answer: &Answer) {
        self.add(from, format!("{:?}\n{}", answer.headers, answer.text()));
    }

    /// Runs a verb and keeps what it says.
    async fn verb(&mut self, config: &Path, args: &[&str]) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
        command.args(args).arg("--config").arg(config).stdin(std::process::Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = soon(ended).await.unwrap();
        let words = [output.stdout, output.stderr].concat();
        self.add(args.join(" "), String::from_utf8(words).unwrap());
    }

    fn check_silence(&self, secrets: &[String]) {
        assert!(self.0.iter().all(|(_, words)| !words.is_empty()));
        for (from, words) in &self.0 {
            for secret in secrets {
                assert!(!words.contains(secret.as_str()), "{secret} in {from}:\n{words}");
            }
        }
    }
}

/// A token server that quotes each request wherever an answer has room for it.
async fn quote_all(server: RawServer) {
    loop {
        let mut connection = server.accept().await;
        tokio::spawn(async move { quote(&mut connection).await });
    }
}

async fn quote(connection: &mut Client) {
    let head = connection.read_head().await;
    let field = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
    };
    let length = head.lines().find_map(field).unwrap_or(0);
    let body = String::from_utf8(connection.read_bytes(length).await).unwrap();
    let said = format!("no client has the secret {SECRET}");
    let answer = serde_json::json!({
        "error": SECRET, "error_description": said, "error_uri": body, "request": head,
        "token_type": SECRET, "scope": SECRET,
    });
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 401 {CANARY}\r\nWWW-Authenticate: Basic realm=\"{body}\"\r\nX-Quoted: {CANARY}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    connection.send(head + &answer).await;
}

/// Two credentials with the same secret: a bank's, and that of a server that quotes.
fn config(bank: &Bank, auth: &AuthServer, quoting: &str, dir: &Path) -> String {
    format!(
        r#"version = 1
server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
log.level = "trace"
log.access = "all"

[credentials.bank]
preset = "qbank"
token_url = "{token_url}"
client_id.file = {id:?}
client_secret.file = {secret:?}

[credentials.quoting]
token_url = "http://{quoting}/token"
client_auth = "client_secret_basic"
client_id.file = {id:?}
client_secret.file = {secret:?}

[credentials.without]
token_url = "http://{quoting}/token"
client_id.env = "QUOTED_{CANARY}"
client_secret.exec = ["/bin/sh", "-c", "echo {CANARY}; echo {CANARY} >&2; exit 3"]

[upstreams.bank]
url = "{api}"
credential = "bank"
mount = "/bank"
set_headers = {{ Ocp-Apim-Subscription-Key = {{ file = {key:?} }} }}
routes = [
  {{ name = "balances", path = "/v1/balances/{{id}}", methods = ["GET", "POST"], scopes = ["balances.read"] }},
  {{ name = "quoting", path = "/quoting", methods = ["GET"], scopes = ["a"], credential = "quoting" }},
  {{ name = "without", path = "/without", methods = ["GET"], scopes = ["a"], credential = "without" }},
]
"#,
        token_url = auth.token_url(),
        api = bank.api.base_url(),
        id = dir.join("id"),
        secret = dir.join("secret"),
        key = dir.join("key"),
    )
}

/// Everything that can go wrong with a token call, one after the other, before a person's eyes.
async fn token_faults(heard: &mut Heard, auth: &AuthServer, file: &Path) {
    let none = Duration::ZERO;
    for fault in [
        Fault::Html500,
        Fault::Status(400),
        Fault::Status(302),
        Fault::Malformed,
        Fault::InvalidClient,
        Fault::TooMany { retry_after: none },
        Fault::DropConnection,
        Fault::NoExpiry,
    ] {
        auth.set_faults([fault.clone()]);
        heard.verb(file, &["token", "bank", "--scopes", "balances.read"]).await;
        auth.set_faults([fault]);
        heard.verb(file, &["check", "--live", "-o", "json"]).await;
    }
    auth.set_faults([]);
    heard.verb(file, &["check", "--live"]).await;
    heard.verb(file, &["check"]).await;
    heard.verb(file, &["token", "quoting"]).await;
    heard.verb(file, &["token", "--route", "bank.balances"]).await;
    heard.verb(file, &["explain", "GET", "/bank/v1/balances/42?access_token=x"]).await;
}

/// Requests that are refused, answered wrongly, cut off.
async fn requests(heard: &mut Heard, bank: &Bank, proxy: &Proxy) {
    let mut app = client(proxy.addr).await;
    let own = format!("Bearer {OWN}");
    let balance = "/bank/v1/balances/42";
    for (method, target, headers) in [
        ("GET", "/nowhere".to_owned(), vec![("Authorization", own.as_str())]),
        ("GET", format!("{balance}?access_token={OWN}"), vec![]),
        ("DELETE", balance.to_owned(), vec![("Authorization", &own)]),
        ("GET", "/bank/quoting".to_owned(), vec![("Proxy-Authorization", &own)]),
        ("GET", "/bank/without".to_owned(), vec![("Cookie", &own)]),
    ] {
        let answer = app.request(method, &target, &headers, b"").await;
        assert!(answer.status >= 400, "{method} {target}: {}", answer.status);
        heard.answer(&format!("{method} {target}"), &answer);
    }
    let token = bank.auth.ledger().issued().last().unwrap().token.clone();
    let quoted = ScriptedResponse::Exactly {
        status: 401,
        headers: vec![
            ("x-quoted", format!("Bearer {token}")),
            ("www-authenticate", format!("Bearer error=\"invalid_token\", t=\"{token}\"")),
        ],
        body: bytes::Bytes::new(),
    };
    for reply in [
        quoted,
        ScriptedResponse::Challenge,
        ScriptedResponse::DropConnection,
        ScriptedResponse::DropConnection,
    ] {
        bank.api.set_responses([reply.clone(), reply]);
        let answer = app.request("POST", balance, &[("Authorization", &own)], OWN.as_bytes()).await;
        heard.answer(&format!("{balance} after a fault"), &answer);
        app = client(proxy.addr).await;
    }
    bank.api.set_responses([]);
    // A usual answer's body is the upstream's; its head is looked at.
    let answer = app.request("GET", balance, &[("Authorization", &own)], b"").await;
    heard.add(balance, format!("{:?}", answer.headers));
}

#[tokio::test]
async fn neither_secret_nor_token_is_ever_said() {
    let bank = Bank::start(Persona::QBank, Duration::from_secs(2)).await.unwrap();
    let dir = TempDir::new().unwrap();
    bank.auth.accept_secrets([SECRET.to_owned()]);
    secret_file(dir.path(), "id", bank.auth.client_id());
    secret_file(dir.path(), "secret", SECRET);
    secret_file(dir.path(), "key", OWN);
    let quoting = raw_server().await;
    let at = quoting.addr.to_string();
    let text = config(&bank, &bank.auth, &at, dir.path());
    // The verbs ask a token server of their own, whose faults the running program does not meet.
    let faulty = auth_server(Persona::QBank).await;
    faulty.accept_secrets([SECRET.to_owned()]);
    let asking = dir.path().join("asking.toml");
    std::fs::write(&asking, config(&bank, &faulty, &at, dir.path())).unwrap();
    let quoting = tokio::spawn(quote_all(quoting));
    let mut heard = Heard::default();

    let mut proxy = Proxy::start(&text).await;
    let file = proxy.config_path.clone();
    soon(bank.auth.ledger().wait_issued(1)).await;
    requests(&mut heard, &bank, &proxy).await;
    token_faults(&mut heard, &faulty, &asking).await;

    // A secret that is changed and refused, and then one that everybody may read.
    secret_file(dir.path(), "secret", &format!("{SECRET}-wrong"));
    proxy.wait_log(|line| line.contains("client secret is refused").then_some(())).await;
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(dir.path().join("secret"), everybody).unwrap();
    heard.verb(&file, &["check", "--live"]).await;
    // The secret where none belongs.
    let pasted = format!("version = 1\nclient_secret = '{SECRET}'");
    std::fs::write(&file, text.replace("version = 1", &pasted)).unwrap();
    heard.verb(&file, &["check", "-o", "json"]).await;
    heard.verb(&file, &["check"]).await;
    proxy.signal(Signal::HUP);
    proxy.wait_log(|line| line.contains("new configuration is refused").then_some(())).await;

    let mut admin = client(proxy.admin_addr).await;
    for page in
        ["/", "/livez", "/readyz", "/startupz", "/status", "/bundle", "/metrics", "/nothing"]
    {
        let answer = admin.get(page).await;
        heard.answer(page, &answer);
    }
    let at = proxy.admin_addr.to_string();
    heard.verb(&file, &["status", "--admin", &at]).await;
    heard.verb(&file, &["status", "--admin", &at, "-o", "json"]).await;
    heard.verb(&file, &["status", "--admin", &at, "--bundle", "-"]).await;
    proxy.signal(Signal::INT);
    proxy.wait_exit().await;
    heard.add("log", proxy.log());
    assert_eq!(proxy.output(), "", "stdout is for results of verbs");
    quoting.abort();

    let id = bank.auth.client_id();
    let issued = [bank.auth.ledger().issued(), faulty.ledger().issued()].concat();
    let mut secrets: Vec<String> = issued.into_iter().map(|issued| issued.token).collect();
    assert!(secrets.len() > 3);
    // Basic credentials: the id's part alone is no secret.
    let basic = STANDARD.encode(format!("{id}:{SECRET}"));
    secrets.push(basic[id.len() * 4 / 3 + 4..].to_owned());
    secrets.push(CANARY.to_owned());
    heard.check_silence(&secrets);
}
