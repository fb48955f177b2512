//! Egress proxies: a tunnel by CONNECT (RFC 9110 section 9.3.6) to an `https` origin.
//!
//! The proxy sees host, port and, where it wants one, its own login. The token travels inside TLS,
//! so that plain `http`, which is for loopback only, never takes this progress.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::origin::{self, bracketed};
use crate::sensitive::Sensitive;

/// Bytes of all heads of a proxy's answer together.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Lines of such a head.
const MAX_FIELDS: usize = 100;
/// Characters of a status line that are shown.
const MAX_SHOWN: usize = 100;

/// Where an egress proxy listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyAddress {
    host: String,
    port: u16,
}

impl ProxyAddress {
    /// Reads `http://host:port`; the port is 80 where none is written.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it, without repeating any of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "this is no URL; write http://host:port")?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    "TLS towards an egress proxy is not supported; write http://host:port \
                     (what goes through it is encrypted end to end)",
                );
            }
            _ => return Err("an egress proxy is written http://host:port"),
        }
        let authority = uri.authority().ok_or("it names no host; write http://host:port")?;
        if authority.as_str().contains('@') {
            return Err("a URL may hold no user name or password; write username and password \
                 as references");
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("an egress proxy has neither path nor query; write http://host:port");
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = origin::port(authority).ok_or("the port is no number between 1 and 65535")?;
        match host.is_empty() {
            true => Err("it names no host; write http://host:port"),
            false => Ok(Self { host, port: port.unwrap_or(80) }),
        }
    }

    /// Its host in lower case, IPv6 addresses without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `host:port`, as connections are made to it.
    pub fn authority(&self) -> String {
        bracketed(&self.host, self.port)
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// The login of an egress proxy, read anew for each connection.
pub trait ProxyCredentials: Send + Sync {
    /// `user:password`, or in a sentence why there is none.
    fn read(&self) -> Pin<Box<dyn Future<Output = Result<Sensitive, String>> + Send + '_>>;
}

/// The way through an egress proxy.
#[derive(Clone)]
pub struct TunnelProxy {
    /// Where the proxy listens.
    pub proxy: ProxyAddress,
    /// Basic credentials for the proxy itself (RFC 7617), where it wants any.
    pub login: Option<Arc<dyn ProxyCredentials>>,
}

/// Asks the proxy at the other end of `stream` for a tunnel to `target`, `host:port`. Afterwards
/// the stream's next byte is the first of the tunnel.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    egress: &TunnelProxy,
    target: &str,
) -> Result<String, TunnelError> {
    let login = match &egress.login {
        Some(login) => Some(login.read().await.map_err(TunnelError::Login)?),
        None => None,
    };
    stream.write_all(request(target, login.as_ref()).expose().as_bytes()).await?;
    let mut left = MAX_HEAD_BYTES;
    loop {
        let answer = read_response(stream, &mut left).await?;
        match answer.code {
            101 => return Err(TunnelError::Refused(answer)),
            100..=199 => {}
            // Its Content-Length and Transfer-Encoding mean nothing: the tunnel has begun.
            200..=299 => return Ok(answer.line),
            _ => {
                return Err(TunnelError::Refused(ConnectResponse {
                    had_login: login.is_some(),
                    ..answer
                }));
            }
        }
    }
}

fn request(target: &str, login: Option<&Sensitive>) -> Sensitive {
    let login = login.map_or_else(String::new, |login| {
        format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(login.expose()))
    });
    Sensitive::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: bearer-proxy\r\n{login}\r\n"
    ))
}

/// Reads up to the end of a head and not one byte further: what follows belongs to the tunnel, so
/// that bytes are looked at before they are taken.
async fn read_response(
    stream: &mut TcpStream,
    left: &mut usize,
) -> Result<ConnectResponse, TunnelError> {
    let mut head = Vec::new();
    let mut ahead = [0; 1024];
    loop {
        let seen = stream.peek(&mut ahead).await?;
        if seen == 0 {
            return Err(TunnelError::Closed(shown(&head)));
        }
        let before = head.len();
        head.extend_from_slice(&ahead[..seen]);
        let parsed =
            ConnectResponse::parse(&head).map_err(|_| TunnelError::NoHttp(shown(&head)))?;
        let end = parsed.as_ref().map_or(head.len(), |(_, end)| *end);
        let taken = end.saturating_sub(before);
        *left = left.checked_sub(taken).ok_or(TunnelError::TooLong)?;
        stream.read_exact(&mut ahead[..taken]).await?;
        if let Some((answer, _)) = parsed {
            return Ok(answer);
        }
    }
}

/// What an egress proxy said to a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Its status code.
    pub code: u16,
    /// Code and reason, fit to be shown: printable ASCII, at most 100 characters.
    pub line: String,
    /// The schemes of its `Proxy-Authenticate`, in lower case.
    schemes: Vec<String>,
    /// Whether a login had been sent.
    had_login: bool,
}

