//! Stories about the whole program, over real sockets on loopback. They wait for events, each
//! within a bound, and never sleep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

// The harness: fakes, the program as a child process, a raw HTTP client.
mod canary;
mod client_auth;
mod clients;
mod command;
mod egress;
mod expect;
mod forwarding;
mod gone;
mod grpc;
mod headers;
mod hostile;
mod http2;
mod https;
mod leaving;
mod limits;
mod listening;
mod live;
mod manners;
mod mixtures;
mod pages;
mod real;
mod reload;
mod secrets;
#[cfg(all(feature = "aws", feature = "azure", feature = "keyring"))]
mod stores;
mod support;
mod systemd;
mod tls;
mod tokens;
mod trailers;
mod upgrade;
mod vendors;
mod verbs;

// The fakes do what the vendors' documents say; everything else here relies on it.
mod sandbox;
