//! The same over HTTP/2, where a server can promise not to have looked at a request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, server};
use http::Response;
use tokio::net::{TcpListener, TcpStream};

use super::refusal;
use crate::support::{Extra, client, in_front_of};

/// What the server does at the first arrival of a request; later ones are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Reset(Reason),
    /// It leaves, and says that it did not look at this one.
    Leave,
    /// The connection ends.
    Drop,
}

/// Method, path and connection of each arrival.
type Book = Arc<Mutex<Vec<(String, usize)>>>;

async fn start(act: Act) -> (SocketAddr, Book) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, book) = (listener.local_addr().unwrap(), Book::default());
    let writing = Arc::clone(&book);
    tokio::spawn(async move {
        for number in 1.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(stream, number, act, Arc::clone(&writing)));
        }
    });
    (address, book)
}

async fn serve(stream: TcpStream, number: usize, act: Act, book: Book) -> Option<()> {
    let mut connection = server::handshake(stream).await.ok()?;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let line = format!("{} {}", request.method(), request.uri().path());
        let first = {
            let mut book = book.lock().unwrap();
            book.push((line.clone(), number));
            book.iter().filter(|(known, _)| *known == line).count() == 1
        };
        if !first || !line.ends_with("/fault") {
            answer(respond);
            continue;
        }
        let mut respond = respond;
        match act {
            Act::Reset(reason) => respond.send_reset(reason),
            Act::Leave => {
                respond.send_reset(Reason::REFUSED_STREAM);
                connection.graceful_shutdown();
            }
            Act::Drop => return None,
        }
    }
    None
}

fn answer(mut respond: SendResponse<Bytes>) {
    // The other side may have left.
    if let Ok(mut body) = respond.send_response(Response::new(()), false) {
        let _gone = body.send_data(Bytes::from_static(b"ok"), true);
    }
}

/// Act by method by route, and what it comes to: status, whether forwarded, arrivals.
#[tokio::test]
async fn only_what_was_promised_to_be_unseen_is_sent_again() {
    let check = async |act: Act, retry: &str, method: &str, told: (u16, &str), arrivals: usize| {
        for warm in [false, true] {
            let (address, book) = start(act).await;
            let (url, route) = (format!("http://{address}"), format!("retry.unsafe = \"{retry}\""));
            let extra = Extra { upstream: "http = \"2\"", route: &route, ..Extra::default() };
            let proxy = in_front_of(&url, extra).await;
            let mut app = client(proxy.addr).await;
            if warm {
                assert_eq!(app.get("/warm").await.text(), "ok");
            }
            let body: &[u8] = if method == "POST" { b"pay" } else { b"" };
            let answer = app.request(method, "/fault", &[], body).await;
            let forwarded = answer.header("bearer-proxy-forwarded").unwrap_or("");
            let row = format!("{act:?} {retry} {method} warm={warm}: {answer:?}");
            // A connection that had carried others may have been dead: a read is tried again.
            let again = warm && method == "GET" && told.1 == "unknown";
            let (told, arrivals) = if again { ((200, ""), 2) } else { (told, arrivals) };
            assert_eq!((answer.status, forwarded), told, "{row}");
            if told.0 == 502 {
                assert_eq!(refusal(&answer), "upstream_reset", "{row}");
            }
            let line = format!("{method} /fault");
            let book = book.lock().unwrap();
            assert_eq!(book.iter().filter(|(known, _)| *known == line).count(), arrivals, "{row}");
        }
    };
    for act in [Act::Reset(Reason::REFUSED_STREAM), Act::Leave] {
        check(act, "never", "GET", (200, ""), 2).await;
        check(act, "never", "POST", (502, "no"), 1).await;
        check(act, "always", "POST", (200, ""), 2).await;
    }
    let resets = [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR, Reason::PROTOCOL_ERROR];
    for act in resets.map(Act::Reset).into_iter().chain([Act::Drop]) {
        check(act, "never", "GET", (502, "unknown"), 1).await;
        check(act, "never", "POST", (502, "unknown"), 1).await;
    }
}
