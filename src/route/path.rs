//! `PathPattern`: exact, `{x}` for one segment, `/**` for that path and all below.

use std::fmt;

use super::host::PatternError;
use super::target::{Target, normalize_segment};

/// A path pattern that has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

/// One step of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternSegment<'a> {
    /// This segment; the empty one stands for a slash at the end.
    Literal(&'a str),
    /// Any one segment that is not empty.
    Any,
    /// The path so far and all below it; always last.
    Rest,
}

impl PathPattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = |message: String| Err(PatternError::new(message));
        if !text.starts_with('/') {
            return wrong("a path pattern begins with a slash".into());
        }
        let segments: Vec<&str> = text.split('/').skip(1).collect();
        let last = segments.len() - 1;
        let mut names = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if is_name(name) => {
                    if names.contains(&name) {
                        return wrong(format!("{{{name}}} stands in the pattern twice"));
                    }
                    names.push(name);
                }
                Some(_) => return wrong("a name in braces is of letters, digits and `_`".into()),
                None if *segment == "**" && index == last => {}
                None if segment.contains('*') => {
                    return wrong(
                        "`*` is known only as `/**` at the end; one segment is written {name}"
                            .into(),
                    );
                }
                None if segment.contains(['{', '}']) => {
                    return wrong(
                        "braces stand for a whole segment; a part of one cannot be matched".into(),
                    );
                }
                None if normalize_segment(segment) != *segment => {
                    return wrong(format!(
                        "write {} for {segment}: both are one path",
                        normalize_segment(segment)
                    ));
                }
                None => {}
            }
        }
        let plain: String = text.replace(['{', '}'], "").replace("/**", "/x");
        match Target::read(&plain) {
            Ok(target) if target.query.is_none() && !target.quirks.any() => {
                Ok(Self(text.to_owned()))
            }
            Ok(_) => wrong("a pattern holds neither `?` nor `;` nor an encoded slash".into()),
            Err(error) => wrong(format!("no request can match it: {error}")),
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

    /// Whether it holds neither `{x}` nor `/**`.
    pub fn is_literal(&self) -> bool {
        self.segments().all(|step| matches!(step, PatternSegment::Literal(_)))
    }

    /// Its steps.
    pub fn segments(&self) -> impl Iterator<Item = PatternSegment<'_>> {
        self.0.split('/').skip(1).map(|segment| match segment {
            "**" => PatternSegment::Rest,
            segment if segment.starts_with('{') => PatternSegment::Any,
            segment => PatternSegment::Literal(segment),
        })
    }

    /// Whether it takes a canonical path.
    pub fn covers(&self, path: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        for step in self.segments() {
            match (step, segments.next()) {
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

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
