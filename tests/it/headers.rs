//! What travels on in a message's head, as a bank's bare socket and an app's bare socket see it.

use bearer_proxy::sandbox::{AuthServer, Persona};
use tempfile::TempDir;

use crate::support::{Client, Proxy, RawServer, auth_server, client, raw_server, soon};

/// The program between two sockets that are nothing else.
pub struct Between {
    pub proxy: Proxy,
    pub bank: RawServer,
    _auth: AuthServer,
    _secrets: TempDir,
}

/// What a story adds to the configuration, each part as TOML lines.
#[derive(Default)]
pub struct Extra<'a> {
    pub server: &'a str,
    pub clients: &'a str,
    pub upstream: &'a str,
    pub route: &'a str,
    pub more: &'a str,
}

impl Between {
    /// One route, `/v1/**`, that takes the usual methods.
    pub async fn start(extra: Extra<'_>) -> Self {
        let (auth, bank) = (auth_server(Persona::QBank).await, raw_server().await);
        let secrets = TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = secrets.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
            path.display().to_string()
        };
        let (id, secret) = (file("id", auth.client_id()), file("secret", auth.client_secret()));
        let Extra { server, clients, upstream, route, more } = extra;
        let text = format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n{server}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{clients}\n\
             [credentials.bank]\npreset = \"qbank\"\ntoken_url = \"{}\"\nclient_id.file = \"{id}\"\n\
             client_secret.file = \"{secret}\"\n[upstreams.bank]\nurl = \"http://{}\"\n\
             credential = \"bank\"\n{upstream}\n[[upstreams.bank.routes]]\nname = \"all\"\n\
             path = \"/v1/**\"\nmethods = [\"GET\", \"POST\", \"PUT\", \"OPTIONS\"]\n\
             scopes = [\"balances.read\"]\n{route}\n{more}\n",
            auth.token_url(),
            bank.addr,
        );
        let proxy = Proxy::start(&text).await;
        proxy.wait_ready().await;
        Self { proxy, bank, _auth: auth, _secrets: secrets }
    }

    /// Sends a head with these lines, gives the bank's view of it, in lower case and sorted.
    pub async fn forwarded(&self, lines: &str) -> Vec<String> {
        let mut app = client(self.proxy.addr).await;
        app.send(format!("{lines}\r\n\r\n")).await;
        let mut bank = self.bank.accept().await;
        let head = bank.read_head().await;
        bank.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert_eq!(app.read("GET").await.status, 200);
        let mut lines: Vec<_> = head.trim_end().split("\r\n").map(told).collect();
        lines[1..].sort();
        lines
    }

    /// Lets the bank answer a GET with this head and gives the app's view of it, with names in lower
    /// case and sorted.
    async fn answered(&self, head: &str) -> Vec<String> {
        let mut app = client(self.proxy.addr).await;
        app.send(format!("GET /v1/a HTTP/1.1\r\nHost: {}\r\n\r\n", self.proxy.addr)).await;
        let mut bank = self.bank.accept().await;
        let request = bank.read_head().await;
        let head = head.replace("$TOKEN", token(&request));
        bank.send(format!("{head}\r\nContent-Length: 2\r\n\r\nok")).await;
        let (ids, lines): (Vec<_>, Vec<_>) =
            head_of(&mut app).await.into_iter().partition(|line| is_id(line));
        assert_eq!(ids.len(), 2, "{ids:?}");
        lines
    }

    /// The code of the refusal of a head.
    pub async fn refused(&self, lines: &str) -> (u16, String) {
        let mut app = client(self.proxy.addr).await;
        app.send(format!("{lines}\r\n\r\n")).await;
        let answer = app.read("GET").await;
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Whether a line is the id of the request, which is another each time.
fn is_id(line: &str) -> bool {
    ["bearer-proxy-request-id: ", "x-request-id: "].iter().any(|name| line.starts_with(name))
}

/// A line in lower case; the number of the instance is another each time.
fn told(line: &str) -> String {
    let line = line.to_lowercase();
    match line.split_once(" (").filter(|_| line.starts_with("via: ")) {
        Some((via, number)) if number.len() == 9 && number.ends_with(')') => {
            format!("{via} (number)")
        }
        _ => line,
    }
}

async fn head_of(app: &mut Client) -> Vec<String> {
    let head = app.read_head().await;
    let mut lines: Vec<_> = head.trim_end().split("\r\n").map(named).collect();
    lines[1..].sort();
    lines.retain(|line| !line.starts_with("date: "));
    lines
}

/// A line whose name, if it has one, is in lower case.
fn named(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
        None => line.to_owned(),
    }
}

