//! bearer-proxy: an authenticating outbound reverse proxy.
//!
//! Internal apps send it plain HTTP. It obtains OAuth 2.0 client-credentials tokens (RFC 6749
//! section 4.4), keeps them fresh in the background, attaches `Authorization: Bearer …` (RFC 6750)
//! with the scopes that the matched route needs, and forwards to the upstream API over TLS.
//!
//! # Request path and token path
//!
//! ```text
//! request path (fast, reads only)
//!   server ─► proxy::stack ─► Received ─► Routed ─► Authorized ─► upstream::Pool ─► answer streams back
//!                             (as it      (route::   (token::        the only await
//!                              came in)    Table)     Reader)         on the way out
//!                                                       ▲
//!                                               atomic token cell
//!                                                       ▲
//! token path (slow, the only writer)                    │
//!   token::TokenManager ─► refresher ⟲ schedule ─► fetch: secret ─► oauth request ─► net ─► oauth reply ─► token::Writer
//! ```
//!
//! The token path never looks at a request. A request waits for the token path in two cases only: no usable token is there yet, or a 401 blamed the one it carried; both within a deadline.
//!
//! # The map, in reading order
//!
//! * [`proxy`]: the life of a request. Start with `proxy/stack.rs`.
//! * [`token`]: the life of a token. Start with `token/refresher.rs`.
//! * [`route`]: pure matching of targets; [`oauth`]: RFC 6749 as values and bytes.
//! * [`listen`]: sockets, their TLS and their peers; [`server`]: workers and client connections.
//! * [`upstream`]: connections to upstreams; [`net`]: how bytes leave. hyper and h2 speak HTTP on every
//!   connection; only the CONNECT exchange with an egress proxy is ours (`net/egress.rs`).
//! * [`secret`]: where client secrets come from; [`x509`]: certificates and PEM files.
//! * [`config`]: TOML in, typed settings out; [`diagnostics`]: how its problems are found and shown.
//! * [`admin`], [`telemetry`]: what operators see.
//! * [`app`]: composition; [`cli`]: the verbs a person types; [`sandbox`]: the fakes behind `demo`
//!   and the tests.
//!
//! A folder imports only folders further right in this list, never its neighbours
//! (`tests/tidy.rs` checks it):
//! cli → app → config → {proxy, admin} → {token, upstream, server} → {listen, secret} → {net} →
//! {x509, route, oauth, telemetry, diagnostics} → {body, clock, sensitive}. `sandbox` uses none of them.
//!
//! # Invariants
//!
//! 1. No request reaches an upstream without what its route asks for: only `proxy::Authorized` can
//!    be sent, and only authorization makes one.
//! 2. A first attempt takes no lock that another thread takes and, where a usable token is there, awaits none. Only a request
//!    that finds no usable token, or was challenged, waits for a newer one, within its deadline.
//! 3. A request sees one `proxy::Plan` from start to end, whatever is reloaded meanwhile.
//! 4. [`Sensitive`](sensitive::Sensitive) and `token::Bearer` have no `Display`, and a redacted
//!    `Debug`.
//! 5. Every queue, body, retry and wait has a bound with a unit.
//! 6. `route`, `oauth`, `token::schedule`, `proxy::headers` and `proxy::rewrite` touch neither clock
//!    nor socket: time is an argument.

pub mod body;
pub mod clock;
pub mod sensitive;

pub mod diagnostics;
pub mod oauth;
pub mod route;
pub mod telemetry;
pub mod x509;

pub mod net;

pub mod listen;
pub mod secret;

pub mod server;
pub mod token;
pub mod upstream;

pub mod admin;
pub mod proxy;

pub mod app;
pub mod cli;
pub mod config;

#[cfg(feature = "demo")]
pub mod sandbox;
