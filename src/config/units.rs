//! "30s", "8MiB", "80%": values with their units.

use std::time::Duration;

/// Reads a duration such as `500ms`, `30s` or `1h 30m`; a bare number has no unit and is refused.
///
/// # Errors
/// Says what was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || "expected a duration with its unit, such as \"500ms\", \"30s\" or \"5m\"".to_owned();
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}

/// Reads a size in bytes such as `64KiB` or `16MiB`.
///
/// # Errors
/// Says what was expected.
pub fn size(text: &str) -> Result<u64, String> {
    let sized = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    let read = text.parse::<bytesize::ByteSize>().ok().filter(|_| sized);
    read.map(|size| size.as_u64())
        .ok_or_else(|| "expected a size with its unit, such as \"64KiB\" or \"16MiB\"".to_owned())
}

/// Reads a share such as `80%`.
///
/// # Errors
/// Says what was expected.
pub fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| "expected a percentage, such as \"80%\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("5").is_err() && duration("-5s").is_err() && duration("").is_err());
        assert_eq!(size("64KiB"), Ok(65536));
        assert!(size("64").is_err() && size("x").is_err());
        assert_eq!(share("80%"), Ok(0.8));
        assert!(share("0.8").is_err() && share("180%").is_err());
    }
}
