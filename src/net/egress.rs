//! Egress proxies: a tunnel by CONNECT (RFC 9110 section 9.3.6) to an `https` origin.
//!
//! The proxy sees host, port and, if it requires them, its own credentials. The token travels inside TLS.
//! Plain `http`, which is for loopback only, never uses a proxy.

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

/// Bytes of all response heads together, informational ones included.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Header lines of a response head.
const MAX_FIELDS: usize = 100;
/// Characters of a status line that are kept for logs.
const MAX_SHOWN: usize = 100;

/// Address of an egress proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyAddress {
    host: String,
    port: u16,
}

impl ProxyAddress {
    /// Parses `http://host:port`; the port defaults to 80.
    ///
    /// # Errors
    /// A sentence on what is wrong with the text, without repeating any of it.
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

    /// Host in lower case; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `host:port`, the authority to connect to.
    pub fn authority(&self) -> String {
        bracketed(&self.host, self.port)
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// Credentials for an egress proxy, read for each connection.
pub trait ProxyCredentials: Send + Sync {
    /// `user:password` (RFC 7617 section 2), or a sentence on why they cannot be read.
    fn read(&self) -> Pin<Box<dyn Future<Output = Result<Sensitive, String>> + Send + '_>>;
}

/// An egress proxy that opens tunnels with CONNECT.
#[derive(Clone)]
pub struct TunnelProxy {
    /// Address of the proxy.
    pub proxy: ProxyAddress,
    /// Basic credentials for the proxy itself (RFC 7617), if it requires any.
    pub login: Option<Arc<dyn ProxyCredentials>>,
}

/// Opens a tunnel to `target` (`host:port`) through the proxy at the other end of `stream`. Returns the
/// status line; the next byte of the stream is then the first of the tunnel.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    egress: &TunnelProxy,
    target: &str,
) -> Result<String, TunnelError> {
    let login = match &egress.login {
        Some(login) => Some(login.read().await.map_err(TunnelError::Credentials)?),
        None => None,
    };
    stream.write_all(request(target, login.as_ref()).expose().as_bytes()).await?;
    let mut left = MAX_HEAD_BYTES;
    loop {
        let response = read_response(stream, &mut left).await?;
        match response.code {
            101 => return Err(TunnelError::Refused(response)),
            100..=199 => {}
            // RFC 9110 section 9.3.6: Content-Length and Transfer-Encoding are ignored here.
            200..=299 => return Ok(response.line),
            _ => {
                return Err(TunnelError::Refused(ConnectResponse {
                    had_credentials: login.is_some(),
                    ..response
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

/// Reads one response head and not one byte more, because the bytes after it belong to the tunnel. It
/// therefore peeks at the socket's buffer before it takes bytes from it.
async fn read_response(
    stream: &mut TcpStream,
    left: &mut usize,
) -> Result<ConnectResponse, TunnelError> {
    let mut head = Vec::new();
    let mut ahead = [0; 1024];
    loop {
        let seen = stream.peek(&mut ahead).await?;
        if seen == 0 {
            return Err(match head.is_empty() {
                true => TunnelError::NoResponse,
                false => TunnelError::Incomplete(printable(&head)),
            });
        }
        let before = head.len();
        head.extend_from_slice(&ahead[..seen]);
        let parsed =
            ConnectResponse::parse(&head).map_err(|_| TunnelError::NotHttp(printable(&head)))?;
        let end = parsed.as_ref().map_or(head.len(), |(_, end)| *end);
        let taken = end.saturating_sub(before);
        *left = left.checked_sub(taken).ok_or(TunnelError::TooLarge)?;
        stream.read_exact(&mut ahead[..taken]).await?;
        if let Some((response, _)) = parsed {
            return Ok(response);
        }
    }
}

/// The response of an egress proxy to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Status code.
    pub code: u16,
    /// Status code and reason: printable ASCII, at most 100 characters.
    pub line: String,
    /// Authentication schemes of `Proxy-Authenticate`, in lower case.
    schemes: Vec<String>,
    /// True if the request had credentials.
    had_credentials: bool,
}

impl ConnectResponse {
    /// The response and the length of its head; `None` if more bytes are needed.
    fn parse(head: &[u8]) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(end) = response.parse(head)? else { return Ok(None) };
        let code = response.code.filter(|code| (100..600).contains(code));
        let code = code.ok_or(httparse::Error::Status)?;
        let line = printable(format!("{code} {}", response.reason.unwrap_or_default()).as_bytes());
        let schemes = response
            .headers
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case("proxy-authenticate"))
            .filter_map(|field| std::str::from_utf8(field.value).ok()?.split_whitespace().next())
            .map(|scheme| scheme.trim_end_matches(',').to_ascii_lowercase())
            .collect();
        Ok(Some((Self { code, line, schemes, had_credentials: false }, end)))
    }

    /// A remedy.
    fn hint(&self) -> &'static str {
        let offers = |scheme: &str| self.schemes.iter().any(|offered| offered == scheme);
        match self.code {
            407 if self.had_credentials => {
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

/// The first line as printable ASCII without quotes, at most [`MAX_SHOWN`] characters, for logs and
/// headers.
fn printable(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    let fit = |&byte: &u8| match byte {
        b'"' | b'\\' => '\'',
        b' '..=b'~' => char::from(byte),
        _ => '?',
    };
    line.iter().take(MAX_SHOWN).map(fit).collect()
}

/// A tunnel was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// The proxy's credentials cannot be read.
    #[error("its login cannot be read: {0}")]
    Credentials(String),
    /// The connection failed.
    #[error("the connection broke off: {0}")]
    Io(#[from] io::Error),
    /// The proxy closed the connection without a response.
    #[error("it hung up without an answer")]
    NoResponse,
    /// The proxy closed the connection in the middle of a response, which began with this text.
    #[error("it hung up in the middle of its answer: {0}")]
    Incomplete(String),
    /// The response heads exceed [`MAX_HEAD_BYTES`].
    #[error("its answer is longer than {} KiB", MAX_HEAD_BYTES / 1024)]
    TooLarge,
    /// The response is not HTTP/1; it began with this text.
    #[error("what answered speaks no HTTP/1: {0}")]
    NotHttp(String),
    /// The status is not 2xx.
    #[error("it answered {}", .0.line)]
    Refused(ConnectResponse),
}

impl TunnelError {
    /// The response, if there was one.
    pub(super) fn response(&self) -> Option<&ConnectResponse> {
        match self {
            Self::Refused(response) => Some(response),
            _ => None,
        }
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(response) => Some(response.hint()),
            Self::Credentials(_) => None,
            _ => Some("is this an egress proxy that takes CONNECT? check egress.proxy"),
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
