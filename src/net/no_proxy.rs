//! Hosts that are reached without the egress proxy, in the syntax of `NO_PROXY`.

use std::net::IpAddr;

use super::Origin;

/// A list of hosts. `bank.example` and `.bank.example` match that name and all names below it; addresses and
/// blocks such as `10.0.0.0/8` match hosts that are written as addresses; `host:8443` matches one port; `*`
/// matches all hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NoProxy(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    All,
    Name { name: String, port: Option<u16> },
    Block { address: IpAddr, bits: u8, port: Option<u16> },
}

impl NoProxy {
    /// Parses entries; blank entries are ignored.
    ///
    /// # Errors
    /// The index of the first invalid entry.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, usize> {
        let mut list = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let entry = entry.trim();
            if !entry.is_empty() {
                list.push(Entry::parse(entry).ok_or(index)?);
            }
        }
        Ok(Self(list))
    }

    /// The union of both lists.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// True if an origin is reached directly.
    pub fn covers(&self, origin: &Origin) -> bool {
        self.0.iter().any(|entry| entry.covers(origin.host(), origin.port()))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            return (bits <= most).then_some(Self::Block { address, bits, port: None });
        }
        let (host, port) = match (text.rsplit_once(':'), text.parse::<IpAddr>()) {
            (Some((host, port)), Err(_)) => (host, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Some(Self::Block { address, bits, port });
        }
        let name = host.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (!name.is_empty() && name.bytes().all(fit)).then_some(Self::Name { name, port })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Name { name, port: only } => {
                let below = host.strip_suffix(name.as_str());
                only.is_none_or(|only| only == port)
                    && below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Block { address, bits, port: only } => {
                only.is_none_or(|only| only == port)
                    && host.parse().is_ok_and(|host| same_block(*address, host, *bits))
            }
        }
    }
}

/// True if the first `bits` bits of two addresses of one family are equal.
fn same_block(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let differ = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::origin;

    #[test]
    fn hosts_are_covered_or_not() {
        let check = |entry: &str, uri: &str, expected: bool| {
            let list = NoProxy::parse([entry]).unwrap();
            assert_eq!(list.covers(&origin(uri)), expected, "{entry} {uri}");
        };
        check("*", "https://bank.example", true);
        check("bank.example", "https://bank.example", true);
        check("bank.example", "https://api.BANK.example", true);
        check(".bank.example", "https://bank.example", true);
        check("*.bank.example.", "https://api.bank.example", true);
        check("bank.example", "https://otherbank.example", false);
        check("api.bank.example", "https://bank.example", false);
        check("bank.example:8443", "https://bank.example:8443", true);
        check("bank.example:8443", "https://bank.example", false);
        check("10.0.0.0/8", "https://10.255.0.1", true);
        check("10.0.0.0/8", "https://11.0.0.1", false);
        check("10.0.0.0/8", "https://bank.example", false);
        check("0.0.0.0/0", "https://11.0.0.1", true);
        check("127.0.0.1", "https://127.0.0.1:9", true);
        check("127.0.0.1:9", "https://127.0.0.1:8", false);
        check("fd00::/8", "https://[fd12::1]", true);
        check("::1", "https://[::1]:8443", true);
        check("[::1]:8443", "https://[::1]:8443", true);
        check("::/0", "https://10.0.0.1", false);
        check(" ", "https://bank.example", false);
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named() {
        let check = |entry: &str| {
            assert_eq!(NoProxy::parse(["bank.example", entry]), Err(1), "{entry}");
        };
        check("10.0.0.0/33");
        check("bank.example/8");
        check("https://bank.example");
        check("bank.example:port");
        check("bank example");
        check(".");
    }
}
