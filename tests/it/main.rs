//! Stories about the whole program, over real sockets on loopback. They wait for events, each
//! within a bound, and never sleep.

// The harness: fakes, the program as a child process, a raw HTTP client.
mod support;

// The fakes do what the vendors' documents say; everything else here relies on it.
mod sandbox;
