//! What a request feels of the whole way: one client on loopback, through the program to a server
//! behind it, beside the same request without the program between.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says so and ends")]

#[path = "compare/client.rs"]
#[allow(dead_code, reason = "the comparison uses more of it")]
mod client;
#[path = "compare/load.rs"]
#[allow(dead_code, reason = "the comparison uses more of it")]
mod load;
#[path = "compare/machine.rs"]
#[allow(dead_code, reason = "the comparison uses more of it")]
mod machine;
#[path = "compare/origin.rs"]
#[allow(dead_code, reason = "the comparison uses more of it")]
mod origin;
#[path = "compare/proxies.rs"]
#[allow(dead_code, reason = "the comparison uses more of it")]
mod proxies;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use criterion::{Criterion, criterion_group, criterion_main};

/// Sends a GET and reads its answer of 1 KiB to its end.
fn ask(stream: &mut TcpStream, path: &str) {
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer tok-direct\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let mut filled = 0;
    while !answer[..filled].ends_with(&[b'x'; 1024]) {
        let read = stream.read(&mut answer[filled..]).unwrap();
        assert!(read > 0 && answer.starts_with(b"HTTP/1.1 200"), "no answer to {path}");
        filled += read;
    }
}

fn forward(criterion: &mut Criterion) {
    let origin = origin::Origin::start(machine::OTHER_CORE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let site = proxies::Site::new(&origin, folder.path());
    let program = env!("CARGO_BIN_EXE_bearer-proxy").into();
    let proxy = proxies::ours(&site, program).unwrap().start().unwrap();
    let direct = SocketAddr::from(([127, 0, 0, 1], origin.http));
    let ways = [
        ("direct", direct, "/r0/1024"),
        ("plain upstream", proxy.address, "/r0/1024"),
        ("TLS upstream", proxy.address, "/t0/1024"),
    ];
    for (name, address, path) in ways {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        criterion.bench_function(&format!("forward/{name}"), |bencher| {
            bencher.iter(|| ask(&mut stream, path));
        });
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
