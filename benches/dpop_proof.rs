//! What a proof of DPoP costs a request, by algorithm: one signature, in the worker that serves it. A request
//! with a token of type Bearer pays for a look at the token, which has no key.

use std::time::{Duration, SystemTime};

use bearer_proxy::clock::Moment;
use bearer_proxy::oauth::dpop::{DpopAlgorithm, ProofKey, ProvenRequest, token_hash};
use bearer_proxy::sensitive::Sensitive;
use bearer_proxy::token::{Bearer, TokenHeader};
use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;

fn dpop_proof(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dpop_proof");
    let hash = token_hash(b"tok-0123456789abcdef");
    let request = ProvenRequest {
        method: &Method::GET,
        url: "https://api.bank.example/v1/accounts/42/balances",
        token_hash: Some(&hash),
        nonce: Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"),
    };
    for (name, algorithm) in [("ES256", DpopAlgorithm::Es256), ("EdDSA", DpopAlgorithm::EdDsa)] {
        let key = ProofKey::generate(algorithm).unwrap_or_else(|_| unreachable!("a key is made"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| key.prove(std::hint::black_box(request), SystemTime::now()));
        });
    }
    let (token, life) = (Sensitive::new("tok-0123456789abcdef"), Duration::from_secs(3600));
    let bearer = Bearer::new(&token, &TokenHeader::default(), 1, Moment::now(), life);
    let bearer = bearer.unwrap_or_else(|| unreachable!("the token is a header value"));
    group.bench_function("none, a token of type Bearer", |bencher| {
        bencher.iter(|| std::hint::black_box(&bearer).dpop().is_some());
    });
    group.finish();
}

criterion_group!(benches, dpop_proof);
criterion_main!(benches);