impl ConnectResponse {
    /// The answer and the length of its head; `None` where more bytes are needed.
    fn parse(head: &[u8]) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(end) = response.parse(head)? else { return Ok(None) };
        let code = response.code.filter(|code| (100..600).contains(code));
        let code = code.ok_or(httparse::Error::Status)?;
        let line = shown(format!("{code} {}", response.reason.unwrap_or_default()).as_bytes());
        let schemes = response
            .headers
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case("proxy-authenticate"))
            .filter_map(|field| std::str::from_utf8(field.value).ok()?.split_whitespace().next())
            .map(|scheme| scheme.trim_end_matches(',').to_ascii_lowercase())
            .collect();
        Ok(Some((Self { code, line, schemes, had_login: false }, end)))
    }

    /// What may help.
    fn hint(&self) -> &'static str {
        let offers = |scheme: &str| self.schemes.iter().any(|offered| offered == scheme);
        match self.code {
            407 if self.had_login => {
                "the egress proxy refuses this login: check egress.username and egress.password"
            }
            407 if offers("basic") => {
                "the egress proxy wants a login: set egress.username and egress.password"
            }
            407 if offers("ntlm") || offers("negotiate") || offers("kerberos") => {
                "the egress proxy wants NTLM or Kerberos, which is not supported: put a local \
                 helper such as px or cntlm in between, or ask for an exception for this host"
            }
            407 => "the egress proxy wants a login of a kind that is not supported; Basic is",
            403 | 405 => {
                "the egress proxy does not allow this host and port: ask its owners to, or name \
                 the host in egress.no_proxy if it is reached directly"
            }
            502..=504 => "the egress proxy itself cannot reach the host: is its name right?",
            _ => "is this an egress proxy that takes CONNECT? check egress.proxy",
        }
    }
}

/// Printable ASCII without quotes, at most [`MAX_SHOWN`] characters: fit for logs and headers.
fn shown(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    let fit = |&byte: &u8| match byte {
        b'"' | b'\\' => '\'',
        b' '..=b'~' => char::from(byte),
        _ => '?',
    };
    line.iter().take(MAX_SHOWN).map(fit).collect()
}

/// Why there is no tunnel.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// The login could not be read.
    Login(String),
    /// The connection failed.
    Io(io::Error),
    /// The proxy hung up in the middle of its answer.
    Closed(String),
    /// Its answer's head is too long.
    TooLong,
    /// What answered speaks no HTTP.
    NoHttp(String),
    /// It answered with another status than 2xx.
    Refused(ConnectResponse),
}

impl TunnelError {
    /// The answer, where there is one.
    pub(super) fn response(&self) -> Option<&ConnectResponse> {
        match self {
            Self::Refused(answer) => Some(answer),
            _ => None,
        }
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(answer) => Some(answer.hint()),
            Self::Login(_) => None,
            _ => Some("is this an egress proxy that takes CONNECT? check egress.proxy"),
        }
    }
}

