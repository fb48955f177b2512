//! What reading a token costs a request: a load without a lock, however many read, and while the
//! token is replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bearer_proxy::clock::Moment;
use bearer_proxy::sensitive::Sensitive;
use bearer_proxy::token::token_cell::{Writer, channel};
use bearer_proxy::token::{Bearer, TokenHeader};
use criterion::{Criterion, criterion_group, criterion_main};

fn bearer(generation: u64) -> Arc<Bearer> {
    let (token, life) = (Sensitive::new("tok-0123456789abcdef"), Duration::from_secs(3600));
    let bearer = Bearer::new(&token, &TokenHeader::default(), generation, Moment::now(), life);
    Arc::new(bearer.unwrap_or_else(|| unreachable!("the token is a header value")))
}

/// Publishes tokens as fast as it can: no bank is as quick, so nothing worse can happen.
fn swap(writer: &Writer, over: &AtomicBool) {
    let tokens = [bearer(2), bearer(3)];
    for token in tokens.iter().cycle().take_while(|_| !over.load(Relaxed)) {
        writer.publish(Arc::clone(token));
    }
}

fn token_read(criterion: &mut Criterion) {
    let (writer, reader) = channel();
    writer.publish(bearer(1));
    let now = Moment::now();
    let mut group = criterion.benchmark_group("token_read");
    group.measurement_time(Duration::from_secs(3));
    group.bench_function("still", |bencher| {
        bencher.iter(|| reader.usable(std::hint::black_box(now)));
    });
    group.bench_function("still, with a look at the clock", |bencher| {
        bencher.iter(|| reader.usable(Moment::now()));
    });
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&writer, &over));
        group.bench_function("while it is replaced", |bencher| {
            bencher.iter(|| reader.usable(std::hint::black_box(now)));
        });
        over.store(true, Relaxed);
    });
    group.finish();
}

criterion_group!(benches, token_read);
criterion_main!(benches);
