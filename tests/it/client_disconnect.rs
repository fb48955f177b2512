//! Apps that leave: what is not sent any more, what is cancelled, what goes on, and what the log says.

use std::time::{Duration, Instant};

use bearer_proxy::sandbox::{AuthServer, Fault, Persona};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::hostile::{Act, Recorder, used};
use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, frames, head,
};
use crate::support::{Client, Proxy, auth_server, client, raw_server, secret_file, soon};
use crate::tls::{Authority, connect};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\npay";

/// The program and all that it needs; its listener speaks TLS if it is told to.
struct House {
    proxy: Proxy,
    auth: AuthServer,
    authority: Authority,
    tls: bool,
    _folder: TempDir,
}

#[derive(Default)]
struct Special<'a> {
    server: &'a str,
    upstream: &'a str,
    route: &'a str,
    tls: bool,
    /// Whether the first token is not given before it is released.
    tokenless: bool,
}

async fn house(url: &str, special: Special<'_>) -> House {
    let Special { server, upstream, route, tls, tokenless } = special;
    let (auth, folder, authority) =
        (auth_server(Persona::Sqr).await, TempDir::new().unwrap(), Authority::new());
    if tokenless {
        auth.set_faults([Fault::Hold]);
    }
    let id = secret_file(folder.path(), "id", auth.client_id());
    let key = secret_file(folder.path(), "key", auth.client_secret());
    let listen = if tls {
        authority.issue("localhost", 2040).write(folder.path());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (certificate, key) = (file("proxy.crt"), file("proxy.key"));
        let table = format!("certificate_file = {certificate:?}, key_file = {key:?}");
        format!("{{ address = \"127.0.0.1:0\", tls = {{ {table} }} }}")
    } else {
        "\"127.0.0.1:0\"".to_owned()
    };
    let text = format!(
        "version = 1\n[server]\nlisten = {listen}\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [log]\naccess = \"all\"\nformat = \"json\"\n\
         [credentials.a]\npreset = \"sqr\"\ntoken_url = \"{}\"\nclient_id.file = {id:?}\n\
         client_secret.file = {key:?}\n[upstreams.a]\nurl = \"{url}\"\ncredential = \"a\"\n{upstream}\n\
         [[upstreams.a.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\", \"POST\"]\n\
         {route}\n",
        auth.token_url(),
    );
    let proxy = Proxy::start(&text).await;
    if tokenless {
        soon(auth.ledger().wait_calls(1)).await;
    } else {
        proxy.wait_ready().await;
    }
    House { proxy, auth, authority, tls, _folder: folder }
}

impl House {
    /// An app that stays, over what the listener speaks.
    async fn client(&self) -> Client {
        let addr = self.proxy.addr;
        match self.tls {
            true => {
                let connector = self.authority.client("http/1.1", None);
                Client::over(connect(&connector, addr).await.unwrap(), addr)
            }
            false => client(addr).await,
        }
    }

    /// Lines of the access log of POSTs.
    fn lines(&self) -> Vec<String> {
        let posts =
            |line: &&str| line.contains("bearer_proxy::access") && line.contains("\"POST\"");
        self.proxy.log().lines().filter(posts).map(str::to_owned).collect()
    }

    /// Waits until the log says what became of the payment, which it says once, and when the app left.
    async fn left(&self, row: &str, when: &str) {
        let access =
            |line: &str| line.contains("bearer_proxy::access") && line.contains("\"POST\"");
        let line = self.proxy.wait_log(|line| access(line).then(|| line.to_owned())).await;
        let when = format!(
            "\"detail\":\"the client closed its connection before the request was sent{when}"
        );
        for part in ["\"status\":499", "\"code\":\"client_left\"", "\"forwarded\":\"no\"", &when] {
            assert!(line.contains(part), "{row}: {line}");
        }
    }
}

/// An app with a request under way, and how it leaves.
enum App {
    Plain(Client),
    Streams(Frames),
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Reset,
    Fin,
    /// Both halves.
    Close,
    StreamReset,
    StreamClose,
    TlsNotify,
    TlsClose,
}

const LEAVING: [Leaving; 7] = [
    Leaving::Reset,
    Leaving::Fin,
    Leaving::Close,
    Leaving::StreamReset,
    Leaving::StreamClose,
    Leaving::TlsNotify,
    Leaving::TlsClose,
];

