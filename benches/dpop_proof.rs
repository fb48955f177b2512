//! What a proof of DPoP costs a request, by algorithm: one signature, in the worker that serves it.

use std::time::SystemTime;

use bearer_proxy::oauth::dpop::{DpopAlgorithm, ProofKey, ProvenRequest, token_hash};
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
    group.finish();
}

criterion_group!(benches, dpop_proof);
criterion_main!(benches);
