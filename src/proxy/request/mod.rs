//! The states of a request, in their order. A state is a type; the transition into it consumes the state
//! before, and is in its file:
//!
//! [`Received`](received::Received) → [`Routed`](routed::Routed) →
//! [`Authorized`](authorized::Authorized), which alone can be sent. [`exchange`] sends it, [`retry`]
//! says which requests may be sent twice, [`upgrade`] carries the stream after a response that
//! switches protocols. [`decide`] makes the same decisions on a head that nobody has sent.

pub mod authorized;
pub mod decide;
pub mod exchange;
pub mod received;
pub mod retry;
pub mod routed;
pub mod scope;
pub mod upgrade;
