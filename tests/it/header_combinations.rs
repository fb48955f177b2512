//! Whatever an app sends, in whatever mixture: exactly one Authorization goes out, and it is ours.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::hostile::Rig;
use crate::support::http2::{END_HEADERS, END_STREAM, HEADERS, frames, head};
use crate::support::{client, soon};

/// Enough for each pair of fields to meet.
const TRIES: usize = 600;

/// A part of every credential of the app's.
const CANARY: &str = "canary";

/// Fields in the order they are sent in.
type Fields = Vec<(String, String)>;

/// Names under which some server or proxy takes credentials, and names that we write.
fn ours_or_secret() -> impl Strategy<Value = (String, String)> {
    let names = vec![
        "authorization",
        "Authorization",
        "AUTHORIZATION",
        "proxy-authorization",
        "Proxy_Authorization",
        "x-api-key",
        "X_Api_Key",
        "x-api_key",
        "x-local-key",
        "x_local-key",
    ];
    let values = vec!["Bearer", "Basic", "", "bearer demo-0,", "\t"];
    (prop::sample::select(names), prop::sample::select(values))
        .prop_map(|(name, scheme)| (name.to_owned(), format!("{scheme} {CANARY}-x")))
}

/// Names by which others are removed, kept or announced.
fn steering() -> impl Strategy<Value = (String, String)> {
    let names = vec!["Connection", "connection", "Trailer", "TE", "Keep-Alive", "X_Y", "Accept"];
    let values = vec![
        "authorization",
        "Authorization, x-api-key",
        "close, AUTHORIZATION",
        "host,,via , te",
        "x-api-key",
        "trailers",
        "keep-alive",
    ];
    (prop::sample::select(names), prop::sample::select(values))
        .prop_map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// Fields, trailers, and whether they go over HTTP/2.
fn request() -> impl Strategy<Value = (Fields, Fields, bool)> {
    let field = prop_oneof![3 => ours_or_secret(), 2 => steering()];
    let trailers = prop::collection::vec(ours_or_secret(), 0..3);
    (prop::collection::vec(field, 0..7), trailers, any::<bool>())
}

async fn rig() -> Rig {
    let upstream = "[upstreams.bank]\nurl = \"{url}\"\nset_headers.X-Api-Key.value = \"ours\"\nROUTES\n\
                    [clients.other]\nlocal_key = { header = \"X-Local-Key\", value.file = \"{id}\" }";
    let route =
        "{ name = \"files\", path = \"/files/**\", methods = [\"POST\"], clients = \"anyone\" }";
    Rig::with(upstream, route).await
}

async fn over_http1(rig: &Rig, fields: &Fields, trailers: &Fields) {
    let lines = |fields: &Fields| -> String {
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
    };
    let mut app = client(rig.proxy.addr).await;
    app.send(format!(
        "POST /files/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{}\r\n\
         2\r\nhi\r\n0\r\n{}\r\n",
        lines(fields),
        lines(trailers)
    ))
    .await;
    soon(app.try_read("POST")).await;
}

async fn over_http2(rig: &Rig, fields: &Fields, trailers: &Fields) {
    let lower = |fields: &Fields| -> Fields {
        let lower = |(name, value): &(String, String)| {
            (name.to_lowercase(), value.trim_start_matches(['\t', ' ']).to_owned())
        };
        // Fields of a connection make a stream malformed; they were tried over HTTP/1.
        let fits = |(name, value): &(String, String)| {
            !["connection", "keep-alive"].contains(&&**name)
                && (name != "te" || value == "trailers")
        };
        fields.iter().map(lower).filter(fits).collect()
    };
    let pseudo = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/files/x"),
        (":authority", "localhost"),
    ];
    let pack = |pseudo: &[(&str, &str)], fields: &Fields| {
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        head(&pseudo.iter().copied().chain(fields).collect::<Vec<_>>())
    };
    let mut app = frames(rig.proxy.addr).await;
    app.frame(HEADERS, END_HEADERS, 1, &pack(&pseudo, &lower(fields))).await;
    app.frame(HEADERS, END_HEADERS | END_STREAM, 1, &pack(&[], &lower(trailers))).await;
    app.reply(1).await;
}

/// What goes wrong with a head as the upstream saw it.
fn fault(head: &str) -> Option<&'static str> {
    let fields: Vec<_> = head.lines().skip(1).filter_map(|line| line.split_once(':')).collect();
    let values = |wanted: &str| -> Vec<&str> {
        let name = |name: &str| name.to_lowercase().replace('_', "-") == wanted;
        fields.iter().filter(|(known, _)| name(known)).map(|(_, value)| value.trim()).collect()
    };
    match values("authorization")[..] {
        [token] if token.starts_with("Bearer demo-") => {}
        _ => return Some("not exactly our Authorization"),
    }
    if values("x-api-key") != ["ours"] {
        return Some("not exactly our fixed header");
    }
    head.contains(CANARY).then_some("a credential of the app")
}

#[tokio::test]
async fn exactly_one_authorization_goes_out_and_it_is_ours() {
    let rig = rig().await;
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    for _ in 0..TRIES {
        let (fields, trailers, http2) = request().new_tree(&mut runner).unwrap().current();
        let before = rig.upstream.count();
        match http2 {
            true => over_http2(&rig, &fields, &trailers).await,
            false => over_http1(&rig, &fields, &trailers).await,
        }
        for seen in &rig.upstream.seen()[before..] {
            let fault = fault(&seen.head);
            assert_eq!(fault, None, "{fields:?} {trailers:?} {http2}\n{}", seen.head);
        }
    }
    let seen = rig.upstream.count();
    assert!(seen > TRIES / 2, "only {seen} of {TRIES} were forwarded at all");
}
