//! The way in; it knows HTTP connections, not what requests mean.
//!
//! [`listener`] binds, [`worker`] owns a thread and its accept loop, [`serve`] is the life of one
//! connection, [`drain`] is how connections leave.

pub mod drain;
pub mod listener;
pub mod serve;
pub mod settings;
mod watch;
pub mod worker;

pub use drain::StopSignal;
pub use listener::{BindError, Bound, bind};
pub use serve::{ConnectionInfo, Inbound};
pub use worker::{Slots, Worker, WorkerCommand, WorkerHandle};
