//! The support bundle: one JSON document to send along with a question. It holds no secret, no token, no
//! local key, and no hash of any; pure.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::clock::date;
use crate::telemetry::metrics::REVISION;

/// Names of log fields that hold a hash of a secret or token.
const HASHES: [&str; 3] = ["fingerprint", "was", "token"];
/// What may stand between the name of a field and its value: in JSON, and in text with quotes and without.
const SEPARATORS: [&str; 3] = ["\":\"", "=\"", "="];

/// What the bundle is made from, beside the status.
#[derive(Debug, Clone, Default)]
pub struct BundleParts {
    /// The configuration file as it is on disk, masked.
    pub configuration: String,
    /// The newest lines of the log, the oldest first.
    pub log: Vec<String>,
}

/// The document.
pub(super) fn bundle(parts: &BundleParts, status: Value, metrics: &str, now: SystemTime) -> Value {
    let log: Vec<String> =
        parts.log.iter().map(|line| without_hashes(&without_style(line))).collect();
    json!({
        "bundle": 1,
        "made_at": date(now),
        "version": env!("CARGO_PKG_VERSION"),
        "revision": REVISION,
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "configuration": parts.configuration.lines().collect::<Vec<_>>(),
        "status": status,
        "metrics": metrics.lines().collect::<Vec<_>>(),
        "log": log,
    })
}

/// The line without the escape sequences of colours (ECMA-48 SGR), which a terminal's log has.
fn without_style(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once('m').map_or(part, |(_, text)| text);
    }
    plain
}

/// The line without the values of fields that are hashes.
fn without_hashes(line: &str) -> String {
    let mut line = line.to_owned();
    for name in HASHES {
        for separator in SEPARATORS {
            line = removed(&line, &format!("{name}{separator}"));
        }
    }
    line
}

/// The line in which hexadecimal digits after `field` are replaced; a name that only ends like it stays.
fn removed(line: &str, field: &str) -> String {
    let mut done = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(field) {
        let (before, after) = rest.split_at(at + field.len());
        done += before;
        let digits = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        let is_field = !before[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        rest = after;
        if is_field && digits >= 8 {
            done += "removed";
            rest = &after[digits..];
        }
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_taken_out_of_lines_of_any_format() {
        let check = |line: &str, expected: &str| {
            assert_eq!(without_hashes(&without_style(line)), expected);
        };
        check(
            r#"{"fingerprint":"0a1b2c3d","was":"ffffffff","token":"01234567","path":"/v1/token"}"#,
            r#"{"fingerprint":"removed","was":"removed","token":"removed","path":"/v1/token"}"#,
        );
        check(
            "INFO token obtained fingerprint=\"0a1b2c3d\" x=1",
            "INFO token obtained fingerprint=\"removed\" x=1",
        );
        check(
            "\x1b[32mINFO\x1b[0m x \x1b[3mwas\x1b[0m\x1b[2m=\x1b[0m0a1b2c3d\x1b[0m",
            "INFO x was=removed",
        );
        check("token=0a1b2c3d", "token=removed");
        let untouched = r#"{"last_token":"0a1b2c3d","token":"abc","token_url":"http://x","request_id":"0a1b2c3d"}"#;
        check(untouched, untouched);
    }

    #[test]
    fn a_bundle_has_all_parts() {
        let parts = BundleParts {
            configuration: "version = 1\n[server]\n".into(),
            log: vec!["token=0a1b2c3d".into()],
        };
        let bundle = bundle(&parts, json!({ "ready": true }), "a 1\nb 2\n", SystemTime::UNIX_EPOCH);
        assert_eq!(bundle["configuration"], json!(["version = 1", "[server]"]));
        assert_eq!(bundle["metrics"], json!(["a 1", "b 2"]));
        assert_eq!(bundle["log"], json!(["token=removed"]));
        assert_eq!(
            (&bundle["status"]["ready"], &bundle["made_at"]),
            (&true.into(), &"1970-01-01T00:00:00Z".into())
        );
    }
}
