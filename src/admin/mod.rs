//! The operator's window, on its own socket.

pub mod settings;
