//! What finding a route costs: ten thousand routes should cost what ten do.

use bearer_proxy::route::{Methods, PathPattern, Rule, Table};
use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;

fn table(routes: usize) -> Table<usize> {
    let rules = (0..routes).filter_map(|number| {
        let path = PathPattern::parse(&format!("/v1/r{number}/{{id}}")).ok()?;
        let methods = Methods::new([Method::GET]);
        Some((Rule { host: None, path, methods }, number))
    });
    Table::build(rules.collect()).unwrap_or_else(|_| unreachable!("the paths differ"))
}

fn route_find(criterion: &mut Criterion) {
    for routes in [10, 100, 1_000, 10_000] {
        let table = table(routes);
        let path = format!("/v1/r{}/42", routes / 2);
        criterion.bench_function(&format!("route_find/{routes}"), |bencher| {
            bencher.iter(|| {
                let path = std::hint::black_box(&path);
                table.find("localhost", &Method::GET, path, |_, _| false)
            });
        });
    }
}

criterion_group!(benches, route_find);
criterion_main!(benches);
