//! gRPC and other calls over HTTP/2 on both sides: messages one by one in both directions, trailers
//! by allow-list, and what happens to a call when either side gives up.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Extra, Fronted, in_front_of, soon};

/// A call as the bank sees it.
type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// A bank that speaks HTTP/2, and the program in front of it.
async fn front() -> (mpsc::UnboundedReceiver<Call>, Fronted) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, calls) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok(call)) = connection.accept().await {
                    let _ = tell.send(call);
                }
            });
        }
    });
    let extra = Extra { upstream: "http = \"2\"", ..Extra::default() };
    (calls, in_front_of(&format!("http://{addr}"), extra).await)
}

async fn app(addr: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (app, connection) = soon(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    app
}

/// Begins a call, and waits until the bank has it.
async fn called(
    proxy: &Fronted,
    calls: &mut mpsc::UnboundedReceiver<Call>,
) -> (ResponseFuture, SendStream<Bytes>, Call) {
    let request = Request::post("http://localhost/bank.v1.Accounts/Watch")
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    let mut app = soon(app(proxy.addr).await.ready()).await.unwrap();
    let (answer, messages) = app.send_request(request.body(()).unwrap(), false).unwrap();
    (answer, messages, soon(calls.recv()).await.unwrap())
}

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

async fn message(body: &mut RecvStream) -> Bytes {
    let bytes = soon(body.data()).await.unwrap().unwrap();
    body.flow_control().release_capacity(bytes.len()).unwrap();
    bytes
}

#[tokio::test]
async fn messages_pass_one_by_one_and_the_status_at_the_end() {
    let (mut calls, proxy) = front().await;
    let (answer, mut messages, (request, mut respond)) = called(&proxy, &mut calls).await;
    let head = request.headers().clone();
    assert_eq!(
        (&head["te"], request.uri().path()),
        (&"trailers".parse().unwrap(), "/bank.v1.Accounts/Watch")
    );
    let bearer = head["authorization"].to_str().unwrap().to_owned();
    let mut asked = request.into_body();
    let kind = fields(&[("content-type", "application/grpc+proto")]);
    let mut response = Response::new(());
    *response.headers_mut() = kind;
    let mut told = respond.send_response(response, false).unwrap();
    let mut answer = soon(answer).await.unwrap().into_body();
    for number in 0..3 {
        // Neither side says the next thing before the other has this one.
        let bytes = Bytes::from(format!("message {number}"));
        messages.send_data(bytes.clone(), false).unwrap();
        assert_eq!(message(&mut asked).await, bytes);
        told.send_data(bytes.clone(), false).unwrap();
        assert_eq!(message(&mut answer).await, bytes);
    }
    let more = [("content-digest", "a"), ("x-other", "b"), ("authorization", "Bearer x")];
    messages.send_trailers(fields(&more)).unwrap();
    assert!(soon(asked.data()).await.is_none());
    assert_eq!(soon(asked.trailers()).await.unwrap(), Some(fields(&more[..2])));
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let status = [
        ("grpc-status", "0"),
        ("grpc-message", token),
        ("x-bank-balance-bin", "AAE="),
        ("set-cookie", "a=b"),
        ("www-authenticate", "Bearer"),
    ];
    told.send_trailers(fields(&status)).unwrap();
    assert!(soon(answer.data()).await.is_none());
    let passed = [("grpc-status", "0"), ("grpc-message", "[redacted]"), status[2]];
    let passed = fields(&passed);
    assert_eq!(soon(answer.trailers()).await.unwrap(), Some(passed));
}

#[tokio::test]
async fn a_status_without_messages_passes() {
    let (mut calls, proxy) = front().await;
    let (answer, _messages, (_request, mut respond)) = called(&proxy, &mut calls).await;
    let mut response = Response::new(());
    *response.headers_mut() = fields(&[("grpc-status", "5"), ("grpc-message", "no such account")]);
    respond.send_response(response, true).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "5");
    assert!(answer.body().is_end_stream());
}

#[tokio::test]
async fn what_the_bank_cuts_is_cut_for_the_app() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let (mut calls, proxy) = front().await;
        let (answer, _messages, (_request, mut respond)) = called(&proxy, &mut calls).await;
        let mut told = respond.send_response(Response::new(()), false).unwrap();
        told.send_data(Bytes::from_static(b"half"), false).unwrap();
        let mut answer = soon(answer).await.unwrap().into_body();
        assert_eq!(message(&mut answer).await, "half");
        told.send_reset(reason);
        let cut = soon(answer.data()).await.unwrap().unwrap_err();
        assert!(cut.is_reset(), "{reason:?}: {cut:?}");
    }
}

#[tokio::test]
async fn a_call_that_the_app_gives_up_is_given_up() {
    let (mut calls, proxy) = front().await;
    let (_answer, mut messages, (request, mut respond)) = called(&proxy, &mut calls).await;
    let mut asked = request.into_body();
    messages.send_data(Bytes::from_static(b"half"), false).unwrap();
    assert_eq!(message(&mut asked).await, "half");
    messages.send_reset(Reason::CANCEL);
    let reset = soon(std::future::poll_fn(|cx| respond.poll_reset(cx))).await.unwrap();
    assert_ne!(reset, Reason::NO_ERROR);
}

/// RFC 9113 section 8.7: such a request may be sent again, where its method may be sent twice.
#[tokio::test]
async fn what_the_bank_refuses_to_look_at_was_not_forwarded() {
    let (mut calls, proxy) = front().await;
    let (answer, mut messages, (_request, mut respond)) = called(&proxy, &mut calls).await;
    messages.send_data(Bytes::new(), true).unwrap();
    respond.send_reset(Reason::REFUSED_STREAM);
    let answer = soon(answer).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["bearer-proxy-forwarded"]),
        (502, &"no".parse().unwrap())
    );

    let mut app = soon(app(proxy.addr).await.ready()).await.unwrap();
    let get = Request::get("http://localhost/a").body(()).unwrap();
    let (answer, _) = app.send_request(get, true).unwrap();
    soon(calls.recv()).await.unwrap().1.send_reset(Reason::REFUSED_STREAM);
    soon(calls.recv()).await.unwrap().1.send_response(Response::new(()), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 200);

    // Whatever else a reset says, the bank may have acted.
    let (answer, mut messages, (_request, mut respond)) = called(&proxy, &mut calls).await;
    messages.send_data(Bytes::new(), true).unwrap();
    respond.send_reset(Reason::INTERNAL_ERROR);
    let answer = soon(answer).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["bearer-proxy-forwarded"]),
        (502, &"unknown".parse().unwrap())
    );
}
