//! TOML in, typed settings out. It knows the settings types of every other folder; only `app` and `cli`
//! know it.
//!
//! [`load`] reads a file; `file` goes through its sections, one module each; `checks` compares what only
//! the whole file can tell. How problems are found and shown is in [`diagnostics`](crate::diagnostics).

mod admin;
mod attach;
mod checks;
mod client_auth;
mod client_certificate;
mod clients;
mod credentials;
mod dialect;
mod dpop;
mod egress;
mod file;
mod grant;
mod listen;
mod load;
mod log;
mod missing_feature;
pub mod model;
mod name;
mod references;
mod refresh_policy;
mod reload;
mod routes;
pub mod schema;
mod server;
mod share;
#[cfg(feature = "kubernetes")]
mod share_kubernetes;
#[cfg(feature = "redis")]
mod share_redis;
mod shutdown;
mod stores;
#[cfg(test)]
mod tests;
mod tls;
mod token_endpoint;
mod token_via;
mod upstreams;
mod url;
#[cfg(feature = "vault")]
mod vault;
mod vocabulary;

#[cfg(windows)]
pub use load::service_file;
pub use load::{Loaded, USUAL_PLACES, find_file, load, load_admin, masked, parse};
pub use model::Config;
