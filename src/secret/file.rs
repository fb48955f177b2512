//! Secrets from files, as Kubernetes, systemd and container runtimes mount them.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{MAX_BYTES, SecretFault};
use crate::sensitive::Sensitive;

/// Reads a file off the runtime's thread: a network file system may take its time.
pub(super) async fn read(path: &Path) -> Result<Sensitive, SecretFault> {
    let path: PathBuf = path.to_owned();
    match tokio::task::spawn_blocking(move || read_now(&path)).await {
        Ok(found) => found,
        Err(_) => Err(SecretFault::Unreadable(io::ErrorKind::Other)),
    }
}

fn read_now(path: &Path) -> Result<Sensitive, SecretFault> {
    // Looked at before it is opened, since opening a FIFO waits for a writer.
    accept(&std::fs::metadata(path).map_err(fault)?)?;
    let file = File::open(path).map_err(fault)?;
    // Two bytes more for the newline, and one to see that it is too long; the full size at once, so
    // that growing leaves no copy behind.
    let limit = MAX_BYTES + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(limit as u64).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() == limit {
        return Err(SecretFault::TooLong);
    }
    std::str::from_utf8(&bytes).map(Sensitive::new).map_err(|_| SecretFault::NotUtf8)
}

/// Whether a secret may be read from such a file. A policy on owner and mode belongs here.
fn accept(metadata: &Metadata) -> Result<(), SecretFault> {
    if metadata.is_file() { Ok(()) } else { Err(SecretFault::NotAFile) }
}

fn fault(error: io::Error) -> SecretFault {
    match error.kind() {
        io::ErrorKind::NotFound => SecretFault::Missing,
        kind => SecretFault::Unreadable(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Reference;

    #[tokio::test]
    async fn files() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(MAX_BYTES + 1);
        let longest = format!("{}\r\n", "x".repeat(MAX_BYTES));
        for (content, expected) in [
            (Some("s+%&:\n".as_bytes()), Ok("s+%&:")),
            (Some(longest.as_bytes()), Ok(longest.trim_end())),
            (Some(long.as_bytes()), Err(SecretFault::TooLong)),
            (Some(&[0xff, 0xfe]), Err(SecretFault::NotUtf8)),
            (Some(b"\n"), Err(SecretFault::Empty)),
            (None, Err(SecretFault::Missing)),
        ] {
            let path = folder.path().join("secret");
            let _ = std::fs::remove_file(&path);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let found = Reference::File(path).read().await;
            let found = found.map_err(|error| error.fault().clone());
            assert_eq!(found, expected.map(Sensitive::new));
        }
    }

    #[tokio::test]
    async fn only_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let error = Reference::File(folder.path().into()).read().await.unwrap_err();
        assert_eq!(error.fault(), &SecretFault::NotAFile);
        assert!(error.to_string().contains(&folder.path().display().to_string()));
    }
}
