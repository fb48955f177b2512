//! What holds of every configuration: reading it never panics, each problem says where it is, and a
//! secret typed into the file is not repeated.

use std::path::Path;

use bearer_proxy::config;

/// A secret that somebody typed where a reference belongs.
const CANARY: &str = "Tk9-canary.7Gx+Qw==";

/// The places where people type secrets.
const PLACES: [&str; 6] = [
    "[credentials.a]\nclient_secret = \"{}\"",
    "[credentials.a]\nclient_secret.value = '{}'",
    "[credentials.a]\nclient_secret = { env = \"{}\" }",
    "[credentials.a]\nclient_secret.file = \"{}\"",
    "[credentials.a]\nextra_params = { client_secret = \"{}\" }",
    "[upstreams.a]\nset_headers = { \"X-Api-Key\" = \"{}\" }",
];

/// Checks one text, as it is and below a typed secret that the first byte places.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    read(text);
    let place = usize::from(data.first().copied().unwrap_or_default()) % PLACES.len();
    let secret = PLACES[place].replace("{}", CANARY);
    for text in [format!("{secret}\n{text}"), format!("{text}\n{secret}")] {
        let told = read(&text).unwrap_or_default();
        assert!(!told.contains(CANARY), "the secret is repeated:\n{told}");
    }
}

/// Reads a text and returns what its author would be told, if anything.
fn read(text: &str) -> Option<String> {
    match config::parse(text, Path::new("x.toml"), &|_| None) {
        Ok(loaded) => Some(format!("{}{:?}", loaded.notes.render(false), loaded.config)),
        Err(problems) => {
            let told = problems.render(false);
            assert!(told.contains("x.toml:"), "no place is named:\n{told}");
            Some(told + &problems.to_json().to_string())
        }
    }
}
