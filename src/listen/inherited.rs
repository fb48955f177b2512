//! Sockets that the service manager bound before it started this process: socket activation, as
//! sd_listen_fds(3) describes it.

use std::io;
use std::sync::LazyLock;

use super::listener::Listener;

/// The sockets with their names. They stay open for as long as the process lives, so that a reload can
/// leave one and come back to it: the service manager passes them once.
static SOCKETS: LazyLock<Vec<(String, Listener)>> = LazyLock::new(take);

/// Takes over what was passed, once. It belongs to the start of the process: a descriptor is known by its
/// number alone, and must not go on to the programs that this one starts.
pub(super) fn take_over() {
    LazyLock::force(&SOCKETS);
}

/// Duplicates of the sockets with a name, non-blocking; a socket unit with several `ListenStream=` has one
/// for each.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if no listening stream socket of that name was passed to this process.
pub(super) fn named(name: &str) -> io::Result<Vec<Listener>> {
    let ours = SOCKETS.iter().filter(|(other, _)| other == name);
    let copies: Vec<_> = ours.map(|(_, listener)| duplicate(listener)).collect::<Result<_, _>>()?;
    match copies.is_empty() {
        true => Err(io::ErrorKind::NotFound.into()),
        false => Ok(copies),
    }
}

#[cfg(unix)]
fn duplicate(listener: &Listener) -> io::Result<Listener> {
    Ok(match listener {
        Listener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            // Accepted sockets inherit it on Linux.
            socket2::SockRef::from(listener).set_tcp_nodelay(true)?;
            Listener::Tcp(listener.try_clone()?)
        }
        Listener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            Listener::Unix(listener.try_clone()?)
        }
    })
}

#[cfg(unix)]
fn take() -> Vec<(String, Listener)> {
    // The variables may be those of the process that started this one.
    let meant_for = std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok());
    if meant_for != Some(std::process::id()) {
        return Vec::new();
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    // It removes the variables from the environment.
    let mut passed = listenfd::ListenFd::from_env();
    let count = passed.len();
    let mut listener = |index| match passed.take_unix_listener(index) {
        Ok(socket) => socket.map(Listener::Unix),
        Err(_) => passed.take_tcp_listener(index).ok().flatten().map(Listener::Tcp),
    };
    let mut named = |index| {
        // The name that systemd gives to sockets without one.
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        Some((name.to_owned(), listener(index)?))
    };
    (0..count).filter_map(&mut named).collect()
}

#[cfg(windows)]
fn duplicate(_: &Listener) -> io::Result<Listener> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(windows)]
fn take() -> Vec<(String, Listener)> {
    Vec::new()
}
