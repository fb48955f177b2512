//! Sockets that listen, bound for all workers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use socket2::{Domain, Protocol, Socket, Type};

use super::bind_error::{BindError, BoundAddress};
use super::inherited;
use super::listener::Listener;
use super::settings::Listen;
use super::unix_socket::{self, BACKLOG, SocketFile};
#[cfg(target_os = "linux")]
use crate::net::unix::StdUnixListener;

/// A listener that is bound, before its sockets go to the workers.
#[derive(Debug)]
pub struct Bound {
    /// The addresses it is bound to, with the number that the kernel chose for a port of 0.
    pub addresses: Vec<BoundAddress>,
    /// The sockets of each worker, non-blocking.
    pub sockets: Vec<Vec<Listener>>,
    /// Held while the listener is open.
    pub locks: Vec<AddressLock>,
}

/// Keeps other instances from listening on an address, until it is dropped.
#[derive(Debug)]
pub enum AddressLock {
    /// Keeps a second instance from joining the sockets that share a port.
    Port(PortLock),
    /// Removes the file of a Unix socket when dropped.
    File(SocketFile),
}

/// Binds a listener for a number of workers.
///
/// One worker binds plainly. Several share a TCP port (`SO_REUSEPORT`), which a second instance of the
/// program could join without an error, and it would get half of the connections. So a [`PortLock`] is
/// taken first. A Unix socket has one acceptor.
///
/// # Errors
/// The first address that cannot be bound; nothing stays bound then.
pub fn bind(listen: &Listen, workers: NonZeroUsize) -> Result<Bound, BindError> {
    inherited::take_over();
    let mut bound = Bound::new(workers);
    let result = match listen {
        Listen::Tcp(address) => bound.tcp(*address).map(drop).map_err(|cause| (*address, cause)),
        Listen::Localhost(port) => {
            bound.both_families(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, *port)
        }
        Listen::All(port) => {
            bound.both_families(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, *port)
        }
        Listen::Unix(socket) => {
            let at = BoundAddress::Unix(socket.path.clone());
            let (listener, file) = unix_socket::bind(socket).map_err(|cause| BindError {
                listen: listen.clone(),
                at: at.clone(),
                cause,
            })?;
            bound.add(0, Listener::Unix(listener));
            bound.addresses.push(at);
            bound.locks.push(AddressLock::File(file));
            Ok(())
        }
        Listen::Systemd(name) => {
            return match bound.inherit(name) {
                Ok(()) => Ok(bound),
                Err(cause) => {
                    let at = BoundAddress::Systemd(name.clone());
                    Err(BindError { listen: listen.clone(), at, cause })
                }
            };
        }
    };
    match result {
        Ok(()) => Ok(bound),
        Err((at, cause)) => {
            Err(BindError { listen: listen.clone(), at: BoundAddress::Tcp(at), cause })
        }
    }
}

impl Bound {
    fn new(workers: NonZeroUsize) -> Self {
        let sockets = (0..workers.get()).map(|_| Vec::new()).collect();
        Self { addresses: Vec::new(), sockets, locks: Vec::new() }
    }

    fn add(&mut self, worker: usize, listener: Listener) {
        if let Some(sockets) = self.sockets.get_mut(worker) {
            sockets.push(listener);
        }
    }

    /// Takes over what systemd has bound. All workers accept from one queue, which outlives the process.
    fn inherit(&mut self, name: &str) -> io::Result<()> {
        for worker in 0..self.sockets.len() {
            for listener in inherited::named(name)? {
                let first = worker == 0;
                let address = match &listener {
                    Listener::Tcp(listener) => BoundAddress::Tcp(listener.local_addr()?),
                    // One acceptor, as of the sockets that are bound here.
                    Listener::Unix(_) if !first => continue,
                    Listener::Unix(listener) => BoundAddress::of_unix(listener)?,
                };
                self.addresses.extend(first.then_some(address));
                self.add(worker, listener);
            }
        }
        Ok(())
    }

    /// Binds one port on an address of each family. A machine may lack either: a cluster of IPv6 alone
    /// has pods without IPv4, and many machines have IPv6 switched off.
    fn both_families(
        &mut self,
        v4: Ipv4Addr,
        v6: Ipv6Addr,
        port: u16,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let v4 = SocketAddr::from((v4, port));
        let (port, missing) = match self.tcp(v4) {
            Ok(local) => (local.port(), None),
            Err(error) if lacks_family(&error) => (port, Some((v4, error))),
            Err(error) => return Err((v4, error)),
        };
        let v6 = SocketAddr::from((v6, port));
        match (self.tcp(v6), missing) {
            (Ok(_), _) => Ok(()),
            (Err(error), None) if lacks_family(&error) => Ok(()),
            (Err(error), Some(missing)) if lacks_family(&error) => Err(missing),
            (Err(error), _) => Err((v6, error)),
        }
    }

