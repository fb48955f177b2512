//! The four vendors' example files as shipped, against servers that are bare sockets: the token
//! request is compared with the vendor's document byte by byte.
//!
//! Only addresses and the places of secrets are exchanged, so a file in `config/` that would not
//! work fails here.

use tempfile::TempDir;

use crate::support::{Client, Proxy, RawServer, client, raw_server, secret_file, soon};

/// A vendor with its example file, its token server and its API.
struct Vendor {
    tokens: RawServer,
    api: RawServer,
    proxy: Proxy,
    _secrets: TempDir,
}

impl Vendor {
    /// Runs `config/NAME.toml` with `preset` lines and addresses of its own replaced: `{tokens}`
    /// and `{api}` stand for the addresses of the two servers.
    async fn start(name: &str, replace: &[(&str, &str)]) -> Self {
        let (tokens, api) = (raw_server().await, raw_server().await);
        let secrets = TempDir::new().unwrap();
        let path = format!("{}/config/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let mut text = std::fs::read_to_string(path).unwrap();
        for (from, to) in replace {
            assert!(text.contains(from), "config/{name}.toml has no {from}");
            let to = to.replace("{tokens}", &format!("http://{}", tokens.addr));
            text = text.replace(from, &to.replace("{api}", &format!("http://{}", api.addr)));
        }
        text = with_secrets(&text, &secrets);
        text += "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        let proxy = Proxy::start(&text).await;
        Self { tokens, api, proxy, _secrets: secrets }
    }

    /// The next token call: its connection, head and body.
    async fn token_call(&self) -> (Client, String, String) {
        let mut call = self.tokens.accept().await;
        let head = call.read_head().await;
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        let body = String::from_utf8(call.read_bytes(length).await).unwrap();
        (call, head, body)
    }

    /// Sends one request through the proxy and returns what the API read of it, up to the body.
    async fn forwarded(&self, request: &str) -> String {
        let mut app = client(self.proxy.addr).await;
        app.send(request).await;
        let mut seen = self.api.accept().await;
        let head = seen.read_head().await;
        seen.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(soon(app.read("GET")).await.text(), "ok");
        head
    }
}

/// Puts the id `an+id` and the secret `a secret&more` where the file looks for them.
pub fn with_secrets(text: &str, dir: &TempDir) -> String {
    secret_file(dir.path(), "id", "an+id");
    secret_file(dir.path(), "secret", "a secret&more\n");
    let line = |line: &str| match line.split(['.', ' ']).next() {
        Some(key @ ("client_id" | "client_secret")) => {
            let file = dir.path().join(key.trim_start_matches("client_"));
            format!("{key}.file = {:?}\n", file.to_str().unwrap())
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The value of a header in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let of = |line: &'a str| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().find_map(of)
}

/// Answers a token call with a JSON body.
async fn answer(call: &mut Client, body: &str) {
    answer_with(call, "200 OK", body).await;
}

/// The same, with this status.
pub async fn answer_with(call: &mut Client, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length");
    call.send(format!("{head}: {}\r\n\r\n{body}", body.len())).await;
}

/// The request line and the fields that the vendor's document names.
fn assert_call(head: &str, line: &str, content_type: &str) {
    assert_eq!(head.lines().next(), Some(line));
    assert_eq!(field(head, "content-type"), Some(content_type));
    assert_eq!(field(head, "authorization"), None, "the credentials are in the body");
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

#[tokio::test]
async fn qbank_asks_with_a_form_and_the_scope_of_the_route() {
    let preset = ("preset = \"qbank\"", "preset = \"qbank\"\ntoken_url = \"{tokens}/token\" #");
    let url = ("https://api.qbankconnect.com", "{api}");
    let vendor = Vendor::start("qbank", &[url, preset]).await;
    let (mut call, head, body) = vendor.token_call().await;
    assert_call(&head, "POST /token HTTP/1.1", FORM);
    let expected = "grant_type=client_credentials&client_id=an%2Bid&\
                    client_secret=a+secret%26more&scope=balances.read";
    assert_eq!(body, expected);
    let token =
        r#"{"access_token":"q1","token_type":"Bearer","expires_in":3600,"scope":"balances.read"}"#;
    answer(&mut call, token).await;
    let seen = vendor
        .forwarded("GET /qbank/v1/balances/a1b2c3d4-e5f6 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let seen = seen.await;
    assert!(seen.starts_with("GET /v1/balances/a1b2c3d4-e5f6 HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field(&seen, "authorization"), Some("Bearer q1"));
}

#[tokio::test]
async fn sqr_asks_with_json_and_sends_no_scope() {
    let preset =
        ("preset = \"sqr\"", "preset = \"sqr\"\ntoken_url = \"{tokens}/v1/oauth/token\" #");
    let vendor = Vendor::start("sqr", &[("https://api.sqr-group.com\"", "{api}\""), preset]).await;
    let (mut call, head, body) = vendor.token_call().await;
    assert_call(&head, "POST /v1/oauth/token HTTP/1.1", JSON);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected = serde_json::json!({
        "client_id": "an+id", "client_secret": "a secret&more", "grant_type": "client_credentials",
    });
    assert_eq!(body, expected);
    let token = r#"{"access_token":"s.1","token_type":"Bearer","expires_in":3600,"scope":"read:users write:logs"}"#;
    answer(&mut call, token).await;
    let request =
        "POST /sqr/v1/user-status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let seen = vendor.forwarded(request).await;
    assert!(seen.starts_with("POST /v1/user-status HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field(&seen, "authorization"), Some("Bearer s.1"));
}

/// Both readings of the core banking document: the sample's and the table's.
#[tokio::test]
async fn core_banking_asks_in_the_spelling_that_the_file_chooses() {
    let urls = [
        ("base_url = \"https://core.bank.example\"", "base_url = \"{tokens}\""),
        ("url = \"https://core.bank.example/api\"", "url = \"{api}/api\""),
    ];
    let table = [
        urls[0],
        urls[1],
        ("# token_path", "token_path"),
        ("# client_id_field", "client_id_field"),
    ];
    let readings = [
        (&urls[..], "POST /api/auth/v1/authenticate HTTP/1.1", "clientId"),
        (&table[..], "POST /auth HTTP/1.1", "clientID"),
    ];
    for (replace, line, id_field) in readings {
        let vendor = Vendor::start("core-banking", replace).await;
        let (mut call, head, body) = vendor.token_call().await;
        assert_call(&head, line, JSON);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let expected = serde_json::json!({ id_field: "an+id", "clientSecret": "a secret&more" });
        assert_eq!(body, expected);
        // Longs as text, and an absolute time in milliseconds.
        let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let end = end.as_millis() + 600_000;
        let token = format!(
            r#"{{"accessToken":"c1","tokenType":"bearer","expirationTime":"{end}","tokenValiditySec":"600"}}"#
        );
        answer(&mut call, &token).await;
        let seen = vendor.forwarded("GET /corebank/accounts HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let seen = seen.await;
        assert!(seen.starts_with("GET /api/accounts HTTP/1.1\r\n"), "{seen}");
        assert_eq!(field(&seen, "authorization"), Some("Bearer c1"));
    }
}

/// A token of two seconds is renewed with the refresh token, which goes without id and secret.
#[tokio::test]
async fn datacrunch_renews_with_its_refresh_token_alone() {
    let preset = (
        "preset = \"datacrunch\"",
        "preset = \"datacrunch\"\ntoken_url = \"{tokens}/v1/oauth2/token\" #",
    );
    let url = ("https://api.datacrunch.io\"", "{api}\"");
    let vendor = Vendor::start("datacrunch", &[url, preset]).await;
    let (mut call, head, body) = vendor.token_call().await;
    assert_call(&head, "POST /v1/oauth2/token HTTP/1.1", JSON);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected = serde_json::json!({
        "grant_type": "client_credentials", "client_id": "an+id", "client_secret": "a secret&more",
    });
    assert_eq!(body, expected);
    let token = r#"{"access_token":"d1","token_type":"Bearer","expires_in":2,"refresh_token":"r1","scope":"fullAccess"}"#;
    answer(&mut call, token).await;
    let seen = vendor.forwarded("GET /datacrunch/v1/balance HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let seen = seen.await;
    assert!(seen.starts_with("GET /v1/balance HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field(&seen, "authorization"), Some("Bearer d1"));
    // The token server may be asked on the same connection or on a new one.
    drop(call);
    let (_call, head, body) = soon(vendor.token_call()).await;
    assert_call(&head, "POST /v1/oauth2/token HTTP/1.1", JSON);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, serde_json::json!({ "grant_type": "refresh_token", "refresh_token": "r1" }));
}