impl Leaving {
    fn is_tls(self) -> bool {
        matches!(self, Self::TlsNotify | Self::TlsClose)
    }

    fn is_multiplexed(self) -> bool {
        matches!(self, Self::StreamReset | Self::StreamClose)
    }

    /// Pays.
    async fn pay(self, house: &House) -> App {
        let addr = house.proxy.addr;
        if self.is_multiplexed() {
            let mut app = frames(addr).await;
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/pay"),
                (":authority", "localhost"),
                ("content-length", "3"),
            ];
            app.frame(HEADERS, END_HEADERS, 1, &head(&fields)).await;
            app.frame(DATA, END_STREAM, 1, b"pay").await;
            return App::Streams(app);
        }
        if self.is_tls() {
            let connector = house.authority.client("http/1.1", None);
            let mut stream = connect(&connector, addr).await.unwrap();
            stream.get_ref().0.set_nodelay(true).unwrap();
            soon(stream.write_all(POST.as_bytes())).await.unwrap();
            return App::Tls(Box::new(stream));
        }
        let mut app = client(addr).await;
        app.send(POST).await;
        App::Plain(app)
    }

    /// Leaves; what is returned keeps the other half open.
    async fn leave(self, app: App) -> Option<App> {
        match (self, app) {
            (Self::Reset, App::Plain(app)) => app.reset(),
            (Self::Fin, App::Plain(mut app)) => {
                app.finish().await;
                return Some(App::Plain(app));
            }
            (Self::StreamReset, App::Streams(mut app)) => {
                app.frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).await;
                return Some(App::Streams(app));
            }
            (Self::TlsNotify, App::Tls(mut app)) => {
                // `close_notify` alone; the socket stays open in both directions.
                app.get_mut().1.send_close_notify();
                soon(app.flush()).await.unwrap();
                return Some(App::Tls(app));
            }
            (_, app) => drop(app),
        }
        None
    }
}

/// Lets the program take in what has happened: its only worker has answered others since.
async fn settled(house: &House) {
    for _ in 0..2 {
        let mut other = house.client().await;
        assert_eq!(other.request("DELETE", "/none", &[], b"").await.status, 405);
    }
}

#[tokio::test]
async fn a_payment_whose_app_leaves_before_the_first_token_is_never_made() {
    for leaving in LEAVING {
        let bank = Recorder::start().await;
        let url = format!("http://{}", bank.addr);
        let special = Special { tls: leaving.is_tls(), tokenless: true, ..Special::default() };
        let house = house(&url, special).await;
        let app = leaving.pay(&house).await;
        settled(&house).await;
        let _half = leaving.leave(app).await;
        settled(&house).await;
        house.auth.release(1);
        house.left(&format!("{leaving:?}"), ", while it waited for a token").await;
        assert_eq!(bank.count(), 0, "{leaving:?}");
        assert_eq!(house.lines().len(), 1, "{leaving:?}");
    }
}

#[tokio::test]
async fn a_payment_whose_app_leaves_while_it_waits_for_a_place_is_never_made() {
    for leaving in LEAVING {
        let bank = raw_server().await;
        let url = format!("http://{}", bank.addr);
        let upstream = "max_connections = 1\ntimeouts = { connect = \"10s\" }";
        let special = Special { tls: leaving.is_tls(), upstream, ..Special::default() };
        let house = house(&url, special).await;
        // Something else has the place.
        let mut first = house.client().await;
        first.send(GET).await;
        let mut serving = bank.accept().await;
        assert!(serving.read_head().await.starts_with("GET /a "));
        let app = leaving.pay(&house).await;
        settled(&house).await;
        let _half = leaving.leave(app).await;
        settled(&house).await;
        serving.send(OK).await;
        house
            .left(&format!("{leaving:?}"), ", while it waited for a connection to the upstream")
            .await;
        // Nothing of it came meanwhile; the connection that it would have had is kept or closed.
        assert_eq!(first.read("GET").await.text(), "ok");
        drop(first);
        let quiet = tokio::time::timeout(Duration::from_millis(200), serving.read_to_close()).await;
        assert_eq!(quiet.unwrap_or_default(), b"", "{leaving:?}");
        assert_eq!(house.lines().len(), 1, "{leaving:?}");
    }
}

