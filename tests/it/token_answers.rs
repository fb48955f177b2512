//! Answers of token servers as they are met in the field, and the requests that they are asked with.
//! The token server and the API are bare sockets.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use tempfile::TempDir;

use crate::support::{Answer, Client, Proxy, RawServer, client, raw_server, secret_file, soon};
use crate::verbs::verb;

/// A proxy between a token server and an API, with one route that needs the scopes `a` and `b`.
struct Field {
    tokens: RawServer,
    api: RawServer,
    proxy: Proxy,
    _secrets: TempDir,
}

impl Field {
    /// Starts the proxy with further lines for its credential.
    async fn start(keys: &str) -> Self {
        Self::start_with(keys, "", "a-secret").await
    }

    /// The same with further lines for its upstream, and another content of the secret's file.
    async fn start_with(keys: &str, upstream: &str, secret: &str) -> Self {
        let (tokens, api) = (raw_server().await, raw_server().await);
        let secrets = TempDir::new().unwrap();
        let secret = secret_file(secrets.path(), "secret", secret);
        let text = format!(
            r#"version = 1
server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
[credentials.a]
token_url = "http://{}/token"
client_id = "an-id"
client_secret.file = {secret:?}
{keys}
[upstreams.a]
url = "http://{}"
credential = "a"
{upstream}
routes = [{{ name = "all", path = "/**", methods = ["GET", "POST"], scopes = ["a", "b"] }}]
"#,
            tokens.addr, api.addr
        );
        Self { proxy: Proxy::start(&text).await, tokens, api, _secrets: secrets }
    }

    /// Reads the next token request and answers it with these bytes; returns the head and the body.
    async fn answer(&self, answer: &[u8]) -> (Client, String, String) {
        let mut call = self.tokens.accept().await;
        let head = call.read_head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = call.read_bytes(length.unwrap().parse().unwrap()).await;
        call.send(answer).await;
        (call, head, String::from_utf8(body).unwrap())
    }

    /// The Authorization with which a request reaches the API.
    async fn authorization(&self) -> String {
        let mut app = client(self.proxy.addr).await;
        app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut seen = self.api.accept().await;
        let head = seen.read_head().await;
        seen.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let answer: Answer = soon(app.read("GET")).await;
        assert_eq!(answer.text(), "ok");
        let line = head.lines().find_map(|line| line.strip_prefix("authorization: "));
        line.unwrap_or_default().to_owned()
    }

    async fn metric(&self, series: &str) -> Option<String> {
        let text = client(self.proxy.admin_addr).await.get("/metrics").await.text();
        text.lines().find_map(|line| line.strip_prefix(series)).map(|value| value.trim().to_owned())
    }
}

