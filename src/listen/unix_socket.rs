//! The file of a Unix socket: made with its mode and owner before a client can connect, taken over from
//! an instance that died but not from one that lives, and removed in the end.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::bind_error::OwnerError;
use super::settings::{Account, UnixSocket};

/// Connections that wait in the kernel's queue, such as while the connection limit is reached.
pub(super) const BACKLOG: i32 = 1024;

/// The file of a listening socket. Removed when dropped, unless another file has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device, inode and modification time of a file. An inode alone may be reused.
type Identity = (u64, u64, i64, i64);

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
}

/// Binds a socket and listens on it.
///
/// # Errors
/// `AddrInUse` if a process listens there, `AlreadyExists` if the file is not a socket.
pub(super) fn bind(settings: &UnixSocket) -> io::Result<(UnixListener, SocketFile)> {
    let path = &settings.path;
    // Two instances that start at once would each take the other's fresh socket for a dead one.
    let _starting = lock(path.parent().unwrap_or(Path::new("/")))?;
    remove_dead(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.clone(), identity: identity(&metadata) };
    // No client can connect before it listens, so that the mode applies to the first one.
    settings.give_access()?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from(socket), file))
}

impl UnixSocket {
    /// Gives the file its mode and owner.
    ///
    /// # Errors
    /// Those of the system, and one with advice if the file cannot be given to its owner or group.
    pub fn give_access(&self) -> io::Result<()> {
        let owner = self.owner.as_ref().map(|owner| owner.id("/etc/passwd")).transpose()?;
        let group = self.group.as_ref().map(|group| group.id("/etc/group")).transpose()?;
        let metadata = fs::symlink_metadata(&self.path)?;
        let owner = owner.filter(|id| *id != metadata.uid());
        let group = group.filter(|id| *id != metadata.gid());
        // Only if needed: a sandbox may forbid chown(2) even if it would change nothing.
        if owner.or(group).is_some() {
            chown(&self.path, owner, group).map_err(|cause| {
                io::Error::new(cause.kind(), OwnerError { owner, group, cause })
            })?;
        }
        fs::set_permissions(&self.path, Permissions::from_mode(self.mode))
    }
}

impl Account {
    /// The number of the account. A name is looked up in `file`, whose lines begin `NAME:x:NUMBER:`.
    fn id(&self, file: &str) -> io::Result<u32> {
        let name = match self {
            Self::Id(id) => return Ok(*id),
            Self::Name(name) => name,
        };
        let text = fs::read_to_string(file)?;
        let id = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        });
        let unknown = || io::Error::other(format!("{file} has no `{name}`; write its number"));
        id.ok_or_else(unknown)
    }
}

fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::AddrInUse.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the file of a socket on which no process listens.
fn remove_dead(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // It answers, or its queue is full.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A successor may have replaced the file, whose removal would leave it unreachable.
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if is_ours {
            // On an error the next start finds a dead socket and removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(folder: &tempfile::TempDir) -> UnixSocket {
        let path = folder.path().join("proxy.sock");
        UnixSocket::at(path)
    }

    #[test]
    fn accounts_have_names_or_numbers() {
        let check = |account: Account, expected: Option<u32>| {
            assert_eq!(account.id("/etc/passwd").ok(), expected, "{account:?}");
        };
        check(Account::Id(7), Some(7));
        check(Account::Name("root".into()), Some(0));
        check(Account::Name("no such name".into()), None);
        let folder = tempfile::tempdir().unwrap();
        let unknown = Some(Account::Name("no such name".into()));
        let settings = UnixSocket { group: unknown, ..socket(&folder) };
        let error = bind(&settings).unwrap_err().to_string();
        assert!(error.contains("no such name") && error.contains("number"), "{error}");
        assert!(!settings.path.exists(), "nothing is left behind");
    }

    #[test]
    fn it_has_its_mode_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let settings = socket(&folder);
        let (_listener, file) = bind(&settings).unwrap();
        let mode = fs::metadata(&settings.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(file);
        assert!(!settings.path.exists());
    }

    #[test]
    fn a_live_one_is_left_alone_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let settings = socket(&folder);
        let (listener, file) = bind(&settings).unwrap();
        assert_eq!(bind(&settings).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener); // as if killed: the file stays
        let (_second_listener, second) = bind(&settings).unwrap();
        drop(file);
        assert!(settings.path.exists(), "the first instance leaves the second's file alone");
        drop(second);
        assert!(!settings.path.exists());
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let settings = socket(&folder);
        fs::write(&settings.path, "precious").unwrap();
        assert_eq!(bind(&settings).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&settings.path).unwrap(), b"precious");
    }
}