fn token(request: &str) -> &str {
    request
        .split("Bearer ")
        .nth(1)
        .or_else(|| request.split("bearer ").nth(1))
        .unwrap()
        .lines()
        .next()
        .unwrap()
}

#[tokio::test]
async fn the_bank_sees_what_was_meant_for_it_and_our_token() {
    let between = soon(Between::start(Extra {
        upstream: "set_headers = { X-Channel = { value = \"erp\" } }",
        ..Extra::default()
    }))
    .await;
    let seen = between
        .forwarded(
            "GET /v1/a?b=%2F HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nAuthorization: Basic x\r\n\
             Authorization: Basic y\r\nConnection: authorization, X-Hop\r\nConnection: host, via, x-channel\r\n\
             X-Hop: 1\r\nProxy-Authorization: Basic x\r\nproxy_authorization: x\r\nTE: trailers\r\n\
             Keep-Alive: x\r\nProxy-Connection: x\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1\r\n\
             Forwarded: for=x\r\nX-Real-IP: 1\r\nX-Client-IP: 1\r\nTrue-Client-IP: 1\r\n\
             X-Original-URL: /v2\r\nX-HTTP-Method-Override: DELETE\r\nX-Channel: app\r\nx_channel: app\r\n\
             Via: 1.1 edge\r\nCookie: a=b\r\nExpect: 100-continue\r\nTrailer: Authorization",
        )
        .await;
    let bearer = seen.iter().filter(|line| line.starts_with("authorization: bearer "));
    assert_eq!(bearer.count(), 1);
    let others: Vec<_> =
        seen.iter().filter(|line| !line.starts_with("authorization: bearer ")).collect();
    let host = format!("host: {}", between.bank.addr);
    let expected = [
        "get /v1/a?b=%2f http/1.1",
        "accept: */*",
        "cookie: a=b",
        &host,
        "via: 1.1 bearer-proxy (number)",
        "x-channel: erp",
    ];
    assert_eq!(others, expected);
}

#[tokio::test]
async fn the_app_sees_what_the_bank_meant_for_it() {
    let between = soon(Between::start(Extra::default())).await;
    let seen = between
        .answered(
            "HTTP/1.1 200 your token is $TOKEN\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\n\
             Alt-Svc: h3=\":443\"\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
             Bearer-Proxy-Forwarded: no\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: bank\r\n\
             WWW-Authenticate: Bearer\r\nX-Echo: Bearer $TOKEN\r\nX-Echo: fine",
        )
        .await;
    let expected = [
        "HTTP/1.1 200 OK",
        "cache-control: private",
        "content-length: 2",
        "server: bank",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "via: 1.1 bearer-proxy",
        "www-authenticate: Bearer",
        "x-echo: [redacted]",
        "x-echo: fine",
    ];
    assert_eq!(seen, expected);
    let seen = between
        .answered("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nCache-Control: no-store")
        .await;
    let expected = [
        "HTTP/1.1 407 No",
        "cache-control: no-store",
        "content-length: 2",
        "via: 1.1 bearer-proxy",
    ];
    assert_eq!(seen, expected, "a status passes, its challenge does not");
    let (here, there) = (format!("http://{}", between.bank.addr), "http://127.0.0.1:9");
    for status in ["302 Found", "201 Created", "200 OK", "404 Not Found", "503 Later"] {
        let location = |host: &str| {
            format!("HTTP/1.1 {status}\r\nCache-Control: no-store\r\nLocation: {host}/v1/b")
        };
        let ours = between.answered(&location(&here)).await;
        assert!(ours.contains(&"location: /v1/b".to_owned()), "{ours:?}");
        let theirs = between.answered(&location(there)).await;
        assert!(theirs.contains(&format!("location: {there}/v1/b")), "{theirs:?}");
    }
}

