//! `${VAR}` and `${VAR:-default}` in ordinary values.
//!
//! Variables are filled in after TOML has been parsed: they cannot change its structure, and problems
//! do not show their values.

/// The mistakes in a variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExpandError {
    /// The variable of this name is not set and has no default.
    Unset(String),
    /// `${` without a name or without its end.
    Malformed,
}

/// Fills variables in. `$${` stands for `${`.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(kept) = rest[..at].strip_suffix('$') {
            out.push_str(kept);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let (inside, after) = rest[at + 2..].split_once('}').ok_or(ExpandError::Malformed)?;
        out.push_str(&variable(inside, env)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_variable_name(name) {
        return Err(ExpandError::Malformed);
    }
    // As in a shell, `:-` also stands in for a variable that is set but empty.
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(ExpandError::Unset(name.to_owned())),
    }
}

/// Returns whether a text can name an environment variable.
pub(crate) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let env = |name: &str| match name {
            "HOST" => Some("bank.test".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".to_owned()),
            _ => None,
        };
        let check = |text: &str, expected: Result<&str, ExpandError>| {
            assert_eq!(expand(text, &env), expected.map(str::to_owned), "{text:?}");
        };
        check("plain $ and $5", Ok("plain $ and $5"));
        check("https://${HOST}/x", Ok("https://bank.test/x"));
        check("${HOST}${HOST}", Ok("bank.testbank.test"));
        check("${NONE:-there}", Ok("there"));
        check("${EMPTY:-there}", Ok("there"));
        check("${EMPTY}", Ok(""));
        check("${NESTED}", Ok("${HOST}"));
        check("$${HOST}", Ok("${HOST}"));
        check("${NONE}", Err(ExpandError::Unset("NONE".into())));
        check("${HOST", Err(ExpandError::Malformed));
        check("${}", Err(ExpandError::Malformed));
        check("${A-B}", Err(ExpandError::Malformed));
    }
}
