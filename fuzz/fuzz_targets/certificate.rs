//! Coverage-guided run of a property that `cargo test` runs on generated input.

#![no_main]

#[path = "../../tests/properties/certificate.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::check(data));
