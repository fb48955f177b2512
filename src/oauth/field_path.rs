//! `FieldPath`: the place of one field in a token answer.

use std::collections::HashMap;
use std::fmt;

use serde_json::value::RawValue;

/// The fields of a JSON object as they were received. A value is read only where a [`FieldPath`] leads
/// to it, so that a defect of another one does no harm.
pub(super) type Fields<'a> = HashMap<String, &'a RawValue>;

/// The name of a field, or a JSON pointer (RFC 6901) to a nested one. It is a pointer where it begins
/// with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// A field of the outermost object.
    pub fn name(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// Reads a name or a pointer.
    ///
    /// # Errors
    /// The text is neither. A name with a slash inside is refused, because it is more likely a pointer
    /// without its first slash; as a pointer it can be written with `~1`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(tokens) = text.strip_prefix('/') else {
            return match text {
                "" => Err("the name of a field is empty"),
                _ if text.contains('/') => {
                    Err("a JSON pointer begins with a slash, as in \"/data/access_token\"")
                }
                _ => Ok(Self::name(text)),
            };
        };
        tokens.split('/').map(unescape).collect::<Result<_, _>>().map(Self)
    }

    /// The value at this place.
    pub(super) fn find<'a>(&self, fields: &Fields<'a>) -> Option<&'a RawValue> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(*fields.get(first)?, |value, token| member(value, token))
    }
}

/// As [`FieldPath::parse`] reads it.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [name] if !name.is_empty() && !name.contains('/') => f.write_str(name),
            tokens => tokens.iter().try_for_each(|token| {
                write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))
            }),
        }
    }
}

/// RFC 6901 section 3: `~1` is a slash, `~0` a tilde, and no other tilde is allowed.
fn unescape(token: &str) -> Result<String, &'static str> {
    let mut pieces = token.split('~');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escape, rest) = piece.split_at_checked(1).unwrap_or_default();
        text.push(match escape {
            "0" => '~',
            "1" => '/',
            _ => return Err("in a JSON pointer ~ is written ~0, and / in a name ~1 (RFC 6901)"),
        });
        text.push_str(rest);
    }
    Ok(text)
}

/// A member of an object by its name, or of an array by its index.
fn member<'a>(value: &'a RawValue, token: &str) -> Option<&'a RawValue> {
    if value.get().starts_with('[') {
        let members: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        let digits = token == "0" || !token.starts_with(['0', '+']);
        return members.get(token.parse::<usize>().ok().filter(|_| digits)?).copied();
    }
    serde_json::from_str::<Fields<'a>>(value.get()).ok()?.get(token).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pointers() {
        let text = r#"{"a":1,"":2,"data":{"x/y":[{"~t":3},4],"":5},"broken":"\ud800","n":1e999}"#;
        let fields: Fields<'_> = serde_json::from_str(text).unwrap();
        for (path, expected) in [
            ("a", Some("1")),
            ("/a", Some("1")),
            ("/", Some("2")),
            ("/data/x~1y/0/~0t", Some("3")),
            ("/data/x~1y/1", Some("4")),
            ("/data/", Some("5")),
            ("/data/x~1y/01", None),
            ("/data/x~1y/-", None),
            ("/data/x~1y/2", None),
            ("/data/none", None),
            ("/a/b", None),
            ("b", None),
        ] {
            let path = FieldPath::parse(path).unwrap();
            assert_eq!(FieldPath::parse(&path.to_string()).as_ref(), Ok(&path));
            let found = path.find(&fields);
            assert_eq!(found.map(RawValue::get), expected, "{path}");
        }
    }

    #[test]
    fn wrong_syntax() {
        for (text, part) in [
            ("", "empty"),
            ("data/access_token", "begins with a slash"),
            ("#/data/access_token", "begins with a slash"),
            ("/data/~", "~0"),
            ("/data/~2", "~0"),
            ("/~é", "~0"),
        ] {
            assert!(FieldPath::parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
