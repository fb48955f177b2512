//! Trailers between HTTP/1.1 and HTTP/1.1: those that are announced and allowed.

use crate::support::{Extra, client, in_front_of, raw_server};

#[tokio::test]
async fn allowed_trailers_pass_in_both_directions() {
    let bank = raw_server().await;
    let extra = Extra { route: "trailers = [\"X-Sum\"]", ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let mut app = client(proxy.addr).await;
    let trailers =
        "X-Sum: 1\r\nDigest: 2\r\nAuthorization: Bearer x\r\nContent-Length: 9\r\nX-No: 3\r\n";
    let announced = "Trailer: X-Sum, Digest, Authorization, Content-Length, X-No\r\n";
    let chunks =
        format!("Transfer-Encoding: chunked\r\n{announced}\r\n2\r\nhi\r\n0\r\n{trailers}\r\n");
    app.send(format!("POST /a HTTP/1.1\r\nHost: localhost\r\nTE: trailers, deflate\r\n{chunks}"))
        .await;
    let mut bank = bank.accept().await;
    let head = bank.read_head().await.to_lowercase();
    for line in ["te: trailers", "connection: te", "trailer: x-sum", "trailer: digest"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
    }
    assert_eq!(bank.read_bytes(7).await, b"2\r\nhi\r\n");
    let passed = bank.read_head().await.to_lowercase();
    assert_eq!(passed, "0\r\nx-sum: 1\r\ndigest: 2\r\n\r\n");
    bank.send(format!("HTTP/1.1 200 OK\r\n{chunks}")).await;
    let head = app.read_head().await.to_lowercase();
    assert!(head.contains("\r\ntrailer: x-sum") && !head.contains("x-no"), "{head}");
    assert_eq!(app.read_bytes(7).await, b"2\r\nhi\r\n");
    assert_eq!(app.read_head().await.to_lowercase(), "0\r\nx-sum: 1\r\ndigest: 2\r\n\r\n");
}

/// RFC 9110 section 6.5.1: who has not said that trailers are welcome gets none.
#[tokio::test]
async fn an_app_that_does_not_ask_for_trailers_gets_none() {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let mut app = client(proxy.addr).await;
    app.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut bank = bank.accept().await;
    assert!(!bank.read_head().await.to_lowercase().contains("te: "));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n";
    bank.send(format!("{head}2\r\nhi\r\n0\r\nDigest: 1\r\n\r\n")).await;
    app.read_head().await;
    assert_eq!(app.read_head().await, "2\r\nhi\r\n0\r\n\r\n");
}