    fn tcp(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let workers = self.sockets.len();
        if workers > 1 && address.port() != 0 {
            self.locks.push(AddressLock::Port(PortLock::new(address)?));
            // Fails if a program has the port without sharing it, or shares it as another user.
            drop(bind_one(address, false)?);
        }
        let mut local = address;
        for worker in 0..workers {
            let listener = bind_one(local, workers > 1)?;
            local = listener.local_addr()?;
            self.add(worker, Listener::Tcp(listener));
        }
        // The kernel chose a free port, which only now can be locked.
        if address.port() == 0 && workers > 1 {
            self.locks.push(AddressLock::Port(PortLock::new(local)?));
        }
        self.addresses.push(BoundAddress::Tcp(local));
        Ok(local)
    }
}

/// A name in the abstract namespace of Unix sockets, which only one process can hold. It belongs to the
/// network namespace, as the port does, and goes with the process.
#[derive(Debug)]
pub struct PortLock {
    #[cfg(target_os = "linux")]
    _name: StdUnixListener,
}

impl PortLock {
    #[cfg(target_os = "linux")]
    fn new(address: SocketAddr) -> io::Result<Self> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr as UnixAddr;
        let name = UnixAddr::from_abstract_name(format!("bearer-proxy/{address}"))?;
        Ok(Self { _name: StdUnixListener::bind_addr(&name)? })
    }

    /// Elsewhere a port is shared for tests of several workers only.
    #[cfg(not(target_os = "linux"))]
    fn new(_: SocketAddr) -> io::Result<Self> {
        Ok(Self {})
    }
}

fn bind_one(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(reuse_port)?;
    #[cfg(windows)]
    if reuse_port {
        return Err(io::ErrorKind::Unsupported.into()); // several workers cannot share a port
    }
    // Accepted sockets inherit it on Linux: one system call less for each connection.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6 alone: what is listened on is what was written. `*` has a socket of each
        // family, so that clients over IPv4 keep their addresses.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// True if the kernel lacks the family of the address, or the loopback interface has no address of it.
fn lacks_family(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

    fn any() -> Listen {
        Listen::Tcp("127.0.0.1:0".parse().unwrap())
    }

    fn first(bound: &Bound) -> SocketAddr {
        bound.addresses[0].tcp().unwrap()
    }

    #[test]
    fn localhost_has_one_port_on_both_families() {
        let bound = bind(&Listen::Localhost(0), ONE).unwrap();
        let port = first(&bound).port();
        assert_eq!(first(&bound).ip(), Ipv4Addr::LOCALHOST);
        let ports =
            bound.addresses.iter().filter_map(BoundAddress::tcp).map(|address| address.port());
        assert!(port != 0 && ports.clone().all(|other| other == port) && ports.count() <= 2);
    }

    #[test]
    fn all_addresses_are_reached_over_both_families() {
        let bound = bind(&Listen::All(0), ONE).unwrap();
        let port = first(&bound).port();
        assert_eq!(bound.addresses.len(), bound.sockets[0].len());
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        // A machine without IPv6 cannot even bind its loopback address.
        if bind_one((Ipv6Addr::LOCALHOST, 0).into(), false).is_ok() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_explained() {
        let taken = bind(&Listen::Localhost(0), ONE).unwrap();
        let port = first(&taken).port();
        for listen in [Listen::Localhost(port), Listen::All(port), Listen::Tcp(first(&taken))] {
            let error = bind(&listen, ONE).unwrap_err();
            let text = error.to_string();
            for part in [&*format!(":{port}"), "in use", "ss -ltnp", "`listen`"] {
                assert!(text.contains(part), "{part:?} is missing in {text:?}");
            }
        }
    }

    #[test]
    fn a_taken_ipv6_port_is_an_error_too() {
        let Ok(taken) = bind_one((Ipv6Addr::LOCALHOST, 0).into(), false) else { return };
        let port = taken.local_addr().unwrap().port();
        let error = bind(&Listen::Localhost(port), ONE).unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn workers_share_a_port_and_no_second_instance_joins() {
        let mine = bind(&any(), TWO).unwrap();
        assert_eq!(mine.sockets.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        let same = Listen::Tcp(first(&mine));
        for workers in [ONE, TWO] {
            let error = bind(&same, workers).unwrap_err();
            assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
        }
        drop(mine);
        bind(&same, TWO).unwrap();
    }

    #[test]
    fn several_workers_find_one_that_shares_nothing() {
        let taken = bind(&any(), ONE).unwrap();
        let error = bind(&Listen::Tcp(first(&taken)), TWO).unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_foreign_address_is_explained() {
        let error = bind(&Listen::Tcp("192.0.2.1:0".parse().unwrap()), ONE).unwrap_err();
        assert!(error.to_string().contains("no such address here"), "{error}");
    }
}
