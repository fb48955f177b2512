//! What reading a token costs a request: a load without a lock, however many read.

use std::sync::Arc;
use std::time::Duration;

use bearer_proxy::clock::Moment;
use bearer_proxy::sensitive::Sensitive;
use bearer_proxy::token::Bearer;
use bearer_proxy::token::cell::channel;
use criterion::{Criterion, criterion_group, criterion_main};

fn token_read(criterion: &mut Criterion) {
    let (writer, reader) = channel();
    let life = Duration::from_secs(3600);
    let bearer = Bearer::new(&Sensitive::new("tok-0123456789abcdef"), 1, Moment::now(), life);
    writer.publish(Arc::new(bearer.unwrap_or_else(|| unreachable!("the token is a header value"))));
    let now = Moment::now();
    criterion.bench_function("token_read/usable", |bencher| {
        bencher.iter(|| reader.usable(std::hint::black_box(now)));
    });
    criterion.bench_function("token_read/usable, with the clock", |bencher| {
        bencher.iter(|| reader.usable(Moment::now()));
    });
}

criterion_group!(benches, token_read);
criterion_main!(benches);
