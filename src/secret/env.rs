//! Secrets from environment variables of this process.

use std::ffi::OsString;

use super::SecretFault;
use crate::sensitive::Sensitive;

/// Reads a variable as it was when the process started.
pub(super) fn read(name: &str) -> Result<Sensitive, SecretFault> {
    // Asking for a name with '=' or NUL is a question that no environment can answer.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(SecretFault::Missing);
    }
    accept(std::env::var_os(name))
}

fn accept(value: Option<OsString>) -> Result<Sensitive, SecretFault> {
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

        assert_eq!(accept(Some("s".into())), Ok(Sensitive::new("s")));
        assert_eq!(accept(None), Err(SecretFault::Missing));
        assert_eq!(accept(Some(OsString::from_vec(vec![0xff]))), Err(SecretFault::NotUtf8));
        for name in ["", "A=B", "A\0B", "BEARER_PROXY_UNSET_IN_TESTS"] {
            assert_eq!(read(name), Err(SecretFault::Missing), "{name:?}");
        }
    }
}
