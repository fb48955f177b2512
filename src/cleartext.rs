//! `Cleartext`: the destinations that `http://` may have. Whatever is sent there can be read on its way,
//! tokens and secrets included.

use std::net::IpAddr;

/// The destinations that `http://` may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cleartext {
    /// This machine.
    #[default]
    Loopback,
    /// This machine, and private addresses under names that no public server has: for a service mesh
    /// that encrypts on the way, and for containers on one machine.
    InCluster,
}

/// Domains that the public DNS does not have: services of Kubernetes (`svc`, `svc.cluster.local`), the local
/// network (RFC 6762), and the private-use domain of ICANN.
const INTERNAL_DOMAINS: [&str; 3] = [".svc", ".local", ".internal"];

impl Cleartext {
    /// Tells whether the host of a URL may be a destination. An IPv6 address has no brackets here.
    pub fn permits_host(self, host: &str) -> bool {
        if let Ok(address) = host.parse() {
            return self.permits_address(address);
        }
        is_loopback(host) || self == Self::InCluster && is_internal_name(host)
    }

    /// Tells whether a connection to this address may be used. A name alone proves nothing, because
    /// its resolver may answer with any address.
    pub fn permits_address(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self == Self::InCluster && is_private(address)
    }
}

/// Tells whether a host is this machine: a loopback address, or a name of RFC 6761 section 6.3.
pub fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let host = host.to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

fn is_internal_name(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    let below = |domain: &str| name.strip_suffix(domain).is_some_and(|rest| !rest.is_empty());
    !name.is_empty() && (!name.contains('.') || INTERNAL_DOMAINS.iter().any(|domain| below(domain)))
}

/// RFC 1918, RFC 6598 and RFC 4193, and the addresses that Google Kubernetes Engine gives to Services
/// by default: 34.118.224.0/20, which leads nowhere outside of a cluster. Link-local addresses are not
/// among them: the metadata services of clouds have those.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            address.is_private()
                || first == 100 && (64..128).contains(&second)
                || (first, second) == (34, 118) && (224..240).contains(&third)
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        use Cleartext::{InCluster, Loopback};
        for host in ["localhost", "LOCALHOST", "idp.localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert!(Loopback.permits_host(host) && InCluster.permits_host(host), "{host}");
        }
        for host in [
            "auth",
            "auth.",
            "auth.bank.svc",
            "auth.bank.svc.cluster.local",
            "auth.bank.svc.cluster.local.",
            "host.docker.internal",
            "Auth.Bank.SVC",
            "printer.local",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "34.118.224.1",
            "34.118.239.254",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(InCluster.permits_host(host) && !Loopback.permits_host(host), "{host}");
        }
        for host in [
            "",
            ".",
            ".svc",
            ".local",
            "bank.example",
            "api.bank.com",
            "auth.svc.example",
            "auth.bank.svc.cluster.local.evil.example",
            "notlocal.com",
            "auth.mysvc",
            "localhost.bank.example",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "34.118.223.255",
            "34.118.240.0",
            "169.254.169.254",
            "0.0.0.0",
            "2001:db8::1",
            "fe80::1",
            "fec0::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!InCluster.permits_host(host), "{host}");
        }
    }
}
