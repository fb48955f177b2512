//! Secrets from environment variables of this process.

use std::ffi::OsString;

use super::error::SecretFault;
use super::name;
use crate::sensitive::Sensitive;

/// Reads a variable.
pub(super) fn read(name: &str) -> Result<Sensitive, SecretFault> {
    decode(variable(name))
}

/// The variable as messages name it. The name of an unset one may be the secret itself, written in its
/// place.
pub(super) fn describe(name: &str) -> String {
    if variable(name).is_some() || name::may_be_shown(name) {
        return format!("environment variable {name}");
    }
    "environment variable (not named here: it is unset and may be the secret itself)".into()
}

/// `None` for a name with '=' or NUL, for which `std` may panic.
fn variable(name: &str) -> Option<OsString> {
    if name.is_empty() || name.contains(['=', '\0']) { None } else { std::env::var_os(name) }
}

fn decode(value: Option<OsString>) -> Result<Sensitive, SecretFault> {
    let value = value.ok_or(SecretFault::Missing)?;
    value.into_string().map(Sensitive::new).map_err(|_| SecretFault::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn values() {
        use std::os::unix::ffi::OsStringExt as _;

        assert_eq!(decode(Some("s".into())), Ok(Sensitive::new("s")));
        assert_eq!(decode(None), Err(SecretFault::Missing));
        assert_eq!(decode(Some(OsString::from_vec(vec![0xff]))), Err(SecretFault::NotUtf8));
        for name in ["", "A=B", "A\0B", "BEARER_PROXY_UNSET_IN_TESTS"] {
            assert_eq!(read(name), Err(SecretFault::Missing), "{name:?}");
        }
    }

    #[test]
    fn a_secret_in_place_of_a_name_is_not_shown() {
        for (name, shown) in [
            ("PATH", true),
            ("BEARER_PROXY_UNSET_IN_TESTS", true),
            ("THESECRET", false),
            ("JBSWY3DPEHPK3PXP", false),
        ] {
            assert_eq!(describe(name).contains(name), shown, "{name}");
        }
    }
}
