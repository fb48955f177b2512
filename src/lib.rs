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
//!   server ─► proxy::stack ─► Received ─► Routed ─► Authorized ─► upstream::Pool ─► response streams back
//!                             (as sent     (route::   (token::        the only await
//!                              by the app)  Table)     Reader)         on the way out
//!                                                       ▲
//!                                                 token::token_cell
//!                                                       ▲
//! token path (slow, the only writer)                    │
//!   token::TokenManager ─► refresher ⟲ schedule ─► fetch: secret ─► oauth::request ─► net::control
//!                                                         ─► oauth::token_response ─► token::token_cell::Writer
//! ```
//!
//! The token path never sees a request. A request waits for the token path in three cases only, each with a
//! deadline: there is no usable token yet, the upstream rejected the token of its first attempt with 401, or
//! a renewal hands over at a server that keeps one live token.
//!
//! # The map, in reading order
//!
//! * [`proxy`]: the life of a request. Start with `proxy/stack.rs`.
//! * [`token`]: the life of a token. Start with `token/refresher.rs`.
//! * [`route`]: pure matching of targets. [`oauth`]: RFC 6749 as values and bytes.
//! * [`listen`]: sockets, their TLS and their peers. [`server`]: workers and client connections.
//! * [`upstream`]: connections to upstreams. [`net`]: outbound connections and egress proxies. hyper and h2
//!   speak HTTP on every connection; only the CONNECT exchange with an egress proxy is this crate's own
//!   (`net/egress.rs`).
//! * [`secret`]: sources of client secrets. `share` (feature `share`): tokens that replicas share.
//!   [`x509`]: certificates and PEM files.
//! * [`config`]: TOML in, typed settings out. [`diagnostics`]: the problems of a file, found and rendered.
//! * [`admin`], [`telemetry`]: probes, metrics and logs for operators.
//! * [`app`]: composition. [`cli`]: the commands. [`sandbox`]: the fake servers of `demo` and of the tests.
//!
//! A folder imports only folders further right in this list, never its neighbours
//! (`tests/tidy.rs` checks it):
//! cli → app → config → {proxy, admin} → {token, upstream, server} → {share} → {listen, secret} → {net} →
//! {x509, route, oauth, telemetry, diagnostics} → {body, cleartext, clock, sensitive, shortage, task}. `sandbox`
//! uses none of them.
//!
//! # Invariants
//!
//! 1. No request reaches an upstream without the token that its route requires: only `Authorized` can be
//!    sent, and only authorization makes one.
//! 2. A first attempt takes no lock that another thread takes. It awaits a token only if no usable one is
//!    there. A retry after a challenge awaits a newer token, within the request's deadline.
//! 3. A request uses one `Plan` from start to end, even if the configuration is reloaded meanwhile.
//! 4. [`Sensitive`](sensitive::Sensitive) and [`Bearer`](token::Bearer) have no `Display`, and a redacted
//!    `Debug`.
//! 5. Every queue, body, retry and wait has a bound with a unit.
//! 6. `route`, `oauth`, `token::schedule` and `proxy::headers` use neither clock nor socket: time is an
//!    argument.
//!
//! # Glossary
//!
//! | Word | Meaning here | Source |
//! |---|---|---|
//! | app, client | The internal program that sends requests; a *client* has an entry in `[clients]` | RFC 9110 section 3.3 |
//! | bearer token | [`token::Bearer`]: an access token, attached by whoever holds it | RFC 6750 section 1.2 |
//! | challenge | `WWW-Authenticate` of a 401, which may reject the token | RFC 9110 section 11.6.1, RFC 6750 section 3 |
//! | credential | [`token::Credential`]: client id, authentication method and token endpoint at one token server | RFC 6749 section 2 |
//! | dialect, preset | [`oauth::dialect::Dialect`]: deviations of one token server from RFC 6749; a preset is a named one | RFC 6749 |
//! | drain, lame duck | The end of a run: requests in flight finish; before that, new ones are accepted while not ready | hyper-util `graceful` |
//! | egress proxy | [`net::egress::TunnelProxy`]: opens a tunnel to an upstream with CONNECT | RFC 9110 section 9.3.6 |
//! | hop-by-hop | Fields of one connection, which are never forwarded | RFC 9110 section 7.6.1 |
//! | in flight | [`proxy::limits::in_flight`]: a request between its admission and the end of both bodies | tower `load_shed` |
//! | layer, service | [`proxy::stack`]: a part of the request path around the next one | tower |
//! | listener, peer | [`listen::Listener`]: a bound socket; [`listen::Peer`]: who connected to it | – |
//! | origin | [`net::Origin`]: scheme, host and port | RFC 6454 section 4 |
//! | plan | [`proxy::policy::plan::Plan`]: the configuration as requests use it, swapped as a whole | arc-swap |
//! | problem document | [`proxy::problem`]: JSON body of a response that the proxy itself makes | RFC 9457 |
//! | reader, writer | [`token::Reader`]: access to the token cell without a lock; only a refresher has the writer | arc-swap |
//! | refresher | [`token::refresher`]: the task that keeps one token fresh | RFC 6749 section 1.5 |
//! | replay | [`proxy::request::retry`]: a second attempt with the buffered body; unsafe methods need an opt-in | RFC 9110 section 9.2 |
//! | route, rule | [`route::Table`]: finds the rule that claims host, path and method | – |
//! | scope set | [`oauth::scope::ScopeSet`]: the scopes of one token | RFC 6749 section 3.3 |
//! | secret reference | [`secret::Reference`]: the place that a secret is read from, such as a file | – |
//! | target | [`route::target::Target`]: path and query of a request with one interpretation | RFC 9112 section 3.2 |
//! | token endpoint | [`oauth::endpoint::TokenEndpoint`]: the URL that issues tokens | RFC 6749 section 3.2 |
//! | upstream | [`upstream::Pool`]: connections to an API that requests are forwarded to | RFC 9110 section 3.7 |
//! | worker | [`server::WorkerHandle`]: a thread with its own tokio runtime and upstream connections | tokio `current_thread` |

pub mod body;
pub mod cleartext;
pub mod clock;
pub mod sensitive;
pub mod shortage;
pub mod task;

pub mod diagnostics;
pub mod oauth;
pub mod route;
pub mod telemetry;
pub mod x509;

pub mod net;

pub mod listen;
pub mod secret;

#[cfg(feature = "share")]
pub mod share;

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
