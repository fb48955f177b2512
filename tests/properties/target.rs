//! What holds of every request target, however it is spelt: `route::target::Target::read` accepts
//! only what all upstreams read in the same way.

use bearer_proxy::route::target::{Quirks, Target, could_alias};

/// Checks one target.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(target) = Target::read(text) else { return };
    let path = target.path;
    assert!(text.starts_with(path), "what was matched is what came");
    assert_eq!(
        Target::read(path).map(|again| again.path),
        Ok(path),
        "reading twice changes nothing"
    );
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
    assert!(!path.contains(['#', '?', '\\']), "{path}");
    for reading in readings(path, target.quirks) {
        assert!(!reading.contains("//") && !climbs(&reading), "{path} may be read as {reading}");
        for spelled in [reading.to_uppercase(), reading + "/"] {
            // A token endpoint is recognised under whatever name a server knows it by.
            assert!(could_alias(path, &spelled), "{path} may be read as {spelled}");
        }
    }
    if target.quirks == Quirks::default() {
        let once = decode(path);
        assert_eq!(decode(&once), once, "{path} means something else when decoded twice");
        assert!(!once.contains([';', '\\', '\0']), "{path} is {once}");
        assert_eq!(once.matches('/').count(), path.matches('/').count(), "{path} hides a slash");
    }
}

/// The ways in which servers are known to read a path: decoded never, once or twice, backslashes
/// taken for slashes, parameters cut off where a route lets semicolons pass.
fn readings(path: &str, quirks: Quirks) -> Vec<String> {
    let once = decode(path);
    let twice = decode(&once);
    let mut all = vec![path.to_owned(), once, twice];
    all.extend(all.clone().iter().map(|reading| reading.replace('\\', "/")));
    if quirks.semicolon {
        let cut = |reading: &String| -> String {
            let parts = reading.split('/').map(|part| part.split(';').next().unwrap_or_default());
            parts.collect::<Vec<_>>().join("/")
        };
        let cut: Vec<String> = all.iter().map(cut).collect();
        all.extend(cut);
    }
    all
}

/// Whether merging dot segments would change the path.
fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| segment == "." || segment == "..")
}

/// Percent-decoding as a lenient server does it: what is no escape stays.
fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
