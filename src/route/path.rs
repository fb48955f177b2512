//! `PathPattern`: exact, `{x}` for one segment, `/**` for a path and all below it.

use super::host::PatternError;
use super::target::{QuirkSet, Target, normalize_segment};

/// A path pattern that has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

/// One segment of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternSegment<'a> {
    /// A literal segment; empty for a slash at the end.
    Literal(&'a str),
    /// Any one segment that is not empty.
    Any,
    /// The path so far and all below it; always last.
    Rest,
}

impl PathPattern {
    /// Parses and checks a pattern.
    ///
    /// # Errors
    /// A sentence on what is wrong with the pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::new("a path pattern begins with a slash"));
        }
        let mut names = Vec::new();
        for segment in text.strip_suffix("/**").unwrap_or(text).split('/').skip(1) {
            check_segment(segment, &mut names)?;
        }
        let plain: String = text.replace(['{', '}'], "").replace("/**", "/x");
        match Target::read(&plain) {
            Ok(Target { query: Some(_), .. }) => {
                Err(PatternError::new("no request can match it: a path holds no `?`"))
            }
            Ok(target) => match target.quirks.refused(QuirkSet::empty()) {
                None => Ok(Self(text.to_owned())),
                Some(quirk) => Err(PatternError::new(format!(
                    "a pattern is written without it; {{name}} and /** match it where the route \
                     allows it: {quirk}"
                ))),
            },
            Err(error) => Err(PatternError::new(format!("no request can match it: {error}"))),
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same pattern below a mount prefix, which is empty or a path without a slash at its end.
    pub fn under(&self, mount: &str) -> Self {
        Self(format!("{mount}{}", self.0))
    }

    /// True if the pattern holds neither `{x}` nor `/**`.
    pub fn is_literal(&self) -> bool {
        self.segments().all(|segment| matches!(segment, PatternSegment::Literal(_)))
    }

    /// The segments from left to right.
    pub fn segments(&self) -> impl Iterator<Item = PatternSegment<'_>> {
        self.0.split('/').skip(1).map(|segment| match segment {
            "**" => PatternSegment::Rest,
            segment if segment.starts_with('{') => PatternSegment::Any,
            segment => PatternSegment::Literal(segment),
        })
    }

    /// True if the pattern matches a canonical path.
    pub fn covers(&self, path: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        for pattern in self.segments() {
            match (pattern, segments.next()) {
                (PatternSegment::Rest, _) => return true,
                (PatternSegment::Literal(literal), Some(segment))
                    if literal == normalize_segment(segment) => {}
                (PatternSegment::Any, Some(segment)) if !segment.is_empty() => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

/// Checks one segment of a pattern; `names` are those of the segments before it.
fn check_segment<'a>(segment: &'a str, names: &mut Vec<&'a str>) -> Result<(), PatternError> {
    if let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(PatternError::new("a name in braces is of letters, digits and `_`"));
        }
        if names.contains(&name) {
            return Err(PatternError::new(format!("{{{name}}} stands in the pattern twice")));
        }
        names.push(name);
        return Ok(());
    }
    if segment.contains('*') {
        let text = "`*` is known only as `/**` at the end; one segment is written {name}";
        return Err(PatternError::new(text));
    }
    if segment.contains(['{', '}']) {
        let text = "braces stand for a whole segment; a part of one cannot be matched";
        return Err(PatternError::new(text));
    }
    let normalized = normalize_segment(segment);
    if normalized != segment {
        let text = format!("write {normalized} for {segment}: both are one path");
        return Err(PatternError::new(text));
    }
    Ok(())
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_checked() {
        for good in ["/", "/**", "/v1/{a}/{b}", "/v1/**", "/v1/", "/a-b._~!$&'()+,=:@"] {
            assert!(PathPattern::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "v1",
            "/*",
            "/**/x",
            "/a*",
            "/{a}/{a}",
            "/{}",
            "/{a}.json",
            "/a//b",
            "/../x",
            "/%41",
            "/a?b",
            "/a;b",
            "/%2f",
            "/%c3%a9",
            "/a%3Ab",
        ] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_cover_what_they_say() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(
                PathPattern::parse(pattern).unwrap().covers(path),
                expected,
                "{pattern} {path}"
            );
        };
        check("/v1/x", "/v1/x", true);
        check("/v1/x", "/v1/x/", false);
        check("/v1/x/", "/v1/x/", true);
        check("/v1/{id}", "/v1/7", true);
        check("/v1/{id}", "/v1/", false);
        check("/v1/{id}", "/v1/7/8", false);
        check("/v1/**", "/v1", true);
        check("/v1/**", "/v1/", true);
        check("/v1/**", "/v1/a/b", true);
        check("/v1/**", "/v10", false);
        check("/**", "/", true);
        check("/", "/a", false);
        check("/a:b", "/a%3ab", true);
        check("/%C3%A9", "/%c3%a9", true);
    }
}
