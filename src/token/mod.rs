//! The life of a token in this process: the slow river, and the only writer of token cells.

pub mod credential;

pub use credential::Credential;
