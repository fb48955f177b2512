//! Binding: where we listen, or one sentence on why we cannot and what to do about it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::settings::Listen;

/// Connections that the kernel may hold for us while the limit is reached.
const BACKLOG: i32 = 1024;

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    /// The address it really has (a port of 0 has become a number).
    pub local: SocketAddr,
    /// Non-blocking, ready for a runtime.
    pub listener: TcpListener,
}

/// Binds one or, for `localhost` on a machine with IPv6, two sockets.
///
/// `reuse_port` lets several workers share the address; a second instance of the program could then
/// join it silently, so the caller holds a lock before asking for that.
pub fn bind(listen: &Listen, reuse_port: bool) -> Result<Vec<Bound>, BindError> {
    let fail = |at: SocketAddr| {
        move |cause: io::Error| BindError { listen: listen.clone(), address: at, cause }
    };
    match *listen {
        Listen::Tcp(address) => Ok(vec![bind_one(address, reuse_port).map_err(fail(address))?]),
        Listen::Localhost(port) => {
            let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let first = bind_one(v4, reuse_port).map_err(fail(v4))?;
            let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, first.local.port()));
            match bind_one(v6, reuse_port) {
                Ok(second) => Ok(vec![first, second]),
                Err(error) if is_without_ipv6(&error) => Ok(vec![first]),
                Err(error) => Err(fail(v6)(error)),
            }
        }
    }
}

fn bind_one(address: SocketAddr, reuse_port: bool) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows this option means something else: it would let others take the port over.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(reuse_port)?;
    #[cfg(not(unix))]
    let _ = reuse_port;
    // Accepted sockets inherit it on Linux: one system call less for each connection.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6 alone: what is listened on is what was written.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    Ok(Bound { local: listener.local_addr()?, listener })
}

/// No IPv6 in the kernel, or none on the loopback interface.
fn is_without_ipv6(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(unsupported)
}

/// An address could not be listened on.
#[derive(Debug)]
pub struct BindError {
    /// As it was configured.
    pub listen: Listen,
    /// The address that failed.
    pub address: SocketAddr,
    /// What the system said.
    pub cause: io::Error,
}

impl BindError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let port = self.address.port();
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program, or another bearer-proxy, listens there; \
                 `ss -ltnp 'sport = :{port}'` shows which. Stop it, or choose another port in `listen`"
            ),
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port in `listen`"
                    .into()
            }
            io::ErrorKind::AddrNotAvailable => format!(
                "this machine has no address {}; write one it has, or `localhost`",
                display_ip(self.address.ip())
            ),
            _ => "check the address in `listen`".into(),
        }
    }
}

fn display_ip(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cause.kind() {
            io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::AddrNotAvailable => "no such address here".to_owned(),
            _ => self.cause.to_string(),
        };
        write!(f, "cannot listen on {}", self.address)?;
        if let Listen::Localhost(port) = self.listen {
            write!(f, " (for localhost:{port})")?;
        }
        write!(f, ": {what}: {}", self.hint())
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_has_one_port_on_both_families() {
        let bound = bind(&Listen::Localhost(0), false).unwrap();
        let port = bound[0].local.port();
        assert_eq!(bound[0].local.ip(), Ipv4Addr::LOCALHOST);
        assert!(port != 0 && bound.iter().all(|bound| bound.local.port() == port));
        assert!(bound.len() <= 2);
    }

    #[test]
    fn a_taken_port_is_explained() {
        let first = bind(&Listen::Localhost(0), false).unwrap();
        let port = first[0].local.port();
        for listen in [Listen::Localhost(port), Listen::Tcp(first[0].local)] {
            let error = bind(&listen, false).unwrap_err();
            let text = error.to_string();
            for part in [&*format!("127.0.0.1:{port}"), "in use", "ss -ltnp", "`listen`"] {
                assert!(text.contains(part), "{part:?} is missing in {text:?}");
            }
        }
    }

    #[test]
    fn a_taken_ipv6_port_is_an_error_too() {
        let Ok(taken) = bind_one((Ipv6Addr::LOCALHOST, 0).into(), false) else { return };
        let error = bind(&Listen::Localhost(taken.local.port()), false).unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn workers_share_an_address_when_asked() {
        let first = bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), true).unwrap();
        bind(&Listen::Tcp(first[0].local), true).unwrap();
        bind(&Listen::Tcp(first[0].local), false).unwrap_err();
    }

    #[test]
    fn a_foreign_address_is_explained() {
        let error = bind(&Listen::Tcp("192.0.2.1:0".parse().unwrap()), false).unwrap_err();
        assert!(error.to_string().contains("no such address here"), "{error}");
    }
}