impl From<io::Error> for TunnelError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(why) => write!(f, "its login cannot be read: {why}"),
            Self::Io(error) => write!(f, "the connection broke off: {error}"),
            Self::Closed(begun) if begun.is_empty() => f.write_str("it hung up without an answer"),
            Self::Closed(begun) => write!(f, "it hung up in the middle of its answer: {begun}"),
            Self::TooLong => write!(f, "its answer is longer than {} KiB", MAX_HEAD_BYTES / 1024),
            Self::NoHttp(begun) => write!(f, "what answered speaks no HTTP/1: {begun}"),
            Self::Refused(answer) => write!(f, "it answered {}", answer.line),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    struct Said(&'static str);

    impl ProxyCredentials for Said {
        fn read(&self) -> Pin<Box<dyn Future<Output = Result<Sensitive, String>> + Send + '_>> {
            Box::pin(async { Ok(Sensitive::new(self.0)) })
        }
    }

    /// Asks a proxy that answers with these bytes and hangs up: what came of it, what it was asked,
    /// and what is left for the tunnel.
    async fn ask(
        answer: &[u8],
        login: Option<&'static str>,
    ) -> (Result<String, TunnelError>, String, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = ProxyAddress::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let login = login.map(|login| Arc::new(Said(login)) as Arc<dyn ProxyCredentials>);
        let egress = TunnelProxy { proxy, login };
        let proxy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(asked).unwrap()
        };
        let client = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let outcome = tunnel(&mut stream, &egress, "bank.example:443").await;
            let mut rest = Vec::new();
            if outcome.is_ok() {
                stream.read_to_end(&mut rest).await.unwrap();
            }
            (outcome, rest)
        };
        let (asked, (outcome, rest)) = tokio::join!(proxy, client);
        (outcome, asked, rest)
    }

    #[tokio::test]
    async fn a_tunnel_begins_right_after_the_head() {
        let check = async |answer: &str, line: &str, rest: &str| {
            let (outcome, asked, left) = ask(answer.as_bytes(), None).await;
            assert_eq!((outcome.unwrap().as_str(), left.as_slice()), (line, rest.as_bytes()));
            assert!(asked.starts_with("CONNECT bank.example:443 HTTP/1.1\r\n"), "{asked}");
            assert!(asked.contains("\r\nHost: bank.example:443\r\n"), "{asked}");
            assert!(!asked.contains("Proxy-Authorization"), "{asked}");
        };
        check("HTTP/1.1 200 Connection established\r\n\r\n", "200 Connection established", "")
            .await;
        check("HTTP/1.0 299 \r\nContent-Length: 9\r\n\r\nearly", "299 ", "early").await;
        check("HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\r\n\r\n", "200 OK", "\r\n\r\n").await;
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\nrest", "x".repeat(10_000));
        check(&long, "200 OK", "rest").await;
    }

    #[tokio::test]
    async fn a_login_goes_to_the_proxy_as_basic() {
        let (outcome, asked, _) =
            ask(b"HTTP/1.1 200 OK\r\n\r\n", Some("Aladdin:open sesame")).await;
        outcome.unwrap();
        // The example of RFC 7617 section 2.
        let expected = "\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
        assert!(asked.contains(expected), "{asked}");
    }

    #[tokio::test]
    async fn refusals_are_told_with_their_status_line() {
        let check = async |answer: &str, login, message: &str, hint: &str| {
            let error = ask(answer.as_bytes(), login).await.0.unwrap_err();
            let (text, help) = (error.to_string(), error.hint().unwrap_or_default());
            assert!(text.contains(message) && help.contains(hint), "{text}\n{help}");
        };
        let wants = |scheme: &str| {
            format!("HTTP/1.1 407 Log In\r\nProxy-Authenticate: {scheme} realm=\"x\"\r\n\r\n")
        };
        check(&wants("Basic"), None, "it answered 407 Log In", "set egress.username").await;
        check(&wants("basic"), Some("a:b"), "407 Log In", "refuses this login").await;
        check(&wants("NTLM"), None, "407 Log In", "px or cntlm").await;
        check(&wants("Digest"), None, "407 Log In", "is not supported; Basic is").await;
        check("HTTP/1.1 403 Forbidden\r\n\r\n", None, "403 Forbidden", "does not allow").await;
        check("HTTP/1.1 502 Bad\r\n\r\n", None, "502 Bad", "cannot reach the host").await;
        check("HTTP/1.1 302 Go\r\nLocation: /\r\n\r\n", None, "302 Go", "takes CONNECT").await;
        check("HTTP/1.1 101 Switch\r\n\r\n", None, "101 Switch", "takes CONNECT").await;
        check("SSH-2.0-x\r\n\r\n", None, "speaks no HTTP/1: SSH-2.0-x", "takes CONNECT").await;
        check("HTTP/1.1 200 OK\r\nX: y", None, "middle of its answer: HTTP/1.1 200 OK", "").await;
        check("", None, "hung up without an answer", "takes CONNECT").await;
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD_BYTES));
        check(&endless, None, "longer than 16 KiB", "takes CONNECT").await;
        let quoted = format!("HTTP/1.1 503 \"a\\{}\r\n\r\n", "y".repeat(200));
        let shown = format!("it answered 503 'a'{}", "y".repeat(93));
        check(&quoted, None, &shown, "cannot reach the host").await;
        let odd = "HTTP/1.1 503 \x1b[31m\r\n\r\n";
        check(odd, None, "speaks no HTTP/1: HTTP/1.1 503 ?[31m", "takes CONNECT").await;
    }

    #[test]
    fn addresses_are_read_or_refused() {
        let check = |text: &str, expected: Result<&str, &str>| match ProxyAddress::parse(text) {
            Ok(address) => assert_eq!(Ok(address.to_string().as_str()), expected),
            Err(why) => assert!(expected.is_err_and(|part| why.contains(part)), "{text}: {why}"),
        };
        check("http://Proxy.corp.example:3128/", Ok("http://proxy.corp.example:3128"));
        check("http://proxy", Ok("http://proxy:80"));
        check("http://[fd00::1]:8080", Ok("http://[fd00::1]:8080"));
        check("https://proxy:3128", Err("TLS towards an egress proxy"));
        check("socks5://proxy:1080", Err("written http://host:port"));
        check("proxy:3128", Err("written http://host:port"));
        check("http://user:pw@proxy:3128", Err("no user name or password"));
        check("http://proxy:3128/path", Err("neither path nor query"));
        check("http://proxy:0", Err("no number between"));
        check("http://proxy:99999", Err("no number between"));
        check("http:// proxy", Err("no URL"));
    }
}
