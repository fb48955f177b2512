//! Secrets from files, as Kubernetes, systemd and container runtimes mount them.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::SecretFault;
use super::text::{self, CredentialPart};
use crate::sensitive::Sensitive;

/// The permissions that a file must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileAccess {
    /// Access for its owner and group only. Other users may read it on a read-only mount or a tmpfs,
    /// whose owner has chosen the readers: Kubernetes, the CSI driver for secret stores and Vault Agent
    /// write files of mode 0644 there.
    Restricted,
    /// Any mode: the content is not secret, or systemd has settled who may read it.
    Any,
}

impl FileAccess {
    pub(super) fn of(kind: CredentialPart) -> Self {
        if kind.is_public() { Self::Any } else { Self::Restricted }
    }
}

/// Reads a file on the blocking pool, since a network file system may be slow.
pub(super) async fn read(
    path: &Path,
    access: FileAccess,
    decode: fn(&[u8]) -> Result<Sensitive, SecretFault>,
) -> Result<Sensitive, SecretFault> {
    let path: PathBuf = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || match read_now(&path, access, decode) {
        // Kubernetes renames `..data` and then removes the old folder, so that a path that was
        // resolved in between ends in a folder that is gone. The second attempt sees the new one.
        Err(SecretFault::Missing) => read_now(&path, access, decode),
        found => found,
    });
    reading.await.unwrap_or(Err(SecretFault::Unreadable("reading it failed".into())))
}

fn read_now(
    path: &Path,
    access: FileAccess,
    decode: fn(&[u8]) -> Result<Sensitive, SecretFault>,
) -> Result<Sensitive, SecretFault> {
    // The type is checked before opening, because opening a FIFO waits for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(SecretFault::NotAFile);
    }
    let file = File::open(path)?;
    if access == FileAccess::Restricted {
        check_permissions(path, &file)?;
    }
    text::read_with(file, decode)
}

/// Refuses a file that every user of the machine may read or replace.
#[cfg(unix)]
fn check_permissions(path: &Path, file: &File) -> Result<(), SecretFault> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = file.metadata()?.permissions().mode() & 0o777;
    // To write to a tmpfs is still to replace the secret.
    let permitted = match mode & 0o006 {
        0 => true,
        0o004 => on_read_only_mount(file) || on_tmpfs(file),
        _ => on_read_only_mount(file),
    };
    match permitted {
        true => Ok(()),
        false => Err(SecretFault::Exposed { path: path.to_owned(), mode }),
    }
}

#[cfg(unix)]
fn on_read_only_mount(file: &File) -> bool {
    let flags = rustix::fs::fstatvfs(file).map(|mount| mount.f_flag);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(target_os = "linux")]
fn on_tmpfs(file: &File) -> bool {
    /// `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
    const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
    // The type has another width and sign on other machines; its number fits 32 bits.
    rustix::fs::fstatfs(file).is_ok_and(|mount| IN_MEMORY.contains(&(mount.f_type as u32)))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn on_tmpfs(_: &File) -> bool {
    false
}

/// Other systems use access lists, which a new file inherits from its folder.
#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &File) -> Result<(), SecretFault> {
    Ok(())
}

/// The permission bits of a file; `None` on systems that use access lists.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::secret::{MAX_BYTES, Reference};

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
            (Some(&[0xff, 0xfe]), Err(SecretFault::Utf16)),
            (Some(&[0xff, 0xff]), Err(SecretFault::NotUtf8)),
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
            (0o644, Some(0o644)),
            (0o666, Some(0o666)),
            (0o602, Some(0o602)),
        ] {
            write(&path, b"s", mode);
            let expected = expected.map(|mode| SecretFault::Exposed { path: path.clone(), mode });
            assert_eq!(fault_of(&path).await, expected, "{mode:o}");
        }
        // An id is no secret (RFC 6749 section 2.2).
        write(&path, b"s", 0o644);
        assert!(Reference::File(path.clone()).read_as(CredentialPart::Id).await.is_ok());
        let fault = SecretFault::Exposed { path: "/run/id".into(), mode: 0o644 };
        let error = Reference::File("/run/id".into()).error(fault);
        assert!(error.to_string().contains("chmod 600 /run/id"), "{error}");
    }

    /// Where `/dev/shm` is no tmpfs, there is nothing to be shown.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn files_in_memory_may_be_readable_but_not_writable_by_all() {
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
        let path = folder.path().join("secret");
        write(&path, b"s", 0o644);
        if !on_tmpfs(&File::open(&path).unwrap()) {
            return;
        }
        assert_eq!(fault_of(&path).await, None);
        for mode in [0o646, 0o666, 0o602] {
            write(&path, b"s", mode);
            let expected = SecretFault::Exposed { path: path.clone(), mode };
            assert_eq!(fault_of(&path).await, Some(expected), "{mode:o}");
        }
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
        for path in read_only.map(Path::new) {
            if let Ok(file) = File::open(path) {
                assert_eq!(check_permissions(path, &file), Ok(()));
            }
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
