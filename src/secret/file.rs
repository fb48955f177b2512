//! Secrets from files, as Kubernetes, systemd and container runtimes mount them.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{MAX_BYTES, SecretFault};
use crate::sensitive::Sensitive;

/// Who may read a file besides us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileAccess {
    /// Nobody but its owner and group, unless its mount is read-only: whoever mounts it chose its
    /// readers, and Kubernetes' own choice is 0644.
    Restricted,
    /// Anybody: what it holds is no secret, or its guard is another's.
    Any,
}

/// Reads a file off the runtime's thread: a network file system may take its time.
pub(super) async fn read(path: &Path, readers: FileAccess) -> Result<Sensitive, SecretFault> {
    let path: PathBuf = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || match read_now(&path, readers) {
        // Kubernetes swaps `..data` and removes the old folder: a path may lead into it just then.
        Err(SecretFault::Missing) => read_now(&path, readers),
        found => found,
    });
    match reading.await {
        Ok(found) => found,
        Err(_) => Err(SecretFault::Unreadable(io::ErrorKind::Other)),
    }
}

fn read_now(path: &Path, readers: FileAccess) -> Result<Sensitive, SecretFault> {
    // Looked at before it is opened, since opening a FIFO waits for a writer.
    accept(&std::fs::metadata(path).map_err(fault)?)?;
    let file = File::open(path).map_err(fault)?;
    if readers == FileAccess::Restricted {
        guarded(&file)?;
    }
    text(file)
}

/// Reads what a file or a pipe holds, into memory that is wiped.
pub(super) fn text(from: impl io::Read) -> Result<Sensitive, SecretFault> {
    // Two bytes more for the newline, and one to see that it is too long; the full size at once, so
    // that growing leaves no copy behind.
    let limit = MAX_BYTES + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    from.take(limit as u64).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() == limit {
        return Err(SecretFault::TooLong);
    }
    std::str::from_utf8(&bytes).map(Sensitive::new).map_err(|_| SecretFault::NotUtf8)
}

fn accept(metadata: &Metadata) -> Result<(), SecretFault> {
    if metadata.is_file() { Ok(()) } else { Err(SecretFault::NotAFile) }
}

/// Refuses a file that every user of the machine may read or replace.
#[cfg(unix)]
fn guarded(file: &File) -> Result<(), SecretFault> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    let read_only = || {
        let flags = rustix::fs::fstatvfs(file).map(|mount| mount.f_flag);
        flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    };
    if mode & 0o006 == 0 || read_only() { Ok(()) } else { Err(SecretFault::Exposed(mode)) }
}

/// Elsewhere access lists say who may read a file; a new one has those of its folder.
#[cfg(not(unix))]
fn guarded(_: &File) -> Result<(), SecretFault> {
    Ok(())
}

/// The permission bits of a file; none where access lists are in their place.
pub(super) fn mode(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;

        Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

fn fault(error: io::Error) -> SecretFault {
    match error.kind() {
        io::ErrorKind::NotFound => SecretFault::Missing,
        kind => SecretFault::Unreadable(kind),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::secret::Reference;

    /// A file that only its owner may read.
    fn write(path: &Path, content: &[u8], mode: u32) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    async fn fault_of(path: &Path) -> Option<SecretFault> {
        let found = Reference::File(path.into()).read().await;
        found.err().map(|error| error.fault().clone())
    }

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
                write(&path, content, 0o600);
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

    #[tokio::test]
    async fn files_that_everybody_may_read_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (mode, expected) in [
            (0o400, None),
            (0o600, None),
            (0o640, None),
            (0o660, None),
            (0o644, Some(SecretFault::Exposed(0o644))),
            (0o666, Some(SecretFault::Exposed(0o666))),
            (0o602, Some(SecretFault::Exposed(0o602))),
        ] {
            write(&path, b"s", mode);
            assert_eq!(fault_of(&path).await, expected, "{mode:o}");
        }
        // An id is no secret (RFC 6749 section 2.2).
        write(&path, b"s", 0o644);
        assert!(Reference::File(path.clone()).read_id().await.is_ok());
        let words = SecretFault::Exposed(0o644);
        let error = crate::secret::SecretError::new(&Reference::File("/run/id".into()), words);
        assert!(error.to_string().contains("chmod 600 /run/id"), "{error}");
    }

    /// `/proc/sys` and the like are read-only mounts on many machines; where there is none to be
    /// found, there is nothing to be shown.
    #[test]
    fn a_read_only_mount_is_its_owners_choice() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let read_only = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let path = words.next()?;
            words.nth(1)?.split(',').any(|option| option == "ro").then_some(path)
        });
        for file in read_only.filter_map(|path| File::open(path).ok()) {
            assert_eq!(guarded(&file), Ok(()));
        }
    }

    /// Kubernetes mounts `secret -> ..data/secret` and `..data -> ..2026_1`, writes a new folder
    /// beside it, and renames a new `..data` over the old.
    #[tokio::test]
    async fn swapped_links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let swap = |version: &str| {
            std::fs::create_dir(at(version)).unwrap();
            write(&at(version).join("secret"), version.as_bytes(), 0o600);
            symlink(version, at("..data_tmp")).unwrap();
            std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        swap("..1");
        symlink("..data/secret", at("secret")).unwrap();
        let reference = Reference::File(at("secret"));
        assert_eq!(reference.read().await, Ok(Sensitive::new("..1")));
        for version in 2..40 {
            swap(&format!("..{version}"));
            std::fs::remove_dir_all(at(&format!("..{}", version - 1))).unwrap();
            assert_eq!(reference.read().await, Ok(Sensitive::new(format!("..{version}"))));
        }
    }
}
