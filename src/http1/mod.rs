//! HTTP/1.1 messages as bytes, for both sides of the proxy: what `server` reads from clients and
//! `upstream` from upstreams is read by the same code, and strictly. What two readers could read in
//! two ways is refused, never repaired.
//!
//! [`lines`] and [`framing`] are pure; [`sending`] writes to whatever stream it is given.

pub mod framing;
pub mod lines;
pub mod sending;
pub mod switched;

pub use framing::{Framing, Step};
pub use lines::{HeadEnd, decimal, lists, write_decimal};
pub use sending::{Coding, SendFailure, Sending};
pub use switched::{Duplex, Stream};
