//! What holds of every request target, however it is spelt: `route::target::Target::read` accepts
//! only what all upstreams read in the same way.

use bearer_proxy::route::target::{QuirkSet, Target, could_alias};

/// Checks one target.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(target) = Target::read(text) else { return };
    let (path, quirks) = (&*target.path, target.quirks.kinds());
    let received = text.split('?').next().unwrap_or_default();
    assert_eq!(decode(received), decode(path), "what was matched means what came");
    assert_eq!(
        Target::read(path).map(|again| again.path.into_owned()),
        Ok(path.to_owned()),
        "reading twice changes nothing"
    );
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
    assert!(!path.contains(['#', '?', '\\']), "{path}");
    let slashes = QuirkSet::EMPTY_SEGMENT | QuirkSet::ENCODED_SLASH | QuirkSet::ENCODED_PERCENT;
    for reading in readings(path, quirks) {
        assert!(!climbs(&reading), "{path} may be read as {reading}");
        assert!(!reading.contains("//") || quirks.intersects(slashes), "{path} may be {reading}");
        for spelled in [reading.to_uppercase(), reading + "/"] {
            // A token endpoint is recognised under whatever name a server knows it by.
            assert!(could_alias(path, &spelled), "{path} may be read as {spelled}");
        }
    }
    if quirks.is_empty() {
        let once = decode(path);
        assert_eq!(decode(&once), once, "{path} means something else when decoded twice");
        assert!(!once.contains([';', '\\', '\0']), "{path} is {once}");
        assert_eq!(once.matches('/').count(), path.matches('/').count(), "{path} hides a slash");
    }
}

/// The ways in which servers are known to read a path: decoded never, once or twice, backslashes
/// taken for slashes, parameters cut off where a route lets semicolons pass.
fn readings(path: &str, quirks: QuirkSet) -> Vec<String> {
    let once = decode(path);
    let twice = decode(&once);
    let mut all = vec![path.to_owned(), once, twice];
    all.extend(all.clone().iter().map(|reading| reading.replace('\\', "/")));
    if quirks.intersects(QuirkSet::SEMICOLON | QuirkSet::ENCODED_PERCENT) {
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
