//! Stories about the whole program, over real sockets on loopback. They wait for events, each
//! within a bound, and never sleep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

// The harness: fakes, the program as a child process, a raw HTTP client.
mod support;
// The fakes do what the vendors' documents say; everything else here relies on it.
mod sandbox;

// The verbs: what they print, and how they end.
mod check_live;
mod command;
mod status;
mod verbs;

// Tokens: how they are obtained, renewed and shared, and where the secrets for them come from.
mod certificate_bound;
mod client_auth;
mod grants;
mod issuer;
mod oidc_provider;
mod one_live_token;
mod presets;
mod secrets;
#[cfg(feature = "redis")]
mod shared_failover;
#[cfg(all(feature = "redis", feature = "kubernetes"))]
mod shared_secret;
#[cfg(feature = "redis")]
mod shared_tokens;
#[cfg(any(feature = "vault", all(feature = "aws", feature = "azure", feature = "keyring")))]
mod stores;
mod token_answers;
mod tokens;
mod vendors;

// Requests: what is forwarded, with which headers, and what is refused.
mod access_log;
mod attach;
mod browser_origin;
mod clients;
mod dpop;
mod forwarding;
mod header_combinations;
mod headers;
mod hostile;
mod limits;
mod log_lines;
mod metrics;
mod secret_leaks;
mod trailers;

// Connections: how they begin, go on and end, on both sides.
mod client_disconnect;
mod connection_lifecycle;
mod egress;
mod expect;
mod grpc;
mod http2;
mod https;
mod listening;
mod tls;
mod upgrade;

// The process: what a reload changes, how it stops, and what systemd sees.
mod refusals;
mod reload;
mod shutdown;
mod systemd;