#[tokio::test]
async fn a_payment_whose_app_left_in_the_queue_of_the_kernel_is_never_made() {
    let bank = Recorder::start().await;
    let url = format!("http://{}", bank.addr);
    let house = house(&url, Special { server: "max_connections = 1", ..Special::default() }).await;
    let mut first = house.client().await;
    assert_eq!(first.request("DELETE", "/none", &[], b"").await.status, 405);
    let mut app = client(house.proxy.addr).await;
    app.send(POST).await;
    drop(app);
    drop(first);
    house.left("queue", ": it had gone when its request was read").await;
    assert_eq!(bank.count(), 0);
}

/// The app leaves, or stays, while a request is about to be sent again with a newer token.
#[tokio::test]
async fn the_line_of_a_payment_that_is_sent_again_keeps_its_first_answer() {
    for leaves in [Some(Leaving::Close), Some(Leaving::Fin), Some(Leaving::StreamReset), None] {
        let bank = raw_server().await;
        let url = format!("http://{}", bank.addr);
        let route = "retry = { unsafe = \"always\" }";
        let house = house(&url, Special { route, ..Special::default() }).await;
        house.auth.set_faults([Fault::Hold]);
        let leaving = leaves.unwrap_or(Leaving::Close);
        let app = leaving.pay(&house).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        serving.read_bytes(3).await;
        let refusal = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        serving.send(refusal).await;
        soon(house.auth.ledger().wait_calls(2)).await;
        let _app = match leaves {
            Some(leaving) => leaving.leave(app).await,
            None => Some(app),
        };
        settled(&house).await;
        house.auth.release(1);
        if leaves.is_none() {
            let mut serving = bank.accept().await;
            serving.read_head().await;
            serving.read_bytes(3).await;
            serving.send(OK).await;
        }
        let access =
            |line: &str| line.contains("bearer_proxy::access") && line.contains("\"POST\"");
        let line = house.proxy.wait_log(|line| access(line).then(|| line.to_owned())).await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let found =
            (line["status"].as_u64(), line["forwarded"].as_str(), line["attempts"].as_u64());
        let expected = if leaves.is_some() { (499, 1) } else { (200, 2) };
        assert_eq!(found, (Some(expected.0), Some("yes"), Some(expected.1)), "{line}");
        assert_eq!(line["bytes_in"], 3, "{line}");
        let detail = "the upstream answered 401 to the first attempt; the client closed its connection before \
                      the second was sent, while it waited for a token";
        let found = line["detail"].as_str();
        assert_eq!(
            found.is_some_and(|found| found.starts_with(detail)),
            leaves.is_some(),
            "{line}"
        );
        assert!(line["token_ms"].as_f64().unwrap() > 0.0, "{line}");
    }
}

#[tokio::test]
async fn a_payment_whose_app_leaves_while_a_connection_is_made_is_never_made() {
    use crate::support::tls::Authority as Banks;

    for leaving in LEAVING {
        let banks = Banks::new("Bank CA");
        let identity = banks.issue(&["localhost"], |_| {});
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let upstream = format!(
            "timeouts = {{ connect = \"10s\" }}\n[upstreams.a.tls]\nroots = \"only-extra\"\n\
             extra_ca_file = {:?}",
            banks.file("ca.pem")
        );
        let special = Special { tls: leaving.is_tls(), upstream: &upstream, ..Special::default() };
        let house = house(&url, special).await;
        let app = leaving.pay(&house).await;
        let (stream, peer) = soon(listener.accept()).await.unwrap();
        let _half = leaving.leave(app).await;
        settled(&house).await;
        let accepted = tokio::spawn(identity.acceptor(None, &[]).accept(stream));
        // It may have left just before the wait began.
        house.left(&format!("{leaving:?}"), "").await;
        // The handshake may have been given up, or is finished; nothing comes after it.
        let row = format!("{leaving:?} {peer}");
        if let Ok(stream) = soon(accepted).await.unwrap() {
            use tokio::io::AsyncReadExt;
            let (mut stream, mut came) = (stream, Vec::new());
            let quiet = stream.read_buf(&mut came);
            let _nothing = tokio::time::timeout(Duration::from_millis(200), quiet).await;
            assert_eq!(came, b"", "{row}");
        }
        assert_eq!(house.lines().len(), 1, "{leaving:?}");
    }
}

