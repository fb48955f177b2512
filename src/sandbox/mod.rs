//! Fakes for `demo` and the tests: token servers and upstreams on loopback.