/// An answer with these header lines, a length and a body.
fn framed(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn answers_of_all_kinds_bring_a_token() {
    let plain = br#"{"access_token":"t","expires_in":600}"#;
    let nested = "[credentials.a.response]\naccess_token = \"/data/0/access_token\"";
    let large = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(16 * 1024));
    let many = "X-Gateway: y\r\n".repeat(250);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (keys, answer, expected) in [
        ("", framed("", br#"{"access_token":"00Dx!AR8AQ"}"#), "00Dx!AR8AQ"),
        ("", framed("", br#"{"access_token":"v^1.1#i^1"}"#), "v^1.1#i^1"),
        ("", framed("", large.as_bytes()), &large[17..large.len() - 2]),
        ("", framed("Content-Encoding: gzip\r\n", &gzip(plain)), "t"),
        ("", framed("Content-Encoding: deflate\r\n", &deflate(plain)), "t"),
        (nested, framed("", br#"{"data":[{"access_token":"n"}]}"#), "n"),
        ("", [&b"HTTP/1.1 200 OK\r\n\r\n"[..], plain].concat(), "t"),
        ("", framed(&many, plain), "t"),
        ("", framed("", b"{\"access_token\":\"t\",\"org\":\"M\xfcller\"}"), "t"),
        ("", framed(form, b"access_token=a%7Cb&expires_in=600"), "a|b"),
    ] {
        let field = Field::start(keys).await;
        let _call = field.answer(&answer).await;
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
        assert_eq!(field.authorization().await, format!("Bearer {expected}"), "{shown}");
    }
}

#[tokio::test]
async fn answers_that_cannot_be_used_are_named_in_the_log() {
    let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(16 * 1024 + 1));
    let bomb = gzip(&vec![b' '; 2 * 1024 * 1024]);
    for (answer, words) in [
        (framed("", b"access_token=t&expires_in=600"), "form-encoded"),
        (framed("Content-Encoding: br\r\n", b"\x0b\x02\x80"), "(br)"),
        (framed("Content-Encoding: gzip\r\n", &bomb), "longer than 1 MiB"),
        (framed("", long.as_bytes()), "longer than max_token_bytes"),
        (framed("", br#"{"access_token":"a b"}"#), "not visible ASCII"),
    ] {
        let field = Field::start("").await;
        let _call = field.answer(&answer).await;
        field.proxy.wait_log(|line| line.contains(words).then_some(())).await;
    }
}

#[tokio::test]
async fn granted_scopes_are_the_same_in_any_form() {
    for (scope, missing) in [
        (r#""b,a""#, "0"),
        (r#"["b","a"]"#, "0"),
        (r#"["b a"]"#, "0"),
        (r#""b  a c""#, "0"),
        (r#""b,c""#, "1"),
    ] {
        let field = Field::start("").await;
        let body = format!(r#"{{"access_token":"t","scope":{scope}}}"#);
        let _call = field.answer(&framed("", body.as_bytes())).await;
        field.proxy.wait_ready().await;
        let series = r#"bearer_proxy_token_missing_scopes{credential="a",scopes="a b"}"#;
        assert_eq!(field.metric(series).await.as_deref(), Some(missing), "{scope}");
    }
}

/// The rest of a token's life, as the log states it.
fn life(field: &Field) -> impl Fn(&str) -> Option<u64> {
    let _ = field;
    |line: &str| {
        let rest = line.split_once("life_s")?.1;
        let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).collect();
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

#[tokio::test]
async fn the_earlier_expiry_counts_unless_it_cannot_be_right() {
    let keys = "[credentials.a.response]\nexpires_at = \"expires_at\"";
    let now = std::time::SystemTime::now();
    let after = |seconds| now + std::time::Duration::from_secs(seconds);
    let http = |time| format!("{:?}", httpdate::fmt_http_date(time));
    let epoch = |time: std::time::SystemTime| {
        time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string()
    };
    let iso = |time: std::time::SystemTime| {
        format!("\"{:.0}\"", jiff::Timestamp::try_from(time).unwrap())
    };
    let past = now - std::time::Duration::from_secs(7200);
    for (expires_at, lives, ignored) in [
        (epoch(after(600)), 590..=600, "0"),
        (http(after(600)), 590..=600, "0"),
        (iso(after(600)), 590..=600, "0"),
        (epoch(after(7200)), 3600..=3600, "0"),
        (epoch(past), 3600..=3600, "1"),
        (http(past), 3600..=3600, "1"),
        (epoch(after(400_000)), 3600..=3600, "1"),
        ("\"soon\"".to_owned(), 3600..=3600, "1"),
    ] {
        let field = Field::start(keys).await;
        let body = format!(r#"{{"access_token":"t","expires_in":3600,"expires_at":{expires_at}}}"#);
        let _call = field.answer(&framed("", body.as_bytes())).await;
        let found = field.proxy.wait_log(life(&field)).await;
        assert!(lives.contains(&found), "{expires_at}: {found}");
        let series = r#"bearer_proxy_token_expiry_disagreements_total{credential="a"}"#;
        assert_eq!(field.metric(series).await.as_deref(), Some(ignored), "{expires_at}");
    }
}

#[tokio::test]
async fn requests_name_the_program_and_ask_for_no_content_coding() {
    let field = Field::start("").await;
    let (_call, head, _) = field.answer(&framed("", br#"{"access_token":"t"}"#)).await;
    let product = concat!("\r\nuser-agent: bearer-proxy/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert!(head.contains(product), "{head}");
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    let field = Field::start("[credentials.a.request]\nheaders = { User-Agent = \"erp/1\" }").await;
    let (_call, head, _) = field.answer(&framed("", br#"{"access_token":"t"}"#)).await;
    assert!(head.contains("\r\nuser-agent: erp/1\r\n"), "{head}");
}

/// No login is lost with a secret that cannot be right, and the log names what is wrong with it.
#[tokio::test]
async fn what_no_secret_holds_is_never_sent() {
    for (secret, words) in [
        ("\u{feff}a-secret", "holds a byte order mark"),
        ("a-\0-secret", "holds a NUL byte"),
        ("a-secret\nanother", "holds a newline inside"),
        ("a\u{7}secret", "holds a control character"),
        ("a\0-\0s\0", "is UTF-16"),
    ] {
        let field = Field::start_with("", "", secret).await;
        let line = field.proxy.wait_log(|line| line.contains(words).then(|| line.to_owned())).await;
        assert!(!line.contains("another") && !line.contains("a-"), "{line}");
        let call = tokio::time::timeout(std::time::Duration::ZERO, field.tokens.accept()).await;
        assert!(call.is_err(), "a token request was made");
    }
}

#[tokio::test]
async fn newlines_at_the_end_of_a_secret_are_not_sent() {
    for secret in ["a-secret\n", "a-secret\r\n", "a-secret\n\n"] {
        let field = Field::start_with("", "", secret).await;
        let (_call, _, body) = field.answer(&framed("", br#"{"access_token":"t"}"#)).await;
        assert!(body.contains("&client_secret=a-secret&"), "{body}");
    }
}

#[tokio::test]
async fn a_field_that_is_omitted_may_have_a_text_of_its_own() {
    let keys = "client_auth = \"client_secret_basic\"\n[credentials.a.request]\nomit = [\"grant_type\", \
                \"scope\"]\nextra = { grant_type = \"account_credentials\", account_id = \"7\", \
                client_id = \"other\" }";
    let field = Field::start(keys).await;
    let (_call, head, body) = field.answer(&framed("", br#"{"access_token":"t"}"#)).await;
    assert!(head.contains("\r\nauthorization: Basic "), "{head}");
    let expected = ["account_id=7", "client_id=other", "grant_type=account_credentials"];
    let mut found: Vec<_> = body.split('&').collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn secret_headers_and_an_id_in_the_file() {
    let dir = TempDir::new().unwrap();
    let key = secret_file(dir.path(), "key", "k-1");
    let keys = format!(
        "client_auth = \"none\"\n[credentials.a.request]\nomit = [\"grant_type\", \"scope\", \
         \"client_id\"]\nheaders = {{ x-client-id = \"me\", x-api-key = {{ file = {key:?} }} }}"
    );
    let field = Field::start(&keys).await;
    let (_call, head, body) =
        field.answer(&framed("", br#"{"access_token":"t","expires_in":2}"#)).await;
    assert!(head.contains("\r\nx-api-key: k-1\r\n") && body.is_empty(), "{head}{body}");
    assert!(head.contains("\r\nx-client-id: me\r\n"), "{head}");
    secret_file(dir.path(), "key", "k-2");
    let (_call, head, _) = field.answer(&framed("", br#"{"access_token":"u"}"#)).await;
    assert!(head.contains("\r\nx-api-key: k-2\r\n"), "{head}");
    assert!(!field.proxy.log().contains("k-1"));
}

#[tokio::test]
async fn a_403_renews_the_token_where_the_settings_say_so() {
    let field = Field::start_with("", "renew_on = [401, 403]", "a-secret").await;
    let _call = field.answer(&framed("", br#"{"access_token":"t1"}"#)).await;
    field.proxy.wait_ready().await;
    let mut app = client(field.proxy.addr).await;
    app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut seen = field.api.accept().await;
    assert!(seen.read_head().await.contains("Bearer t1"));
    seen.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    let _call = field.answer(&framed("", br#"{"access_token":"t2"}"#)).await;
    assert!(seen.read_head().await.contains("Bearer t2"));
    seen.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(soon(app.read("GET")).await.text(), "ok");
    // An unsafe request is not sent again: the app gets the answer as it is.
    app.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
    assert!(seen.read_head().await.contains("Bearer t2"));
    seen.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(soon(app.read("POST")).await.status, 403);
    let _call = field.answer(&framed("", br#"{"access_token":"t3"}"#)).await;
}

#[tokio::test]
async fn a_403_passes_by_default() {
    let field = Field::start("").await;
    let _call = field.answer(&framed("", br#"{"access_token":"t1"}"#)).await;
    field.proxy.wait_ready().await;
    let mut app = client(field.proxy.addr).await;
    app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut seen = field.api.accept().await;
    seen.read_head().await;
    seen.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(soon(app.read("GET")).await.status, 403);
    let series = r#"bearer_proxy_token_requests_total{credential="a",result="ok"}"#;
    assert_eq!(field.metric(series).await.as_deref(), Some("1"));
}

/// The number is another spelling of 127.0.0.1 to the resolver, and a name of one label to the rules.
#[tokio::test]
async fn cleartext_within_the_cluster_is_used_and_warned_of() {
    let tokens = raw_server().await;
    let api = raw_server().await;
    let secrets = TempDir::new().unwrap();
    let secret = secret_file(secrets.path(), "secret", "a-secret");
    let config = |allowed: &str| {
        format!(
            r#"version = 1
server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
[credentials.a]
token_url = "http://2130706433:{}/token"
{allowed}
client_id = "an-id"
client_secret.file = {secret:?}
[upstreams.a]
url = "http://2130706433:{}"
{allowed}
credential = "a"
routes = [{{ name = "all", path = "/**", methods = ["GET"] }}]
"#,
            tokens.addr.port(),
            api.addr.port()
        )
    };
    std::fs::write(secrets.path().join("bearer-proxy.toml"), config("")).unwrap();
    let ended = verb(secrets.path(), &["check"]).await;
    assert_eq!(ended.code, 78);
    assert!(ended.stderr.contains("allow_cleartext = \"in-cluster\""), "{}", ended.stderr);
    let allowed = config("allow_cleartext = \"in-cluster\"");
    std::fs::write(secrets.path().join("bearer-proxy.toml"), &allowed).unwrap();
    let ended = verb(secrets.path(), &["check"]).await;
    assert_eq!((ended.code, ended.stderr.matches("in the clear").count()), (0, 2));
    let proxy = Proxy::start(&allowed).await;
    let field = Field { tokens, api, proxy, _secrets: secrets };
    let _call = field.answer(&framed("", br#"{"access_token":"t"}"#)).await;
    assert_eq!(field.authorization().await, "Bearer t");
    for owner in ["credential", "upstream"] {
        let warned = |line: &str| {
            (line.contains("WARN") && line.contains("in the clear") && line.contains(owner))
                .then_some(())
        };
        field.proxy.wait_log(warned).await;
    }
}