#[tokio::test]
async fn a_payment_that_was_sent_is_seen_to_its_end() {
    for leaving in LEAVING {
        let bank = raw_server().await;
        let url = format!("http://{}", bank.addr);
        let house = house(&url, Special { tls: leaving.is_tls(), ..Special::default() }).await;
        let app = leaving.pay(&house).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        serving.read_bytes(3).await;
        let _half = leaving.leave(app).await;
        settled(&house).await;
        let before = used(house.proxy.id());
        let gone = tokio::time::timeout(Duration::from_millis(600), serving.read_to_close()).await;
        assert!(gone.is_err(), "{leaving:?}: cancelled");
        let spent = used(house.proxy.id()) - before;
        assert!(spent < 12, "{leaving:?} keeps it busy for {spent}0 ms");
        serving.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok").await;
        let access =
            |line: &str| line.contains("bearer_proxy::access") && line.contains("\"POST\"");
        let line = house.proxy.wait_log(|line| access(line).then(|| line.to_owned())).await;
        assert!(
            line.contains("\"status\":201") && line.contains("\"forwarded\":\"yes\""),
            "{line}"
        );
        settled(&house).await;
        assert_eq!(house.lines().len(), 1, "{leaving:?}");
    }
}

#[tokio::test]
async fn a_read_whose_app_is_gone_is_cancelled() {
    // `pipelined`: bytes that nobody reads yet stand before the end.
    for pipelined in [false, true] {
        let bank = raw_server().await;
        let house = house(&format!("http://{}", bank.addr), Special::default()).await;
        let mut app = client(house.proxy.addr).await;
        app.send(if pipelined { GET.repeat(3) } else { GET.to_owned() }).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        let began = Instant::now();
        app.reset();
        serving.read_to_close().await;
        assert!(began.elapsed() < Duration::from_secs(1), "reset: {:?}", began.elapsed());
        house.proxy.wait_log(|line| line.contains("client_left").then_some(())).await;

        // A FIN alone may mean that the app waits.
        let mut app = client(house.proxy.addr).await;
        app.send(if pipelined { GET.repeat(3) } else { GET.to_owned() }).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        let began = Instant::now();
        app.finish().await;
        serving.read_to_close().await;
        let took = began.elapsed();
        assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(4), "{took:?}");
        assert_eq!(app.read_to_close().await, b"");

        let mut app = client(house.proxy.addr).await;
        app.send(GET).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        app.finish().await;
        settled(&house).await;
        serving.send(OK).await;
        assert_eq!(app.read("GET").await.text(), "ok");
        assert_eq!(app.read_to_close().await, b"");
    }
}

#[tokio::test]
async fn a_read_over_http2_is_cancelled_with_its_stream_or_its_connection() {
    for reset in [true, false] {
        let bank = raw_server().await;
        let house = house(&format!("http://{}", bank.addr), Special::default()).await;
        let mut app = frames(house.proxy.addr).await;
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "localhost")];
        app.send(&fields, None).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        let began = Instant::now();
        let kept = if reset {
            app.frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).await;
            Some(app)
        } else {
            drop(app);
            None
        };
        serving.read_to_close().await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        drop(kept);
    }
}