/// Programs that tell names apart by case are wrong, and there are some on either side.
#[tokio::test]
async fn names_keep_their_case_unless_that_is_turned_off() {
    let fields = "X-CaSe: A\r\nx-lower: B\r\nX-UPPER: C\r\n";
    let lower = "x-case: A\r\nx-lower: B\r\nx-upper: C\r\n";
    for (server, expected) in [("", fields), ("preserve_header_case = false", lower)] {
        let between = soon(Between::start(Extra { server, ..Extra::default() })).await;
        let mut app = client(between.proxy.addr).await;
        app.send(format!("GET /v1/a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
        let mut bank = between.bank.accept().await;
        let head = bank.read_head().await;
        bank.send(format!("HTTP/1.1 204 No Content\r\n{fields}\r\n")).await;
        let answer = app.read_head().await;
        for line in expected.lines() {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
            assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line} is not in {answer}");
        }
    }
}

#[tokio::test]
async fn an_access_token_in_the_query_is_refused_unless_the_upstream_says_otherwise() {
    let ask = |query: &str| format!("GET /v1/a{query} HTTP/1.1\r\nHost: localhost");
    let between = soon(Between::start(Extra::default())).await;
    for query in ["?access_token=x", "?a=1&Access%5FToken=x", "?access_token"] {
        assert_eq!(between.refused(&ask(query)).await, (403, "authorization".into()), "{query}");
    }
    let seen = between.forwarded(&ask("?my_access_token=x")).await;
    assert_eq!(seen[0], "get /v1/a?my_access_token=x http/1.1");
    for (policy, query, expected) in [
        ("strip", "?access_token=x&b=%2F", "/v1/a?b=%2f"),
        ("strip", "?access_token=x", "/v1/a"),
        ("pass", "?access_token=x", "/v1/a?access_token=x"),
    ] {
        let upstream = format!("query_access_token = \"{policy}\"");
        let between = soon(Between::start(Extra { upstream: &upstream, ..Extra::default() })).await;
        let seen = between.forwarded(&ask(query)).await;
        assert_eq!(seen[0], format!("get {expected} http/1.1"));
    }
}

#[tokio::test]
async fn switches_open_what_is_closed_by_default() {
    let between = soon(Between::start(Extra {
        server: "via = \"outer\"",
        upstream: "forwarding_headers = \"append\"",
        route: "allow_override_headers = true\ntrailers = [\"X-Sum\"]",
        ..Extra::default()
    }))
    .await;
    let seen = between
        .forwarded(
            "GET /v1/a HTTP/1.1\r\nHost: localhost\r\nX-HTTP-Method-Override: PUT\r\nTE: trailers\r\n\
             X-Forwarded-For: 1.2.3.4\r\nVia: 1.1 bearer-proxy\r\nTrailer: X-Sum, Host",
        )
        .await;
    for line in [
        "x-http-method-override: put",
        "te: trailers",
        "trailer: x-sum",
        "x-forwarded-for: 1.2.3.4, 127.0.0.1",
        "x-forwarded-host: localhost",
        "x-forwarded-proto: http",
        "forwarded: for=127.0.0.1;host=\"localhost\";proto=http",
        "via: 1.1 bearer-proxy",
        "via: 1.1 outer (number)",
    ] {
        assert!(seen.contains(&line.to_owned()), "{line} is not in {seen:#?}");
    }
    // The host that a request was sent to is that of its target, if that names one.
    let seen = between.forwarded("GET http://127.0.0.1/v1/a HTTP/1.1\r\nHost: evil.example").await;
    for line in
        ["x-forwarded-host: 127.0.0.1", "forwarded: for=127.0.0.1;host=\"127.0.0.1\";proto=http"]
    {
        assert!(seen.contains(&line.to_owned()), "{line} is not in {seen:#?}");
    }
    let again = "GET /v1/a HTTP/1.1\r\nHost: localhost\r\nVia: 1.1 bearer-proxy, 1.1 Outer";
    assert_eq!(between.refused(again).await, (508, "loop".into()));
}

#[tokio::test]
async fn an_authorization_of_the_app_is_refused_or_kept_where_the_upstream_says_so() {
    let ask = "GET /v1/a?access_token=x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic x";
    let upstream = "incoming_authorization = \"reject\"\nquery_access_token = \"pass\"";
    let between = soon(Between::start(Extra { upstream, ..Extra::default() })).await;
    assert_eq!(between.refused(ask).await, (403, "authorization".into()));
    let more = "[upstreams.own]\nurl = \"http://$BANK\"\ncredential = \"bank\"\nmount = \"/own\"\n\
                incoming_authorization = \"keep\"\n[[upstreams.own.routes]]\nname = \"all\"\n\
                path = \"/**\"\nmethods = [\"GET\"]\n";
    drop(between);
    let keep = raw_server().await;
    let more = more.replace("$BANK", &keep.addr.to_string());
    let between = soon(Between::start(Extra { more: &more, ..Extra::default() })).await;
    let mut app = client(between.proxy.addr).await;
    app.send(ask.replace("/v1/a", "/own/a") + "\r\nAuthorization: Basic y\r\n\r\n").await;
    assert_eq!(app.read("GET").await.status, 400, "which of the two was meant?");
    let mut app = client(between.proxy.addr).await;
    app.send(ask.replace("/v1/a", "/own/a") + "\r\n\r\n").await;
    let head = keep.accept().await.read_head().await.to_lowercase();
    assert!(head.starts_with("get /a?access_token=x "), "{head}");
    assert_eq!(head.matches("authorization: basic x\r\n").count(), 1, "{head}");
}

#[tokio::test]
async fn two_instances_in_a_row_are_no_loop_and_one_that_meets_itself_is() {
    let inner = soon(Between::start(Extra::default())).await;
    let outer = format!(
        "[upstreams.next]\nurl = \"http://{}\"\ncredential = \"bank\"\nmount = \"/next\"\n\
         [[upstreams.next.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n\
         scopes = [\"balances.read\"]\n",
        inner.proxy.addr
    );
    let outer = soon(Between::start(Extra { more: &outer, ..Extra::default() })).await;
    let mut app = client(outer.proxy.addr).await;
    app.send("GET /next/v1/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut bank = inner.bank.accept().await;
    let head = bank.read_head().await;
    assert_eq!(head.matches("authorization: ").count(), 1, "{head}");
    let via: Vec<_> = head.lines().filter(|line| line.starts_with("via: ")).collect();
    assert_eq!(via.len(), 2, "{head}");
    bank.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert_eq!(app.read("GET").await.status, 200);
    let [first, second] = via[..] else { panic!("{head}") };
    let ask = |lines: &str| format!("GET /v1/a HTTP/1.1\r\nHost: localhost\r\n{lines}");
    for (proxy, lines) in [
        (&outer, first.to_owned()),
        (&inner, second.to_owned()),
        (&inner, format!("{first}\r\n{second}")),
        (&inner, format!("{second}\r\n{first}")),
        (&inner, format!("{second}\r\nConnection: via")),
        (&inner, format!("{second}, 1.1 edge")),
        // A proxy in between took the comment off.
        (&inner, "Via: 1.1 bearer-proxy".to_owned()),
    ] {
        assert_eq!(proxy.refused(&ask(&lines)).await, (508, "loop".into()), "{lines}");
    }
    inner.forwarded(&ask(first)).await;
}

#[tokio::test]
async fn an_offer_of_another_protocol_stays_unanswered() {
    let between = soon(Between::start(Extra::default())).await;
    let ask = |lines: &str| format!("GET /v1/a HTTP/1.1\r\nHost: localhost\r\n{lines}");
    for offer in ["h2c", "H2C", "h2c, HTTP/3.0", "HTTP/2.0", ""] {
        let settings = "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA";
        let lines =
            format!("Connection: Upgrade, HTTP2-Settings\r\n{settings}\r\nUpgrade: {offer}");
        let seen = between.forwarded(&ask(&lines)).await;
        let gone = |line: &String| line.contains("upgrade") || line.contains("settings");
        assert!(!seen.iter().any(gone), "{seen:?}");
    }
    for wish in ["websocket", "h2c, websocket", "TLS/1.2", "h2", "connect-udp"] {
        for connection in ["Connection: Upgrade\r\n", ""] {
            let lines = format!("{connection}X-A: b\r\nUpgrade: {wish}");
            let seen = between.forwarded(&ask(&lines)).await;
            assert!(!seen.iter().any(|line| line.contains("upgrade")), "{wish} {seen:?}");
            assert!(seen.contains(&"x-a: b".to_owned()), "{wish} {seen:?}");
        }
    }
}