#[tokio::test]
async fn a_read_over_tls_is_cancelled_too() {
    for notify in [true, false] {
        let bank = raw_server().await;
        let special = Special { tls: true, ..Special::default() };
        let house = house(&format!("http://{}", bank.addr), special).await;
        let connector = house.authority.client("http/1.1", None);
        let mut stream = connect(&connector, house.proxy.addr).await.unwrap();
        soon(stream.write_all(GET.as_bytes())).await.unwrap();
        let mut serving = bank.accept().await;
        serving.read_head().await;
        let began = Instant::now();
        if notify {
            soon(stream.shutdown()).await.unwrap();
            serving.read_to_close().await;
            let took = began.elapsed();
            assert!(
                took > Duration::from_millis(1500) && took < Duration::from_secs(4),
                "{took:?}"
            );
        } else {
            stream.get_ref().0.set_zero_linger().unwrap();
            drop(stream);
            serving.read_to_close().await;
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn a_fin_means_nothing_where_the_settings_say_so() {
    let bank = raw_server().await;
    let server = "half_closed = \"serve\"";
    let url = format!("http://{}", bank.addr);
    let house = house(&url, Special { server, tokenless: true, ..Special::default() }).await;
    let mut app = client(house.proxy.addr).await;
    app.send(POST).await;
    app.finish().await;
    settled(&house).await;
    house.auth.release(1);
    let mut serving = bank.accept().await;
    assert!(serving.read_head().await.starts_with("POST /pay "));
    serving.read_bytes(3).await;
    serving.send(OK).await;
    assert_eq!(app.read("POST").await.text(), "ok");
    assert_eq!(app.read_to_close().await, b"");

    let mut app = client(house.proxy.addr).await;
    app.send(GET).await;
    app.finish().await;
    serving.read_head().await;
    let gone = tokio::time::timeout(Duration::from_millis(3000), serving.read_to_close()).await;
    assert!(gone.is_err(), "cancelled");
    serving.send(OK).await;
    assert_eq!(app.read("GET").await.text(), "ok");
    assert_eq!(app.read_to_close().await, b"");
}

#[tokio::test]
async fn names_keep_their_case_unless_the_settings_say_otherwise() {
    for keeps in [true, false] {
        let bank = Recorder::start().await;
        bank.play(|_| {
            Act::Answer("HTTP/1.1 200 OK\r\nX-ODD-Name: y\r\nContent-Length: 2\r\n\r\nok".into())
        });
        let server = format!("preserve_header_case = {keeps}");
        let url = format!("http://{}", bank.addr);
        let house = house(&url, Special { server: &server, ..Special::default() }).await;
        let mut app = client(house.proxy.addr).await;
        app.send("POST /a HTTP/1.1\r\nHost: localhost\r\nSOAPAction: \"x\"\r\nsoapAction2: y\r\nContent-Length: 2\r\n\r\nhi").await;
        let answer = app.read("POST").await;
        let (there, back) = match keeps {
            true => ("\r\nSOAPAction: \"x\"\r\n", "X-ODD-Name"),
            false => ("\r\nsoapaction: \"x\"\r\n", "x-odd-name"),
        };
        let seen = bank.wait(1).await;
        assert!(seen.head.contains(there), "{}", seen.head);
        assert!(answer.headers.iter().any(|(name, _)| name == back), "{answer:?}");
        if !keeps {
            let upper = |name: &str| name.bytes().any(|byte| byte.is_ascii_uppercase());
            let names: Vec<_> =
                seen.head.lines().skip(1).filter_map(|l| l.split(':').next()).collect();
            assert!(!names.iter().any(|name| upper(name)), "{}", seen.head);
            assert!(!answer.headers.iter().any(|(name, _)| upper(name)), "{answer:?}");
        }
    }
}

/// What Apache HttpClient 5.4 sends, and Spring Boot 3.4 with it.
#[tokio::test]
async fn an_offer_of_tls_is_not_taken_and_costs_nothing() {
    const OFFER: &str = "Upgrade: TLS/1.2\r\nConnection: Upgrade\r\n";
    for tls in [false, true] {
        let bank = Recorder::start().await;
        let url = format!("http://{}", bank.addr);
        let house = house(&url, Special { tls, ..Special::default() }).await;
        let mut app = house.client().await;
        let host = "HTTP/1.1\r\nHost: localhost\r\n";
        let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\npay\r\n0\r\n\r\n";
        for _ in 0..2 {
            for ask in [
                format!("GET /a {host}{OFFER}\r\n"),
                format!("POST /a {host}{OFFER}Content-Length: 3\r\n\r\npay"),
                format!("POST /a {host}{OFFER}{chunked}"),
                format!("POST /a {host}{OFFER}Content-Length: 0\r\n\r\n"),
            ] {
                app.send(&ask).await;
                let answer = app.read("POST").await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{ask}");
                assert_eq!(answer.header("connection"), None, "{ask}");
                let seen = bank.seen().pop().unwrap();
                assert_eq!(seen.header("upgrade"), [""; 0], "{}", seen.head);
                assert!(!seen.head.to_lowercase().contains("connection: upgrade"), "{}", seen.head);
            }
        }
        // Two at once are two.
        let ask = format!("POST /a {host}{OFFER}Content-Length: 3\r\n\r\npay");
        app.send(ask.repeat(3)).await;
        for _ in 0..3 {
            assert_eq!(app.read("POST").await.text(), "ok");
        }
        app.send(format!("GET /a {host}Upgrade: TLS/1.2\r\nConnection: Upgrade, close\r\n\r\n"))
            .await;
        assert_eq!(app.read("GET").await.text(), "ok");
        // Without `close_notify` this is an error.
        assert_eq!(app.read_to_end().await.unwrap(), b"", "tls={tls}");
    }
}
